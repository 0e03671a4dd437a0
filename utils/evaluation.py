"""Scores from predictions alone: ``python -m utils.evaluation predictions.jsonl --task qa|report``.

Others' predictions are joined to a manifest (``--manifest``), several systems compared (``compare A B ...``).
"""

import argparse
from pathlib import Path

from utils.scores import (
    TASKS,
    attach_floor,
    compare_files,
    comparison_lines,
    join_manifest,
    joined_lines,
    prove_items,
    read_codes,
    read_predictions,
    score_file,
    score_table,
    summary,
    write_page,
)
from utils.tools import entry_point, read_json, write_json


def main_parser():
    parser = argparse.ArgumentParser(
        prog="python -m utils.evaluation",
        description="All scores from predictions, ours or anyone's. `compare A B ...` puts systems side by side.",
    )
    parser.add_argument(
        "predictions", type=Path, help="JSON lines, .json (a list) or .csv; controls and provenance.json beside"
    )
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--out", type=Path, help="metrics.json to write (default: beside the predictions)")
    parser.add_argument(
        "--manifest", type=Path, help="test manifest: where the predictions don't hold their references"
    )
    parser.add_argument("--train", type=Path, help="training manifest, to add the floor")
    parser.add_argument(
        "--card", type=Path, help="dataset_card.json that the manifest is checked against (default: beside it)"
    )
    parser.add_argument("--field", default="prediction", help="the predictions' field or column (default: prediction)")
    parser.add_argument(
        "--missing", default="wrong", choices=("wrong", "skip"), help="what an unanswered item counts as"
    )
    parser.add_argument("--codes", type=Path, help="ptbxl_database.csv: reports are scored against its SCP codes too")
    parser.add_argument("--page", action="store_true", help="write report.html beside metrics.json")
    return parser


def comparison(argv):
    parser = argparse.ArgumentParser(
        prog="python -m utils.evaluation compare", description="Systems on the same items."
    )
    parser.add_argument(
        "predictions", type=Path, nargs="+", help="predictions or results folders; the first is the base"
    )
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--out", type=Path, help="JSON with all figures and all items that changed")
    arguments = parser.parse_args(argv)
    if len(arguments.predictions) < 2:
        parser.error("name at least two")
    found = compare_files(arguments.predictions, arguments.task)
    print("\n".join(comparison_lines(found)))
    if arguments.out:
        write_json(arguments.out, found)
        print(f"wrote {arguments.out}")


@entry_point
def main(argv):
    if argv and argv[0] == "compare":
        return comparison(argv[1:])
    arguments = main_parser().parse_args(argv)
    path, task = arguments.predictions, arguments.task
    joined = None
    if arguments.manifest:
        card = arguments.card or arguments.manifest.with_name("dataset_card.json")
        proof = prove_items(arguments.manifest, card) if arguments.card or card.exists() else None
        rows, joined = join_manifest(path, task, arguments.manifest, arguments.field, arguments.missing)
        print("\n".join(joined_lines(joined, proof)))
        if arguments.train:
            attach_floor(rows, read_json(arguments.manifest), read_json(arguments.train), task)
    else:
        rows = read_predictions(path, task)
    if arguments.codes:
        codes = read_codes(arguments.codes)
        rows = [{**row, "scp_codes": codes[row["ecg_path"]]} if row.get("ecg_path") in codes else row for row in rows]
    metrics = score_file(path, task, rows)
    if joined:
        metrics["items"] = joined
    out = arguments.out or path.with_name("metrics.json")
    write_json(out, metrics)
    print("\n".join([*summary(metrics), *(score_table(metrics) if joined else []), f"wrote {out}"]))
    if arguments.page:
        write_page(out.with_name("report.html"), rows, metrics)
        print(f"wrote {out.with_name('report.html')}")


if __name__ == "__main__":
    main()
