"""From the ECGs of a download to manifests and a card: what is the same for PTB-XL and MIMIC-IV-ECG."""

import dataclasses
from pathlib import Path

from data_provider.prepare.card import by_type, write_data_set
from data_provider.prepare.ecgqa import EcgQa, map_samples
from data_provider.prepare.inventory import SPLITS, duplicate_groups
from data_provider.prepare.leaks import HeldOut
from data_provider.prepare.mimic import MEASUREMENTS, RECORDS, read_mimic
from data_provider.prepare.ptbxl import STATEMENTS, TABLE, read_ptbxl
from data_provider.prepare.questions import make_questions
from data_provider.prepare.record_checks import check_signals
from data_provider.prepare.reports import compose_report, read_reports, report_items
from utils.tools import sha256_file


def prepare_ptbxl(root, out, name=None, report_source="original", rate=500, **common):
    """Write the manifests of a PTB-XL download, or of one in its layout.

    Parameters
    ----------
    root, out : str or Path
        The download; where the manifests go.
    name : str, optional
        Name of the data set: ``OUT/report/NAME``, ``OUT/ecgqa/NAME``; by default ``ptbxl``, for ECG-QA's paraphrased
        questions ``ptbxl-paraphrased``.
    report_source : "original", "scp", or a CSV file
        PTB-XL's text, English sentences from its annotations, or a table of ``ecg_id`` and text.
    rate : {500, 100}
        Which of PTB-XL's two versions of each record.
    common
        See `Options`.

    Returns
    -------
    card : dict
        What is written to the data set's card.
    """
    root, options = Path(root), Options(**common)
    texts = read_reports(report_source) if report_source not in ("original", "scp") else None
    ecgqa_source = options.ecgqa_of("ptbxl")
    column = {500: "filename_hr", 100: "filename_lr"}[rate]
    index, statements = read_ptbxl(root, options.check, column, options.limit)
    sources = {file: sha256_file(root / file) for file in (TABLE, STATEMENTS)}
    for ecg in index.ecgs.values():
        if report_source == "scp":
            ecg.report = compose_report(ecg.found, statements)
        elif texts is not None:
            ecg.report = texts.get(ecg.ecg_id, "")
    if texts is not None:
        sources["reports"] = sha256_file(report_source)
    rules = {"report_source": report_source if texts is None else "table", "rate": rate}
    rules |= {"splits": "strat_fold 1-8 train, 9 valid, 10 test"}
    rules["statements"] = "likelihood 50 and more: present; 0: present unless purely diagnostic; others: not asked"
    return _prepare(
        root, out, name or options.name_of("ptbxl"), index, statements, ecgqa_source, sources, rules, options
    )


def prepare_mimic(root, out, name=None, report_join="sentences", **common):
    """Write the manifests of a MIMIC-IV-ECG download; their records lie below its folder ``files``.

    Parameters
    ----------
    root, out, name, common
        As for `prepare_ptbxl`.
    report_join : {"sentences", "published"}
        See `data_provider.prepare.mimic`.

    Returns
    -------
    card : dict
    """
    root, options = Path(root), Options(**common)
    ecgqa_source = options.ecgqa_of("mimic-iv-ecg")
    index, statements = read_mimic(
        root, options.check, options.limit, report_join, options.seed, annotate=not ecgqa_source
    )
    sources = {file: sha256_file(root / file) for file in (RECORDS, MEASUREMENTS)}
    rules = {"report_join": report_join, "splits": "by patient: SHA-256 of seed and subject_id, 80/10/10 %"}
    rules["statements"] = "machine statements; possible, probable, consider, borderline: not asked"
    return _prepare(
        root / "files",
        out,
        name or options.name_of("mimic-iv-ecg"),
        index,
        statements,
        ecgqa_source,
        sources,
        rules,
        options,
    )


