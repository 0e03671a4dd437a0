"""If these fail, the figures of every results table are wrong, or cannot be recomputed by somebody else."""

import json
import stat
import subprocess
import sys

import pytest

from tests.shared import SHARED, needs_shared
from utils.evaluation import main
from utils.scores import caption_scores, coco_scores
from utils.scores.caption_scores import nltk_pair, nltk_scores, rouge_pair, rouge_scores
from utils.scores.coco_scores import coco_items, ptb_words
from utils.scores.evaluation import score_file, score_qa
from utils.scores.floors import attach_floor, qa_floor, report_floor
from utils.scores.predictions import control_path, read_predictions, split_answer, write_predictions
from utils.tools import REPOSITORY, UserError, write_json

METRICS = SHARED / "reference" / "metrics"
has_java = pytest.mark.skipif(coco_scores.shutil.which("java") is None, reason="needs Java")


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def qa_row(index, prediction, reference, question_type="single-verify", attribute_type="scp_code", **more):
    types = {"question_type": question_type, "attribute_type": attribute_type}
    return {"index": index, "prediction": prediction, "reference": reference, **types, **more}


def report_row(index, prediction, reference, **more):
    return {"index": index, "prediction": prediction, "reference": reference, **more}


def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def fake_java(monkeypatch, tmp_path, script):
    """A `java` that does what the shell script says."""
    path = tmp_path / "java"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(coco_scores, "_java", lambda: str(path))


# agreement with the published system


@needs_shared
def test_nltk_and_rouge_agree_with_the_reference_pair_by_pair():
    caption_scores._find_wordnet()
    expected = json.loads((METRICS / "expected.json").read_text())["per_pair"]
    for case, truth in zip(lines_of(METRICS / "cases.jsonl"), expected, strict=True):
        ours = nltk_pair(case["prediction"], case["reference"])
        assert ours == pytest.approx({name: truth[name] for name in ours}, abs=1e-6), case
        ours = rouge_pair(case["prediction"], case["reference"])
        theirs = {f"{name} {part}": value for name in caption_scores.ROUGES for part, value in truth[name].items()}
        assert ours == pytest.approx(theirs, abs=1e-6), case


@needs_shared
def test_nltk_and_rouge_means_agree_with_the_reference():
    expected = json.loads((METRICS / "expected.json").read_text())["overall"]
    cases = lines_of(METRICS / "cases.jsonl")
    texts = [case["prediction"] for case in cases], [case["reference"] for case in cases]
    assert nltk_scores(*texts) == pytest.approx({**expected["bleu"], "meteor": expected["meteor"]}, abs=1e-6)
    ours = rouge_scores(*texts)
    for name, parts in expected["rouge"].items():
        assert ours[name] == pytest.approx(parts, abs=1e-6)


@needs_shared
def test_qa_agrees_with_the_reference():
    expected = json.loads((METRICS / "qa_expected.json").read_text())
    rows = [
        qa_row(c["id"], split_answer(c["prediction_raw"]), c["answer"], c["question_type"], c["attribute_type"])
        for c in lines_of(METRICS / "qa_cases.jsonl")
    ]
    for row, truth in zip(rows, expected["per_item"], strict=True):
        assert score_qa([row])["exact_match"]["overall"] == truth["exact_match"], row
    ours = score_qa(rows)["exact_match"]
    assert ours["overall"] == 22 / 40
    for key in ("by_question_type", "by_attribute_type"):
        for group, share in ours[key].items():
            assert 100 * share == pytest.approx(expected[key]["em_acc_percent"][group], abs=1e-6)


# small cases by hand


def test_answers_are_sets_and_an_empty_one_is_wrong():
    def right(text, answer):
        return score_qa([qa_row(0, split_answer(text), answer)])["exact_match"]["overall"] == 1

    assert right(" b.a\n", ["a", "b"]) and right("a.a", ["a"])
    assert not right("A", ["a"]) and not right("a.", ["a"]) and not right("a. b", ["a", "b"])
    assert not right("", []) and not right("  ", [""]) and not right("", ["none"])
    assert score_qa([qa_row(0, [], [])])["exact_match"]["overall"] == 0


