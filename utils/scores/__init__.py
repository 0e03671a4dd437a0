"""What metrics.json is made of: scores, floors, controls."""

from utils.scores.evaluation import (
    TASKS,
    control_path,
    exact_match,
    score_file,
    split_answer,
    summary,
    write_predictions,
)
from utils.scores.floors import attach_floor

__all__ = [
    "TASKS",
    "attach_floor",
    "control_path",
    "exact_match",
    "score_file",
    "split_answer",
    "summary",
    "write_predictions",
]