@dataclasses.dataclass(frozen=True)
class Options:
    """What is common to all data sets.

    Attributes
    ----------
    ecgqa : str or Path, optional
        A copy of ECG-QA. Its samples and splits are used then (a report goes where its patient is); without one,
        questions are made from the annotations.
    questions : {"template", "paraphrased"}
        Which of ECG-QA's wordings.
    check : {"none", "headers", "signals"}
        How closely each record is looked at; "signals" also writes ``OUT/NAME/quality.csv``.
    workers : int
        Processes that check signals.
    limit : int, optional
        Use only the first so many records on disk.
    questions_per_ecg, min_positives, seed
        See `data_provider.prepare.questions.make_questions`.
    """

    ecgqa: str | Path | None = None
    questions: str = "template"
    check: str = "headers"
    workers: int = 0
    limit: int | None = None
    questions_per_ecg: int = 12
    min_positives: int = 5
    seed: int = 0

    def name_of(self, data_set):
        """The data set's name in paths: questions of another wording lie apart, under the published file names."""
        return data_set if self.questions == "template" or not self.ecgqa else f"{data_set}-{self.questions}"

    def ecgqa_of(self, data_set):
        """The copy of ECG-QA for a data set, looked at before anything long; None without one."""
        return EcgQa(self.ecgqa, data_set, self.questions) if self.ecgqa else None


def _prepare(records, out, name, index, statements, ecgqa_source, sources, rules, options):
    """What comes after a download's tables are read. ``records`` is the folder that record paths start from."""
    out = Path(out)
    if options.check == "signals":
        check_signals(records, index, out / name / "quality.csv", options.workers)
    duplicates = duplicate_groups(records, index) if options.check != "none" else []
    rules = {**rules, "check": options.check, "seed": options.seed}
    card = {
        "sources": sources,
        "records": None,
        "rules": rules,
        "duplicates": duplicates if options.check != "none" else None,
    }
    if ecgqa_source:
        held_out = split_like(ecgqa_source, index, duplicates)
        items, card["questions"], card["notes"] = map_ecgqa(ecgqa_source, index, held_out)
        sources.update(ecgqa_source.hashes())
        rules |= {
            "splits": "ECG-QA's; other ECGs where their patient is, else train",
            "questions": ecgqa_source.questions,
        }
    else:
        ecgs = index.ecgs.values()
        held_out = HeldOut([ecg.ecg_id for ecg in ecgs if ecg.split != "train"], index.patients, duplicates)
        trainable = [ecg for ecg in ecgs if ecg.split != "train" or not held_out.reason(ecg.ecg_id)]
        limits = {"questions_per_ecg": options.questions_per_ecg, "min_positives": options.min_positives}
        items, card["questions_not_asked"] = make_questions(trainable, statements, **limits, seed=options.seed)
        card["questions"] = {split: {"kept": by_type(items[split])} for split in SPLITS}
        rules |= {**limits, "balance": "no answer of a question more often than the next frequent one"}
    card["records"] = index.counts()
    reports, card["reports"] = report_items(index, held_out)
    return write_data_set(out, name, reports, items, card, index.patients, duplicates)


def split_like(ecgqa_source, index, duplicates):
    """Put every ECG into the split where ECG-QA has it or its patient; returns what must not be trained on."""
    splits = ecgqa_source.ecg_splits()
    of_patient = {}
    for split in SPLITS:  # test last: it wins
        for ecg_id, of_ecg in splits.items():
            if of_ecg == split and ecg_id in index.patients:
                of_patient[index.patients[ecg_id]] = split
    for ecg in index.ecgs.values():
        ecg.split = splits.get(ecg.ecg_id) or of_patient.get(ecg.patient_id, "train")
    return HeldOut([ecg_id for ecg_id, split in splits.items() if split != "train"], index.patients, duplicates)


def map_ecgqa(ecgqa_source, index, held_out):
    """The items of every split of a copy of ECG-QA, their counts for the card, and notes."""
    items, counts = {}, {}
    missing = ecgqa_source.missing_chunks()
    for split in SPLITS:
        items[split], samples, left_out = map_samples(ecgqa_source, split, index)
        counts[split] = {"samples": dict(sorted(samples.items())), "mapped": by_type(items[split])}
        if split == "train":
            items[split], leaks = held_out.without_leaks(items[split])
            counts[split]["leaks"] = dict(leaks)
        counts[split] |= {"kept": by_type(items[split]), "left_out": dict(sorted(left_out.items()))}
        counts[split]["missing_chunks"] = missing[split]
    notes = []
    if ecgqa_source.corrected:
        notes.append(
            f"this copy of ECG-QA is from before May 2024: {len(ecgqa_source.corrected)} answers said "
            '"late stage of myocardial infarction" and now say "old stage", as it does since'
        )
    return items, counts, notes
