"""Files that were misread or refused for a wrong reason: the examples of ../shared/cases, and others of their kinds."""

import numpy as np
import pytest
import wfdb

from data_provider.read import LEADS, RecordError, SignalPolicy, fit_signal, fit_windows, load_signal, read_record
from tests.format_maker import write_aecg, write_dicom, write_edf, write_ishne, write_muse
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record

CASES = SHARED / "cases"
DIGITAL = ecg()
MV = (DIGITAL / 1000).astype(np.float32)
EIGHT = [0, 1, *range(6, 12)]
GIVEN = {"sample_rate": 500, "units": "mV"}

# file below ../shared/cases, options, samples, words of the notes
READS = [
    ("01-multifrequency-averaged/x4", {}, 5000, "4 samples a frame"),
    ("05-librarys-warnings-dropped/badcrc.ecg", {}, 5000, "checksum mismatch"),
    ("05-librarys-warnings-dropped/m_tworhythm.xml", {}, 5000, "group 2 taken, left out group 1"),
    ("05-librarys-warnings-dropped/median_unlabelled_first.dcm", {}, 5000, "group 2 taken, left out group 1"),
    ("12-csv-units-in-header/unitsinhead.csv", GIVEN, 39, ""),
    ("12-csv-units-in-header/unitsinhead.csv", GIVEN | {"leads": LEADS}, 39, ""),
    ("13-csv-decimal-comma/german.csv", GIVEN, 39, "decimal commas"),
    ("14-csv-units-row/atm.csv", GIVEN, 38, ""),
    ("14-csv-units-row/atm.csv", {}, 38, "500 Hz, as its column of times says"),
    ("16-edf-dead-channel/deadchannel.edf", {}, 5000, "Physical Maximum"),
    ("17-leads-in-several-groups/g3x10s.dcm", {}, 5000, "group 1 + group 2 + group 3 + group 4 taken"),
    ("18-lead-names/n_ecglead", {}, 5000, ""),
    ("18-lead-names/n_paren", {}, 5000, ""),
    ("19-wfdb-name-with-slash/med", {}, 5000, ""),
    ("20-wfdb-date/d_year", {}, 5000, ""),
]


@needs_shared
@pytest.mark.parametrize("name, given, samples, note", READS)
def test_examples_are_read_to_the_truth(name, given, samples, note):
    if name.endswith((".ecg", ".xml", ".dcm", ".edf")):
        pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    truth = np.load(CASES / "truth_uV.npy")[:, :samples] / 1000
    record = read_record(CASES / name, **given)
    assert record.sample_rate == 500 and record.signal.shape == truth.shape
    least = 0.01 if name.endswith("xml") else 1e-6  # MUSE's 4.88 µV a bit, and leads derived from two
    assert np.abs(record.signal - truth).max() < least and note in "; ".join(record.notes)


@needs_shared
def test_examples_whose_samples_are_missing():
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    faulty = read_record(CASES / "04-ishne-lead-fault/fault.ecg").signal
    assert np.isnan(faulty[6]).sum() == 500 and np.isnan(faulty).sum() == 500
    with pytest.raises(RecordError, match="lead V1 has a gap of 1 s"):
        load_signal(CASES / "04-ishne-lead-fault/fault.ecg", SignalPolicy())
    empty = read_record(CASES / "15-csv-empty-cell/pandas_nan.csv", **GIVEN).signal
    assert np.isnan(empty[0, 0]) and np.isnan(empty).sum() == 1


@needs_shared
def test_examples_that_are_read_with_a_warning():
    notes = read_record(CASES / "23-arrays/two.npz", **GIVEN).notes
    assert "array ecg taken, not labels 5×5 float64" in notes
    notes = read_record(CASES / "03-thousand-times-too-small/volt.npy", **GIVEN).notes
    assert any("are its units right?" in note for note in notes)
    record = read_record(CASES / "02-zero-padded-ends/code15.npy", sample_rate=400, units="mV")
    assert "no lead changes for 1.62 s from 0 s, 1.62 s from 8.62 s" in record.notes
    with pytest.raises(RecordError, match="7 s long but for silence"):
        fit_signal(record, SignalPolicy())


