"""Your own ECGs: a folder of files of any format, with or without a table that says more of them.

The table is a CSV file. Its column ``file`` holds paths below the folder; ``patient_id``, ``report``, ``background``
and ``split`` (train, valid or test) are optional. Without a split, a patient's is drawn from seed and id.
"""

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from data_provider.manifests import path_fault
from data_provider.prepare.card import set_aside, write_data_set
from data_provider.prepare.inventory import NOT_ON_DISK, SPLITS, DatasetIndex, Ecg, read_table, split_of
from data_provider.prepare.leaks import HeldOut
from data_provider.prepare.record_checks import check_signals
from data_provider.prepare.reports import report_items
from data_provider.read import MISSING_16, SMALL_MV, UNREADABLE, RecordError, read_record, record_file, write_record
from utils.tools import UserError, sha256_file

NO_PATH = "no usable path inside the folder"
NO_REPORT = "no report"  # every item of a report manifest has a text
MICROVOLTS = 1000  # in 1 mV: what a step of a converted record is


def prepare_folder(root, out, name=None, table=None, convert_to=None, workers=0, limit=None, seed=0, **reading):
    """Write the manifests of a folder of ECG files; every file is read once and checked.

    Parameters
    ----------
    root, out, name
        As for `data_provider.prepare.build.prepare_ptbxl`; the name is the folder's by default.
    table, limit, seed
        See `read_folder`.
    convert_to : str or Path, optional
        Write the ECGs there as WFDB records; paths in the manifests then start there.
    workers : int
        Processes that read.
    reading
        ``sample_rate``, ``units`` and ``leads`` of files that don't say; for those with ``convert_to`` alone.

    Returns
    -------
    card : dict
    """
    if any(reading.values()) and not convert_to:
        raise UserError("--sample-rate, --units and --leads need --convert-to: the stages read files by what they say")
    if convert_to and not table and Path(convert_to).resolve().is_relative_to(Path(root).resolve()):
        raise UserError(f"--convert-to {convert_to} lies inside --root, where it would be read as more ECGs next time")
    out, name = Path(out), name or Path(root).resolve().name
    index, columns = read_folder(root, table, limit, seed)
    if not index.rows:
        set_aside(out / "report" / name)
        raise UserError(f"{table or root}: holds no file")
    notes = convert(root, index, convert_to, **reading, workers=workers) if convert_to else None
    duplicates = check_signals(convert_to or root, index, out / name / "quality.csv", workers, notes)
    held_out = HeldOut([ecg.ecg_id for ecg in index.ecgs.values() if ecg.split != "train"], index.patients, duplicates)
    rules = {"splits": "the table's, else by patient: SHA-256 of seed and patient, 80/10/10 %", "seed": seed}
    card = {"sources": {"table": sha256_file(table)} if table else {}, "records": index.counts(), "rules": rules}
    card |= {"duplicates": duplicates, "questions": {split: {"kept": {}} for split in SPLITS}}
    reports, card["reports"] = report_items(index, held_out)
    missing = {
        "patient_id": "no patient_id: each file counts as a patient of its own",
        "report": f'no report: each item says "{NO_REPORT}"; stage 3 needs texts',
    }
    card["notes"] = [note for column, note in missing.items() if column not in columns]
    card["notes"] += [f"nothing in {split}: the table's column split decides" for split in SPLITS if not reports[split]]
    return write_data_set(out, name, reports, {split: [] for split in SPLITS}, card, index.patients, duplicates)


def read_folder(root, table=None, limit=None, seed=0):
    """The ECGs of a folder; none is opened yet.

    Parameters
    ----------
    root : str or Path
    table : str or Path, optional
        See the top of this file. Without one, every file counts, each as a patient of its own.
    limit : int, optional
        Take only the first so many.
    seed : int
        Of the split.

    Returns
    -------
    index : DatasetIndex
        ecg_ids count the rows from 1; paths start at ``root``.
    columns : set of str
        What the table says of the ECGs.
    """
    root, index, columns, seen = Path(root), DatasetIndex(), set(), set()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    rows = read_table(table, ("file",)) if table else ({"file": path} for path in ecg_files(root))
    for number, row in enumerate(rows, 1):
        columns |= set(row)
        index.rows += 1
        path = _record_path(root, row["file"].strip())
        split = row.get("split", "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{table}: row {number}: split {split}; it must be {', '.join(SPLITS)} or empty")
        if path is None:
            shown = row["file"].encode(errors="replace").decode()  # the card is UTF-8
            index.leave_out(number, NO_PATH, shown, NO_PATH)
        elif path in seen:
            index.leave_out(number, "a file that was there before")
        elif not os.path.isfile(record_file(root / path)):
            index.leave_out(number, NOT_ON_DISK)
        elif limit is not None and len(seen) >= limit:
            index.leave_out(number, "beyond --limit")
        else:
            seen.add(path)
            patient = row.get("patient_id", "").strip() or path
            index.patients[number] = patient
            report, background = (" ".join(row.get(key, "").split()) for key in ("report", "background"))
            report = report if "report" in row else NO_REPORT
            index.ecgs[number] = Ecg(number, patient, split or split_of(patient, seed), path, report, background)
    return index, columns & {"patient_id", "report", "background", "split"}


