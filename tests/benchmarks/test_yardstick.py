"""The yardstick finds what is there, nothing where there is nothing, and says how sure it is."""

import json

import numpy as np
import pytest

from benchmarks.yardstick import Question, answer, difference, intervals, judge, main, read_questions
from tests.tokenizer_maker import WITH_AMPLITUDE, small_tokenizer, write_data_set

SPLITS = ("train", "test")


def a_question(yes, rows):
    """One whose answers are ``yes``, asked of the ``rows`` of training and test."""
    rows = dict(zip(SPLITS, rows, strict=True))
    return Question(rows, {split: yes[rows[split]] for split in SPLITS})


@pytest.fixture
def two_questions():
    """One that the first number answers, and one that none does; rows 0-199 train, 200-299 test."""
    rng = np.random.default_rng(0)
    described = rng.standard_normal((300, 5))
    rows = np.arange(200), np.arange(200, 300)
    told, untold = described[:, 0] > 0, rng.random(300) < 0.5
    return described, {"told": a_question(told, rows), "not told": a_question(untold, rows)}


def test_what_is_described_is_answered(two_questions):
    described, questions = two_questions
    found = judge(questions, answer(questions, described), np.arange(300) // 2)
    told, untold = found["questions"]["told"], found["questions"]["not told"]
    assert told["right"] > 0.9 and told["auroc"] > 0.97
    assert 0.3 < untold["right"] < 0.7 and 0.3 < untold["auroc"] < 0.7
    assert found["items"] == 200 and found["patients"] == 50
    share, low, high = found["right"]
    assert share == pytest.approx((told["right"] + untold["right"]) / 2) and low < share < high < low + 0.25
    assert found["auroc"][0] == pytest.approx((told["auroc"] + untold["auroc"]) / 2)


def test_a_difference_is_paired(two_questions):
    """Lost otherwise: two tokenizers of the same answers look as uncertain as two strangers."""
    described, questions = two_questions
    patients = np.arange(300)
    first = judge(questions, answer(questions, described), patients)
    assert tuple(difference(first, first)) == (0, 0, 0)
    points, low, high = difference(first, judge(questions, answer(questions, described * 0), patients))
    assert low < points < high < 0


def test_patients_are_resampled_not_items():
    """Lost otherwise: intervals that are too narrow, where a patient has many ECGs and questions."""
    of_twenty = np.arange(300) // 20
    alike = of_twenty % 2 == 0  # all ECGs of a patient
    questions = {"q": a_question(alike, (np.arange(200), np.arange(200, 300)))}
    scores, widths = {"q": np.ones(100)}, []
    for patients in (np.arange(300), of_twenty):
        _, low, high = judge(questions, scores, patients)["right"]
        widths.append(high - low)
    assert 0.15 < widths[0] < 0.25 and widths[1] > 0.5


def test_a_question_of_one_answer_is_answered_by_it():
    rows = np.arange(10), np.arange(10, 20)
    question = a_question(np.arange(20) < 10, rows)
    assert (answer({"q": question}, np.zeros((20, 2)))["q"] > 0).all()


def test_intervals_between_beats():
    number, mean, spread, shortest, longest, *steps = intervals(np.arange(0, 5000, 400))
    assert [number, mean, shortest, longest] == pytest.approx([13, 0.8, 0.8, 0.8])
    assert [spread, *steps] == pytest.approx([0, 0, 0])
    assert intervals(np.array([10, 900, 1400, 2900]))[2] > 0.3
    assert intervals(np.array([7])).tolist() == [1, 0, 0, 0, 0, 0, 0]


def write_questions(folder, counts):
    """Questions on the records of `write_data_set`; returns the words that name them."""
    words = dict(word.split("=", 1) for word in write_data_set(folder, **counts))
    for split, first in (("train", 0), ("test", 100)):
        items = []
        for number in range(first, first + counts["train" if split == "train" else "valid"]):
            for question, yes in (("fast?", number % 2), (f"only {split}?", 1), ("open", None)):
                kind = "single-query" if yes is None else "single-verify"
                text = "normal" if yes is None else ("no", "yes")[yes]
                items.append(
                    {"template_id": 1, "question_id": 1, "sample_id": len(items), "question_type": kind}
                    | {"attribute_type": "scp_code", "question": question, "answer": [text], "ecg_id": [number]}
                    | {"attribute": ["x"], "ecg_path": [f"r{number}"], "background": ""}
                )
        (folder / f"template_{split}_background.json").write_text(json.dumps(items))
    rows = [f"{n},{n // 2},r{n}\n" for n in (*range(counts["train"]), *range(100, 100 + counts["valid"]))]
    (folder / "files/ptbxl_database.csv").write_text("ecg_id,patient_id,filename_hr\n" + "".join(rows))
    return ["--root", words["ROOT_ECG"], "--questions", str(folder)]


def test_only_yes_and_no_that_both_splits_ask(tmp_path):
    write_questions(tmp_path, {"train": 4, "valid": 2})
    paths, questions = read_questions(tmp_path)
    assert list(questions) == ["fast?"] and set(paths) >= {"r0", "r3", "r100", "r101"}
    rows = {split: [paths[row] for row in questions["fast?"].rows[split]] for split in SPLITS}
    assert rows == {"train": ["r0", "r1", "r2", "r3"], "test": ["r100", "r101"]}
    assert questions["fast?"].yes["train"].tolist() == [False, True, False, True]


def test_the_whole(tmp_path, capsys):
    words = write_questions(tmp_path, {"train": 12, "valid": 10})
    for name, config in (("one", WITH_AMPLITUDE), ("two", WITH_AMPLITUDE)):
        small_tokenizer(0, config).save(tmp_path / name)
    tokenizers = [str(tmp_path / "one"), str(tmp_path / "two")]
    main([*words, "--checkpoint", *tokenizers, "--out", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    kept = json.loads((tmp_path / "out.json").read_text())
    one, two = (kept["tokenizers"][name] for name in tokenizers)
    assert one == two and one["items"] == 10 and one["patients"] == 5 and len(one["scores"]["fast?"]) == 10
    assert "of 10 yes/no questions right (5 patients)" in said and "+0.0 points [+0.0, +0.0]" in said


def test_an_exam_and_a_network_on_the_signals_stand_beside_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.rival.PASSES", 1)
    words = write_questions(tmp_path, {"train": 12, "valid": 10})
    small_tokenizer(0, WITH_AMPLITUDE).save(tmp_path / "one")
    items = json.loads((tmp_path / "template_test_background.json").read_text())
    rows = [
        {"index": n, "prediction": item["answer"], "reference": item["answer"], **item} for n, item in enumerate(items)
    ]
    for row in rows:  # right, by likelihoods that say so
        values = [-1.0, -2.0] if row["answer"] == ["yes"] else [-2.0, -1.0]
        row |= {"candidates": [["yes"], ["no"]], "log_likelihoods": values}
    exam = tmp_path / "predictions.jsonl"
    exam.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words += ["--checkpoint", str(tmp_path / "one"), "--rival", "--predictions", str(exam)]
    main([*words, "--out", str(tmp_path / "out.json")])
    kept = json.loads((tmp_path / "out.json").read_text())["tokenizers"]
    assert kept[str(exam)]["right"][0] == kept[str(exam)]["auroc"][0] == 1
    assert len(kept["residual network on the signals"]["scores"]["fast?"]) == 10
    exam.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(SystemExit):
        main(words)
    assert "must be of the same test manifest" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["files/ptbxl_database.csv", "files/r3.hea", "template_test_background.json"])
def test_what_is_missing_is_said_in_a_line(missing, tmp_path, capsys):
    words = write_questions(tmp_path, {"train": 4, "valid": 2})
    small_tokenizer(0).save(tmp_path / "one")
    (tmp_path / missing).unlink()
    with pytest.raises(SystemExit) as stop:
        main([*words, "--checkpoint", str(tmp_path / "one")])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 2 and len(lines) == 1
