"""Every record read once and checked: what is missing, flat, clipped, implausible, or there twice."""

import csv
import hashlib
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from data_provider.data_loader import file_signature
from data_provider.read import (
    LEADS,
    Record,
    RecordError,
    SignalPolicy,
    fit_signal,
    implausible_amplitude,
    read_millivolts,
    silent_runs,
)
from utils.tools import write_atomically

COLUMNS = (
    "path",
    "signature",
    "fault",
    "kind",
    "seconds",
    "sample_rate",
    "missing_share",
    "silent_s",
    "flat_leads",
    "clipped_share",
    "max_abs_mv",
    "implausible",
    "limb_residual_mv",
    "notes",
    "sha256",
    "duplicates",
)
CLIPPED_S = 0.02  # an extreme value held at least so long is clipping


def check_record(root, path):
    """One row of the quality table (without ``duplicates``), as a dict of texts.

    ``fault`` and ``kind`` are set for records that the default `SignalPolicy` refuses. ``missing_share``: of all
    samples. ``silent_s``: seconds in which no lead changes. ``clipped_share``: of the worst lead, samples at its
    extremes in runs of 20 ms or more. ``limb_residual_mv``: largest |II - I - III|, 0 but for rounding in a sound
    recording. ``notes``: of the reading, the library's warnings too. ``sha256``: of the signal in mV.
    """
    row = dict.fromkeys(COLUMNS, "") | {"path": path, "signature": file_signature(root, path)}
    full = os.path.join(root, path)
    try:
        signal, rate, notes = read_millivolts(full)
        row |= _measures(signal, rate) | {"notes": "; ".join(notes)}
        fit_signal(Record(signal, rate, (), full), SignalPolicy())
    except RecordError as error:
        row |= {"fault": error.fault, "kind": error.kind}
    return row


def _measures(signal, rate):
    low, high = np.fmin.reduce(signal, axis=1), np.fmax.reduce(signal, axis=1)
    largest = float(np.fmax.reduce(np.abs([low, high]), axis=None))
    residual = np.abs(signal[1] - signal[0] - signal[2])
    return {
        "seconds": f"{signal.shape[1] / rate:g}",
        "sample_rate": f"{rate:g}",
        "missing_share": f"{np.isnan(signal).mean():.6g}",
        "silent_s": f"{sum(end - start for start, end in silent_runs(signal, rate)) / rate:g}",
        "flat_leads": " ".join(lead for lead, span in zip(LEADS, high - low, strict=True) if not span > 0),
        "clipped_share": f"{max(map(_clipped, signal, low, high, [rate] * len(signal))):.4g}",
        "max_abs_mv": f"{largest:.4g}",
        "implausible": str(bool(implausible_amplitude(signal))),
        "limb_residual_mv": f"{float(np.fmax.reduce(residual)):.4g}",
        "sha256": hashlib.sha256(np.ascontiguousarray(signal.astype(np.float32))).hexdigest(),
    }


def _clipped(lead, low, high, rate):
    """Share of a lead's samples that lie at its lowest or highest value for `CLIPPED_S` or longer."""
    if not high > low:
        return 0.0
    share, least = 0, max(3, round(CLIPPED_S * rate))
    for extreme in (low, high):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], lead == extreme, [0]])))
        runs = edges[1::2] - edges[::2]
        share += runs[runs >= least].sum()
    return share / len(lead)


def check_signals(root, index, table, workers=0, notes=None):
    """Check every record, write the table, and leave out of the download what cannot be used.

    What an unfinished check has written to ``table`` is taken over for files that have not changed.

    Parameters
    ----------
    root : str or Path
    index : DatasetIndex
    table : Path
        CSV file.
    workers : int
        Processes that read; 0 reads in the calling one.
    notes : dict, optional
        Path -> what was noted when the record was made of another file.

    Returns
    -------
    duplicates : list of list of int
        Groups of ecg_ids whose signals are the same in mV.
    """
    from tqdm import tqdm

    paths = [ecg.path for ecg in index.ecgs.values()]
    rows = {path: row for path, row in _read_rows(table).items() if row["signature"] == file_signature(root, path)}
    todo = [path for path in paths if path not in rows]
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for row in tqdm(_checked(root, todo, workers), total=len(todo), desc="checking signals", unit="ECG"):
            row["notes"] = "; ".join(filter(None, [(notes or {}).get(row["path"], ""), row["notes"]]))
            rows[row["path"]] = row
            writer.writerow(row)
            file.flush()
    kept = [rows[path] for path in paths]
    _note_duplicates(kept)
    write_atomically(table, lambda temporary: _write_rows(temporary, kept))
    for ecg in list(index.ecgs.values()):
        row = rows[ecg.path]
        if row["fault"]:
            index.leave_out(ecg.ecg_id, row["kind"], ecg.path, row["fault"])
    groups = defaultdict(list)
    for ecg in index.ecgs.values():
        groups[rows[ecg.path]["sha256"]].append(ecg.ecg_id)
    return [group for group in groups.values() if len(group) > 1]


def _checked(root, paths, workers):
    if not workers:
        yield from (check_record(root, path) for path in paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(check_record, [str(root)] * len(paths), paths, chunksize=32)


def _read_rows(table):
    """Path -> row of a table, as far as it was written; a line cut off by a kill is not a row."""
    if not Path(table).is_file():
        return {}
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames is None or tuple(rows.fieldnames) != COLUMNS:
            return {}
        return {row["path"]: row for row in rows if row["duplicates"] is not None}


def _write_rows(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _note_duplicates(rows):
    """Fill the column ``duplicates`` with the other records of the same signal."""
    groups = {}
    for row in rows:
        if row["sha256"]:
            groups.setdefault(row["sha256"], []).append(row["path"])
    for row in rows:
        row["duplicates"] = " ".join(path for path in groups.get(row["sha256"], ()) if path != row["path"])


def quality_summary(table):
    """Counts of the table, as lines for people."""
    rows = list(_read_rows(table).values())
    counts = {
        "with missing samples": sum(float(row["missing_share"] or 0) > 0 for row in rows),
        "with flat leads": sum(bool(row["flat_leads"]) for row in rows),
        "clipped": sum(float(row["clipped_share"] or 0) > 0 for row in rows),
        "with silence in all leads": sum(float(row["silent_s"] or 0) > 0 for row in rows),
        "of implausible amplitude": sum(row["implausible"] == "True" for row in rows),
        "with a duplicate": sum(bool(row["duplicates"]) for row in rows),
        "refused": sum(bool(row["fault"]) for row in rows),
    }
    return (
        f"signals: {len(rows):,} read; "
        + ", ".join(f"{n:,} {property_name}" for property_name, n in counts.items())
        + f" ({table})"
    )
