"""A data set's download -> the manifests that the stages read, and a card that says what went in and what did not.

python -m data_provider.prepare ptbxl --root DIR --out dataset [--ecgqa DIR]
"""

import argparse
from collections import Counter
from pathlib import Path

from data_provider.card import by_type, summary, write_data_set
from data_provider.downloads import CHECKS, SPLITS, twin_groups
from data_provider.ecgqa import WORDINGS, EcgQa, map_samples
from data_provider.leaks import HeldOut
from data_provider.ptbxl import STATEMENTS, TABLE, read_ptbxl
from data_provider.questions import make_questions
from data_provider.reports import compose_report, read_reports
from utils.tools import entry_point, sha256_file

NO_TEXT = "no text"


def prepare_ptbxl(
    root,
    out,
    name="ptbxl",
    ecgqa=None,
    questions="template",
    report_source="original",
    check="headers",
    limit=None,
    questions_per_ecg=12,
    min_positives=5,
    seed=0,
    rate=500,
):
    """Write the manifests of a PTB-XL download, or of one in its layout.

    Parameters
    ----------
    root, out : str or Path
        The download; where the manifests go.
    name : str
        Name of the data set: ``OUT/report/NAME``, ``OUT/ecgqa/NAME``.
    ecgqa : str or Path, optional
        A copy of ECG-QA. Its samples and splits are used then (a report goes where its patient is); without one,
        questions are made from the annotations and the splits are PTB-XL's folds.
    questions : {"template", "paraphrased"}
        Which of ECG-QA's wordings.
    report_source : "original", "scp", or a CSV file
        PTB-XL's text, English sentences from its annotations, or a table of ``ecg_id`` and text.
    check : {"none", "headers", "signals"}
        How closely each record is looked at.
    limit : int, optional
        Use only the first so many records on disk.
    questions_per_ecg, min_positives, seed
        See `data_provider.questions.make_questions`.
    rate : {500, 100}
        Which of PTB-XL's two versions of each record.

    Returns
    -------
    card : dict
        What is written to the data set's card.
    """
    root, out = Path(root), Path(out)
    copy = EcgQa(ecgqa, "ptbxl", questions) if ecgqa else None
    texts = read_reports(report_source) if report_source not in ("original", "scp") else None
    download, statements = read_ptbxl(root, check, {500: "filename_hr", 100: "filename_lr"}[rate], limit)
    twins = twin_groups(root, download) if check != "none" else []
    sources = {file: sha256_file(root / file) for file in (TABLE, STATEMENTS)}
    for ecg in download.ecgs.values():
        if report_source == "scp":
            ecg.report = compose_report(ecg.found, statements)
        elif texts is not None:
            ecg.report = texts.get(ecg.ecg_id, "")
    rules = {"report_source": report_source if texts is None else "table", "check": check, "rate": rate}
    card = {"sources": sources, "records": None, "rules": rules, "twins": twins if check != "none" else None}
    if texts is not None:
        sources["reports"] = sha256_file(report_source)
    if copy:
        held_out = split_like(copy, download, twins)
        items, card["questions"], card["notes"] = map_copy(copy, download, held_out)
        sources.update(copy.hashes())
        rules |= {"splits": "ECG-QA's; other ECGs where their patient is, else train", "questions": questions}
    else:
        held_out = HeldOut([e.ecg_id for e in download.ecgs.values() if e.split != "train"], download.patients, twins)
        trainable = [e for e in download.ecgs.values() if e.split != "train" or not held_out.reason(e.ecg_id)]
        items, not_asked = make_questions(trainable, statements, questions_per_ecg, min_positives, seed)
        card["questions"] = {split: {"kept": by_type(items[split])} for split in SPLITS}
        card["questions_not_asked"] = not_asked
        rules |= {"splits": "strat_fold 1-8 train, 9 valid, 10 test", "questions_per_ecg": questions_per_ecg}
        rules |= {"min_positives": min_positives, "seed": seed}
        rules["statements"] = "likelihood 50 and more: present; 0: present unless purely diagnostic; others: not asked"
        rules["balance"] = "no answer of a question more often than the next frequent one"
    card["records"] = download.counts()
    reports, card["reports"] = report_items(download, held_out)
    return write_data_set(out, name, reports, items, card, download.patients, twins)


