"""Scores from predictions alone: ``python -m utils.evaluation predictions.jsonl --task qa|report``."""

import argparse
from pathlib import Path

from utils.scores import TASKS, score_file, summary
from utils.tools import entry_point, write_json


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m utils.evaluation", description="Recompute all scores from predictions."
    )
    parser.add_argument("predictions", type=Path, help="predictions.jsonl; controls and provenance.json lie beside it")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--out", type=Path, help="metrics.json to write (default: beside the predictions)")
    arguments = parser.parse_args(argv)
    metrics = score_file(arguments.predictions, arguments.task)
    out = arguments.out or arguments.predictions.with_name("metrics.json")
    write_json(out, metrics)
    print("\n".join([*summary(metrics), f"wrote {out}"]))


if __name__ == "__main__":
    main()
