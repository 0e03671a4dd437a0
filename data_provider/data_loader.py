"""Signals in bulk: every record read once, into memory; bad ones left out and listed."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data_provider.manifests import LOOKING_THREADS
from data_provider.read import RecordError, load_signal, record_file

CHUNK = 500  # files that a thread looks at in a go


def load_signals(root, paths, policy, workers=0, description="reading ECGs"):
    """Read and standardise records into memory.

    Parameters
    ----------
    root : str or Path
    paths : sequence of str
        Record paths relative to ``root``.
    policy : SignalPolicy
    workers : int
        Threads that read; 0 reads in the calling one.

    Returns
    -------
    signals : float32 array [N, 12, samples]
    good : list of str
        The path of each row.
    bad : dict
        Path -> reason, for the records that could not be read.
    """
    from tqdm import tqdm

    paths, root = list(dict.fromkeys(paths)), str(root)
    signals = np.empty((len(paths), 12, policy.samples), np.float32)

    def read(row):
        try:
            load_signal(os.path.join(root, paths[row]), policy, out=signals[row])
        except RecordError as error:
            return error.fault
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        faults = (pool.map if workers else map)(read, range(len(paths)))
        faults = list(tqdm(faults, total=len(paths), desc=description, unit="ECG", disable=len(paths) < 200))
    good = [row for row, fault in enumerate(faults) if fault is None]
    for target, row in enumerate(good):
        if target != row:  # close the rows of bad records
            signals[target] = signals[row]
    bad = {path: fault for path, fault in zip(paths, faults, strict=True) if fault is not None}
    return signals[: len(good)], [paths[row] for row in good], bad


def bad_records_text(bad, limit=20):
    """The lines that close a run: how many records were left out, which, and why ("" when none was)."""
    if not bad:
        return ""
    lines = [f"{len(bad)} record{'s' * (len(bad) > 1)} left out:"]
    lines += [f"  {path}: {reason}" for path, reason in list(bad.items())[:limit]]
    if len(bad) > limit:
        lines.append(f"  and {len(bad) - limit} more")
    return "\n".join(lines)


def file_signatures(root, paths):
    """Path -> `file_signature`, with a bar; in threads, since on a network disk each look takes a millisecond."""
    from tqdm import tqdm

    paths = list(dict.fromkeys(paths))
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    signatures = {}
    bar = tqdm(total=len(paths), desc="looking at record files", unit="ECG", disable=len(paths) < 20 * CHUNK)
    with ThreadPoolExecutor(LOOKING_THREADS) as pool, bar:
        looks = pool.map(lambda chunk: [file_signature(root, path) for path in chunk], chunks)
        for chunk, found in zip(chunks, looks, strict=True):
            signatures.update(zip(chunk, found, strict=True))
            bar.update(len(chunk))
    return signatures


def file_signature(root, path):
    """Size and modification time (ns) of a record's files, as a string; "" when there is none."""
    stem = os.path.join(root, path)
    parts = [_size_and_time(stem + ".hea")]
    if parts[0] is None:  # no WFDB record named without its extension
        header = str(record_file(stem))
        stem, parts = os.path.splitext(header)[0], [_size_and_time(header)]
    parts += [_size_and_time(stem + ".dat"), _size_and_time(stem + ".mat")]
    return "+".join(filter(None, parts))


def _size_and_time(file):
    try:
        status = os.stat(file)
    except OSError:
        return None
    return f"{status.st_size}:{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else None
