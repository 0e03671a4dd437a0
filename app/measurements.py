"""What can be measured on an ECG without any model: rate, regularity and intervals, each where it can be.

R peaks and waves are found by NeuroKit2 (Makowski et al., Behav Res Methods 53 (2021) 1689) in several leads, and are
medians over beats. QTc is Bazett's, QT / sqrt(RR in s) (Heart 7
(1920) 353).
"""

import warnings
from dataclasses import dataclass

import numpy as np

from data_provider.read import LEADS

RATE = 500  # Hz
RHYTHM_LEADS = ("II", "V5", "V2", "I")  # the first in which beats are found
INTERVAL_LEADS = ("II", "I", "aVF", "V1", "V2", "V5", "V6")
FEWEST_BEATS, FEWEST_LEADS = 3, 3  # below which an interval is not measurable
IRREGULAR = 0.1  # standard deviation of RR over its mean from which a rhythm is called irregular
PLAUSIBLE_MS = {"pr": (80, 400), "qrs": (50, 220), "qt": (200, 650)}
WAVES = ("ECG_P_Onsets", "ECG_R_Onsets", "ECG_R_Offsets", "ECG_T_Offsets")


@dataclass(frozen=True)
class Measurements:
    """In beats per minute and milliseconds; None where it is not measurable.

    Attributes
    ----------
    rate : float
        Mean heart rate.
    rr_variation : float
        Standard deviation of the RR intervals over their mean.
    pr, qrs, qt, qtc : float
    """

    rate: float | None = None
    rr_variation: float | None = None
    pr: float | None = None
    qrs: float | None = None
    qt: float | None = None
    qtc: float | None = None

    @property
    def regular(self):
        """Whether the beats come evenly; None where too few were found."""
        return None if self.rr_variation is None else self.rr_variation < IRREGULAR

    def lines(self):
        """Names and values as texts."""
        rhythm = {True: "regular", False: "irregular", None: "not measurable"}[self.regular]
        if self.rr_variation is not None:
            rhythm += f" (RR varies by {self.rr_variation:.0%})"
        rows = [("heart rate", self.rate, "/min"), ("PR interval", self.pr, " ms"), ("QRS duration", self.qrs, " ms")]
        rows += [("QT interval", self.qt, " ms"), ("QTc (Bazett)", self.qtc, " ms")]
        texts = [(name, "not measurable" if value is None else f"{value:.0f}{unit}") for name, value, unit in rows]
        return [texts[0], ("rhythm", rhythm), *texts[1:]]


def measure(signal):
    """Measure an ECG.

    Parameters
    ----------
    signal : float array [12, T]
        mV at 500 Hz, leads in the standard order.

    Returns
    -------
    Measurements
    """
    peaks = _peaks(signal)
    if peaks is None:
        return Measurements()
    rr = np.diff(peaks) / RATE
    intervals = _intervals(signal, peaks)
    qtc = intervals["qt"] and intervals["qt"] / float(np.sqrt(np.median(rr)))
    variation = float(rr.std() / rr.mean()) if len(rr) >= FEWEST_BEATS else None
    return Measurements(float(60 / rr.mean()), variation, **intervals, qtc=qtc)


def _peaks(signal):
    """R peaks (samples) of the first lead that shows any; None without two."""
    from ecg_tokenizer.quality import r_peaks

    for lead in RHYTHM_LEADS:
        peaks = r_peaks(signal[LEADS.index(lead)])
        if len(peaks) >= 2:
            return peaks
    return None


def _intervals(signal, peaks):
    """PR, QRS and QT in ms, as cardiographs take them: QRS from its earliest start to its latest end in any lead."""
    leads = [_waves(signal[LEADS.index(lead)], peaks) for lead in INTERVAL_LEADS]
    p, start, end, t = ([of[wave] for of in leads if np.isfinite(of[wave])] for wave in range(len(WAVES)))
    if min(len(start), len(end)) < FEWEST_LEADS:
        return dict.fromkeys(PLAUSIBLE_MS)
    found = {"qrs": max(end) - min(start)}
    found["pr"] = min(start) - np.median(p) if len(p) >= FEWEST_LEADS else np.nan
    found["qt"] = np.median(t) - min(start) if len(t) >= FEWEST_LEADS else np.nan
    plausible = {name: low <= found[name] <= high for name, (low, high) in PLAUSIBLE_MS.items()}
    return {name: float(found[name]) if plausible[name] else None for name in PLAUSIBLE_MS}


def _waves(lead, peaks):
    """Where the waves of a lead begin and end, in ms from the R peak: medians over beats, NaN for what isn't found."""
    import neurokit2 as nk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cleaned = nk.ecg_clean(lead, sampling_rate=RATE)
            # Compared on files that hold their cardiograph's intervals, "dwt" makes every QRS 40 to 80 ms too long.
            waves = nk.ecg_delineate(cleaned, peaks, sampling_rate=RATE, method="prominence")[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):  # nothing to find, says the library
            return [np.nan] * len(WAVES)
    distances = []
    for name in WAVES:
        at = np.asarray(waves.get(name, ()), dtype=float)
        known = (at - peaks)[np.isfinite(at)] if len(at) == len(peaks) else ()
        distances.append(1000 / RATE * float(np.median(known)) if len(known) >= FEWEST_BEATS else np.nan)
    return distances
