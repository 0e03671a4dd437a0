"""What can be measured in an ECG without any model: rate, regularity, PR, QRS, QT; each only where it is measurable.

Beats are found in all leads taken together, waves by wavelets in single leads (Martinez et al. 2004), both by neurokit2;
an interval is the median over leads of the medians over beats, and only told where leads and beats agree.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from data_provider.read import LEADS

DELINEATED = ("I", "II", "aVF", "V2", "V5", "V6")  # between them every wave shows somewhere
FEWEST_BEATS, FEWEST_LEADS = 3, 3
AGREE_MS = 40  # leads whose medians lie further apart (half of them within) don't agree
# ms that a human ECG can have; what lies outside was a fault of the delineation
PLAUSIBLE = {"pr_ms": (80, 400), "qrs_ms": (50, 250), "qt_ms": (200, 700)}
REGULAR, IRREGULAR = 0.05, 0.12  # variation of RR intervals (standard deviation / mean) of a regular rhythm, an irregular


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
    rate = int(round(sample_rate))
    leads = [row for row in range(len(LEADS)) if np.ptp(signal[row]) > 0]
    cleaned = {row: nk.ecg_clean(signal[row], sampling_rate=rate) for row in leads}
    peaks = _beats(nk, cleaned, rate)
    if len(peaks) < FEWEST_BEATS:
        return Measurements(None, None, len(peaks), None, None, None, None)
    rr = np.diff(peaks) / sample_rate
    chosen = [LEADS.index(name) for name in DELINEATED if LEADS.index(name) in cleaned]
    intervals = [_intervals(nk, cleaned[row], peaks, rate) for row in chosen]
    found = {name: _agreed([lead[name] for lead in intervals], *limits) for name, limits in PLAUSIBLE.items()}
    typical = float(np.median(rr))
    return Measurements(
        heart_rate=60 / typical,
        rr_variation=float(rr.std() / rr.mean()),
        beats=len(peaks),
        qtc_ms=found["qt_ms"] / np.sqrt(typical) if found["qt_ms"] else None,
        **found,
    )


def _beats(nk, cleaned, rate):
    """Samples of the R peaks, found in the leads' magnitude; none where most single leads don't show as many."""
    if not cleaned:
        return np.empty(0, dtype=int)
    together = np.sqrt(np.mean(np.square(list(cleaned.values())), axis=0))
    peaks = _r_peaks(nk, together, rate)
    counts = np.array([len(_r_peaks(nk, lead, rate)) for lead in cleaned.values()])
    agree = np.abs(counts - len(peaks)) <= max(1, 0.1 * len(peaks))
    return peaks if agree.mean() >= 0.5 else np.empty(0, dtype=int)


def _r_peaks(nk, lead, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(nk.ecg_peaks(lead, sampling_rate=rate)[1]["ECG_R_Peaks"], dtype=int)
        except (ValueError, IndexError, ZeroDivisionError):  # how the library says that there is nothing to find
            return np.empty(0, dtype=int)


def _intervals(nk, lead, peaks, rate):
    """Interval -> ms of each beat of a lead, NaN where a wave wasn't found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waves = nk.ecg_delineate(lead, peaks, sampling_rate=rate, method="dwt")[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):
            return dict.fromkeys(PLAUSIBLE, np.full(len(peaks), np.nan))
    wave = {name: np.asarray(values, dtype=float) * 1000 / rate for name, values in waves.items()}
    return {
        "pr_ms": wave["ECG_R_Onsets"] - wave["ECG_P_Onsets"],
        "qrs_ms": wave["ECG_R_Offsets"] - wave["ECG_R_Onsets"],
        "qt_ms": wave["ECG_T_Offsets"] - wave["ECG_R_Onsets"],
    }


def _agreed(of_leads, low, high):
    """The median of the leads' medians; None where too few leads or beats have it, or they don't agree."""
    medians = []
    for values in of_leads:
        good = values[(values >= low) & (values <= high)]
        if len(good) >= max(FEWEST_BEATS, 0.5 * len(values)) and np.subtract(*np.percentile(good, [75, 25])) <= AGREE_MS:
            medians.append(np.median(good))
    if len(medians) < FEWEST_LEADS or np.subtract(*np.percentile(medians, [75, 25])) > AGREE_MS:
        return None
    return float(np.median(medians))
