"""What a run writes while it goes on: one JSON line a logged step, and the same numbers for TensorBoard.

``log.jsonl`` is the record (plots and tests read it); TensorBoard is for looking on. Both count the optimiser's global
step, which never restarts: not with an epoch, not after an interruption.
"""

import json
import math
from pathlib import Path

from utils.tools import UserError, write_atomically


class RunLog:
    """Append to ``folder/log.jsonl`` and to TensorBoard's files in ``folder/tensorboard/<stage>``.

    Only one process of a run may hold it (rank 0). Usable in a ``with`` statement.

    Parameters
    ----------
    folder : path
        The run's folder; made where it is missing.
    stage : str
        Written into every line; several stages may share a folder.
    resume_step : int or None
        The last step that counts when a run goes on. This stage's lines of later steps are cut off first, since the
        run will write them again. None starts over: all lines of this stage go.
    """

    def __init__(self, folder, stage, resume_step=None):
        from torch.utils.tensorboard import SummaryWriter  # seconds of import: only a run pays them

        self.path = Path(folder) / "log.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        if self.path.exists():
            _cut_off(self.path, stage, -math.inf if resume_step is None else resume_step)
        self._file = self.path.open("a", encoding="utf-8")
        # A folder for each stage: purge_step hides everything of the folder from that step on.
        board = self.path.parent / "tensorboard" / stage
        self._board = SummaryWriter(str(board), purge_step=0 if resume_step is None else resume_step + 1)

    def log(self, *, step, epoch, **numbers):
        """One training line; ``numbers`` are samples, loss, lr, tokens_per_s, seconds, ..."""
        self._write("train", step, epoch, numbers)

    def log_validation(self, step, epoch, val_loss, **more):
        """One validation line; ``more`` are other numbers or dicts of numbers (others TensorBoard misses)."""
        self._write("validation", step, epoch, {"val_loss": val_loss, **more})
        self._board.flush()

    def close(self):
        self._file.close()
        self._board.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, group, step, epoch, values):
        values = {key: _plain(value) for key, value in values.items()}
        for key, value in values.items():
            for name, number in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(number, (int, float)):
                    title = f"{group}/{key.removeprefix('val_')}{'/' if name else ''}{name.replace(' ', '_')}"
                    self._board.add_scalar(title, number, global_step=int(step))
        line = _finite({"stage": self.stage, "epoch": _plain(epoch), "step": int(step), **values})
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()


def read_log(path):
    """The lines of a log.jsonl as dicts, in order. A last line without its end (a killed run) is left out."""
    path = Path(path)
    try:
        whole, _, _half = path.read_text(encoding="utf-8").rpartition("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = []
    for number, text in enumerate(whole.split("\n") if whole else [], start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not valid JSON ({error})") from error
        if not isinstance(line, dict):
            raise UserError(f"{path}: line {number} is not a JSON object")
        lines.append(line)
    return lines


def _cut_off(path, stage, last_step):
    """Keep other stages' lines and this one's up to ``last_step``."""
    kept = [line for line in read_log(path) if line.get("stage") != stage or line.get("step", 0) <= last_step]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _plain(value):
    """Tensors and numpy numbers of one element as Python numbers; the rest as it is."""
    return value.item() if hasattr(value, "item") else value


def _finite(value):
    """The value with null in place of NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    value = _plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