def test_the_right_text_is_exact_where_an_answer_holds_the_separator():
    """A perfect "72.5 bpm" was wrong (shared/cases/08)."""

    def right(text, answer):
        row = qa_row(0, split_answer(text), answer) | {"floor": answer}
        scores = score_qa([row])
        assert scores["floor"]["overall"] == 1, "the floor's answers are items as well"
        return scores["exact_match"]["overall"] == 1

    assert right("72.5 bpm", ["72.5 bpm"]) and right("qrs 0.12 s.yes", ["yes", "qrs 0.12 s"])
    assert right("sinus rhythm.", ["sinus rhythm."]) and right(" v1.5 .a ", ["v1.5 ", "a"])
    assert not right("72 bpm", ["72.5 bpm"]) and not right("72.6 bpm", ["72.5 bpm"])
    assert not right("sinus rhythm", ["sinus rhythm."]) and not right("sinus rhythm.", ["sinus rhythm"])


def test_one_looping_text_does_not_end_the_scoring_of_all():
    """RecursionError in the rouge package (shared/cases/11); the score is the package's own."""
    looping, reference = " ".join(["left axis deviation"] * 700), "sinus rhythm. left axis deviation"
    depth = sys.getrecursionlimit()
    scores = rouge_scores([looping, "sinus rhythm"], [reference, "sinus rhythm"])
    assert sys.getrecursionlimit() == depth
    alone = rouge_pair(looping, reference)
    assert alone["rouge-l p"] == 1 and alone["rouge-l r"] == pytest.approx(3 / 5)
    assert scores["rouge-l"]["r"] == pytest.approx((3 / 5 + 1) / 2)


def test_qa_shares_by_type():
    rows = [
        qa_row(0, ["yes"], ["yes"], "single-verify", "noise"),
        qa_row(1, ["no"], ["yes"], "single-verify", "scp_code"),
        qa_row(2, ["no"], ["yes"], "single-query", "noise"),
        qa_row(3, ["no"], ["no"], "single-verify", "noise"),
    ]
    scores = score_qa(rows)
    interval = scores["exact_match"].pop("interval")
    assert set(interval) == set(scores["exact_match"]) and interval["overall"][0] < 0.5 < interval["overall"][1]
    assert interval["by_question_type"]["single-query"] is None  # one item tells nothing of others
    assert scores["exact_match"] == {
        "overall": 0.5,
        "by_question_type": {"single-query": 0, "single-verify": pytest.approx(2 / 3)},
        "by_attribute_type": {"noise": pytest.approx(2 / 3), "scp_code": 0},
    }
    assert "skipped" in scores["floor"]


def test_report_scores_by_hand():
    scores = nltk_pair("sinus rhythm", "sinus rhythm normal ekg")
    assert scores["bleu1"] == pytest.approx(0.36787944)  # both words right; brevity penalty exp(1 - 4/2)
    assert nltk_scores(["a b c d", ""], ["a b c d", "a"])["bleu4"] == 0.5
    rouge = rouge_scores(["sinus rhythm"], ["sinus rhythm normal ekg"])
    assert rouge["rouge-1"] == pytest.approx({"p": 1, "r": 0.5, "f": 2 / 3}, abs=1e-6)
    assert set(rouge_pair("...", "a b").values()) == set(rouge_pair(" ", "a b").values()) == {0.0}


@pytest.mark.slow
@has_java
def test_coco_scores_agree_with_pycocoevalcap():
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references = ["Sinus rhythm, rate 72/min.", "atrial fibrillation (rapid)", "ähnlich: 5 µV", "left type"] * 2
    predictions = ["sinus rhythm. rate 70/min", "", "ähnlich 5 µV", "left axis deviation"] * 2
    words = ptb_words({*references, *predictions})
    both = [
        PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
        for texts in (references, predictions)
    ]
    for tokenised, texts in zip(both, (references, predictions), strict=True):
        assert [tokenised[i] for i in range(len(texts))] == [[words[text]] for text in texts]
    found = coco_items({"one": (predictions, references), "same": (references, references)})
    ours = {name: scores for name, (scores, _) in found.items()}
    assert ours["one"]["meteor"] == pytest.approx(Meteor().compute_score(*both)[0], abs=1e-9)
    assert ours["same"]["meteor"] == pytest.approx(1.0) and ours["same"]["bleu4"] > 0.99
    assert set(ours["one"]) == {"bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider"}
    assert 0 < ours["one"]["cider"] < ours["same"]["cider"]


