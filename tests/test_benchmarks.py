"""The benchmark of the tokenizer runs: it calls parts of stage 1 that nothing else calls from outside."""

import pytest

from benchmarks.tokenizer import WANTED, main


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
