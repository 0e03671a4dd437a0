"""A MIMIC-IV-ECG download, whole or partial: its two tables streamed, its machine statements as reports.

Statements become a report by this rule: marks around a statement (``***``, ``---``) and its full stop go; those that
speak of the analysis and not of the heart (`BOILERPLATE`) are left out; the others are joined with ". " and closed with
".". The published texts were joined with "." alone (``join="published"``), where "rhythm.Abnormal" is one word to BLEU.
"""

import re
import sys
from pathlib import Path

from tqdm import tqdm

from data_provider.manifests import path_fault
from data_provider.prepare.annotations import merge, plain_name
from data_provider.prepare.inventory import (
    NOT_ON_DISK,
    DatasetIndex,
    Ecg,
    check_headers,
    is_on_disk,
    read_table,
    split_of,
)

RECORDS, MEASUREMENTS = "record_list.csv", "machine_measurements.csv"
REPORT_COLUMNS = tuple(f"report_{number}" for number in range(18))
JOINS = ("sentences", "published")
BOILERPLATE = re.compile(
    r"^(warning: data quality|report made without|age not entered|pacer detection suspended|unconfirmed|"
    r"lead\(s\) unsuitable for analysis|summary: (?:un)?confirmed|no further rhythm analysis|no further analysis)",
    re.IGNORECASE,
)
DOUBT = re.compile(r"^(possible|probable|probably|consider|suggests?|strongly suggests|cannot rule out|borderline)\s+")
RHYTHM = re.compile(r"\b(rhythm|bradycardia|tachycardia|fibrillation|flutter|arrhythmia|paced|pacing|pacemaker)\b")


class MachineStatements:
    """Names and groups of the statements met so far, as `questions.make_questions` wants them."""

    def __init__(self):
        self.groups = {"rhythm": {}, "diagnostic": {}}

    def annotate(self, parts):
        """Findings of a report's statements.

        ``Possible inferior infarct - age undetermined`` makes "inferior infarct" uncertain, ``Sinus rhythm with
        PAC(s)`` is both "sinus rhythm" and "pac(s)". Judgements of the whole ("abnormal ecg") are findings too.
        """
        found = {}
        for part in parts:
            text = plain_name(part.split(" - ")[0])
            doubt = DOUBT.match(text)
            for name in re.split(r"\s+with\s+", DOUBT.sub("", text)):
                name = sys.intern(name)  # a few hundred different ones in 800,000 reports
                if name:
                    merge(found, name, None if doubt else True)
                    self.groups["rhythm" if RHYTHM.search(name) else "diagnostic"][name] = name
        return {"scp_code": found}


def read_mimic(root, check="headers", limit=None, join="sentences", seed=0, annotate=True):
    """The ECGs of a MIMIC-IV-ECG download; ids are study_ids, patients subject_ids, paths start below ``files/``.

    Parameters
    ----------
    root : str or Path
        Holds ``record_list.csv``, ``machine_measurements.csv`` and ``files/``.
    check, limit
        As in `ptbxl.read_ptbxl`.
    join : {"sentences", "published"}
        How statements become a report.
    seed : int
        Of the split: a patient's depends on it and the subject_id alone, whatever else is there.
    annotate : bool
        Whether findings are wanted, for questions.

    Returns
    -------
    index : DatasetIndex
    statements : MachineStatements
    """
    root = Path(root)
    index, statements = DatasetIndex(), MachineStatements()
    for row in tqdm(read_table(root / RECORDS, ("subject_id", "study_id", "path")), desc=RECORDS, unit="row", delay=2):
        index.rows += 1
        ecg_id, patient_id = _ids(row)
        if ecg_id is None:
            index.leave_out(None, "no subject_id or study_id")
            continue
        if ecg_id in index.patients:
            index.leave_out(None, "a study_id that was there before")
            continue
        index.patients[ecg_id] = patient_id
        path = row["path"].strip().removeprefix("files/")
        if path_fault(path):
            index.leave_out(ecg_id, "no record path inside the download")
        elif limit is not None and len(index.ecgs) >= limit:
            index.leave_out(ecg_id, "beyond --limit")
        elif is_on_disk(root / "files", path):
            index.ecgs[ecg_id] = Ecg(ecg_id, patient_id, split_of(patient_id, seed), path)
        else:
            index.leave_out(ecg_id, NOT_ON_DISK)
    _read_measurements(root / MEASUREMENTS, index, statements if annotate else None, join)
    if check != "none":
        check_headers(root / "files", index)
    return index, statements


def _read_measurements(path, index, statements, join):
    """Reports and backgrounds from the second table; of other studies nothing is kept."""
    columns = ("subject_id", "study_id", "cart_id", "ecg_time", "bandwidth", "filtering", *REPORT_COLUMNS)
    for row in tqdm(read_table(path, columns), desc=MEASUREMENTS, unit="row", delay=2):
        ecg = index.ecgs.get(_ids(row)[0])
        if ecg is None or ecg.background:
            continue
        parts = [row[column] for column in REPORT_COLUMNS if row[column].strip()]
        ecg.report = join_report(parts, join)
        ecg.background = background(row)
        if statements:
            ecg.found = statements.annotate(clean_statements(parts))
    for ecg in list(index.ecgs.values()):
        if not ecg.background:
            index.leave_out(ecg.ecg_id, f"not in {MEASUREMENTS}")


def clean_statements(parts):
    """Statements without marks and full stops, without boilerplate."""
    cleaned = (" ".join(part.split()).strip("*-. ") for part in parts)
    return [part for part in cleaned if part and not BOILERPLATE.match(part)]


def join_report(parts, join="sentences"):
    """The report of a list of machine statements (see the top of this file)."""
    if join == "published":
        return ".".join(parts) + "." if parts else ""
    return " ".join(f"{part}." for part in clean_statements(parts))


def background(row):
    """What the published manifests tell of a recording, in their form."""
    values = {"Patient ID": "subject_id", "Recording Date": "ecg_time", "Device ID": "cart_id"}
    values |= {"Bandwidth": "bandwidth", "Filtering": "filtering"}
    return "Recording Details: " + "; ".join(f"- {name}: {row[key] or 'nan'}" for name, key in values.items()) + "."


def _ids(row):
    try:
        return int(float(row["study_id"])), int(float(row["subject_id"]))
    except (ValueError, OverflowError):
        return None, None
