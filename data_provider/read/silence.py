"""Silence: where all leads stand still there is no ECG, but the zeros that a recording was filled up with."""

import numpy as np

SILENCE_S = 0.2  # shorter ones may be chance; the longest gap that a record may have by default


def silent_runs(signal, sample_rate, longer_than_s=SILENCE_S):
    """Where no lead changes from sample to sample for longer than ``longer_than_s`` seconds.

    Parameters
    ----------
    signal : array [leads, T]
    sample_rate : float
        Hz.
    longer_than_s : float

    Returns
    -------
    runs : list of (int, int)
        First sample and the one after the last, in order.
    """
    least = int(longer_than_s * sample_rate) + 1  # samples
    step = max(1, least // 2)
    grid = signal[:, ::step]  # such a run covers two neighbours of it: most records are told from them
    if signal.shape[1] < least or not (grid[:, 1:] == grid[:, :-1]).all(axis=0).any():
        return []
    still = np.concatenate([[False], (signal[:, 1:] == signal[:, :-1]).all(axis=0), [False]])
    edges = np.flatnonzero(np.diff(still))
    return [(int(start), int(end) + 1) for start, end in edges.reshape(-1, 2) if end + 1 - start >= least]


def without_silent_ends(signal, runs):
    """What lies between the silent runs at the two ends of a signal; all of it where nothing does.

    A run of zeros was filled in. In any other the sample next to the ECG is the ECG's, held.
    """
    start, end = 0, signal.shape[1]
    if runs and runs[0][0] == 0:
        start = runs[0][1] - bool(signal[:, 0].any())
    if runs and runs[-1][1] == end:
        end = runs[-1][0] + bool(signal[:, -1].any())
    return signal[:, start:end] if end > start + 1 else signal


def said(runs, sample_rate):
    """Silent runs in words: "1.62 s from 0 s"."""
    parts = [f"{(end - start) / sample_rate:.3g} s from {start / sample_rate:.3g} s" for start, end in runs[:5]]
    return ", ".join(parts) + (f" and {len(runs) - 5} more" if len(runs) > 5 else "")
