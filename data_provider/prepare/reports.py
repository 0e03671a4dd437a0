"""A data set's report items, and other texts in place of PTB-XL's German reports.

The others are English sentences from the annotations, or a table of translations.
"""

import functools
from collections import Counter

from data_provider.prepare.inventory import SPLITS, Items, read_table
from utils.tools import UserError

NO_TEXT = "no text"
# PTB-XL derived its likelihoods from such words of the reports (Wagner et al. 2020, table 3); this is the way back
DOUBTS = ((100, ""), (80, "probable "), (50, "possible "), (35, "consider "), (0, "cannot rule out "))


def compose_report(found, statements):
    """An English report from a row's findings (see `annotations.annotate`).

    Rhythm first, then the heart axis, the diagnoses by falling likelihood (said in words), the stage of an infarction,
    and changes of form: ``sinus rhythm. left axis deviation. probable inferior myocardial infarction.``
    """
    likelihoods = found["likelihoods"]
    rhythms, diagnoses, forms = (statements.groups.get(kind, {}) for kind in ("rhythm", "diagnostic", "form"))
    rhythm = {statements.names[code] for code in likelihoods if code in rhythms}
    doubted = {code: likelihood for code, likelihood in likelihoods.items() if code in diagnoses and likelihood}
    diagnosis = sorted(doubted, key=lambda code: (-doubted[code], statements.names[code]))
    form = {statements.names[code] for code in likelihoods if code in forms and code not in doubted}
    sentences = sorted(rhythm) + sorted(found.get("heart_axis", {}))
    sentences += [_doubt(doubted[code]) + statements.names[code] for code in diagnosis]
    sentences += sorted(found.get("stage_of_infarction", {})) + sorted(form)
    return " ".join(f"{sentence}." for sentence in dict.fromkeys(sentences))


def _doubt(likelihood):
    return next(words for least, words in DOUBTS if likelihood >= least)


def read_reports(path):
    """ecg_id -> text from a CSV file with a column ``ecg_id`` and one called report, text or translation."""
    texts, column = {}, None
    for number, row in enumerate(read_table(path, ("ecg_id",)), 2):
        if column is None:
            column = next((name for name in ("report", "text", "translation") if name in row), None)
            if column is None:
                raise UserError(f"{path}: lacks the column report, text or translation")
        try:
            texts[int(float(row["ecg_id"]))] = " ".join(row[column].split())
        except (ValueError, OverflowError):
            raise UserError(f"{path}, line {number}: ecg_id is not a number: {row['ecg_id'][:40]}") from None
    return texts


def report_items(index, held_out):
    """Split -> report items, and their counts for the card."""
    ecgs, left_out = {split: [] for split in SPLITS}, Counter()
    for ecg in index.ecgs.values():
        leak = held_out.reason(ecg.ecg_id) if ecg.split == "train" else None
        if leak or not ecg.report:
            left_out[f"leak: {leak}" if leak else NO_TEXT] += 1
        else:
            ecgs[ecg.split].append(ecg)
    reports = {split: Items(functools.partial(map, _report_item, of_split)) for split, of_split in ecgs.items()}
    counts = {split: len(of_split) for split, of_split in ecgs.items()}
    return reports, {"items": counts, "left_out": dict(sorted(left_out.items()))}


def _report_item(ecg):
    return {
        "patient_id": ecg.patient_id,
        "ecg_id": ecg.ecg_id,
        "report": ecg.report,
        "filepath": ecg.path,
        "background": ecg.background,
    }
