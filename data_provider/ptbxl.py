"""A PTB-XL download (whole or partial, or one in its layout): its table read row by row, every row accounted for."""

import csv
import dataclasses
import math
from collections import Counter
from pathlib import Path

from data_provider.annotations import NOISES, Statements, annotate
from data_provider.manifests import path_fault
from data_provider.records import RecordError, read_millivolts, record_file
from data_provider.wfdb_files import check_wfdb
from utils.tools import UserError

TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
SPLITS = {**{fold: "train" for fold in range(1, 9)}, 9: "valid", 10: "test"}  # as PTB-XL's authors recommend
COLUMNS = (
    *("ecg_id", "patient_id", "age", "sex", "height", "weight", "nurse", "site", "device", "recording_date", "report"),
    *("scp_codes", "heart_axis", "infarction_stadium1", "infarction_stadium2", "extra_beats", *NOISES),
    *("strat_fold", "filename_lr", "filename_hr"),
)


@dataclasses.dataclass
class Ecg:
    """One row of the table whose record is there: ids, split, record path, texts, and findings (see `annotate`)."""

    ecg_id: int
    patient_id: int
    split: str
    path: str
    report: str
    background: str
    found: dict


def read_ptbxl(root, check="headers", column="filename_hr", limit=None):
    """The ECGs of a PTB-XL download.

    Parameters
    ----------
    root : str or Path
    check : {"none", "headers", "signals"}
        "none" only looks whether the record is there, "headers" also whether its header is sound and its file as
        long as it says, "signals" reads it.
    column : {"filename_hr", "filename_lr"}
        500 Hz or 100 Hz records.
    limit : int, optional
        Stop after so many records on disk.

    Returns
    -------
    ecgs : list of Ecg
    statements : Statements
    counts : dict
        "rows", "used", "left_out": {reason: count}, "unreadable": {path: fault}, and
        "patients_in_two_splits" (of those used).
    """
    root = Path(root)
    statements = Statements(read_table(root / STATEMENTS, ("description", "diagnostic", "form", "rhythm")))
    if not statements.names:
        raise UserError(f"{root / STATEMENTS}: holds no statements")
    ecgs, left_out, unreadable, seen, rows = [], Counter(), {}, set(), 0
    for row in read_table(root / TABLE, COLUMNS):
        rows += 1
        if limit is not None and len(ecgs) >= limit:
            left_out["beyond --limit"] += 1
            continue
        try:
            ecg = _read_row(row, column, statements)
            if ecg.ecg_id in seen:
                raise ValueError("an ecg_id that was there before")
            seen.add(ecg.ecg_id)
            _check_record(root / ecg.path, check)
        except RecordError as error:
            left_out["unreadable"] += 1
            unreadable[ecg.path] = error.fault
        except ValueError as error:
            left_out[str(error)] += 1
        else:
            ecgs.append(ecg)
    splits = {}
    for ecg in ecgs:
        splits.setdefault(ecg.patient_id, set()).add(ecg.split)
    crossing = sum(len(of_patient) > 1 for of_patient in splits.values())
    counts = {"rows": rows, "used": len(ecgs), "left_out": dict(left_out), "unreadable": unreadable}
    return ecgs, statements, counts | {"patients_in_two_splits": crossing}


def read_table(path, columns):
    """Rows of a CSV file as dicts, one at a time; a `UserError` when it is not there or lacks a column."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: lacks the column {', '.join(missing)}")
            for row in reader:
                yield {key: value or "" for key, value in row.items() if isinstance(key, str)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def background(row):
    """What the published manifests tell of a patient and a recording, in their form.

    Ages over 89 are written 300, as PTB-XL does from version 1.0.2 on to protect the few people of that age.
    """
    row = {**row, "age": "300"} if _whole(row["age"]).isdigit() and int(_whole(row["age"])) > 89 else row
    patient = [("Patient ID", "patient_id"), ("Age", "age"), ("Sex", "sex"), ("Height", "height"), ("Weight", "weight")]
    recording = [("Nurse ID", "nurse"), ("Site ID", "site")]
    return (
        f"Patient Information: {'; '.join(f'- {name}: {_whole(row[column])}' for name, column in patient)}; "
        f"Recording Details: - Recording Date: {row['recording_date'] or 'nan'}; "
        f"{'; '.join(f'- {name}: {_whole(row[column])}' for name, column in recording)}; "
        f"- Device ID: {row['device'] or 'nan'}."
    )


def _whole(text):
    """A number without its fraction, "nan" for nothing; other text as it is."""
    try:
        value = float(text or "nan")
    except ValueError:
        return text
    return str(int(value)) if math.isfinite(value) else "nan"


def _read_row(row, column, statements):
    try:
        ecg_id, patient_id, fold = (int(float(row[name])) for name in ("ecg_id", "patient_id", "strat_fold"))
    except (ValueError, OverflowError):
        raise ValueError("no ecg_id, patient_id or strat_fold") from None
    if fold not in SPLITS:
        raise ValueError("strat_fold not in 1..10")
    path = row[column].strip()
    if path_fault(path):
        raise ValueError("no record path inside the download")
    found = annotate(row, statements)
    return Ecg(ecg_id, patient_id, SPLITS[fold], path, " ".join(row["report"].split()), background(row), found)


def _check_record(path, check):
    if not record_file(path).is_file():
        raise ValueError("not on disk")
    if check == "headers":
        try:
            check_wfdb(path)
        except ValueError as error:
            raise RecordError(path, str(error)) from error
    elif check == "signals":
        read_millivolts(path)
