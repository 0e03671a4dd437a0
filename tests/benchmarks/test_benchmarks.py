"""The benchmarks run: they call parts of the stages that nothing else calls from outside."""

from itertools import product

import numpy as np
import pytest

from benchmarks.amplitude import make_tokenizer, select
from benchmarks.tokenizer import WANTED, main
from ecg_tokenizer.codec import EcgTokenizer
from ecg_tokenizer.weights import SHIPPED


@pytest.mark.slow
def test_both_networks_are_measured_and_compared(capsys):
    """Lost otherwise: the script behind the claim on speed, broken by the next change of stage 1's step."""
    import torch

    threads = torch.get_num_threads()
    try:
        main("--rounds 1 --seconds 0 --batch 1 --encode-batch 1 --threads 1 --device cpu".split())
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith(("training  cpu", "encoding  cpu"))]
    assert {(row[0], row[2], row[3]) for row in rows} >= {
        (task, "float32", network) for task in WANTED for network in ("default", "published")
    }
    assert all(float(row[4]) > 0 and float(row[5]) > 0 for row in rows)
    assert "reading and standardising" in said and "memory map" in said and said.count("are wanted") == 2


@pytest.mark.parametrize("words", ["--rounds 0", "--threads -1", "--batch 0", "--seconds nan", "--root {}"])
def test_bad_input_is_one_line(words, tmp_path, capsys):
    """Lost otherwise: a traceback for a folder without records, or minutes of measuring before it."""
    with pytest.raises(SystemExit) as stop:
        main(words.format(tmp_path).split())
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(said) == 1 and said[0].startswith("error: ")


def test_amplitude_codes_are_taken_off_and_nothing_else(tmp_path):
    """Lost otherwise: the two kinds of the benchmark differ in more than the amplitudes."""
    folders = [make_tokenizer(SHIPPED, tmp_path / str(amplitude), amplitude) for amplitude in (True, False)]
    x = np.random.default_rng(0).standard_normal((1, 12, 5000)).astype(np.float32)
    rows = [EcgTokenizer.from_pretrained(folder).encode_rows(x, x.std(-1)) for folder in folders]
    assert rows[0].shape == (1, 325) and (rows[0][:, 12:] == rows[1]).all()


def test_questions_are_sorted_by_what_they_ask_for():
    """Lost otherwise: a score under the wrong name, or an item that counts twice."""
    texts = [
        ("Does it show low QRS voltages?", ["no"]),
        ("Does this ECG belong to the group hypertrophy?", ["yes"]),
        ("Which changes of form?", ["low qrs voltages in the limb leads"]),
        ("What are the diagnoses?", ["sinus rhythm"]),
    ]
    rows = [{"question": question, "reference": answer} for question, answer in texts]
    chosen = [select(rows, *kind) for kind in product(("low qrs voltages", "hypertrophy"), (True, False))]
    assert chosen == [rows[:1], rows[2:3], rows[1:2], []] and select(rows) == rows
