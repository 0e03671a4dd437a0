"""An ECG to ask about: read from any file, cut into windows of ten seconds, one of them encoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_provider.read import Record, SignalPolicy, fit_windows, load_signal, read_record, standardise
from ecg_tokenizer.familiarity import ecg_loss, loss_lines
from utils.tools import UserError

RATE = SignalPolicy.sample_rate  # Hz of every window


@dataclass(frozen=True)
class Ecg:
    """What is asked about.

    Attributes
    ----------
    name : str
        Its file's path, as it was given.
    record : Record
    windows : float32 array [N, 12, 5000]
        mV at 500 Hz; one after the other.
    window : int
        Which of them is asked about, from 0.
    codes : uint16 array [row_length]
        Of that window.
    loss : float
        What these codes lose of it, PRDN in %; NaN for an ECG without signal.
    familiar : bool or None
        Whether that is as little as of the ECGs that the tokenizer knows; None where their level wasn't kept.
    notes : tuple of str
        What was done to read it, and warnings; a line each.
    """

    name: str
    record: Record
    windows: np.ndarray
    window: int
    codes: np.ndarray
    loss: float
    familiar: bool | None
    notes: tuple

    @property
    def signal(self):
        """The window that is asked about: float32 mV [12, 5000]."""
        return self.windows[self.window]


def load_ecg(path, tokenizer, policy=None, level=None, window=0, sample_rate=None, units=None, leads=None):
    """Read a file of any format (see `data_provider.read`) and encode one of its windows.

    Parameters
    ----------
    path : str or Path
    tokenizer : EcgTokenizer
    policy : SignalPolicy, optional
        As the reader was trained with.
    level : float, optional
        `ecg_tokenizer.familiarity.familiar_level` of the tokenizer.
    window : int
        Which ten seconds of a longer record, from 0.
    sample_rate, units, leads : optional
        For files that don't say, as in `read_record`.

    Raises
    ------
    UserError
        The file can't be read as a 12-lead ECG of ten seconds.
    """
    policy = policy or SignalPolicy()
    record = read_record(path, policy.lead_order, sample_rate, units, leads)
    exact = window == 0 and policy.crop == "first" and not (sample_rate or units or leads)
    # As the exam reads it, scaled from float64: the same codes to the last bit.
    x_and_std = load_signal(path, policy)[::2] if exact else None
    return ecg_of(record, tokenizer, policy, level, window, x_and_std)


def ecg_of(record, tokenizer, policy=None, level=None, window=0, x_and_std=None):
    """An `Ecg` of a record that was read already; ``x_and_std`` are its window's standardised signal and deviations."""
    policy = policy or SignalPolicy()
    windows = fit_windows(record, policy)
    if not 0 <= window < len(windows):
        raise UserError(f"{record.path}: has {len(windows)} windows of 10 s, there is no number {window + 1}")
    if x_and_std is None:
        x, _, std = standardise(windows[window])
    else:
        x, std = x_and_std
    codes = tokenizer.encode_rows(x[None], std[None])[0]
    waveform = codes[None, tokenizer.row_length - tokenizer.codes_per_ecg :].astype(np.int64)
    loss = float(ecg_loss(tokenizer, x[None], waveform)[0])
    familiar = None if level is None else bool(loss <= level)
    notes = (*_reading_notes(record, windows, window, policy), *record.notes, *loss_lines(loss, level))
    return Ecg(str(record.path), record, windows, window, codes, loss, familiar, notes)


def _reading_notes(record, windows, window, policy):
    samples, rate = record.signal.shape[1], record.sample_rate
    seconds = samples / rate
    yield f"{Path(record.path).name}: {seconds:g} s, 12 leads at {rate:g} Hz"
    if rate != policy.sample_rate:
        yield f"resampled from {rate:g} to {policy.sample_rate} Hz"
    if len(windows) > 1:
        start = 10 * window
        yield f"{len(windows)} windows of 10 s; asked about the {_ordinal(window + 1)} ({start} to {start + 10} s)"


def _ordinal(number):
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
