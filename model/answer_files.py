"""Answers as they come, on disk: a file a process, a line a batch, so that an exam that was killed can go on.

A line is written in one go and holds all answers of a batch; half a line, of a process that was killed, counts as
none. So a batch has been answered wholly or not at all, and one that is answered again comes out the same.
"""

import json
from pathlib import Path

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


class AnswerFile:
    """Where a process writes its answers; what is half written there, by a process that was killed, goes."""

    def __init__(self, folder, rank):
        path = Path(folder) / PARTIAL / f"rank{rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def write(self, control, answers):
        """Add a batch's answers, (index, answer) pairs; they are out of this process when it returns."""
        self._file.write((json.dumps([control, list(answers)], ensure_ascii=False) + "\n").encode())
        self._file.flush()
