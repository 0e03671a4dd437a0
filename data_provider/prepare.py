"""A data set's download -> the manifests that the stages read, and a card that says what went in and what did not.

    python -m data_provider.prepare ptbxl --root DIR --out dataset
"""

import argparse
from collections import Counter
from pathlib import Path

from data_provider.manifests import write_manifest
from data_provider.ptbxl import STATEMENTS, TABLE, read_ptbxl
from data_provider.questions import make_questions
from utils.tools import entry_point, sha256_file, write_json

SPLITS = ("train", "valid", "test")
CHECKS = ("none", "headers", "signals")


def prepare_ptbxl(
    root, out, name="ptbxl", check="headers", questions_per_ecg=12, min_positives=5, seed=0, limit=None, rate=500
):
    """Write the manifests of a PTB-XL download, or of one in its layout.

    Parameters
    ----------
    root, out : str or Path
        The download; where the manifests go.
    name : str
        Name of the data set: ``OUT/report/NAME``, ``OUT/ecgqa/NAME``, ``OUT/NAME_dataset_card.json``.
    check : {"none", "headers", "signals"}
        How closely each record is looked at.
    questions_per_ecg, min_positives, seed
        See `data_provider.questions.make_questions`.
    limit : int, optional
        Use only the first so many records on disk.
    rate : {500, 100}
        Which of PTB-XL's two versions of each record.

    Returns
    -------
    card : dict
        What is written to the data set's card.
    """
    root, out = Path(root), Path(out)
    column = {500: "filename_hr", 100: "filename_lr"}[rate]
    ecgs, statements, counts = read_ptbxl(root, check, column, limit)
    reports = {split: [_report(ecg) for ecg in ecgs if ecg.split == split and ecg.report] for split in SPLITS}
    questions, dropped = make_questions(ecgs, statements, questions_per_ecg, min_positives, seed)
    files = {}
    for split in SPLITS:
        files[f"report/{name}/{split}.json"] = reports[split]
        files[f"ecgqa/{name}/template_{split}_background.json"] = questions[split]
    for file, items in files.items():
        write_manifest(out / file, items)
    card = {
        "name": name,
        "sources": {file: sha256_file(root / file) for file in (TABLE, STATEMENTS)},
        "records": {**counts, "by_split": {split: sum(ecg.split == split for ecg in ecgs) for split in SPLITS}},
        "reports": {split: len(items) for split, items in reports.items()}
        | {"left_out": {"no text": sum(not ecg.report for ecg in ecgs)}},
        "questions": {split: _by_type(items) for split, items in questions.items()} | {"left_out": dropped},
        "rules": {
            "splits": "strat_fold 1-8 train, 9 valid, 10 test",
            "report": "original text",
            "statements": "likelihood 50 and more: present; 0: present unless purely diagnostic; others: not asked",
            "balance": "no answer of a question more often than the next frequent one",
            "questions_per_ecg": questions_per_ecg,
            "min_positives": min_positives,
            "check": check,
            "rate": rate,
            "seed": seed,
        },
        "files": {file: {"items": len(items), "sha256": sha256_file(out / file)} for file, items in files.items()},
    }
    write_json(out / f"{name}_dataset_card.json", card)
    return card


def summary(card):
    """The card in a few lines."""
    records = card["records"]
    lines = [f"{records['rows']:,} rows: {records['used']:,} used"]
    reasons = sorted(records["left_out"].items(), key=lambda reason: -reason[1])
    lines += [f"  {count:,} left out: {reason}" for reason, count in reasons]
    lines += [f"    {path}: {fault}" for path, fault in list(records["unreadable"].items())[:5]]
    lines.append("  records " + ", ".join(f"{split} {count:,}" for split, count in records["by_split"].items()))
    if records["patients_in_two_splits"]:
        lines.append(f"  {records['patients_in_two_splits']} patients are in more than one split")
    lines.append("reports: " + ", ".join(f"{split} {card['reports'][split]:,}" for split in SPLITS))
    without = card["reports"]["left_out"]["no text"]
    if without:
        lines.append(f"  {without:,} records have no report")
    for split in SPLITS:
        types = [f"{kind} {count:,}" for kind, count in card["questions"][split].items()]
        lines.append(f"questions, {split}: {', '.join(types) or 'none'}")
    for reason, count in card["questions"]["left_out"].items():
        words = {"too_frequent_answer": "for balance", "asked_enough": "as the ECG is asked enough"}[reason]
        lines.append(f"  possible questions left out {words}: {sum(count.values()):,}")
    return "\n".join(lines)


def _report(ecg):
    return {
        "patient_id": ecg.patient_id,
        "ecg_id": ecg.ecg_id,
        "report": ecg.report,
        "filepath": ecg.path,
        "background": ecg.background,
    }


def _by_type(items):
    return dict(sorted(Counter(item["question_type"] for item in items).items()))


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m data_provider.prepare", description=__doc__.splitlines()[0])
    sets = parser.add_subparsers(dest="dataset", required=True)
    ptbxl = sets.add_parser("ptbxl", help="PTB-XL, or a data set in its layout")
    ptbxl.add_argument("--root", required=True, help="the download: holds ptbxl_database.csv and records500/")
    ptbxl.add_argument("--out", default="dataset", help="where the manifests go")
    ptbxl.add_argument("--name", default="ptbxl", help="name of the data set in the manifests' paths")
    ptbxl.add_argument("--check", choices=CHECKS, default="headers", help="how closely records are looked at")
    ptbxl.add_argument("--questions-per-ecg", type=int, default=12, help="most questions about one ECG")
    ptbxl.add_argument("--min-positives", type=int, default=5, help="training ECGs a finding needs to be asked about")
    ptbxl.add_argument("--limit", type=int, help="use the first so many records on disk")
    ptbxl.add_argument("--rate", type=int, choices=(500, 100), default=500, help="records500 or records100")
    ptbxl.add_argument("--seed", type=int, default=0)
    return parser


@entry_point
def main(argv):
    options = vars(build_parser().parse_args(argv))
    options.pop("dataset")
    card = prepare_ptbxl(**options)
    print(summary(card))
    print(f"written to {options['out']}")


if __name__ == "__main__":
    main()
