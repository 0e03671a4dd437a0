"""Stage 1's signals of a large data set: the records' own counts in one file, which is gone when its processes are.

120 kB an ECG, half of what float32 takes. Records that are not used as their recorder wrote them (other rates, gaps,
other formats) are read from their own files each time.
"""

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_provider.read import RecordError, load_counts, load_signal, signal_of_counts
from utils.sharing import gathered, sharers_of
from utils.tools import UserError


class StoredSignals:
    """Standardised signals float32 [n, 12, samples] by row: ``signals[rows]`` or ``signals[start:stop]``."""

    def __init__(self, root, paths, policy, counts, scales):
        self.root, self.paths, self.policy = str(root), paths, policy
        self.counts, self.scales = counts, scales  # int16 [N, 12, samples]; float64 [N, 2, 12], NaN where not counted

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, chosen):
        rows = range(len(self))[chosen] if isinstance(chosen, slice) else chosen
        out = np.empty((len(rows), *self.counts.shape[1:]), np.float32)
        for signal, row in zip(out, rows, strict=True):
            gains, baselines = self.scales[row]
            if np.isnan(gains[0]):
                load_signal(os.path.join(self.root, self.paths[row]), self.policy, out=signal)
            else:
                signal_of_counts(self.counts[row], gains, baselines, out=signal)
        return out


def store_signals(root, paths, policy, folder, workers=0, description="reading ECGs"):
    """Read records once, all processes of a machine together, into a file below ``folder`` that has no name.

    All processes of a run call it.

    Parameters
    ----------
    root, folder : str or Path
    paths : sequence of str
    policy : SignalPolicy
    workers : int
        Threads that read, a process.

    Returns
    -------
    signals : StoredSignals
    good : list of str
        The path of each row.
    bad : dict
        Path -> reason, for the records that could not be read.
    """
    from tqdm import tqdm

    paths, sharers = list(dict.fromkeys(paths)), sharers_of(folder, one_machine=True)
    counts = _nameless(folder, (len(paths), 12, policy.samples), sharers)

    def read(row):
        path = os.path.join(str(root), paths[row])
        try:
            signal = load_signal(path, policy)[0]
        except RecordError as error:
            return row, None, error.fault
        found = load_counts(path, policy)
        if found is None or not np.array_equal(signal_of_counts(*found), signal):
            return row, np.full((2, 12), np.nan), None
        counts[row] = found[0]
        return row, np.stack(found[1:]), None

    mine = range(sharers.number, len(paths), sharers.count)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = (pool.map if workers else map)(read, mine)
        quiet = len(paths) < 200 or sharers.number > 0
        found = list(tqdm(found, total=len(mine), desc=description, unit="ECG", disable=quiet))
    every = gathered(found)  # also: all have written
    rows = sorted((row for rank in sharers.ranks for row in every[rank]), key=lambda row: row[0])
    bad = {paths[row]: fault for row, _, fault in rows if fault is not None}
    kept = [row for row, _, fault in rows if fault is None]
    scales = np.stack([scale for _, scale, fault in rows if fault is None]) if kept else np.empty((0, 2, 12))
    good = [paths[row] for row in kept]
    return StoredSignals(root, good, policy, _Rows(counts, kept) if bad else counts, scales), good, bad


class _Rows:
    """The kept rows of a memory map, without a copy of it."""

    def __init__(self, array, kept):
        self.array, self.kept, self.shape = array, kept, (len(kept), *array.shape[1:])

    def __getitem__(self, row):
        return self.array[self.kept[row]]


def _nameless(folder, shape, sharers):
    """A zeroed int16 memory map that the sharers have in common, in a file that is deleted while it is open."""
    names = gathered(f".signals-{secrets.token_hex(8)}")
    path, size = Path(folder) / names[sharers.ranks[0]], 2 * int(np.prod(shape))
    try:
        if sharers.number == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))  # a full disk is an error now, not a crash later
        gathered(None)  # it is there
        array = np.memmap(path, np.int16, "r+", shape=shape)
    except OSError as error:
        raise UserError(f"{folder}: no room for {size / 1e9:.1f} GB of signals ({error.strerror})") from error
    gathered(None)  # all have it open
    if sharers.number == 0:
        path.unlink()
    return array
