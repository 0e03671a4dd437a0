"""A folder of ECG files becomes manifests: what most groups have is neither PTB-XL nor MIMIC."""

import csv
import json

import numpy as np
import pytest

from data_provider.manifests import read_manifest
from data_provider.prepare.__main__ import main
from data_provider.prepare.card import summary
from data_provider.prepare.folder import NO_REPORT, convert, prepare_folder, read_folder
from data_provider.read.records import LEADS, read_record
from ecg_tokenizer.tokenizer import make_plan
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record

SPLITS = ("train", "valid", "test")


@pytest.fixture
def root(tmp_path):
    """Thirty records in two folders, of which two have the same signal; an array; and what is no ECG."""
    folder = tmp_path / "ours"
    for number in range(30):
        (folder / f"site{number % 2}").mkdir(parents=True, exist_ok=True)
        write_record(folder / f"site{number % 2}" / f"r{number}", ecg(seed=min(number, 28)))
    np.save(folder / "array.npy", ecg(seed=50) / 1000)
    (folder / "notes.txt").write_text("call the ward\n")
    (folder / ".hidden").write_text("")
    (folder / b"\xff.npy".decode(errors="surrogateescape")).write_bytes(b"")
    return folder


def table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def items_of(out, name="ours"):
    return {split: json.loads((out / f"report/{name}/{split}.json").read_text()) for split in SPLITS}


def test_a_folder_without_a_table(root, tmp_path):
    card = prepare_folder(root, tmp_path / "out")
    assert card["records"]["rows"] == 33 and card["records"]["used"] == 30
    assert {path: "sampling rate" in fault for path, fault in card["records"]["unreadable"].items()}["array.npy"]
    assert "notes.txt" in card["records"]["unreadable"] and len(card["duplicates"]) == 1
    items = items_of(tmp_path / "out")
    paths = [item["filepath"] for split in SPLITS for item in items[split]]
    assert len(set(paths)) == len(paths) >= 29 and "site1/r3" in paths
    assert {item["report"] for split in SPLITS for item in items[split]} == {NO_REPORT}
    assert "each file counts as a patient" in summary(card) and "stage 3 needs texts" in summary(card)
    again = prepare_folder(root, tmp_path / "again")
    assert again["files"].keys() == card["files"].keys() and again["files"] == card["files"], "the same manifests"


def test_the_table_decides(root, tmp_path):
    """Patients stay in one split, given splits hold, and every row that is not used has a reason."""
    rows = [
        {"file": f"site{n % 2}/r{n}" + (".hea" if n == 4 else ""), "patient_id": f"P{n // 3}", "report": f" ecg\n{n} "}
        for n in range(27)
    ]
    rows[5]["report"] = ""
    rows += [{"file": path, "patient_id": "P99", "report": "x"} for path in ("site0/r0", "gone", "../r1", "site1/r27")]
    rows = [row | {"split": "test" if row["patient_id"] == "P0" else ""} for row in rows]
    given = table(tmp_path / "table.csv", rows)
    card = prepare_folder(root, tmp_path / "out", name="named", table=given)
    reasons = {"a file that was there before": 1, "not on disk": 1, "no usable path inside the folder": 1}
    assert card["records"]["left_out"] == reasons and card["records"]["used"] == 28
    assert card["reports"]["left_out"] == {"no text": 1}
    items = items_of(tmp_path / "out", "named")
    splits = {}
    for split in SPLITS:
        for item in read_manifest(tmp_path / f"out/report/named/{split}.json", "report") if items[split] else ():
            splits.setdefault(item["patient_id"], set()).add(split)
    assert splits["P0"] == {"test"} and all(len(of_patient) == 1 for of_patient in splits.values())
    assert {item["report"] for item in items["test"]} >= {"ecg 0", "ecg 1", "ecg 2"}
    assert not any("patient" in note or "texts" in note for note in card["notes"])


