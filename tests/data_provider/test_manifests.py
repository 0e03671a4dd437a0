"""A malformed item found here costs a second; found in the third hour of training it costs the run."""

import json
import time

import pytest

from data_provider.manifests import (
    check_records_exist,
    item_background,
    item_paths,
    read_manifest,
    record_paths,
    write_manifest,
)
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record
from utils.tools import UserError

QA = {
    "template_id": 1,
    "question_id": 0,
    "sample_id": 0,
    "question_type": "single-verify",
    "attribute_type": "noise",
    "question": "Is it?",
    "answer": ["yes"],
    "ecg_id": [1],
    "attribute": None,
    "ecg_path": "records500/00000/00001_hr",
    "background": "Patient Information: - Age: 54; Recording Details: - Nurse ID: 0.",
}
REPORT = {"patient_id": 1, "ecg_id": 1, "report": "normal ecg", "filepath": "a/b", "background": "Recording Details: x"}


@needs_shared
def test_the_published_manifests_read_as_they_are():
    counts = {}
    for path in sorted((SHARED / "data/published_manifests").rglob("*.json")):
        items = read_manifest(path, "qa" if "ecgqa" in path.parts else "report")
        counts["/".join(path.parts[-3:])] = len(items)
        assert all(len(item_paths(item)) == 1 for item in items)
        assert all(("Patient ID" in item_background(item)) == ("ptbxl" in path.parts) for item in items)
    assert sorted(counts.values()) == sorted([273, 199, 136, 162, 218, 130, 103, 136, 106, 113, 152, 26])


def test_written_and_read_again(tmp_path):
    two = {**QA, "ecg_path": ["a", "b"], "ecg_id": [1, 2], "question_type": "comparison_irrelevant-query"}
    write_manifest(tmp_path / "m.json", [QA, two, QA])
    items = read_manifest(tmp_path / "m.json", "qa")
    assert items == [QA, two, QA]
    assert record_paths(items) == ["records500/00000/00001_hr", "a", "b"]
    assert item_background(QA) == "Patient Information: - Age: 54; " and item_background(REPORT) == ""


FAULTS = [
    ("qa", {**QA, "question": ""}, "`question` must be a text"),
    ("qa", {**QA, "answer": "yes"}, "`answer` must be a list of texts"),
    ("qa", {**QA, "answer": []}, "`answer` must be a list of texts"),
    ("qa", {**QA, "ecg_path": None}, "`ecg_path` is missing"),
    ("qa", {**QA, "ecg_path": ["a", "b", "c"]}, "`ecg_path` names 3 records"),
    ("qa", {**QA, "ecg_path": "../../etc/passwd"}, "leaves the data set's root: ../../etc/passwd"),
    ("qa", {**QA, "ecg_path": "/etc/passwd"}, "leaves the data set's root"),
    ("qa", {**QA, "ecg_path": ["a", 3]}, "the record path is not a text"),
    ("qa", REPORT, "`question` must be a text"),
    ("report", QA, "`report` must be a text"),
    ("report", {**REPORT, "filepath": "a/../../b"}, "leaves the data set's root"),
    ("report", {**REPORT, "background": 3}, "`background` must be a text"),
    ("any", 7, "not an object but a int"),
    ("any", {"ecg_path": "a"}, "neither a question nor a report"),
]


@pytest.mark.parametrize("task, item, words", FAULTS)
def test_a_bad_item_is_named_by_its_number(tmp_path, task, item, words):
    good = REPORT if task == "report" else QA
    path = tmp_path / "m.json"
    path.write_text(json.dumps([good, good, item]))
    with pytest.raises(UserError) as error:
        read_manifest(path, task)
    assert str(error.value).startswith(f"{path}: item 2: ") and words in str(error.value)


@pytest.mark.parametrize(
    "text, words", [("[]", "empty"), ("{}", "JSON list"), ("[{", "not valid JSON"), (None, "cannot be read")]
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "m.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_manifest(path)
    assert str(path) in str(error.value)


def test_a_root_without_the_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        check_records_exist([QA], tmp_path / "nowhere", "m.json")
    with pytest.raises(UserError, match=r"none of the 1 records of m.json"):
        check_records_exist([QA], tmp_path, "m.json")
    write_record(tmp_path / QA["ecg_path"], ecg(100))
    check_records_exist([{**QA, "ecg_path": "x"}, QA], tmp_path, "m.json")


def test_a_hundred_thousand_items_read_in_seconds(tmp_path):
    write_manifest(tmp_path / "m.json", [QA] * 100_000)
    start = time.process_time()
    assert len(read_manifest(tmp_path / "m.json", "qa")) == 100_000
    assert time.process_time() - start < 5
