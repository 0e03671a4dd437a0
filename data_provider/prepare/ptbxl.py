"""A PTB-XL download (whole or partial, or one in its layout): its table read row by row, every row accounted for."""

import math
from pathlib import Path

from data_provider.manifests import path_fault
from data_provider.prepare.annotations import NOISES, Statements, annotate
from data_provider.prepare.inventory import NOT_ON_DISK, DatasetIndex, Ecg, check_headers, is_on_disk, read_table
from utils.tools import UserError

TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
FOLDS = {**{fold: "train" for fold in range(1, 9)}, 9: "valid", 10: "test"}  # as PTB-XL's authors recommend
COLUMNS = (
    *("ecg_id", "patient_id", "age", "sex", "height", "weight", "nurse", "site", "device", "recording_date", "report"),
    *("scp_codes", "heart_axis", "infarction_stadium1", "infarction_stadium2", "extra_beats", *NOISES),
    *("strat_fold", "filename_lr", "filename_hr"),
)


def read_ptbxl(root, check="headers", column="filename_hr", limit=None):
    """The ECGs of a PTB-XL download.

    Parameters
    ----------
    root : str or Path
    check : {"none", "headers", "signals"}
        "none" only looks whether the record is there, the others also whether its header is sound, its file as long as
        it says and that at least 10 s.
    column : {"filename_hr", "filename_lr"}
        500 Hz or 100 Hz records.
    limit : int, optional
        Stop after so many records on disk.

    Returns
    -------
    index : DatasetIndex
    statements : Statements
    """
    root = Path(root)
    statements = Statements(read_table(root / STATEMENTS, ("description", "diagnostic", "form", "rhythm")))
    if not statements.names:
        raise UserError(f"{root / STATEMENTS}: holds no statements")
    index = DatasetIndex()
    for row in read_table(root / TABLE, COLUMNS):
        index.rows += 1
        try:
            ecg_id, patient_id, fold = (int(float(row[name])) for name in ("ecg_id", "patient_id", "strat_fold"))
        except (ValueError, OverflowError):
            index.leave_out(None, "no ecg_id, patient_id or strat_fold")
            continue
        if ecg_id in index.patients:
            index.leave_out(None, "an ecg_id that was there before")
            continue
        index.patients[ecg_id] = patient_id
        if limit is not None and len(index.ecgs) >= limit:
            index.leave_out(ecg_id, "beyond --limit")
            continue
        try:
            ecg = _read_row(row, ecg_id, patient_id, fold, column, statements)
        except ValueError as error:
            index.leave_out(ecg_id, str(error))
            continue
        if is_on_disk(root, ecg.path):
            index.ecgs[ecg_id] = ecg
        else:
            index.leave_out(ecg_id, NOT_ON_DISK)
    if check != "none":
        check_headers(root, index)
    return index, statements


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


def _read_row(row, ecg_id, patient_id, fold, column, statements):
    if fold not in FOLDS:
        raise ValueError("strat_fold not in 1..10")
    path = row[column].strip()
    if path_fault(path):
        raise ValueError("no record path inside the download")
    found = annotate(row, statements)
    return Ecg(ecg_id, patient_id, FOLDS[fold], path, " ".join(row["report"].split()), background(row), found)
