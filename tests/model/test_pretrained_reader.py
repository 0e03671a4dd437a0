"""The reader that comes with the repository answers and reports, and still says what its card's figures were made of.

``python -m tests.model.test_pretrained_reader MANIFEST`` writes the stored answers again, of a QA test manifest.
"""

import sys
from pathlib import Path

import pytest

from data_provider.read import SignalPolicy, fit_signal, read_record
from tests.shared import SHARED, needs_shared
from utils.tools import REPOSITORY, read_json, write_json

READER = REPOSITORY / "model/pretrained"
STORED = Path(__file__).with_name("pretrained_answers.json")
RECORDS, LIMIT = 8, 10_000_000  # ECGs whose answers are stored; bytes that the reader may take


@pytest.fixture(scope="module")
def reader():
    return load()


def load():
    """The reader's `AnswerModel`, and its ECG tokenizer."""
    from ecg_tokenizer.codec import EcgTokenizer
    from model.answering import AnswerModel
    from model.checkpoint_files import CARD
    from model.checkpoints import load_model

    ecg_tokenizer = EcgTokenizer.from_pretrained()
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, tokenizer, vocabulary = load_model(READER, None, **alphabets)
    prompts = read_json(READER / CARD)["inputs"]["prompts"]
    return AnswerModel(model.eval(), tokenizer, vocabulary, prompts), ecg_tokenizer


def answers(reader, items, task, codes):
    """What the reader writes, a text an item; ``codes``: record path -> codes."""
    from model.answering import Exam, answer_batches, plan_exam

    model, ecg_tokenizer = reader
    exam = Exam(dict(enumerate(items)), task, 4, 100)
    plan = plan_exam(model, exam, ecg_tokenizer.row_length)
    found = dict(pair for part in answer_batches(model, exam, plan, plan.batches, codes.__getitem__) for pair in part)
    return [found[index] for index in range(len(items))]


def encoded(reader, path):
    """The codes of a record's file."""
    return reader[1].encode(fit_signal(read_record(path), SignalPolicy()), SignalPolicy().sample_rate)


def test_it_answers_and_reports_on_a_simulated_ecg_with_nothing_else_at_hand(reader, tmp_path):
    from data_provider.simulate import simulate

    simulate(tmp_path, 1, 3, progress=False)
    path = str(next(tmp_path.glob("records500/*/*.hea")).with_suffix(""))
    codes = {"ecg": encoded(reader, path)}
    asked = {"question": "Would a reader of this ECG note normal ecg?", "question_type": "single-verify"}
    (answer,) = answers(reader, [asked | {"ecg_path": "ecg", "answer": ["yes"]}], "qa", codes)
    assert answer.strip() in ("yes", "no")
    (report,) = answers(reader, [{"filepath": "ecg", "report": "", "background": ""}], "report", codes)
    assert "rhythm" in report or "sinus" in report


def test_the_folder_is_small_and_names_no_machine():
    files = [file for file in READER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LIMIT
    assert "/tmp" not in (READER / "heartllm.json").read_text()


@needs_shared
def test_it_says_what_it_said_when_its_figures_were_made(reader):
    stored = read_json(STORED)
    paths = {item["ecg_path"] for item in stored}
    codes = {path: encoded(reader, SHARED / "data/ptbxl" / path) for path in paths}
    now = answers(reader, stored, "qa", codes)
    same = sum(text == item["text"] for text, item in zip(now, stored, strict=True))
    assert same >= 0.97 * len(stored)  # another processor's rounding may turn one that hung in the balance


def main(manifest):
    """Store the answers to the questions on the first records of a test manifest that ../shared holds."""
    reader, root = load(), SHARED / "data/ptbxl"
    items = [item for item in read_json(manifest) if (root / f"{item['ecg_path']}.hea").is_file()]
    paths = sorted({item["ecg_path"] for item in items})[:RECORDS]
    fields = ("question", "question_type", "ecg_path", "answer")
    kept = [{field: item[field] for field in fields} for item in items if item["ecg_path"] in paths]
    texts = answers(reader, kept, "qa", {path: encoded(reader, root / path) for path in paths})
    write_json(STORED, [item | {"text": text} for item, text in zip(kept, texts, strict=True)], indent=None)


if __name__ == "__main__":
    main(sys.argv[1])
