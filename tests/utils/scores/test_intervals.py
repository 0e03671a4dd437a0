"""If these fail, a score's interval or a difference between systems means nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.scores.evaluation import score_qa
from utils.scores.figures import corpus_bleu, meteor, shares, text_figures
from utils.scores.intervals import bounds, patients, resample, shares_interval, sums_by_patient
from utils.scores.likelihoods import auroc, score_likelihoods


def qa_row(index, right, patient, **more):
    row = {"index": index, "prediction": ["yes" if right else "no"], "reference": ["yes"], "patient": patient}
    return row | {"question_type": "single-verify", "attribute_type": "noise", "template_id": 1} | more


def test_patients_then_records_then_items():
    rows = [{"patient": "7"}, {"patient": "7"}, {"ecg_path": ["a", "b"]}, {"ecg_path": "a"}, {}]
    of_row, kind = patients(rows)
    assert of_row[0] == of_row[1] and of_row[2] == of_row[3] and len(set(of_row)) == 3 and kind == "items"
    assert patients(rows[:2])[1] == "patients" and patients(rows[:4])[1] == "records"


def test_whole_patients_are_drawn_and_the_interval_is_that_of_their_means():
    rng = np.random.default_rng(0)
    means = rng.random(400)
    of_patient = np.repeat(np.arange(400), 10)  # ten equal answers a patient: only patients vary
    figures = shares(of_patient, {("all",): np.ones(4000, bool)}, means[of_patient])
    low, high = bounds(resample(400, {"a": figures}, 4000)["a"], 400)[0]
    reach = 1.96 * means.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(reach, rel=0.08)


def test_draws_are_the_same_whatever_else_is_computed():
    one = {"a": lambda weights: weights[:, :1]}
    assert np.array_equal(resample(50, one, 300)["a"], resample(50, one, 300, width=10**6)["a"])


def test_equal_systems_differ_by_nothing_and_one_patient_tells_nothing():
    rows = [qa_row(i, i % 3 == 0, str(i // 4)) for i in range(40)]
    metrics = score_qa(rows, {"shuffled": rows}, resamples=200)
    pair = metrics["paired"]["shuffled"]["exact_match"]["overall"]
    assert pair == {"difference": 0.0, "interval": [0.0, 0.0]}
    low, high = metrics["exact_match"]["interval"]["by_template"]["1"]
    assert low < metrics["exact_match"]["by_template"]["1"] < high
    alone = score_qa([qa_row(0, True, "a"), qa_row(1, False, "a")], resamples=50)
    assert alone["exact_match"]["interval"]["overall"] is None


def test_all_right_is_not_certain():
    assert shares_interval([1.0, 1.0], 1.0, 10) == [pytest.approx(0.025 ** (1 / 10)), 1.0]
    assert shares_interval([0.2, 0.4], 0.3, 10) == [0.2, 0.4]


def test_the_figures_of_one_draw_of_everybody_are_those_of_the_metrics():
    from utils.scores.coco_scores import _coco_without_java

    references = ["sinus rhythm normal ecg", "atrial fibrillation", "left axis deviation", "pacemaker ecg"]
    predictions = ["sinus rhythm ecg", "atrial fibrillation", "right axis", "sinus rhythm"]
    scores, parts = _coco_without_java(predictions, references)
    bleu = corpus_bleu(parts["bleu"].sum(0, keepdims=True))[0]
    assert bleu == pytest.approx([scores[f"bleu{n}"] for n in range(1, 5)])
    assert parts["cider"].mean() == pytest.approx(scores["cider"])
    parts |= {"nltk": np.ones((4, 5)), "rouge": np.ones((4, 9)), "meteor": np.ones((4, 23))}
    paths, figures = text_figures(np.arange(4), parts)
    values = dict(zip(paths, figures(np.ones((1, 4)))[0], strict=True))
    assert values["coco", "bleu4"] == pytest.approx(scores["bleu4"])
    assert values["coco", "rouge_l"] == pytest.approx(scores["rouge_l"])


def test_meteor_is_the_jars():
    """Counts and scores that METEOR 1.5's jar gave for pairs of texts, and for all of them together."""
    counts = np.zeros((3, 23))
    counts[0, [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22]] = 10, 9, 3, 2, 6, 6, 1, 1, 5, 7, 7
    counts[1, [0, 1, 4, 5, 21, 22]] = 2
    counts[2, [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 20, 21, 22]] = 7, 7, 4, 4, 2, 2, 4, 4, 1, 1, 2, 7, 7
    assert meteor(counts) == pytest.approx([0.36034183, 1.0, 0.50837871], abs=1e-8)


def test_auroc_is_sklearns_with_weights_and_ties():
    rng = np.random.default_rng(0)
    score, truth, weights = rng.integers(0, 6, 60), rng.random(60) < 0.4, rng.integers(0, 4, (5, 60)).astype(float)
    expected = [roc_auc_score(truth, score, sample_weight=row) for row in weights]
    assert auroc(weights, score, truth) == pytest.approx(expected)


def test_likelihood_scores_by_hand():
    sure, unsure = [np.log(0.9), np.log(0.1)], [np.log(0.6), np.log(0.4)]
    rows = [
        {"candidates": [["yes"], ["no"]], "log_likelihoods": chances, "reference": [truth], "question": "q"}
        for chances, truth in ((sure, "yes"), (sure, "yes"), (unsure, "no"), (unsure, "yes"))
    ]
    found = score_likelihoods(rows, np.arange(4), np.array([True, True, False, True]))
    assert found["brier"] == pytest.approx((2 * 0.01 + 0.36 + 0.16) / 4)
    assert found["calibration_error"] == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)
    assert found["risk_coverage"]["0.5"] == 0 and found["risk_coverage"]["1.0"] == 0.25
    assert found["auroc"]["overall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert [(b["count"], b["right"]) for b in found["reliability"]] == [(2, 0.5), (2, 1.0)]


def test_sums_by_patient():
    assert sums_by_patient(np.array([0, 1, 0]), [1, 2, 4]).tolist() == [[5], [2]]