def ecg_files(root):
    """Sorted paths of all that may be an ECG; what lies beside a WFDB header of its name is part of it."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        headers = {name[:-4] for name in names if name.endswith(".hea")}
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if not name.startswith(".") and (extension == ".hea" or stem not in headers):
                yield os.path.relpath(os.path.join(folder, name), root)


def _record_path(root, path):
    """A file's path as manifests name it: normal, a WFDB record without extension; None where none can be written.

    Absolute paths count where they lie inside the folder, and backslashes as Windows's tables have them.
    """
    path = path.replace("\\", "/")
    if os.path.isabs(path):
        outer, inner = os.path.realpath(root), os.path.realpath(os.path.dirname(path))
        path = os.path.relpath(os.path.join(inner, os.path.basename(path)), outer)
    path = os.path.normpath(path)
    if path == "." or path_fault(path) or path != path.encode(errors="replace").decode():
        return None
    file = record_file(root / path)
    return os.path.relpath(file.with_suffix(""), root) if file.suffix == ".hea" else path


def convert(root, index, to, sample_rate=None, units=None, leads=None, workers=0):
    """Write each ECG as a WFDB record of 16 bits at 1 µV below ``to``, where its path then starts.

    Parameters
    ----------
    root, to : str or Path
    index : DatasetIndex
        What cannot be written is left out of it.
    sample_rate, units, leads
        As in `data_provider.read.records.read_record`, for files that don't say.
    workers : int
        Processes that convert; 0 converts in the calling one.

    Returns
    -------
    notes : dict
        Path below ``to`` -> the notes of reading its file.
    """
    from tqdm import tqdm

    ecgs, taken, jobs, notes = list(index.ecgs.values()), set(), [], {}
    for ecg in ecgs:
        folder, name = os.path.split(ecg.path)
        target = os.path.join(folder, re.sub(r"[^A-Za-z0-9_-]", "_", name))  # what a record may be called
        target = target if target not in taken else f"{target}_{ecg.ecg_id}"
        taken.add(target)
        jobs.append((os.path.join(root, ecg.path), os.path.join(to, target), sample_rate, units, leads))
    results = tqdm(_converted(jobs, workers), desc="converting", total=len(jobs), unit="ECG")
    for ecg, job, (fault, noted) in zip(ecgs, jobs, results, strict=True):
        if fault:
            index.leave_out(ecg.ecg_id, UNREADABLE, ecg.path, fault)
        else:
            ecg.path = os.path.relpath(job[1], to)
            notes[ecg.path] = noted
    return notes


def _converted(jobs, workers):
    if not workers:
        yield from map(_convert, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_convert, jobs, chunksize=16)


def _convert(job):
    """Convert one file; what is wrong with it (or None), and the notes of reading it."""
    source, target, sample_rate, units, leads = job
    try:
        record = read_record(source, sample_rate=sample_rate, units=units, leads=leads)
    except RecordError as error:
        return error.fault, ""
    steps = np.rint(record.signal * MICROVOLTS)
    spans = np.fmax.reduce(record.signal, axis=1) - np.fmin.reduce(record.signal, axis=1)
    if 0 < np.fmax.reduce(spans) < SMALL_MV:
        return f"no lead spans more than {np.fmax.reduce(spans):.2g} mV, 1 µV steps would spoil it (--units?)", ""
    largest = np.fmax.reduce(np.abs(steps), axis=None)
    if largest > -MISSING_16 - 1:
        return f"reaches {largest / MICROVOLTS:.0f} mV, 16 bits at 1 µV hold 32.7", ""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    write_record(Path(target), np.where(np.isnan(steps), MISSING_16, steps).astype(np.int16), record.sample_rate)
    return None, "; ".join(record.notes)
