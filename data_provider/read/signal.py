"""`Record` -> standardised [12, 5000]: ten seconds at 500 Hz, silence cut, gaps closed, each lead scaled.

The policy is part of the codes: its fingerprint is kept with them.
"""

import dataclasses
import threading
from fractions import Fraction

import numpy as np

from data_provider.read.leads import LEADS
from data_provider.read.records import MISSING_SAMPLES, TOO_SHORT, RecordError, read_millivolts
from data_provider.read.silence import SILENCE_S, said, silent_runs, without_silent_ends
from data_provider.read.wfdb_files import BufferPool
from utils.tools import sha256_json

VERSION = 2  # raise it when the same policy gives other numbers: stored codes are then made anew
_per_thread = threading.local()
MAX_RATIO_TERM = 5000  # largest numerator or denominator of a resampling ratio


@dataclasses.dataclass(frozen=True)
class SignalPolicy:
    """What is done to a record before it is encoded.

    Attributes
    ----------
    sample_rate : int
        Hz after resampling.
    samples : int
        Samples a lead.
    crop : {"first", "centre"}
        Which part of a longer record. Silence at its ends (see `silence`) does not count.
    short : {"refuse", "pad"}
        Shorter records: refuse them, or pad each lead with its mean at the end.
    max_gap_s : float
        Longest run of missing samples, in seconds, that is interpolated; longer ones refuse the record.
    lead_order : {"name", "file"}
        As in `data_provider.read.records.read_record`.
    """

    sample_rate: int = 500
    samples: int = 5000
    crop: str = "first"
    short: str = "refuse"
    max_gap_s: float = 0.2
    lead_order: str = "name"

    def fingerprint(self):
        """Hash of all that decides the numbers, as hex."""
        return sha256_json({**dataclasses.asdict(self), "version": VERSION})


def standardise(signal):
    """Subtract each lead's mean and divide by its population standard deviation; a constant lead is divided by 1.

    Parameters
    ----------
    signal : array [12, T]
        mV.

    Returns
    -------
    x : float32 array [12, T]
    mean, std : float64 arrays [12]
        mV; ``x * std[:, None] + mean[:, None]`` gives the signal back.
    """
    signal = np.array(signal, dtype=np.float64)
    return _standardise(signal, np.empty(signal.shape, np.float32))


def _standardise(signal, out):
    """`standardise` from an array that is lost, into ``out``."""
    mean = signal.mean(axis=1)
    signal -= mean[:, None]
    variance = np.einsum("ct,ct->c", signal, signal) / signal.shape[1]
    # A constant lead's variance is not 0 but rounding; the bound is scikit-learn's (StandardScaler).
    rounding = signal.shape[1] * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + (rounding * mean) ** 2
    std = np.where(constant, 1.0, np.sqrt(variance))
    signal /= std[:, None]
    out[...] = signal
    return out, mean, std


def fit_signal(record, policy):
    """The part of a record that the policy asks for, at its rate and without gaps: float32 mV [12, samples]."""
    return _fit(record.signal, record.sample_rate, record.path, policy).astype(np.float32)


def fit_windows(record, policy):
    """Every full window of a record in turn: float32 mV [N, 12, samples]; at least one, see `fit_signal`."""
    rate, path, policy = record.sample_rate, record.path, dataclasses.replace(policy, crop="first")
    signal = without_silent_ends(record.signal, _silence(record.signal, rate, policy))
    step = policy.samples * rate / policy.sample_rate
    count = max(1, int(signal.shape[1] / step + 1e-9))
    parts = [signal[:, round(number * step) :] for number in range(count)]
    return np.stack([_fit(part, rate, path, policy, cut=False) for part in parts]).astype(np.float32)


