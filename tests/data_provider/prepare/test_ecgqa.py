"""Scores on ECG-QA mean something only if every sample is accounted for and no test ECG was trained on."""

import json

import pytest

from data_provider.manifests import item_background, item_paths, read_manifest
from data_provider.prepare.build import prepare_ptbxl
from data_provider.prepare.card import summary
from data_provider.prepare.leaks import DUPLICATE, ITSELF, PATIENT, HeldOut, check_no_leaks
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_ptbxl, write_record
from utils.tools import UserError


def row(number, patient=None, **more):
    codes = "{'SR': 0.0, 'NORM': 100.0, 'IMI': 35.0, 'LVOLT': 0.0}"
    return {"ecg_id": number, "patient_id": f"{patient or number}.0", "strat_fold": 1, "scp_codes": codes, **more}


def sample(number, *ecg_ids, answer=("yes",), kind="single-verify"):
    return {
        "template_id": 1,
        "question_id": 1,
        "sample_id": number,
        "question_type": kind,
        "attribute_type": "scp_code",
        "question": "Is it?",
        "answer": list(answer),
        "ecg_id": list(ecg_ids),
        "attribute": None,
    }


def write_copy(root, questions="template", **chunks):
    """chunks: train_120000=[samples], ..."""
    for name, samples in chunks.items():
        split, number = name.split("_")
        path = root / f"ecgqa/ptbxl/{questions}/{split}/{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(samples))
    return root


def questions_of(out, split, name="ptbxl"):
    return json.loads((out / f"ecgqa/{name}/template_{split}_background.json").read_text())


@needs_shared
def test_the_real_copy_is_accounted_for_sample_by_sample(tmp_path):
    card = prepare_ptbxl(SHARED / "data/ptbxl", tmp_path, ecgqa=SHARED / "data/ecgqa")
    questions = card["questions"]
    assert questions["train"]["samples"] == {"comparison_irrelevant-query": 7539, "single-verify": 10_000}
    assert questions["train"]["mapped"] == {"comparison_irrelevant-query": 138, "single-verify": 378}
    assert questions["valid"]["samples"] == {"comparison_irrelevant-query": 4663}
    assert questions["valid"]["kept"] == {"comparison_irrelevant-query": 31}
    assert questions["test"]["samples"] == {"comparison_irrelevant-query": 2146}
    assert questions["test"]["kept"] == {"comparison_irrelevant-query": 14}
    for split in questions.values():
        lost = sum(split["left_out"].values()) + sum(split.get("leaks", {}).values())
        assert sum(split["samples"].values()) == sum(split["kept"].values()) + lost
    assert questions["train"]["left_out"] == {"ECG not on disk": 17_023}
    assert len(questions["train"]["missing_chunks"]) == 25 and questions["test"]["missing_chunks"][-1] == "70000"
    assert card["duplicates"] == [[137, 138], [143, 144], [145, 463], [456, 457], [459, 460]]
    assert card["leak_check"]["leaks"] == 0 and "5 groups of duplicates" in summary(card)
    # 456 is the duplicate of 457, which ECG-QA tests on
    trained = {item["ecg_id"] for item in read_manifest(tmp_path / "report/ptbxl/train.json", "report")}
    assert 456 not in trained and 457 not in trained and 137 in trained
    two = read_manifest(tmp_path / "ecgqa/ptbxl/template_test_background.json", "qa")[0]
    assert item_paths(two) == [f"records500/00000/{number:05d}_hr" for number in two["ecg_id"]]
    assert item_background(two).count("Patient ID") == 2 and "Second ECG" in item_background(two)


def test_every_kind_of_leak_is_found_and_left_out(tmp_path):
    # tested: 1 (patient 1). 2 is its duplicate, 3 of the same patient, 4 of the duplicate's patient, 5 and 6 harmless.
    data = [row(1, 1), row(2, 2), row(3, 1), row(4, 2), row(5, 5), row(6, 6)]
    root = write_ptbxl(tmp_path / "root", data)
    write_record(root / "records500/00000/00002_hr", ecg(seed=1))
    train = [sample(0, 1), sample(1, 2), sample(2, 3), sample(3, 4), sample(4, 5), sample(5, 5, 3), sample(6, 6, 5)]
    copy = write_copy(tmp_path / "copy", train_00000=train, test_00000=[sample(0, 1)])
    card = prepare_ptbxl(root, tmp_path / "out", ecgqa=copy)
    assert card["questions"]["train"]["leaks"] == {ITSELF: 1, DUPLICATE: 1, PATIENT: 3}
    assert [item["sample_id"] for item in questions_of(tmp_path / "out", "train")] == [4, 6]
    reported = tmp_path / "out/report/ptbxl"
    assert [item["ecg_id"] for item in read_manifest(reported / "train.json", "report")] == [5, 6]
    assert [item["ecg_id"] for item in read_manifest(reported / "test.json", "report")] == [1]
    assert card["reports"]["left_out"] == {f"leak: {DUPLICATE}": 1, f"leak: {PATIENT}": 2}


def test_the_last_look_sees_a_planted_leak():
    patients, duplicates = {1: 1, 2: 2, 3: 1, 4: 4}, [[1, 2]]
    manifest = {"train": [{"ecg_id": [4]}], "valid": [], "test": [{"ecg_id": 1}]}
    assert check_no_leaks([manifest], patients, duplicates)["train"] == 1
    for leaking, words in ((1, ITSELF), (2, DUPLICATE), (3, PATIENT)):
        planted = {**manifest, "train": [{"ecg_id": [4]}, {"ecg_id": [4, leaking]}]}
        with pytest.raises(UserError, match=words):
            check_no_leaks([planted], patients, duplicates)
    with pytest.raises(UserError, match="leak"):  # what one manifest tests on, another must not train on
        check_no_leaks([{"train": [{"ecg_id": 3}]}, {"test": [{"ecg_id": [1]}]}], patients, duplicates)


