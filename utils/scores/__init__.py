"""What metrics.json is made of: scores, intervals, floors, controls."""

from utils.scores.compare import compare_files, comparison_lines
from utils.scores.evaluation import between, exact_match, is_exact, score_file, score_table, summary
from utils.scores.floors import attach_floor
from utils.scores.labels import attach_codes, read_codes, read_findings
from utils.scores.predictions import (
    TASKS,
    control_path,
    join_manifest,
    joined_lines,
    patient_of,
    prove_items,
    read_predictions,
    split_answer,
    write_predictions,
)
from utils.scores.report_page import write_page

__all__ = [
    "TASKS",
    "attach_codes",
    "attach_floor",
    "between",
    "compare_files",
    "comparison_lines",
    "control_path",
    "exact_match",
    "is_exact",
    "join_manifest",
    "joined_lines",
    "patient_of",
    "prove_items",
    "read_codes",
    "read_findings",
    "read_predictions",
    "score_file",
    "score_table",
    "split_answer",
    "summary",
    "write_page",
    "write_predictions",
]
