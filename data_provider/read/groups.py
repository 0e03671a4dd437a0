"""Which signals of a file are the ECG: of several groups, series or strips the longest with twelve leads."""

from collections import defaultdict

import numpy as np

from data_provider.read.leads import LEADS, choose_leads, listed, standard_name


def choose_signals(groups):
    """The signals of a file that belong together.

    Parameters
    ----------
    groups : list of (str, list of (name, unit, samples, sample_rate))
        A file's groups (DICOM's multiplex groups, aECG's series, MUSE's waveforms) with a word for each; signals in
        one that differ in rate or length are taken apart.

    Returns
    -------
    names, units : list of str
    columns : float64 array [signals, T]
    sample_rate : float
    notes : list of str

    Raises
    ------
    ValueError
        No group, and no groups of the same rate and length together, hold the twelve leads.
    """
    parts = _parts(groups)
    if not parts:
        raise ValueError("holds no ECG leads")
    chosen = [part for part in parts if _complete(part[1])]
    joined = [part for part in _joined(parts) if _complete(part[1])]
    longest = max((_seconds(signals) for _, signals in chosen + joined), default=0)
    chosen = [part for part in chosen + joined if _seconds(part[1]) == longest]
    if not chosen:
        chosen = [part for part in parts if len(part[1]) >= len(LEADS)] or parts  # by position, or refused by name
        if len(chosen) > 1:
            groups = "; ".join(f"{word}: {_said(part)}" for word, part in parts[:9])
            raise ValueError(f"no group has all leads, nor have groups of the same rate and length together: {groups}")
    word, signals = chosen[0]
    notes = []
    if len(parts) > 1:
        others = [f"{other}: {_said(part)}" for other, part in parts if other not in word.split(" + ")]
        notes.append(f"{word} taken" + (f", left out {'; '.join(others)}" if others else ""))
    sample_rate = signals[0][3]
    if not 1 <= sample_rate <= 100_000 or not len(signals[0][2]):
        raise ValueError(f"holds no samples or says {sample_rate:g} samples a second")
    columns = np.array([samples for _, _, samples, _ in signals], np.float64)
    return [name for name, *_ in signals], [unit for _, unit, *_ in signals], columns, sample_rate, notes


def _parts(groups):
    """The groups, each taken apart by rate and length; without other signals where a part has leads."""
    parts = []
    for word, signals in groups:
        alike = defaultdict(list)
        for signal in signals:
            alike[signal[3], len(signal[2])].append(signal)
        parts += [(word if len(alike) == 1 else f"{word} at {rate:g} Hz", part) for (rate, _), part in alike.items()]
    with_leads = [part for part in parts if any(standard_name(name) for name, *_ in part[1])]
    return with_leads or parts


def _joined(parts):
    """Parts of the same rate and length put together; a lead that is there twice counts where it comes first."""
    alike = defaultdict(list)
    for part in parts:
        alike[part[1][0][3], len(part[1][0][2])].append(part)
    for together in alike.values():
        signals, words = {}, []
        for word, part in together:
            new = {standard_name(name): signal for signal in part if standard_name(name := signal[0])}
            if new.keys() - signals.keys():
                signals = new | signals
                words.append(word)
        if len(words) > 1:
            yield " + ".join(words), list(signals.values())


def _complete(signals):
    try:
        return bool(choose_leads([name for name, *_ in signals]))
    except ValueError:
        return False


def _seconds(signals):
    return len(signals[0][2]) / signals[0][3] if signals[0][3] else 0


def _said(signals):
    return f"{listed([name for name, *_ in signals])} ({len(signals[0][2])} samples at {signals[0][3]:g} Hz)"
