"""Broken and hostile files end in one of our own errors: no other exception, no hang, no memory blow-up.

``FUZZ_CASES=4000 pytest tests/data_provider/read/test_fuzz.py`` runs so many cases of each kind (default: a few).
"""

import csv
import io
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_provider.manifests import item_paths, read_manifest
from data_provider.prepare.build import prepare_mimic, prepare_ptbxl
from data_provider.prepare.ecgqa import EcgQa, map_samples
from data_provider.prepare.inventory import DatasetIndex, Ecg
from data_provider.prepare.mimic import MEASUREMENTS, RECORDS
from data_provider.read.leads import LEADS, choose_leads, split_unit, standard_name
from data_provider.read.records import RecordError, read_record
from data_provider.read.signal import SignalPolicy, fit_signal, load_signal
from tests.data_provider.prepare.test_ecgqa import row, sample
from tests.data_provider.prepare.test_mimic import write_mimic
from tests.data_provider.test_manifests import QA, REPORT
from tests.wfdb_maker import PTBXL_COLUMNS, ecg, write_ptbxl, write_record
from utils.env_files import read_env_file
from utils.tools import UserError

CASES = int(os.environ.get("FUZZ_CASES", 40))
SECONDS, GIGABYTES = 20, 2  # a case may not take longer, nor may the process grow by more
POLICY = SignalPolicy(samples=100, short="pad")


def fuzz(**strategies):
    """Run a test on many cases, the folder of the test being shared by all of them."""
    quick = settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    return lambda test: quick(given(**strategies)(test))


