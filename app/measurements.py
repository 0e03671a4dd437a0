"""What can be measured in an ECG without any model: rate, regularity, PR, QRS, QT; each only where it is measurable.

Beats, and the start of P and end of T in single leads, are found by neurokit2. Its start and end of the QRS lie some
50 ms off (its issue 1042), so these are taken from the median beat of all leads together: from where the leads begin to
change fast to where they stop. An interval is only told where beats and leads agree.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.stats import iqr

from data_provider.read import LEADS

DELINEATED = ("I", "II", "aVF", "V2", "V5", "V6")  # between them every wave shows somewhere
FEWEST_BEATS, FEWEST_LEADS = 3, 3
STEEP = 0.08  # of the QRS's greatest velocity: faster is QRS
AGREE_MS = 40  # leads whose medians lie further apart (half of them within) don't agree
# ms that a human ECG can have; what lies outside was a fault of the delineation
PLAUSIBLE = {"pr_ms": (80, 400), "qrs_ms": (50, 250), "qt_ms": (200, 700)}
# Standard deviation of the RR intervals / their mean: below the first a rhythm is regular, above the second irregular
REGULAR, IRREGULAR = 0.05, 0.12


@dataclass(frozen=True)
class Measurements:
    """What was measured; None is "not measurable".

    Attributes
    ----------
    heart_rate : float or None
        Beats a minute, 60 / median RR interval.
    rr_variation : float or None
        Standard deviation of the RR intervals / their mean.
    beats : int
    pr_ms, qrs_ms, qt_ms : float or None
    qtc_ms : float or None
        QT / sqrt(RR in s) (Bazett 1920).
    """

    heart_rate: float | None
    rr_variation: float | None
    beats: int
    pr_ms: float | None
    qrs_ms: float | None
    qt_ms: float | None
    qtc_ms: float | None

    @property
    def rhythm(self):
        """ "regular", "slightly irregular" or "irregular"; None where no rate is measurable."""
        if self.rr_variation is None:
            return None
        if self.rr_variation < REGULAR:
            return "regular"
        return "irregular" if self.rr_variation > IRREGULAR else "slightly irregular"

    def lines(self):
        """Name and value of each, as texts."""

        def told(value, unit):
            return f"{value:.0f} {unit}" if value is not None else "not measurable"

        rhythm = f"{self.rhythm} (they vary by {self.rr_variation:.0%})" if self.rhythm else "not measurable"
        return [
            ("heart rate", told(self.heart_rate, "/min")),
            ("RR intervals", rhythm),
            ("PR interval", told(self.pr_ms, "ms")),
            ("QRS duration", told(self.qrs_ms, "ms")),
            ("QT interval", told(self.qt_ms, "ms")),
            ("QTc (Bazett)", told(self.qtc_ms, "ms")),
        ]


def measure(signal, sample_rate=500):
    """Measure an ECG.

    Parameters
    ----------
    signal : array [12, T]
        mV, leads in the standard order, some seconds.
    sample_rate : float
        Hz

    Returns
    -------
    Measurements
    """
    import neurokit2 as nk

    signal = np.asarray(signal, dtype=float)
    rate = round(sample_rate)
    leads = [row for row in range(len(LEADS)) if np.ptp(signal[row]) > 0]
    cleaned = {row: nk.ecg_clean(signal[row], sampling_rate=rate) for row in leads}
    peaks = _beats(nk, cleaned, rate)
    if len(peaks) < FEWEST_BEATS:
        return Measurements(None, None, len(peaks), None, None, None, None)
    rr = np.diff(peaks) / sample_rate
    start, end = _qrs(np.stack(list(cleaned.values())), peaks, rate)
    waves = [_waves(nk, cleaned[row], peaks, rate) for row in cleaned if LEADS[row] in DELINEATED]
    found = {
        "pr_ms": _agreed([start - p_onsets for p_onsets, _ in waves], *PLAUSIBLE["pr_ms"]),
        "qrs_ms": end - start if PLAUSIBLE["qrs_ms"][0] <= end - start <= PLAUSIBLE["qrs_ms"][1] else None,
        "qt_ms": _agreed([t_offsets - start for _, t_offsets in waves], *PLAUSIBLE["qt_ms"]),
    }
    typical = float(np.median(rr))
    return Measurements(
        heart_rate=60 / typical,
        rr_variation=float(rr.std() / rr.mean()),
        beats=len(peaks),
        qtc_ms=found["qt_ms"] / np.sqrt(typical) if found["qt_ms"] else None,
        **found,
    )


def _beats(nk, cleaned, rate):
    """Samples of the R peaks, as most leads show them; none where there is no such majority.

    A lead that takes T waves for beats, or misses some, is outvoted by the others; noise has peaks too, but others in
    each lead.
    """
    found = [_r_peaks(nk, lead, rate) for lead in cleaned.values()]
    votes = [sum(_alike(peaks, others, 0.1 * rate) for others in found) for peaks in found]
    if max(votes, default=0) < max(1, 0.5 * len(found)):
        return np.empty(0, dtype=int)
    return min((peaks for peaks, vote in zip(found, votes, strict=True) if vote == max(votes)), key=_unsteadiness)


def _alike(peaks, others, within):
    """Whether two leads show as many beats, most of them at the same time."""
    if min(len(peaks), len(others)) < FEWEST_BEATS or abs(len(peaks) - len(others)) > max(1, 0.1 * len(peaks)):
        return False
    return np.mean([np.abs(others - peak).min() <= within for peak in peaks]) >= 0.8


def _unsteadiness(peaks):
    rr = np.diff(peaks)
    return rr.std() / rr.mean()


def _r_peaks(nk, lead, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(nk.ecg_peaks(lead, sampling_rate=rate)[1]["ECG_R_Peaks"], dtype=int)
        except (ValueError, IndexError, ZeroDivisionError):  # how the library says that there is nothing to find
            return np.empty(0, dtype=int)


def _qrs(leads, peaks, rate):
    """Start and end of the median beat's QRS in ms from the R peaks: where the leads' velocity leaves its noise."""
    before, behind, near = (round(seconds * rate) for seconds in (0.4, 0.6, 0.12))
    whole = [peak for peak in peaks if peak >= before and peak + behind <= leads.shape[1]]
    if len(whole) < FEWEST_BEATS:
        return np.nan, np.nan
    beat = np.median([leads[:, peak - before : peak + behind] for peak in whole], axis=0)
    velocity = np.sqrt(np.mean(np.square(gaussian_filter1d(beat, 0.004 * rate, axis=1, order=1)), axis=0))
    noise, quiet = np.median(np.sort(velocity)[: round(0.3 * rate)]), round(0.012 * rate)
    steepest = before - near + int(velocity[before - near : before + near].argmax())
    fast = velocity > noise + STEEP * (velocity[steepest] - noise)
    start = end = steepest
    while start > quiet and fast[start - quiet : start].any():
        start -= 1
    while end < len(fast) - quiet - 1 and fast[end + 1 : end + 1 + quiet].any():
        end += 1
    return (start - before) * 1000 / rate, (end - before) * 1000 / rate


def _waves(nk, lead, peaks, rate):
    """Starts of the P waves and ends of the T waves of a lead in ms from the R peaks, NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waves = nk.ecg_delineate(lead, peaks, sampling_rate=rate, method="prominence")[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):  # the library found nothing
            waves = {}
    nothing = np.full(len(peaks), np.nan)
    found = (np.asarray(waves.get(name, nothing), dtype=float) for name in ("ECG_P_Onsets", "ECG_T_Offsets"))
    return [(wave - peaks) * 1000 / rate if len(wave) == len(peaks) else nothing for wave in found]


def _agreed(of_leads, low, high):
    """The median of the leads' medians; None where too few leads or beats have it, or they don't agree."""
    medians = []
    for values in of_leads:
        good = values[(values >= low) & (values <= high)]
        if len(good) >= max(FEWEST_BEATS, 0.5 * len(values)) and iqr(good) <= AGREE_MS:
            medians.append(np.median(good))
    if len(medians) < FEWEST_LEADS or iqr(medians) > AGREE_MS:
        return None
    return float(np.median(medians))
