"""Answers as they come, on disk: a file a process, a line a batch, so that an exam that was killed can go on.

A line is written in one go and holds all answers of a batch; half a line, of a process that was killed, counts as
none. So a batch has been answered wholly or not at all, and one that is answered again comes out the same.
"""

import json
import os
from pathlib import Path

from utils.sharing import gathered
from utils.tools import UserError

PARTIAL = "predictions.partial"  # the sub-folder; it may be deleted when an exam is finished


def read_answers(folder):
    """All answers in ``folder/predictions.partial``, of any number of processes.

    Returns
    -------
    dict
        Control ("" for none) -> {index of the item: answer}.
    """
    answers = {}
    for path in sorted((Path(folder) / PARTIAL).glob("rank*.jsonl")):
        whole = path.read_bytes().rpartition(b"\n")[0]
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                control, batch = json.loads(line)
                answers.setdefault(control, {}).update(batch)
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}: line {number} holds no answers ({error}); remove the line or file") from error
    return answers


def all_answers(folder, reads):
    """As `read_answers`, of all machines' folders; all processes call it, and those with ``reads`` read theirs."""
    answers = {}
    for found in gathered(read_answers(folder) if reads else {}):
        for control, batch in found.items():
            answers.setdefault(control, {}).update(batch)
    return answers


def write_answers(folder, rank, control, answers):
    """Add a batch's answers, (index, answer) pairs, to this process's file; they have left it when this returns."""
    path = Path(folder) / PARTIAL / f"rank{rank}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":  # half a line, of a process that was killed
            file.truncate(os.pread(file.fileno(), end, 0).rfind(b"\n") + 1)
        file.write((json.dumps([control, list(answers)], ensure_ascii=False) + "\n").encode())