@pytest.fixture(autouse=True)
def limits():
    """Memory is limited for the whole test; each case sets its own alarm (see `guarded`)."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + GIGABYTES * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def guarded(action, allowed=UserError):
    """The result of ``action()``, or the text of its allowed error; a hang is an error of ours."""

    def hang(*_):
        raise AssertionError(f"took longer than {SECONDS} s")

    signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process's own time: other work does not count
    try:
        return action()
    except allowed as error:
        assert str(error).strip()
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def changed(original):
    """A strategy: the original bytes with a few cuts, insertions, replaced bytes and repeated parts."""
    length = len(original)
    edit = st.tuples(st.integers(0, length), st.integers(0, 40), st.one_of(st.binary(max_size=12), NASTY))

    def apply(edits):
        data = bytes(original)
        for at, cut, new in edits:
            data = data[:at] + new + data[at + cut :]
        return data

    return st.lists(edit, min_size=1, max_size=4).map(apply)


NASTY = st.sampled_from(
    [b"0", b"-1", b"1e308", b"nan", b"inf", b"999999999999", b"9" * 400, b"../../x", b"/", b"\0", b"\xff\xfe", b"\r"]
    + [b"#", b"16x9", b"212", b"516", b"508", b"16:70000", b"16+99999999", b"~", b"{" * 300, b"[" * 2000, b"\n\n"]
    + [b'"', b",", b" ", b""]
)
HEADER = b"r 12 500 100\n" + b"".join(
    f"r.dat 16 1000.0(0)/mV 16 0 {n} 0 0 {lead}\n".encode()
    for n, lead in enumerate("I II III AVR AVL AVF V1 V2 V3 V4 V5 V6".split())
)
TOKEN = st.one_of(
    st.sampled_from(
        "r r/2 12 0 -3 500 0.5 1e9 1000000000 nan 100 r.dat ../r.dat 16 212 8 24 32 61 80 160 310 311 508 516 524 "
        "16x2 16:3 16+24 999 1000.0(0)/mV 0/mV 200 -5(3)/uV 1e400 1/V 5/mmHg I II V6 aVR X # ~".split()
    ),
    st.text(max_size=6),
    st.integers(-(10**12), 10**12).map(str),
)


def readable(path):
    record = guarded(lambda: read_record(path), RecordError)
    if not isinstance(record, str):
        assert record.signal.shape[0] == 12 and record.signal.dtype == np.float32
        for action in (lambda: fit_signal(record, POLICY), lambda: load_signal(path, POLICY)[0]):
            fitted = guarded(action, RecordError)
            assert isinstance(fitted, str) or (fitted.shape == (12, 100) and np.isfinite(fitted).all())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@fuzz(header=changed(HEADER), dat=st.one_of(st.just(ecg(100).tobytes()), st.binary(max_size=3000)))
def test_headers_with_changed_bytes(folder, header, dat):
    (folder / "r.hea").write_bytes(header)
    (folder / "r.dat").write_bytes(dat)
    readable(folder / "r")


@fuzz(lines=st.lists(st.lists(TOKEN, max_size=9).map(" ".join), max_size=14), form=TOKEN, dat=st.binary(max_size=3000))
def test_headers_of_other_words(folder, lines, form, dat):
    words = ["r.dat", form, "1000/mV", "16", "0", "0", "0", "0"]
    usual = [" ".join([*words, lead]) for lead in "I II III AVR AVL AVF V1 V2 V3 V4 V5 V6".split()]
    for header in (lines, ["r 12 500 100", *usual], [*lines[:1], *usual], ["r 12 500 100", *lines, *usual]):
        (folder / "r.hea").write_text("\n".join(header) + "\n", encoding="utf-8", errors="surrogatepass")
        (folder / "r.dat").write_bytes(dat)
        readable(folder / "r")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*QA, *REPORT]), inner, max_size=5),
    max_leaves=8,
)


@fuzz(
    good=st.sampled_from([QA, REPORT]),
    field=st.sampled_from([*QA, *REPORT]),
    value=JSON,
    task=st.sampled_from(["qa", "report", "any"]),
)
def test_manifest_items_of_other_kinds(folder, good, field, value, task):
    path = folder / "m.json"
    for items in ([good, {**good, field: value}], [value], value):
        path.write_text(json.dumps(items))
        read = guarded(lambda: read_manifest(path, task))
        if isinstance(read, str):
            assert read.startswith(str(path))
        else:
            assert all(".." not in part.split("/") for item in read for part in item_paths(item))


@fuzz(data=changed(json.dumps([QA, REPORT], indent=1).encode()))
def test_manifests_with_changed_bytes(folder, data):
    (folder / "m.json").write_bytes(data)
    guarded(lambda: read_manifest(folder / "m.json"))


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory):
    return write_ptbxl(tmp_path_factory.mktemp("ptbxl"), [row(n, strat_fold=n) for n in range(1, 11)])


def _ptbxl_table():
    file = io.StringIO()
    writer = csv.DictWriter(file, PTBXL_COLUMNS, restval="")
    writer.writeheader()
    for n in range(1, 5):
        writer.writerow(row(n, strat_fold=n, filename_hr=f"records500/00000/0000{n}_hr", heart_axis="MID"))
    return file.getvalue().encode()


@fuzz(table=changed(_ptbxl_table()), check=st.sampled_from(["none", "headers"]))
def test_ptbxl_tables_with_changed_bytes(ptbxl, folder, table, check):
    (ptbxl / "ptbxl_database.csv").write_bytes(table)
    card = guarded(lambda: prepare_ptbxl(ptbxl, folder / "out", check=check))
    if not isinstance(card, str):
        records = card["records"]
        assert records["rows"] == records["used"] + sum(records["left_out"].values())


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    studies = [(10_000_000 + n, 40_000_000 + n, ["Sinus rhythm", "Abnormal ECG"]) for n in range(4)]
    return write_mimic(tmp_path_factory.mktemp("mimic"), studies)


@fuzz(which=st.sampled_from([RECORDS, MEASUREMENTS]), edits=st.lists(st.tuples(st.floats(0, 1), NASTY), max_size=4))
def test_mimic_tables_with_changed_bytes(mimic, folder, which, edits):
    original = (mimic / which).read_bytes()
    data = original
    for at, new in edits:
        data = data[: int(at * len(data))] + new + data[int(at * len(data)) + len(new) :]
    (mimic / which).write_bytes(data)
    card = guarded(lambda: prepare_mimic(mimic, folder / "out", check="none"))
    (mimic / which).write_bytes(original)
    if not isinstance(card, str):
        records = card["records"]
        assert records["rows"] == records["used"] + sum(records["left_out"].values())


@fuzz(data=changed(json.dumps([sample(0, 1), sample(1, 1, 2)]).encode()))
def test_ecgqa_chunks_with_changed_bytes(folder, data):
    chunk = folder / "copy/ptbxl/template/train/00000.json"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(data)
    known = DatasetIndex(ecgs={1: Ecg(1, 1, "train", "a"), 2: Ecg(2, 2, "train", "b")})

    def read():
        copy = EcgQa(folder / "copy", "ptbxl")
        return len(map_samples(copy, "train", known)[0]), copy.ecg_splits()

    guarded(read)


@pytest.fixture(scope="module")
def tables(folder):
    values = (ecg(60) / 1000).T
    np.save(folder / "good.npy", values)
    np.savez(folder / "good.npz", ecg=values)
    np.savetxt(folder / "good.csv", values, delimiter=",", header="I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6", comments="")
    from scipy.io import savemat

    savemat(folder / "good.mat", {"val": values})
    return {suffix: (folder / f"good.{suffix}").read_bytes() for suffix in ("npy", "npz", "csv", "mat")}


@fuzz(
    suffix=st.sampled_from(["npy", "npz", "csv", "mat", "xml", "dcm", "edf", "scp"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), NASTY), min_size=1, max_size=3),
    noise=st.binary(max_size=200),
)
def test_tables_and_other_formats_with_changed_bytes(tables, folder, suffix, edits, noise):
    data = tables.get(suffix, noise)
    for at, cut, new in edits:
        at = int(at * len(data))
        data = data[:at] + new + data[at + cut :]
    path = folder / f"bad.{suffix}"
    path.write_bytes(data)
    record = guarded(lambda: read_record(path, sample_rate=500, units="mV"), RecordError)
    if not isinstance(record, str):
        assert isinstance(guarded(lambda: fit_signal(record, POLICY), RecordError), np.ndarray | str)


CELL = st.one_of(
    st.sampled_from(
        "0.1 -0,2 1e3 nan inf - '1' \"2\" I V1 aVR (mV) time s 0:01.5 2020-01-01 # % mV 1,5 é \u2028 1e999".split()
    ),
    st.floats(-5, 5).map(lambda value: f"{value:.3f}"),
    st.text(max_size=5),
    st.just(""),
)


@fuzz(
    head=st.lists(st.lists(CELL, max_size=15), max_size=4),
    body=st.lists(st.lists(CELL, min_size=1, max_size=15), max_size=6),
    sound=st.integers(0, 30),
    mark=st.sampled_from([",", ";", "\t", "|", " ", ", "]),
    point=st.sampled_from([".", ","]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_text_tables_of_other_words(folder, head, body, sound, mark, point, encoding, end):
    rows = [[f"{value:.3f}".replace(".", point) for value in sample] for sample in (ecg(sound + 1) / 1000).T]
    lines = [mark.join(cells) for cells in (*head, *rows, *body)]
    (folder / "t.csv").write_bytes(end.join(lines).encode(encoding, errors="replace"))
    for said in ({"sample_rate": 500, "units": "mV"}, {}, {"leads": ["I", "II", "V1"], "units": "uV"}):
        record = guarded(lambda said=said: read_record(folder / "t.csv", **said), RecordError)
        assert isinstance(record, str) or (record.signal.shape[0] == 12 and record.signal.shape[1] > 0)


@fuzz(
    arrays=st.dictionaries(
        st.sampled_from("I II V1 ecg fs leads units val data x".split()),
        st.tuples(st.lists(st.integers(0, 13), max_size=4), st.sampled_from("f8 i2 U3 b1 c8 S2 u1".split())),
        max_size=5,
    ),
    suffix=st.sampled_from(["npz", "mat", "npy"]),
)
def test_arrays_of_other_shapes(folder, arrays, suffix):
    from scipy.io import savemat

    made = {name: np.ones(shape, "f8").astype(kind) for name, (shape, kind) in arrays.items()}
    path = folder / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, next(iter(made.values()), np.ones((12, 20))))
    else:
        (np.savez if suffix == "npz" else savemat)(
            *((path,) if suffix == "npz" else (path, made)), **(made if suffix == "npz" else {})
        )
    record = guarded(lambda: read_record(path, sample_rate=500, units="mV"), RecordError)
    assert isinstance(record, str) or record.signal.shape[0] == 12


NAME = st.one_of(
    st.text(max_size=12),
    st.lists(
        st.sampled_from([*LEADS, "ECG", "Lead", "EKG", "C", "D", "1", "6", "(mV)", "-", "_", " ", ".", "+", "MDC_"]),
        max_size=6,
    ).map("".join),
)


@fuzz(names=st.lists(NAME, max_size=20), order=st.sampled_from(["name", "file"]))
def test_lead_names_of_other_words(names, order):
    for name in names:
        lead = standard_name(name)
        assert lead is None or (lead in LEADS and standard_name(f"ECG {lead}") == lead and split_unit(name))
    rows = guarded(lambda: choose_leads(names, order), ValueError)
    if not isinstance(rows, str):
        assert len(set(rows.values())) == len(rows) and set(rows) <= set(LEADS)
        assert order == "file" or all(standard_name(names[row]) == lead for lead, row in rows.items())


@fuzz(data=changed(b"A=1\nexport B='x y'\nC=\"$A ${B:-z}\" # c\n# d\nE=a\\ b\n"))
def test_env_files_with_changed_bytes(folder, data):
    (folder / "x.env").write_bytes(data)
    read = guarded(lambda: read_env_file(folder / "x.env"))
    assert isinstance(read, str) or all(isinstance(text, str) for text in read[0].values())


def test_the_usual_record_still_reads(folder):
    path = write_record(folder / "usual", ecg(100))
    assert read_record(path).signal.shape == (12, 100)
