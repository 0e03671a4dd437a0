"""MIMIC-IV-ECG is large, its leads stand in another order, its reports are glued: each was somebody's lost week."""

import csv
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from data_provider.manifests import item_background, read_manifest
from data_provider.prepare.build import prepare_mimic
from data_provider.prepare.inventory import split_of
from data_provider.prepare.leaks import PATIENT
from data_provider.prepare.mimic import MEASUREMENTS, RECORDS, REPORT_COLUMNS, join_report
from data_provider.prepare.record_checks import COLUMNS
from data_provider.read.records import read_record
from tests.data_provider.prepare.test_ecgqa import sample
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record
from utils.tools import REPOSITORY

FILE_LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
OTHER_COLUMNS = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")


def path_of(subject, study):
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def write_mimic(root, studies, waveforms=None):
    """``studies``: (subject_id, study_id, statements); ``waveforms``: study_id -> int16 [12, T] in the file's order."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / RECORDS, "w", newline="") as records, open(root / MEASUREMENTS, "w", newline="") as measured:
        lists, machine = csv.writer(records), csv.writer(measured)
        lists.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        machine.writerow(
            ["subject_id", "study_id", "cart_id", "ecg_time", *REPORT_COLUMNS, "bandwidth", "filtering", *OTHER_COLUMNS]
        )
        for subject, study, statements in studies:
            lists.writerow([subject, study, study, "2123-02-10 21:30:00", path_of(subject, study)])
            texts = list(statements) + [""] * (18 - len(statements))
            about = [subject, study, 6632385, "2123-02-10 21:30:00", *texts, "0.0005-150 Hz", "<not specified>"]
            machine.writerow([*about, 800, 40, 140, 180, 270, 560, 40, 20, 30])
    for subject, study, _ in studies:
        digital = ecg(seed=study) if waveforms is None else waveforms.get(study)
        if digital is not None:
            write_record(root / path_of(subject, study), digital, leads=FILE_LEADS, gains="200.0(0)/mV")
    return root


def many(count=150):
    """Two studies a subject."""
    texts = [["Sinus rhythm", "Normal ECG"], ["Atrial fibrillation.", "Left axis deviation", "Abnormal ECG"]]
    texts.append(["Sinus rhythm", "Possible inferior infarct - age undetermined", "Abnormal ECG"])
    return [(10_000_000 + n // 2, 40_000_000 + n, texts[n % 3]) for n in range(count)]


def test_manifests_of_a_download(tmp_path):
    studies = [*many(), (10_009_999, 41_000_000, []), (10_009_998, 41_000_001, ["Sinus rhythm"])]
    waveforms = {study: ecg(seed=study) for _, study, _ in studies[:-1]}
    card = prepare_mimic(write_mimic(tmp_path / "root", studies, waveforms), tmp_path / "out")
    assert card["records"]["rows"] == 152 and card["records"]["used"] == 151
    assert card["records"]["left_out"] == {"not on disk": 1} and card["reports"]["left_out"]["no text"] == 1
    patients, kinds = {}, set()
    for split in ("train", "valid", "test"):
        for item in read_manifest(tmp_path / f"out/report/mimic-iv-ecg/{split}.json", "report"):
            assert patients.setdefault(item["patient_id"], split) == split  # no subject crosses
            assert item["filepath"] == path_of(item["patient_id"], item["ecg_id"]).removeprefix("files/")
            assert item_background(item) == ""
        items = read_manifest(tmp_path / f"out/ecgqa/mimic-iv-ecg/template_{split}_background.json", "qa")
        answers = Counter(item["answer"][0] for item in items if item["question_type"] == "single-verify")
        assert answers["yes"] == answers["no"] > 0
        kinds |= {item["question"] for item in items}
    assert "Would a reader of this ECG note atrial fibrillation?" in kinds
    assert not any("inferior infarct" in question for question in kinds)  # only ever "possible"
    assert item["background"] == (
        f"Recording Details: - Patient ID: {10_000_000 + (item['ecg_id'] - 40_000_000) // 2}; - Recording Date: "
        "2123-02-10 21:30:00; - Device ID: 6632385; - Bandwidth: 0.0005-150 Hz; - Filtering: <not specified>."
    )


def test_leads_are_right_although_avf_stands_before_avl(tmp_path):
    write_mimic(tmp_path, [(10_000_001, 40_000_001, ["x"])])
    digital = ecg(seed=40_000_001)
    by_name = read_record(tmp_path / path_of(10_000_001, 40_000_001))
    by_position = read_record(tmp_path / path_of(10_000_001, 40_000_001), lead_order="file")
    np.testing.assert_allclose(by_position.signal, digital / 200, atol=1e-6)
    np.testing.assert_array_equal(by_name.signal[[4, 5]], by_position.signal[[5, 4]])


def test_reports_are_joined_so_that_sentences_do_not_fuse():
    parts = ["Sinus rhythm", "*** CONSIDER ACUTE ST ELEVATION MI ***", "A-V dissociation.", "Abnormal ECG"]
    boilerplate = [
        "--- Warning: Data quality may affect interpretation ---",
        "Age not entered, assumed to be  50 years old",
    ]
    expected = "Sinus rhythm. CONSIDER ACUTE ST ELEVATION MI. A-V dissociation. Abnormal ECG."
    assert join_report([*boilerplate, *parts]) == expected
    published = "Sinus rhythm.*** CONSIDER ACUTE ST ELEVATION MI ***.A-V dissociation..Abnormal ECG."
    assert join_report(parts, "published") == published
    assert join_report([]) == join_report([], "published") == ""


@needs_shared
def test_the_published_join_can_be_taken_apart_and_made_again():
    for path in (SHARED / "data/published_manifests/report/mimic-iv-ecg").glob("*.json"):
        for item in read_manifest(path, "report"):
            # where a statement ended in "." two stand there: split after the first
            parts = [part.replace("\0", ".") for part in item["report"][:-1].replace("..", "\0.").split(".")]
            assert join_report(parts, "published") == item["report"]


def test_a_patients_split_depends_on_nothing_else():
    splits = Counter(split_of(subject) for subject in range(10_000_000, 10_020_000))
    assert 0.78 < splits["train"] / 20_000 < 0.82 and 0.09 < splits["valid"] / 20_000 < 0.11
    assert [split_of(10_000_032), split_of(10_000_117)] == [split_of(10_000_032), split_of(10_000_117)]
    assert any(split_of(subject, 1) != split_of(subject) for subject in range(10_000_000, 10_000_050))


def test_signals_are_checked_and_an_unfinished_check_goes_on(tmp_path):
    studies = many(6)
    waves = {study: ecg(seed=study) for _, study, _ in studies}
    waves[40_000_001][2, 100:300] = -32768  # a gap of 0.4 s
    waves[40_000_002][3] = 0
    waves[40_000_003][7, 500:520] = 32767
    waves[40_000_005] = waves[40_000_000]
    root = write_mimic(tmp_path / "root", studies, waves)
    card = prepare_mimic(root, tmp_path / "out", check="signals", workers=2)
    table = tmp_path / "out/mimic-iv-ecg/quality.csv"
    rows = {row["path"][-8:]: row for row in csv.DictReader(table.open())}
    assert card["records"]["left_out"] == {"missing samples": 1} and len(rows) == 6
    assert float(rows["40000001"]["missing_share"]) == pytest.approx(200 / 60_000, rel=1e-3)
    assert rows["40000002"]["flat_leads"] == "aVR" and float(rows["40000003"]["clipped_share"]) == 20 / 5000
    assert rows["40000003"]["implausible"] == "True" and rows["40000000"]["duplicates"].endswith("40000005")
    assert float(rows["40000000"]["limb_residual_mv"]) < 1e-6
    assert card["duplicates"] == [[40_000_000, 40_000_005]]
    lines = table.read_text().splitlines()  # killed in the middle of the fourth line
    table.write_text("\n".join([*lines[:3], lines[3][:40]]))
    before = {line.split(",")[0]: line for line in lines}
    assert prepare_mimic(root, tmp_path / "out", check="signals") == card
    assert {line.split(",")[0]: line for line in table.read_text().splitlines()} == before
    assert table.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_ecgqa_for_mimic(tmp_path):
    studies = many(8)
    root = write_mimic(tmp_path / "root", studies)
    folder = tmp_path / "copy/ecgqa/mimic-iv-ecg/template"
    chunks = {"train": [sample(0, 40_000_000), sample(1, 40_000_004), sample(2, 99)], "test": [sample(0, 40_000_001)]}
    for split, samples in chunks.items():
        (folder / split).mkdir(parents=True)
        (folder / split / "00000.json").write_text(json.dumps(samples))
    card = prepare_mimic(root, tmp_path / "out", ecgqa=tmp_path / "copy")
    train = card["questions"]["train"]
    assert train["left_out"] == {"ECG not in the table": 1} and train["leaks"] == {PATIENT: 1}
    assert train["kept"] == card["questions"]["test"]["kept"] == {"single-verify": 1}


@needs_shared
def test_the_real_chunk_is_counted(tmp_path):
    root = write_mimic(tmp_path / "root", [*many(4), (10_000_009, 43402541, ["x"]), (10_000_008, 41006988, ["x"])])
    card = prepare_mimic(root, tmp_path / "out", ecgqa=SHARED / "data/ecgqa")
    test = card["questions"]["test"]
    assert sum(test["samples"].values()) == 4364 and sum(test["kept"].values()) == 1
    assert sum(test["left_out"].values()) == 4363 and len(test["missing_chunks"]) == 27


# Runs a command, and says how large it and what it started became, in KiB
PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_800_000_rows_in_little_memory(tmp_path):
    studies = [
        (10_000_000 + n // 5, 40_000_000 + n, ["Sinus rhythm", "Left axis deviation", "Abnormal ECG"])
        for n in range(800_000)
    ]
    waves = {study: ecg(seed=study) for _, study, _ in studies[::20_000]}
    root = write_mimic(tmp_path / "root", studies, waves)
    command = [sys.executable, "-m", "data_provider.prepare", "mimic-iv-ecg", "--root", root, "--out", tmp_path / "out"]
    command = [sys.executable, "-c", PEAK, *command]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    megabytes = int(done.stderr.split()[-1]) / 1024
    assert "800,000 rows: 40 with a record" in done.stdout
    assert megabytes < 2000