# Java missing or broken


def test_without_java_the_rest_is_scored(monkeypatch, tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [report_row(0, "sinus rhythm", "sinus rhythm", floor="sinus rhythm")])
    no_java(monkeypatch, tmp_path)
    metrics = score_file(path, "report")
    assert "Java is missing" in metrics["coco"]["skipped"] and "Java is missing" in metrics["floor"]["coco"]["skipped"]
    assert metrics["rouge"]["rouge-1"]["r"] == 1.0


def test_a_java_that_fails_gives_its_reason(monkeypatch, tmp_path):
    fake_java(monkeypatch, tmp_path, "echo no heap left >&2; exit 1\n")
    assert "no heap left" in coco_items({"x": (["a"], ["a"])})["x"][0]["skipped"]
    with pytest.raises(coco_scores.JavaError, match="no heap left"):
        coco_scores.java_meteor({"x": (["a"], ["a"])})


def test_a_meteor_that_hangs_is_ended(monkeypatch, tmp_path):
    fake_java(monkeypatch, tmp_path, "exec sleep 60\n")
    with pytest.raises(coco_scores.JavaError, match="no answer within"):
        coco_scores.java_meteor({"x": (["a"], ["a"])}, timeout=0.5)


def test_missing_wordnet_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_scores, "WORDNET", tmp_path / "wordnet.zip")
    with pytest.raises(UserError, match=r"wordnet\.zip"):
        nltk_scores(["a"], ["a"])


# files


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no predictions"),
        ('{"index": 0, "prediction": "a", "reference": "a"}\n{"index"', "line 2 is not valid JSON"),
        ("[]\n", "line 1: is not a JSON object"),
        ('{"index": 0, "reference": "a"}\n', "line 1: has no `prediction`"),
        ('{"index": "0", "prediction": "a", "reference": "a"}\n', "line 1: `index`"),
        ('{"index": 0, "prediction": 5, "reference": "a"}\n', "line 1: `prediction` is not a text"),
        ('{"index": 0, "prediction": ["a"], "reference": ["a"]}\n', "--task qa"),
        ('{"index": 0, "prediction": "a", "reference": "a"}\n' * 2, "line 2: item 0 stands in line 1"),
        ('{"index": 0, "prediction": "a", "reference": "a", "floor": 1}\n', "line 1: `floor`"),
        (
            '{"index": 0, "prediction": "a", "reference": "a"}\n'
            '{"index": 1, "prediction": "a", "reference": "a", "floor": "b"}\n',
            "line 2: either every line",
        ),
    ],
)
def test_malformed_predictions_are_named_with_their_line(tmp_path, text, fault):
    path = tmp_path / "predictions.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_predictions(path, "report")
    assert fault in str(error.value) and str(path) in str(error.value)


def test_qa_rows_need_lists_and_types(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [qa_row(0, "yes", ["yes"])])
    with pytest.raises(UserError, match="line 1: `prediction` is not a list of texts"):
        read_predictions(path, "qa")
    write_predictions(path, [qa_row(0, ["yes"], ["yes"], attribute_type=None)])
    with pytest.raises(UserError, match="line 1: `attribute_type`"):
        read_predictions(path, "qa")
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "none.jsonl", "qa")