def test_converted_files_are_what_they_were(root, tmp_path, capsys):
    """Lost otherwise: arrays, the commonest form of all, and the voltages in them."""
    arguments = ["folder", "--root", root, "--convert-to", tmp_path / "wfdb", "--sample-rate", 500, "--units", "mV"]
    main([*map(str, arguments), "--out", str(tmp_path / "out")])
    assert "33 rows: 31 with a record" in capsys.readouterr().out
    found = read_record(tmp_path / "wfdb/array_npy")
    assert found.sample_rate == 500 and np.abs(found.signal - ecg(seed=50) / 1000).max() <= 0.0005
    for path in ("site0/r2", "site1/r3"):
        assert np.abs(read_record(tmp_path / "wfdb" / path).signal - read_record(root / path).signal).max() <= 0.0005
    made = tmp_path / "out/report/ours"
    plan = make_plan([f"ROOT_ECG={tmp_path / 'wfdb'}", f"TRAIN_PATH={made}/train.json", f"VAL_PATH={made}/valid.json"])
    assert len(plan.paths["train"]) > 10


def test_missing_samples_and_names_survive_the_conversion(tmp_path):
    signal = ecg(seed=3) / 1000
    signal[:, 100:120] = np.nan
    (tmp_path / "a").mkdir()
    for name in ("x.1.npy", "x_1.npy"):
        np.save(tmp_path / "a" / name, signal)
    np.save(tmp_path / "a/huge.npy", signal * 1000)
    download, _ = read_folder(tmp_path / "a")
    convert(tmp_path / "a", download, tmp_path / "b", sample_rate=250, units="mV", workers=2)
    assert sorted(ecg.path for ecg in download.ecgs.values()) == ["x_1_npy", "x_1_npy_3"]
    assert "16 bits" in next(iter(download.unreadable.values()))
    found = read_record(tmp_path / "b/x_1_npy")
    assert found.sample_rate == 250 and np.isnan(found.signal[:, 100:120]).all() and np.isnan(found.signal).sum() == 240


