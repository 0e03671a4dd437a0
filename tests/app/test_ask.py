"""What a user reads of their own ECG must be what the reader says of it, with everything that speaks against it."""

import csv
import json

import numpy as np
import pytest

from app import desk
from app.__main__ import main
from app.ask import DISCLAIMER, Answer, answer, load_reader
from app.known_questions import read_known
from tests.app.reader_maker import TRAIN, VERIFY, item, make_reader, rows
from tests.model.test_stages import run
from tests.tokenizer_maker import beats
from tests.wfdb_maker import write_record
from utils.tools import write_json

AFIB = VERIFY.format("atrial fibrillation")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A reader and four records: of 75 and 40 beats a minute, of half a minute, and a file that is none."""
    folder = tmp_path_factory.mktemp("ask")
    words, llm = make_reader(folder, tasks=["qa", "report"])
    ecgs = folder / "ecgs"
    write_record(ecgs / "one", beats(rate_bpm=75, seed=1))
    write_record(ecgs / "slow", beats(rate_bpm=40, seed=0))
    write_record(ecgs / "long", beats(samples=15000, rate_bpm=75, seed=3))
    (ecgs / "broken.csv").write_text("no ECG\n")
    (folder / "empty").mkdir()
    return folder, words, llm


def ask(world, capsys, *words):
    folder, settings, _ = world
    main([str(folder / "ecgs" / words[0]), *words[1:], *settings])
    return capsys.readouterr().out


def test_one_file_and_two_questions_as_text_and_as_json(world, capsys):
    text = ask(world, capsys, "one", AFIB, "Has the patient a dog?", "--report")
    assert text.startswith(DISCLAIMER) and "heart rate: 75 /min" in text and "report    " in text
    assert "none: the reader was not trained on questions like this" in text
    told = json.loads(ask(world, capsys, "one", AFIB, "Is there afib?", "Has the patient a dog?", "--json"))
    known, paraphrase, unknown = told["answers"]
    assert known["answer"] in (["yes"], ["no"]) and len(known["alternatives"]) == 1
    assert known["probability"] + known["alternatives"][0][1] == pytest.approx(1)
    assert paraphrase["asked_as"] == AFIB and paraphrase["probability"] == known["probability"]
    assert unknown["unknown"] and unknown["answer"] is None
    assert told["ecgs"][0]["measured"]["heart_rate"] == pytest.approx(75, abs=1)


def test_without_a_question_the_report_and_the_standard_questions(world, capsys):
    told = json.loads(ask(world, capsys, "one", "--json"))
    assert told["answers"][0]["question"] == "What is the rhythm of this ECG?"
    assert len(told["answers"]) == 4 and "text" in told["report"]


def test_a_measured_rate_speaks_against_an_answer_and_a_free_question_is_marked(world, capsys):
    tachycardia = VERIFY.format("sinus tachycardia")
    told = json.loads(ask(world, capsys, "slow", tachycardia, VERIFY.format("sinus bradycardia"), "--json"))
    for said, claimed in zip(told["answers"], ("tachycardia", "no sinus bradycardia"), strict=True):
        wrong = said["answer"] == (["yes"] if claimed == "tachycardia" else ["no"])
        assert bool(said["contradiction"]) == wrong
    text = ask(world, capsys, "slow", "Has the patient a dog?", "--free", "MAX_NEW_TOKENS=4")
    assert "not trained on questions like this; what it says is not to be relied on" in text


def test_a_reader_that_never_compared_two_ecgs_says_so():
    _, lines = desk.told(Answer(AFIB, AFIB, None, None, [], False, "", True))
    assert lines[-1] == "it knows no questions about this number of ECGs"


def test_a_longer_record_is_asked_about_window_by_window(world, capsys):
    text = ask(world, capsys, "long", AFIB, "--window", "3")
    assert "3 windows of 10 s; asked about the third (20 to 30 s)" in text
    with pytest.raises(SystemExit) as stopped:
        ask(world, capsys, "long", AFIB, "--window", "4")
    assert stopped.value.code == 2


def test_two_files_are_compared_and_only_by_questions_that_compare(world, capsys):
    folder, _, _ = world
    both = "Is the rhythm of both ECGs the same?"
    told = json.loads(ask(world, capsys, "one", str(folder / "ecgs/slow"), both, AFIB, "--json"))
    assert len(told["ecgs"]) == 2
    assert told["answers"][0]["answer"] in (["yes"], ["no"]) and told["answers"][1]["unknown"]


def test_a_folder_is_a_table_and_a_broken_file_a_row_of_it(world, capsys, tmp_path):
    folder, settings, _ = world
    main([str(folder / "ecgs"), AFIB, "--csv", str(tmp_path / "out.csv"), *settings])
    with open(tmp_path / "out.csv", newline="") as file:
        table = {row["file"]: row for row in csv.DictReader(file)}
    assert set(table) == {"broken.csv", "long.hea", "one.hea", "slow.hea"} and table["broken.csv"]["error"]
    assert table["one.hea"][AFIB] in ("yes", "no")
    assert float(table["slow.hea"]["heart_rate"]) == pytest.approx(40, abs=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["broken.csv"], "broken.csv"),
        (["nothing.dcm"], "nothing.dcm"),
        (["one", "BATCH=3"], "BATCH is no setting of this command"),
        (["one", "LEAD_ORDER=wrong"], "LEAD_ORDER"),
        (["one", "--csv", "x.csv"], "--csv is for a folder"),
        (["Is there afib in it?"], "it is named before the questions"),
        ([".", "--plot", "x.png"], "--json and --plot are for files"),
        (["../empty"], "holds no files"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(world, capsys, words, says):
    with pytest.raises(SystemExit) as stopped:
        ask(world, capsys, *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and says in error


def test_an_answer_below_the_threshold_is_withheld(world, tmp_path):
    folder, settings, _ = world
    checkpoint, tokenizer = (word.split("=", 1)[1] for word in settings)
    sure = load_reader(checkpoint, tokenizer)
    ecg = sure.read(folder / "ecgs/one")
    (said,) = answer(sure, [ecg], [AFIB])
    above, below = (load_reader(checkpoint, tokenizer, threshold=said.probability + d) for d in (1e-6, -1e-6))
    assert not said.abstained
    assert answer(above, [ecg], [AFIB])[0].abstained and not answer(below, [ecg], [AFIB])[0].abstained


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["likelihood", "generate"])
def test_answers_are_those_of_the_exam(world, tmp_path, answers):
    """Else the scores of an exam would say nothing about what users are told."""
    folder, settings, llm = world
    checkpoint, tokenizer = (word.split("=", 1)[1] for word in settings)
    card = json.loads((folder / "reader/heartllm.json").read_text())
    from model.checkpoint_files import llm_hash

    write_json(folder / "reader/heartllm.json", card | {"llm_hash": llm_hash(llm)})
    names = ("one", "slow", "long")
    asked = [one["question"] for one in TRAIN if one["question_type"].startswith("single")]
    asked = list(dict.fromkeys(asked))
    by_question = {one["question"]: one for one in TRAIN}
    test = [{**by_question[question], "ecg_path": name} for name in names for question in asked]
    write_json(tmp_path / "qa/template_train_background.json", TRAIN)
    write_json(tmp_path / "qa/template_test_background.json", test)
    words = [f"ROOT_PATH_ECG={folder / 'ecgs'}", f"ROOT_PATH_JSON={tmp_path / 'qa'}", f"RESULTS={tmp_path}"]
    words += [f"CODES_ROOT={tmp_path / 'codes'}", f"LOCAL_LLM_PATH={llm}", f"ANSWERS={answers}", "USE_AMP=false"]
    run("run_eval.py", "eval", "TASKTYPE=qa", "DATASET=own", "MAX_NEW_TOKENS=12", "THREADS=1", *words, *settings)
    exam = iter(rows(tmp_path / "qa_own_test/predictions.jsonl"))
    reader = load_reader(checkpoint, tokenizer, max_new_tokens=12)
    for name in names:
        ecg = reader.read(folder / "ecgs" / name)
        for said in answer(reader, [ecg], asked, likelihood=answers == "likelihood"):
            row = next(exam)
            assert said.answer == row["prediction"], (name, said.question)
            if answers == "likelihood":
                share = np.exp(row["log_likelihoods"])
                assert said.probability == pytest.approx(share.max() / share.sum(), abs=1e-3)


def test_candidates_are_those_of_the_training_manifest(world):
    """The counts decide how an answer is written; they must survive the file beside the checkpoint."""
    from model.candidates import candidate_rule

    known = read_known(world[0] / "reader")
    rule = candidate_rule(TRAIN)
    for one in TRAIN:
        assert known.candidates(one) == rule(one)
    assert known.candidates(item("?", "single-query", [], None, 121)) == [
        [name] for name in sorted(("atrial fibrillation", "sinus bradycardia", "sinus tachycardia"))
    ]