def test_the_command_recomputes_all_from_the_files(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [qa_row(i, ["yes" if i else "no"], ["yes"], floor=["no"]) for i in range(4)]
    write_predictions(path, rows)
    write_predictions(control_path(path, "shuffled"), [{**row, "prediction": ["no"]} for row in rows])
    write_json(tmp_path / "provenance.json", {"llm": "tiny"})
    command = [sys.executable, "-m", "utils.evaluation", str(path), "--task", "qa", "--out", str(tmp_path / "m.json")]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "4 items: exact match 75.0 %" in run.stdout
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert list(metrics) == ["count", "exact_match", "floor", "controls", "paired", "resampling", "provenance"]
    assert metrics["exact_match"]["overall"] == 0.75 and metrics["floor"]["overall"] == 0
    assert metrics["controls"] == {"shuffled": {"exact_match": metrics["floor"]}}
    assert metrics["provenance"] == {"llm": "tiny"}


def test_the_command_ends_a_fault_with_one_line_and_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "none.jsonl"), "--task", "qa"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_report_metrics_have_the_layout_of_the_contract(monkeypatch, tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [report_row(i, "sinus rhythm", "sinus rhythm normal ekg", floor="pacemaker") for i in range(3)]
    write_predictions(path, rows)
    write_predictions(control_path(path, "blank"), [{**row, "prediction": ""} for row in rows])
    family = {"bleu1": 0.5, "meteor": 0.5}
    coco = "utils.scores.evaluation.coco_items"  # Java starts slowly
    monkeypatch.setattr(coco, lambda sets: {name: (dict(family), {}) for name in sets})
    metrics = score_file(path, "report")
    names = ["count", "nltk", "rouge", "coco", "labels", "floor", "controls", "paired", "resampling", "provenance"]
    assert list(metrics) == names
    assert list(metrics["floor"]) == list(metrics["controls"]["blank"]) == ["nltk", "rouge", "coco", "labels"]
    assert list(metrics["nltk"]) == ["bleu1", "bleu2", "bleu3", "bleu4", "meteor", "interval"]
    assert set(metrics["rouge"]) == {"rouge-1", "rouge-2", "rouge-l", "interval"} and set(
        metrics["rouge"]["rouge-l"]
    ) == set("prf")
    assert metrics["controls"]["blank"]["nltk"]["bleu1"] == 0 < metrics["nltk"]["bleu1"]


def test_a_control_of_another_run_is_refused(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [qa_row(0, ["yes"], ["yes"])])
    write_predictions(control_path(path, "blank"), [qa_row(0, ["yes"], ["no"])])
    with pytest.raises(UserError, match="predictions_blank"):
        score_file(path, "qa")


# floors


def qa_item(template, answer, question_type="single-verify"):
    return {"template_id": template, "answer": answer, "question_type": question_type}


def test_the_qa_floor_is_the_most_frequent_training_answer():
    train = [qa_item(1, ["yes"]), qa_item(1, ["no"]), qa_item(1, ["no"])]
    train += [qa_item(2, ["b", "a"]), qa_item(2, ["a", "b"])]
    train += [qa_item(2, ["yes"]), qa_item(3, ["q"], "single-query"), qa_item(4, ["z"]), qa_item(4, ["c"])]
    floor = qa_floor(train)
    assert floor(qa_item(1, None)) == ["no"]
    assert floor(qa_item(2, None)) == ["a", "b"]  # as a set, whatever the order
    assert floor(qa_item(4, None)) == ["c"]  # a tie: alphabetical
    assert floor(qa_item(99, None, "single-query")) == ["q"]  # unseen template: its type's
    assert floor(qa_item(99, None)) == floor(qa_item(99, None, "unseen")) == ["a", "b"]
    assert [qa_floor(train[::-1])(item) for item in train] == [floor(item) for item in train]


def test_the_report_floor_is_the_report_most_like_the_others():
    reports = ["sinus rhythm normal ekg"] * 3 + ["sinus rhythm normal ekg left type"] * 2 + ["pacemaker"] * 3
    assert report_floor(reports) == report_floor(reports[::-1]) == "sinus rhythm normal ekg"
    assert report_floor([]) == report_floor([" "]) == ""
    bounded = report_floor([f"report {n} of many" for n in range(500)], candidates=5, sample=10)
    assert bounded in sorted(f"report {n} of many" for n in range(500))[:5]


def test_attached_floors_are_scored_beside_the_predictions():
    train = [qa_item(1, ["no"]), qa_item(2, ["yes"])]
    rows = [qa_row(0, ["yes"], ["yes"]), qa_row(1, ["no"], ["yes"])]
    attach_floor(rows, [qa_item(1, ["yes"]), qa_item(2, ["yes"])], train, "qa")
    assert [row["floor"] for row in rows] == [["no"], ["yes"]]
    assert score_qa(rows)["floor"]["overall"] == 0.5
    rows = [report_row(0, "a", "b")]
    attach_floor(rows, [{"report": "b"}], [{"report": "sinus rhythm"}], "report")
    assert rows[0]["floor"] == "sinus rhythm"
