"""If these fail, training curves lie: steps that repeat or restart, lines that cannot be read."""

import json

import numpy as np
import pytest

from utils.log import RunLog, read_log
from utils.tools import UserError


def write_run(folder, steps, resume_step=None, stage="finetune"):
    with RunLog(folder, stage, resume_step=resume_step) as log:
        for step in steps:
            log.log(step=step, epoch=step // 3, samples=4 * step, loss=1 / step, lr=1e-4, tokens_per_s=9.0, seconds=1.0)


def scalars(folder, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_line_holds_the_contract_and_is_on_disk_at_once(tmp_path):
    log = RunLog(tmp_path, "pretrain")
    log.log(step=1, epoch=0, samples=8, loss=np.float32(2.5), lr=1e-4, tokens_per_s=100, seconds=0.5)
    log.log_validation(1, 0, val_loss=2.25, bits_per_code=3.2)
    train, validation = read_log(tmp_path / "log.jsonl")  # read before close: flushed line by line
    assert list(train) == ["stage", "epoch", "step", "samples", "loss", "lr", "tokens_per_s", "seconds"]
    assert train["loss"] == 2.5
    assert validation == {"stage": "pretrain", "epoch": 0, "step": 1, "val_loss": 2.25, "bits_per_code": 3.2}
    log.close()
    assert scalars(tmp_path / "tensorboard" / "pretrain", "validation/bits_per_code") == [1]


def test_a_resumed_run_repeats_no_step(tmp_path):
    write_run(tmp_path, [1, 2, 3], stage="pretrain")
    write_run(tmp_path, [1, 2, 3, 4, 5])
    write_run(tmp_path, [4, 5, 6], resume_step=3)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines if line["stage"] == "finetune"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if line["stage"] == "pretrain"] == [1, 2, 3]
    assert scalars(tmp_path / "tensorboard" / "finetune", "train/loss") == [1, 2, 3, 4, 5, 6]
    assert scalars(tmp_path / "tensorboard" / "pretrain", "train/loss") == [1, 2, 3]


def test_a_run_that_starts_over_begins_an_empty_curve(tmp_path):
    write_run(tmp_path, [1, 2, 3])
    write_run(tmp_path, [1])
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1]


def test_a_run_killed_inside_a_line_goes_on(tmp_path):
    write_run(tmp_path, [1, 2])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "finetune", "st')
    write_run(tmp_path, [3], resume_step=2)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    with RunLog(tmp_path, "tokenizer") as log:
        log.log(step=1, epoch=0, loss=float("nan"), lr=float("inf"))
        log.log_validation(1, 0, float("nan"), by_lead={"I": float("-inf"), "II": 1.0})

    def refuse(name):
        raise ValueError(name)

    train, validation = [
        json.loads(text, parse_constant=refuse) for text in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert train["loss"] is None and train["lr"] is None
    assert validation["by_lead"] == {"I": None, "II": 1.0}


def test_a_broken_log_is_named_with_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(UserError, match="line 2"):
        read_log(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_log(tmp_path / "missing.jsonl")