def test_duplicates_in_the_folds_of_a_download_without_ecgqa(tmp_path):
    data = [row(number, strat_fold=fold) for number, fold in ((1, 10), (2, 1), (3, 1), (4, 9))]
    root = write_ptbxl(tmp_path / "root", data)
    write_record(root / "records500/00000/00002_hr", ecg(seed=1))
    prepare_ptbxl(root, tmp_path / "out")
    assert [item["ecg_id"] for item in read_manifest(tmp_path / "out/report/ptbxl/train.json", "report")] == [3]
    assert HeldOut([1], {}, [[1, 2]]).reason(3) is None


def test_reasons_for_samples_that_cannot_be_used(tmp_path):
    root = write_ptbxl(tmp_path / "root", [row(n) for n in range(1, 6)], with_record=lambda r: r["ecg_id"] != 2)
    (root / "records500/00000/00003_hr.dat").write_bytes(b"1")
    write_record(root / "records500/00000/00004_hr", ecg(4999))
    samples = [sample(number, *ids) for number, ids in enumerate([(1,), (2,), (3,), (4,), (9,), (1, 2), (5, 1)])]
    card = prepare_ptbxl(root, tmp_path / "out", ecgqa=write_copy(tmp_path / "copy", train_10000=samples))
    assert card["questions"]["train"]["left_out"] == {
        "ECG not on disk": 2,
        "ECG unreadable": 1,
        "ECG shorter than 10 s": 1,
        "ECG not in the table": 1,
    }
    assert card["questions"]["train"]["kept"] == {"single-verify": 2}
    assert card["questions"]["train"]["missing_chunks"] == ["00000"]


def test_a_copy_from_before_the_correction_is_corrected_and_said_so(tmp_path):
    root = write_ptbxl(tmp_path / "root", [row(1), row(2)])
    old = sample(0, 1, answer=["late stage of myocardial infarction", "x"])
    copy = write_copy(tmp_path / "copy", train_00000=[old, sample(1, 2)])
    card = prepare_ptbxl(root, tmp_path / "out", ecgqa=copy)
    assert questions_of(tmp_path / "out", "train")[0]["answer"] == ["old stage of myocardial infarction", "x"]
    assert "before May 2024: 1 answers" in card["notes"][0] and "note: this copy" in summary(card)


def test_paraphrased_questions_keep_the_splits_of_both_wordings(tmp_path):
    root = write_ptbxl(tmp_path / "root", [row(1), row(2)])
    copy = write_copy(tmp_path / "copy", "paraphrased", train_00000=[sample(0, 1), sample(1, 2)])
    write_copy(tmp_path / "copy", test_00000=[sample(0, 2)])
    card = prepare_ptbxl(root, tmp_path / "out", ecgqa=copy, questions="paraphrased")
    assert card["questions"]["train"]["leaks"] == {ITSELF: 1}
    assert [item["ecg_id"] for item in questions_of(tmp_path / "out", "train", "ptbxl-paraphrased")] == [[1]]


@pytest.mark.parametrize(
    "chunk, words",
    [
        ([{"question": "x"}], "sample 0: `question_type` must be a text"),
        ([sample(0, 1), sample(1)], "sample 1: `ecg_id`"),
        ([sample(0, 1, answer=[])], "`answer`"),
        ({}, "not a list"),
    ],
)
def test_a_malformed_copy_is_one_line(tmp_path, chunk, words):
    root = write_ptbxl(tmp_path / "root", [row(1)])
    with pytest.raises(UserError, match=words):
        prepare_ptbxl(root, tmp_path / "out", ecgqa=write_copy(tmp_path / "copy", train_00000=chunk))
    with pytest.raises(UserError, match="no copy of ECG-QA here"):
        prepare_ptbxl(root, tmp_path / "out", ecgqa=tmp_path)


def test_reports_from_statements_and_from_a_table(tmp_path):
    data = [row(1, heart_axis="LAD"), row(2, scp_codes="{'AFIB': 0.0, 'LNGQT': 100.0, 'PVC': 0.0, 'LVH': 80.0}")]
    data[1] |= {"infarction_stadium1": "Stadium III"}
    root = write_ptbxl(tmp_path / "root", data)
    prepare_ptbxl(root, tmp_path / "out", report_source="scp")
    texts = [item["report"] for item in read_manifest(tmp_path / "out/report/ptbxl/train.json", "report")]
    assert texts == [
        "sinus rhythm. left axis deviation. normal ecg. consider inferior myocardial infarction.",
        "atrial fibrillation. long qt-interval. probable left ventricular hypertrophy. "
        "old stage of myocardial infarction. ventricular premature complex.",
    ]
    table = tmp_path / "t.csv"
    table.write_text("ecg_id,text\n2,atrial  fibrillation\n")
    card = prepare_ptbxl(root, tmp_path / "out", report_source=str(table))
    items = read_manifest(tmp_path / "out/report/ptbxl/train.json", "report")
    assert [(item["ecg_id"], item["report"]) for item in items] == [(2, "atrial fibrillation")]
    assert card["reports"]["left_out"] == {"no text": 1} and "reports" in card["sources"]
    table.write_text("ecg_id,words\n2,x\n")
    with pytest.raises(UserError, match="lacks the column report, text or translation"):
        prepare_ptbxl(root, tmp_path / "out", report_source=str(table))
