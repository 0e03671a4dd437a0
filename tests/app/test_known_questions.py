"""An answer to a question that the reader never learned is worth nothing; one that it learned must not be refused."""

import json

import numpy as np
import pytest

from app.abstention import choose_threshold, main, risk_coverage
from app.ask import SHIPPED
from app.contradictions import against_report, contradictions
from app.known_questions import KnownQuestions, content, questions_of, read_known
from app.measurements import Measurements
from tests.app.reader_maker import TRAIN, VERIFY, item
from utils.tools import REPOSITORY, UserError, read_json

MEASURED = Measurements(110.0, 0.02, 18, 150.0, 90.0, 350.0, 400.0)


def test_most_unknown_questions_are_recognised_and_most_paraphrases_understood():
    """The shipped reader's questions, and others that were written without looking at the rule's results."""
    known = read_known(SHIPPED).about(1)
    test = read_json(REPOSITORY / "tests/app/questions_test.json")
    assert len(test["unknown"]) == 100
    assert sum(not known.match(question).known for question in test["unknown"]) >= 97
    found = [(known.match(question), means) for question, means in test["known"]]
    assert sum(match.known and match.item["question"] == means for match, means in found) >= 50
    assert sum(match.known and match.item["question"] != means for match, means in found) <= 1


def test_every_question_of_the_training_is_known_as_itself():
    known = read_known(SHIPPED).about(1)
    for one in known.items:
        match = known.match(one["question"].upper())
        assert match.known and match.item["question"] == one["question"]


@pytest.mark.parametrize(
    ("question", "means"),
    [
        ("Is there afib?", VERIFY.format("atrial fibrillation")),
        ("Sinus tachycardia?", VERIFY.format("sinus tachycardia")),
        ("What is the rhythm?", "What is the rhythm of this ECG?"),
        ("Is there no afib?", None),
        ("What causes atrial fibrillation?", None),
        ("Is there ventricular tachycardia?", None),
        ("How old is the patient?", None),
        ("", None),
        ("Is the rhythm of both ECGs the same?", None),  # it compares two
    ],
)
def test_what_a_question_is_taken_for(question, means):
    match = KnownQuestions(questions_of(TRAIN)).about(1).match(question)
    assert (match.item["question"] if match.known else None) == means


def test_words_of_any_question_say_nothing():
    assert content("Does this ECG show an A-fib, doctor?") == "atrial fibrillation doctor"


def test_a_damaged_file_of_questions_is_one_line(tmp_path):
    assert read_known(tmp_path) is None
    (tmp_path / "questions.json").write_text('[{"question": "?"}]')
    with pytest.raises(UserError, match="not a list of questions with answers"):
        read_known(tmp_path)


def test_the_threshold_gives_as_many_answers_as_the_risk_allows():
    """By brute force over all thresholds that make a difference."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        probability = np.round(rng.random(rng.integers(1, 30)), 1)
        right = rng.random(len(probability)) < probability
        found = choose_threshold(probability, right, 0.2)
        allowed = [t for t in np.append(np.unique(probability), 0) if risk_coverage(probability, right, t)[0] <= 0.2]
        if found is None:
            assert not allowed
            continue
        risk, coverage = risk_coverage(probability, right, found)
        assert risk <= 0.2 and coverage == max(risk_coverage(probability, right, t)[1] for t in allowed)


def test_the_command_keeps_the_threshold_of_an_exam(tmp_path, capsys):
    row = {"prediction": ["yes"], "question": "?", "question_type": "single-verify", "attribute_type": "a"}
    row |= {"text": "yes", "candidates": [["yes"], ["no"]], "ecg_path": "a", "template_id": 1, "patient": "1"}
    given = [(np.log([0.9, 0.1]), "yes"), (np.log([0.8, 0.2]), "yes"), (np.log([0.6, 0.4]), "no")]
    lines = [row | {"index": i, "log_likelihoods": list(p), "reference": [r]} for i, (p, r) in enumerate(given)]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    main([str(tmp_path / "predictions.jsonl"), "--out", str(tmp_path / "abstention.json")])
    assert read_json(tmp_path / "abstention.json")["threshold"] == pytest.approx(0.7)
    assert "66.7% of 3 answers given, 0.0% of them wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("sinus bradycardia", ["yes"], "heart rate 110"),
        ("sinus bradycardia", ["no"], ""),
        ("sinus tachycardia", ["no"], "heart rate 110"),
        ("sinus tachycardia", ["yes"], ""),
        ("atrial fibrillation", ["yes"], "RR intervals are regular"),
        ("complete left bundle branch block", ["yes"], "QRS duration 90 ms"),
        ("incomplete right bundle branch block", ["yes"], ""),
        ("first degree av block", ["yes"], "PR interval 150 ms"),
        ("long qt-interval", ["yes"], "QTc 400 ms"),
        ("left axis deviation", ["yes"], ""),
        ("normal ecg", ["yes"], "heart rate 110"),
        ("normal ecg", ["no"], ""),
    ],
)
def test_an_answer_is_held_against_the_measurement(name, answer, says):
    lines = contradictions(item(VERIFY.format(name), "single-verify", [], [name]), answer, MEASURED)
    assert says in "".join(lines) and bool(lines) == bool(says)


def test_an_open_answer_and_a_report_are_held_against_it_too():
    query = item("What is the rhythm of this ECG?", "single-query", [])
    assert contradictions(query, ["sinus bradycardia"], MEASURED) and not contradictions(query, ["none"], MEASURED)
    assert against_report("sinus rhythm, rate 60. no atrial fibrillation.", MEASURED) == ["rate 60, measured 110/min"]
    nothing = Measurements(None, None, 0, None, None, None, None)
    assert not against_report("sinus bradycardia, rate 60. atrial fibrillation.", nothing)