@needs_shared
def test_formats_of_the_wild(tmp_path):
    card = prepare_folder(SHARED / "data/other", tmp_path, name="other")
    used = {item["filepath"].split("/")[0] for split in SPLITS for item in items_of(tmp_path, "other")[split]}
    assert used >= {"challenge", "dicom", "muse", "philips", "ptb"}, card["records"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", "nowhere"], "no such folder"),
        (["--sample-rate", "500"], "need --convert-to"),
        (["--convert-to", "ours/wfdb"], "lies inside --root"),
        (["--table", "nowhere.csv"], "cannot be read"),
        (["--table", "no_file.csv"], "lacks the column file"),
        (["--table", "split.csv"], "row 1: split exam"),
        (["--root", "empty"], "holds no file"),
    ],
)
def test_bad_input_is_one_line(words, said, root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    table(tmp_path / "no_file.csv", [{"path": "a"}])
    table(tmp_path / "split.csv", [{"file": "site0/r0", "split": "exam"}])
    with pytest.raises(SystemExit) as stop:
        main(["folder", "--root", str(root), *words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and said in lines[0]


@pytest.mark.parametrize("spoil", ["paths", "records", "short", "table"])
def test_nothing_usable_is_a_fault_and_the_earlier_manifests_are_moved_aside(tmp_path, capsys, spoil):
    """Lost otherwise: the next stage trains on what an earlier run wrote, and all looks well."""
    folder, out = tmp_path / "ours", tmp_path / "out"
    for number in range(2):
        write_record(folder / f"r{number}", ecg(seed=number))
    arguments = ["folder", "--root", str(folder), "--out", str(out), "--name", "n"]
    rows = [{"file": f"r{n}", "patient_id": n, "report": "sinus rhythm"} for n in range(2)]
    main([*arguments, "--table", str(table(tmp_path / "good.csv", rows))])
    assert (out / "report/n/train.json").is_file()
    if spoil == "table":
        (tmp_path / "good.csv").write_text("file\n")
    elif spoil == "paths":
        table(tmp_path / "good.csv", [row | {"file": f"/elsewhere/r{n}"} for n, row in enumerate(rows)])
    for number in range(2) if spoil in ("records", "short") else ():
        digital = ecg(4000, seed=number) if spoil == "short" else ecg(seed=number)
        write_record(folder / f"r{number}", digital, leads=["x"] * 12 if spoil == "records" else list(LEADS))
    reason = {"paths": "2 no usable path inside the folder", "records": "2 unreadable", "short": "2 shorter than 10 s"}
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--table", str(tmp_path / "good.csv")])
    said = capsys.readouterr()
    error = said.err.strip().splitlines()[-1]
    assert stop.value.code == 2 and reason.get(spoil, "holds no file") in error
    assert not (out / "report/n").exists() and "moved aside" in said.out
    assert len(list(out.glob("report/n.*/train.json"))) == 1


def test_paths_as_other_programs_write_them(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    files = [str(root / "site0/r0.hea"), str(tmp_path / "link/site1/r1"), "site0\\r2.hea", "./site1//r3", "/etc/passwd"]
    card = prepare_folder(root, tmp_path / "out", table=table(tmp_path / "t.csv", [{"file": file} for file in files]))
    paths = {item["filepath"] for split in SPLITS for item in items_of(tmp_path / "out")[split]}
    assert paths == {"site0/r0", "site1/r1", "site0/r2", "site1/r3"}
    assert card["records"]["unreadable"] == {"/etc/passwd": "no usable path inside the folder"}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_tables_of_other_delimiters(root, tmp_path, mark):
    lines = ["file,patient_id,report", "site0/r0,7,sinus rhythm", "site1/r1,8,atrial fibrillation"]
    (tmp_path / "t.csv").write_text("\n".join(lines).replace(",", mark), encoding="utf-8-sig")
    card = prepare_folder(root, tmp_path / "out", table=tmp_path / "t.csv")
    assert card["records"]["used"] == 2 and not any("patient" in note for note in card["notes"])


def test_what_was_noted_of_a_file_is_kept_when_it_is_converted(tmp_path):
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a/x.npz", ecg=ecg() / 1000, labels=np.eye(5))
    given = {"convert_to": tmp_path / "b", "sample_rate": 500, "units": "mV"}
    prepare_folder(tmp_path / "a", tmp_path / "out", **given)
    with open(tmp_path / "out/a/quality.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "array ecg taken, not labels" in row["notes"] and "standard order" in row["notes"]


def test_silence_and_small_amplitudes_are_in_the_quality_table(tmp_path, capsys):
    digital = ecg()
    digital[:, 3500:] = 0
    write_record(tmp_path / "a/silent", digital)
    write_record(tmp_path / "a/volts", ecg(), gains="1000000(0)/mV")
    write_record(tmp_path / "a/sound", ecg(seed=1))
    main(["folder", "--root", str(tmp_path / "a"), "--out", str(tmp_path / "out")])
    with open(tmp_path / "out/a/quality.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert [rows[name]["silent_s"] for name in ("silent", "volts", "sound")] == ["3", "0", "0"]
    assert [rows[name]["implausible"] for name in ("silent", "volts", "sound")] == ["False", "True", "False"]
    assert rows["silent"]["kind"] == "shorter than 10 s" and "7 s long but for silence" in rows["silent"]["fault"]
    said = capsys.readouterr().out
    assert "1 left out: shorter than 10 s" in said and "1 with silence in all leads, 1 of implausible amplitude" in said


def test_volts_taken_for_millivolts_are_not_rounded_to_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a/volts.npy", ecg() / 1e6)
    np.save(tmp_path / "a/sound.npy", ecg() / 1000)
    index, _ = read_folder(tmp_path / "a")
    convert(tmp_path / "a", index, tmp_path / "b", sample_rate=500, units="mV")
    assert "--units" in index.unreadable["volts.npy"] and len(index.ecgs) == 1
    index, _ = read_folder(tmp_path / "a")
    convert(tmp_path / "a", index, tmp_path / "c", sample_rate=500, units="V")
    assert np.abs(read_record(tmp_path / "c/volts_npy").signal - ecg() / 1000).max() <= 0.0005


def test_nothing_to_validate_on_is_said(tmp_path):
    write_record(tmp_path / "r", ecg(seed=1))
    card = prepare_folder(tmp_path, tmp_path / "out")
    assert sum("nothing in" in note for note in card["notes"]) == 2