def load_signal(path, policy, out=None):
    """Read, fit and standardise the record at ``path``.

    Parameters
    ----------
    path : str or Path
    policy : SignalPolicy
    out : float32 array [12, samples], optional
        Where ``x`` goes.

    Returns
    -------
    x : float32 array [12, samples]
    mean, std : float64 arrays [12]
        mV.

    Raises
    ------
    RecordError
        The record cannot be read or does not fit the policy.
    """
    buffers = _per_thread.__dict__.setdefault("buffers", BufferPool())
    signal, sample_rate, _ = read_millivolts(path, policy.lead_order, buffers)
    out = np.empty((12, policy.samples), np.float32) if out is None else out
    return _standardise(_fit(signal, sample_rate, path, policy), out)


def _silence(signal, sample_rate, policy):
    return silent_runs(signal, sample_rate, max(policy.max_gap_s, SILENCE_S))


def _fit(signal, sample_rate, path, policy, cut=True):
    silence = _silence(signal, sample_rate, policy)
    if silence and cut:
        signal = without_silent_ends(signal, silence)
    if not silence and sample_rate == policy.sample_rate and signal.shape[1] == policy.samples:
        return _close_gaps(signal, sample_rate, path, policy)
    ratio = _ratio(policy.sample_rate / sample_rate)
    if not ratio or abs(float(ratio) * sample_rate / policy.sample_rate - 1) > 1e-4 or ratio.numerator > MAX_RATIO_TERM:
        raise RecordError(path, f"{sample_rate:g} samples a second cannot be resampled to {policy.sample_rate}")
    # Crop before resampling: what lies outside the window neither costs time nor refuses the record by its gaps.
    length = signal.shape[1]
    wanted = int(np.ceil(policy.samples / ratio))
    start = max(0, (length - wanted) // 2) if policy.crop == "centre" else 0
    signal = signal[:, start : start + wanted]
    if silence and policy.short == "refuse" and (inside := _silence(signal, sample_rate, policy)):
        raise RecordError(path, f"no lead changes for {said(inside, sample_rate)}: that is no ECG", TOO_SHORT)
    signal = _close_gaps(signal, sample_rate, path, policy)
    if ratio != 1:
        from scipy.signal import resample_poly

        # "antireflect" goes on at the ends with their value and slope; zeros there would make the low-pass ring
        signal = signal.astype(np.float64)
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="antireflect")
    missing = policy.samples - signal.shape[1]
    if missing > 0:
        if policy.short == "refuse":
            seconds, needed = length / sample_rate, policy.samples / policy.sample_rate
            rest = f" but for silence ({said(silence, sample_rate)})" if silence else ""
            fault = f"{seconds:g} s long{rest}, {needed:g} s are needed (SHORT_RECORDS=pad fills it up)"
            raise RecordError(path, fault, TOO_SHORT)
        padding = np.repeat(signal.mean(axis=1, keepdims=True), missing, axis=1)
        signal = np.concatenate([signal, padding], axis=1)
    return signal[:, : policy.samples]


def _ratio(exact):
    """The fraction next to a ratio of sampling rates whose larger term is at most `MAX_RATIO_TERM`."""
    if exact <= 1:
        return Fraction(exact).limit_denominator(MAX_RATIO_TERM)
    inverse = Fraction(1 / exact).limit_denominator(MAX_RATIO_TERM)
    return 1 / inverse if inverse else inverse


def _close_gaps(signal, sample_rate, path, policy):
    """Interpolate short runs of missing samples along each lead; at an end the nearest sample is held."""
    if np.isfinite(signal.min()) and np.isfinite(signal.max()):  # NaN makes both NaN
        return signal
    missing, signal = ~np.isfinite(signal), signal.copy()
    for lead, gaps in enumerate(missing):
        if not gaps.any():
            continue
        if gaps.all():
            raise RecordError(path, f"lead {LEADS[lead]} holds no samples", MISSING_SAMPLES)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], gaps, [False]])))
        longest = (edges[1::2] - edges[::2]).max() / sample_rate
        if longest > policy.max_gap_s:
            fault = f"lead {LEADS[lead]} has a gap of {longest:.3g} s, more than {policy.max_gap_s:g} s are not filled"
            raise RecordError(path, fault, MISSING_SAMPLES)
        at = np.arange(signal.shape[1])
        signal[lead, gaps] = np.interp(at[gaps], at[~gaps], signal[lead, ~gaps])
    return signal