def write_frames(path, frame, rate, digital=DIGITAL, extra=()):
    """A record with ``frame`` samples a frame, and one signal of one sample a frame behind them."""
    frames = digital.reshape(12, -1, frame).transpose(1, 0, 2).reshape(-1, 12 * frame)
    lines = [f"{path.name} {12 + len(extra)} {rate} {len(frames)}"]
    lines += [f"{path.name}.dat 16x{frame} 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    for name in extra:
        lines.append(f"{path.name}.dat 16 100(0)/NU 16 0 0 0 0 {name}")
        frames = np.hstack([frames, np.arange(len(frames), dtype="<i2")[:, None]])
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    path.with_suffix(".dat").write_bytes(np.ascontiguousarray(frames, "<i2").tobytes())
    return path


@pytest.mark.parametrize("frame, extra", [(2, ()), (4, ("RESP",)), (8, ("RESP", "PLETH")), (1, ("RESP",))])
def test_several_samples_a_frame_keep_their_rate(tmp_path, frame, extra):
    record = read_record(write_frames(tmp_path / "r", frame, 500 / frame, extra=extra))
    np.testing.assert_array_equal(record.signal, MV)
    assert record.sample_rate == 500
    assert load_signal(tmp_path / "r", SignalPolicy())[0].shape == (12, 5000)


def test_leads_of_two_rates_are_refused_with_them(tmp_path):
    write_frames(tmp_path / "r", 2, 250)
    header = (tmp_path / "r.hea").read_text().replace("16x2 1000(0)/mV 16 0 0 0 0 V6", "16 1000(0)/mV 16 0 0 0 0 V6")
    (tmp_path / "r.hea").write_text(header)
    with pytest.raises(RecordError, match=r"its leads differ in sampling rate \(I 500 Hz, .*V6 250 Hz\)"):
        read_record(tmp_path / "r")


@pytest.mark.parametrize("form", ["16", "212", "32"])
@pytest.mark.parametrize("words", ["10:00:00 2006", "0:0:0 15-May-2020", "10:00:00 31/02/2020", "25:00 1.1.20", "x"])
def test_a_date_that_cannot_be_read_is_not_needed(tmp_path, form, words):
    digital = DIGITAL.T.astype(np.int64)
    common = {"units": ["mV"] * 12, "sig_name": list(LEADS), "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp("r", fs=500, d_signal=digital, fmt=[form] * 12, write_dir=str(tmp_path), **common)
    header = (tmp_path / "r.hea").read_text()
    (tmp_path / "r.hea").write_text(header.replace("r 12 500 5000", f"r 12 500 5000 {words}", 1), encoding="utf-8-sig")
    np.testing.assert_array_equal(read_record(tmp_path / "r").signal, MV)


@pytest.mark.parametrize("form", ["16", "32"])
@pytest.mark.parametrize("below", [True, False])
def test_a_record_named_with_its_folder(tmp_path, form, below):
    """PTB-XL+ names its median beats so; the file may lie in that folder or beside the header."""
    digital = DIGITAL.T.astype(f"<i{int(form) // 8}")
    (tmp_path / "beats").mkdir()
    (tmp_path / ("beats" if below else ".") / "0001.dat").write_bytes(digital.tobytes())
    lines = ["beats/0001 12 500 5000", *(f"beats/0001.dat {form} 1000(0)/mV {form} 0 0 0 0 {lead}" for lead in LEADS)]
    (tmp_path / "0001.hea").write_text("\n".join(lines) + "\n")
    np.testing.assert_array_equal(read_record(tmp_path / "0001").signal, MV)


@pytest.mark.parametrize("rate", [257.5, 333.3333333333, 499.87, 360.2])
def test_a_rate_that_is_no_whole_number_stays_what_it_is(tmp_path, rate):
    record = read_record(write_record(tmp_path / "r", ecg(8000), rate=rate))
    assert record.sample_rate == rate and fit_signal(record, SignalPolicy()).shape == (12, 5000)


@pytest.mark.parametrize("write, suffix", [(write_dicom, "dcm"), (write_aecg, "xml")])
def test_clinical_files_keep_such_a_rate(tmp_path, write, suffix):
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    group = (LEADS, DIGITAL, 333.3)
    record = read_record(write(tmp_path / f"t.{suffix}", [[group] if suffix == "xml" else group]))
    assert record.sample_rate == pytest.approx(333.3, abs=1e-9) and record.notes == ()


LIMB, CHEST = (LEADS[:6], DIGITAL[:6], 500), (LEADS[6:], DIGITAL[6:], 500)
WHOLE, STRIP = (LEADS, DIGITAL, 500), (LEADS, DIGITAL[:, :1250], 500)
GROUPS = {
    "dicom, short first": (write_dicom, "dcm", [STRIP, WHOLE]),
    "dicom, long first": (write_dicom, "dcm", [WHOLE, STRIP]),
    "dicom, two halves": (write_dicom, "dcm", [LIMB, CHEST]),
    "dicom, four": (write_dicom, "dcm", [(LEADS[n : n + 3], DIGITAL[n : n + 3], 500) for n in (0, 3, 6, 9)]),
    "dicom, a rhythm strip beside": (write_dicom, "dcm", [WHOLE, (["II"], ecg(15_000)[1:2], 500)]),
    "dicom, halves and a median": (write_dicom, "dcm", [STRIP, CHEST, LIMB]),
    "aecg, short first": (write_aecg, "xml", [[STRIP], [WHOLE]]),
    "aecg, two sets": (write_aecg, "xml", [[LIMB, CHEST]]),
    "aecg, two series": (write_aecg, "xml", [[CHEST], [LIMB]]),
    "aecg, short set first": (write_aecg, "xml", [[STRIP, WHOLE]]),
    "muse, short first": (write_muse, "xml", [STRIP, WHOLE]),
    "muse, two halves": (write_muse, "xml", [LIMB, CHEST]),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_longest_twelve_leads_of_several_groups(tmp_path, kind):
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    write, suffix, groups = GROUPS[kind]
    record = read_record(write(tmp_path / f"t.{suffix}", groups))
    np.testing.assert_allclose(record.signal, MV, atol=1e-6)
    assert record.sample_rate == 500 and any("taken" in note for note in record.notes)


def test_groups_that_do_not_fit_are_refused_with_what_they_hold(tmp_path):
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    write_dicom(tmp_path / "t.dcm", [LIMB, (LEADS[6:], DIGITAL[6:, :4000], 500)])
    with pytest.raises(RecordError, match=r"group 1: I, .*\(5000 samples at 500 Hz\); group 2: V1, .*\(4000 samples"):
        read_record(tmp_path / "t.dcm")
    write_dicom(tmp_path / "m.dcm", [STRIP, STRIP], ["MEDIAN BEAT", "MEDIAN BEAT"])
    with pytest.raises(RecordError, match="median beats alone"):
        read_record(tmp_path / "m.dcm")


@pytest.mark.parametrize("nanovolts", [1000, 100, 2500])
def test_lead_faults_are_missing_whatever_a_bit_is(tmp_path, nanovolts):
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    digital = DIGITAL.copy()
    digital[[2, 6], 100:120] = -32768
    record = read_record(write_ishne(tmp_path / "t.ecg", LEADS, digital, 500, nanovolts))
    assert np.isnan(record.signal[[2, 6], 100:120]).all() and np.isnan(record.signal).sum() == 40
    np.testing.assert_allclose(np.nan_to_num(record.signal[0]), MV[0] * nanovolts / 1000, atol=1e-6)
    torn = read_record(write_ishne(tmp_path / "u.ecg", LEADS, DIGITAL, 500, checksum=77, tail=b"abc"))
    assert [any(word in note for note in torn.notes) for word in ("checksum mismatch", "incomplete")] == [True, True]


ONE_DEAD = ([*LEADS, "spare"], np.vstack([DIGITAL, DIGITAL[:1]]), 500)


def test_a_dead_channel_of_an_edf_file_is_left_out_and_gaps_are_not_closed(tmp_path):
    for library in ("ecgdatakit", "pyedflib"):
        pytest.importorskip(library, reason="needs requirements-optional.txt")
    damaged = read_record(write_edf(tmp_path / "t.edf", *ONE_DEAD, damage=("spare",)))
    np.testing.assert_allclose(damaged.signal, MV, atol=1e-6)
    assert any("SPARE" in note.upper() for note in damaged.notes)
    limb = read_record(write_edf(tmp_path / "t.edf", LEADS, DIGITAL, 500, damage=("aVF",)))
    np.testing.assert_allclose(limb.signal, MV, atol=2e-3)
    with pytest.raises(RecordError, match="no lead V3 among .*'V3': invalid range"):
        read_record(write_edf(tmp_path / "t.edf", LEADS, DIGITAL, 500, damage=("V3",)))
    apart = [0, 1, 2, 3, 4, 50, 51, 52, 53, 54]
    for dead in ((), ("spare",)):
        with pytest.raises(RecordError, match=r"EDF\+D with gaps"):
            read_record(write_edf(tmp_path / "t.edf", *ONE_DEAD, onsets=apart, damage=dead))
        joined = read_record(write_edf(tmp_path / "t.edf", *ONE_DEAD, onsets=list(range(10)), damage=dead))
        np.testing.assert_allclose(joined.signal, MV, atol=1e-6)
    with pytest.raises(RecordError, match="holds no ECG leads among ch0, ch1"):
        read_record(write_edf(tmp_path / "t.edf", [f"ch{n}" for n in range(12)], DIGITAL, 500))


def _silent(start=0, end=0, value=0, samples=5000, at=2000, inside=0):
    digital = ecg(samples)
    digital[:, :start] = value
    digital[:, samples - end :] = value
    digital[:, at : at + inside] = digital[:, at : at + 1]
    return digital


@pytest.mark.parametrize(
    "kinds, fault",
    [
        ({"start": 1000}, "8 s long but for silence"),
        ({"end": 1000}, "8 s long but for silence"),
        ({"start": 700, "end": 800, "value": 55}, "7.00. s long but for silence"),
        ({"inside": 1500}, "no lead changes for 3 s from 4 s"),
        ({"start": 5000}, "no lead changes for 10 s"),
        ({"start": 500, "samples": 5400}, "9.8 s long but for silence"),
        ({"start": 50, "end": 50}, None),  # shorter than what is filled in anyway
        ({"start": 500, "samples": 5500}, None),
        ({"start": 300, "end": 300, "samples": 6000}, None),
        ({"inside": 1500, "samples": 9000, "at": 6000}, None),  # behind the 10 s that are taken
    ],
)
def test_silence_is_not_counted_as_ecg(tmp_path, kinds, fault):
    digital = _silent(**kinds)
    record = read_record(write_record(tmp_path / "r", digital))
    assert any("no lead changes for" in note for note in record.notes) == (max(kinds.values()) > 100)
    if fault:
        for action in (lambda: fit_signal(record, SignalPolicy()), lambda: load_signal(record.path, SignalPolicy())):
            with pytest.raises(RecordError, match=fault) as error:
                action()
            assert error.value.kind == "shorter than 10 s"
    else:
        first = kinds.get("start", 0) if kinds.get("start", 0) > 100 else 0
        expected = (digital[:, first : first + 5000] / 1000).astype(np.float32)
        np.testing.assert_array_equal(fit_signal(record, SignalPolicy()), expected)
    assert np.isfinite(fit_signal(record, SignalPolicy(short="pad"))).all()


def test_windows_of_a_record_begin_behind_its_silence(tmp_path):
    record = read_record(write_record(tmp_path / "r", _silent(start=700, end=300, samples=11_000)))
    np.testing.assert_array_equal(np.hstack(fit_windows(record, SignalPolicy())), record.signal[:, 700:10_700])


def test_one_flat_lead_is_no_silence(tmp_path):
    digital = ecg()
    digital[4:8] = 0
    record = read_record(write_record(tmp_path / "r", digital))
    assert record.notes == ("flat: aVL, aVF, V1, V2",) and fit_signal(record, SignalPolicy()).shape == (12, 5000)


@pytest.mark.parametrize("gain, said", [(1e6, True), (100_000, True), (1000, False), (10, True)])
def test_amplitudes_of_no_heart_are_said(tmp_path, gain, said):
    notes = read_record(write_record(tmp_path / "r", DIGITAL, gains=f"{gain:g}(0)/mV")).notes
    assert any("implausible amplitude" in note for note in notes) == said