def split_like(copy, download, twins):
    """Put every ECG into the split where ECG-QA has it or its patient; returns what must not be trained on."""
    splits = copy.ecg_splits()
    of_patient = {}
    for split in SPLITS:  # test last: it wins
        for ecg_id, of_ecg in splits.items():
            if of_ecg == split and ecg_id in download.patients:
                of_patient[download.patients[ecg_id]] = split
    for ecg in download.ecgs.values():
        ecg.split = splits.get(ecg.ecg_id) or of_patient.get(ecg.patient_id, "train")
    return HeldOut([ecg_id for ecg_id, split in splits.items() if split != "train"], download.patients, twins)


def map_copy(copy, download, held_out):
    """The items of every split of a copy of ECG-QA, their counts for the card, and notes."""
    items, counts, copy.corrected = {}, {}, 0
    missing = copy.missing_chunks()
    for split in SPLITS:
        items[split], samples, left_out = map_samples(copy.samples(split), download)
        counts[split] = {"samples": dict(sorted(samples.items())), "mapped": by_type(items[split])}
        if split == "train":
            items[split], leaks = held_out.without_leaks(items[split])
            counts[split]["leaks"] = dict(leaks)
        counts[split] |= {"kept": by_type(items[split]), "left_out": dict(sorted(left_out.items()))}
        counts[split]["missing_chunks"] = missing[split]
    notes = []
    if copy.corrected:
        notes.append(
            f"this copy of ECG-QA is from before May 2024: {copy.corrected} answers said "
            '"late stage of myocardial infarction" and now say "old stage", as it does since'
        )
    return items, counts, notes


def report_items(download, held_out):
    """Split -> report items, and their counts for the card."""
    reports, left_out = {split: [] for split in SPLITS}, Counter()
    for ecg in download.ecgs.values():
        leak = held_out.reason(ecg.ecg_id) if ecg.split == "train" else None
        if leak or not ecg.report:
            left_out[f"leak: {leak}" if leak else NO_TEXT] += 1
            continue
        item = {"patient_id": ecg.patient_id, "ecg_id": ecg.ecg_id, "report": ecg.report, "filepath": ecg.path}
        reports[ecg.split].append({**item, "background": ecg.background})
    counts = {split: len(items) for split, items in reports.items()}
    return reports, {"items": counts, "left_out": dict(sorted(left_out.items()))}


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m data_provider.prepare", description=__doc__.splitlines()[0])
    sets = parser.add_subparsers(dest="dataset", required=True)
    ptbxl = sets.add_parser("ptbxl", help="PTB-XL, or a data set in its layout")
    ptbxl.add_argument("--root", required=True, help="the download: holds ptbxl_database.csv and records500/")
    ptbxl.add_argument("--report-source", default="original", help="original, scp, or a CSV file (ecg_id, text)")
    ptbxl.add_argument("--questions-per-ecg", type=int, default=12, help="most questions about one ECG")
    ptbxl.add_argument("--min-positives", type=int, default=5, help="training ECGs a finding needs to be asked about")
    ptbxl.add_argument("--rate", type=int, choices=(500, 100), default=500, help="records500 or records100")
    for one in (ptbxl,):
        one.add_argument("--out", default="dataset", help="where the manifests go")
        one.add_argument("--ecgqa", help="a copy of ECG-QA's repository; without it questions come from annotations")
        one.add_argument("--questions", choices=WORDINGS, default="template", help="ECG-QA's wording")
        one.add_argument("--check", choices=CHECKS, default="headers", help="how closely records are looked at")
        one.add_argument("--limit", type=int, help="use the first so many records on disk")
        one.add_argument("--seed", type=int, default=0)
    ptbxl.add_argument("--name", default="ptbxl", help="name of the data set in the manifests' paths")
    return parser


@entry_point
def main(argv):
    options = vars(build_parser().parse_args(argv))
    options.pop("dataset")
    print(summary(prepare_ptbxl(**options)))
    print(f"written to {options['out']}")


if __name__ == "__main__":
    main()
