"""What is lost between an ECG and its codes: in the signal, in the beats, and what the codes cost.

PRDN is the root of the squared error over the squared deviation from the mean, in percent (Zigel, Cohen, Katz, IEEE
Trans Biomed Eng 47 (2000) 1422); PRD leaves the mean in. Beats are found and delineated by NeuroKit2 (Makowski et al.,
Behav Res Methods 53 (2021) 1689), in the same way on both sides.
"""

import math
import warnings

import numpy as np

from data_provider.read import LEADS
from ecg_tokenizer.amplitude import SCALES
from ecg_tokenizer.quality.bands import RATE, band_errors

SECONDS = 10
RAW_BITS_PER_SECOND = 12 * RATE * 16
MATCH_MS = 75  # a beat is kept when one lies so near in the reconstruction
RHYTHM_LEAD = LEADS.index("II")


def signal_errors(signal, recon):
    """Errors of one reconstruction.

    Parameters
    ----------
    signal, recon : float arrays [12, T]
        mV.

    Returns
    -------
    dict
        prdn, prd, snr_db, mse_mv2, mse_standardised, correlation over all leads, and in ``leads`` of each that is not
        flat; over all leads also what `bands.band_errors` tells. prdn and snr_db over all leads are of the standardised
        signals, in which each lead weighs the same; a lead's own are the same in both.
    """
    mean = signal.mean(1, keepdims=True)
    std = signal.std(1, keepdims=True)
    live = std[:, 0] > 1e-6
    scale = np.where(std > 1e-6, std, 1)
    error = recon - signal
    standardised = (error / scale)[live]
    per_lead = {}
    for row in np.flatnonzero(live):
        lead_share = float(((error[row] / scale[row]) ** 2).mean())  # of the lead's power, which is 1
        per_lead[LEADS[row]] = {
            "prdn": 100 * math.sqrt(lead_share),
            "prd": 100 * math.sqrt((error[row] ** 2).sum() / (signal[row] ** 2).sum()),
            "snr_db": _decibel(lead_share),
            "mse_mv2": float((error[row] ** 2).mean()),
            "mse_standardised": lead_share,
            "correlation": _correlation(signal[row], recon[row]),
        }
    power = ((signal - mean) ** 2 / scale**2)[live].sum()
    share = (standardised**2).sum() / power
    return {
        "prdn": 100 * math.sqrt(share),
        "prd": 100 * math.sqrt((error**2).sum() / (signal**2).sum()),
        "snr_db": _decibel(share),
        "mse_mv2": float((error**2).mean()),
        "mse_standardised": float((standardised**2).mean()),
        "correlation": float(np.mean([lead["correlation"] for lead in per_lead.values()])),
        **band_errors(((signal - mean) / scale)[live], standardised),
        "leads": per_lead,
    }


def beat_errors(signal, recon):
    """What happened to the beats of one ECG; a measure that cannot be taken (no beats found) is left out.

    Returns
    -------
    dict
        heart_rate_bpm (error), r_peak_ms (median error), beats, beats_kept, beats_added (counts), qrs_amplitude_mv and
        qrs_amplitude_percent (error of the peak-to-peak amplitude, over leads and beats), st_level_mv (error at
        R + 120 ms against R - 70 ms), qrs_duration_ms (error of the median); ``leads`` holds qrs_amplitude_mv and
        st_level_mv of each.
    """
    before, after = r_peaks(signal[RHYTHM_LEAD]), r_peaks(recon[RHYTHM_LEAD])
    found = {"beats": len(before)}
    if len(before) < 2:
        return found
    distance = (
        np.abs(before[:, None] - after[None, :]) * 1000 / RATE if len(after) else np.full((len(before), 1), np.inf)
    )
    kept = distance.min(1) <= MATCH_MS
    found["beats_kept"] = int(kept.sum())
    found["beats_added"] = max(0, len(after) - int(kept.sum()))
    if len(after) > 1:
        found["heart_rate_bpm"] = abs(_heart_rate(before) - _heart_rate(after))
    if kept.any():
        found["r_peak_ms"] = float(np.median(distance.min(1)[kept]))
    found |= _wave_errors(signal, recon, before)
    durations = [_qrs_duration(x[RHYTHM_LEAD], peaks) for x, peaks in ((signal, before), (recon, after))]
    if None not in durations:
        found["qrs_duration_ms"] = abs(durations[0] - durations[1])
    return found


def code_figures(codes, n_codes, levels=None, depth=1):
    """What codes cost, and how they are used.

    Parameters
    ----------
    codes : int array [N, F]
        The waveform's.
    levels : int array [N, 12], optional
        The amplitudes', part of the cost only.
    depth : int
        Alphabets that take turns along F and share ``n_codes``. Which one it is needs no bits; ``entropy_bits`` is of a
        code whose alphabet is known, ``perplexity`` of all codes together.
    """
    codes = np.asarray(codes)
    counts = np.bincount(codes.ravel(), minlength=n_codes)
    entropy = float(np.mean([_entropy(np.bincount(codes[:, stage::depth].ravel())) for stage in range(depth)]))
    per_second = codes.shape[1] / SECONDS
    nominal, coded = per_second * math.log2(n_codes / depth), per_second * entropy
    if levels is not None:
        nominal += levels.shape[1] * math.log2(SCALES) / SECONDS
        coded += levels.shape[1] * _entropy(np.bincount(levels.ravel())) / SECONDS
    return {
        "n_codes": n_codes,
        "codes_per_ecg": int(codes.shape[1]),
        "codes_used": int((counts > 0).sum()),
        "usage": float((counts > 0).mean()),
        "dead_codes": int((counts == 0).sum()),
        "perplexity": 2 ** _entropy(counts),
        "entropy_bits": entropy,
        "bits_per_second": nominal,
        "entropy_bits_per_second": coded,
        "compression": RAW_BITS_PER_SECOND / nominal,
        "entropy_compression": RAW_BITS_PER_SECOND / coded if coded else None,
    }


def summarise(errors, beats):
    """Means over the records; for beats also the medians, and the share that was kept."""
    over_all = {key: float(np.mean([e[key] for e in errors])) for key in errors[0] if key != "leads"}
    over_all["prdn_pooled"] = 100 * math.sqrt(np.mean([(e["prdn"] / 100) ** 2 for e in errors]))
    leads = {
        lead: _means([part["leads"][lead] for part in [*errors, *beats] if lead in part.get("leads", {})])
        for lead in LEADS
    }
    counted = sum(b["beats"] for b in beats)
    waves = {"beats": counted, "records_with_beats": sum("beats_kept" in b for b in beats)}
    if counted:
        waves["beats_kept"] = sum(b.get("beats_kept", 0) for b in beats) / counted
        waves["beats_added"] = sum(b.get("beats_added", 0) for b in beats) / counted
    for key in sorted({key for b in beats for key in b} - {"beats", "beats_kept", "beats_added", "leads"}):
        values = [b[key] for b in beats if key in b]
        waves[key] = {"mean": float(np.mean(values)), "median": float(np.median(values)), "records": len(values)}
    return {"signal": over_all, "leads": leads, "beats": waves}


def _means(parts):
    """The mean of each key over the dicts that have it."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: float(np.mean([part[key] for part in parts if key in part])) for key in keys}


def _entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def _decibel(share):
    return -10 * math.log10(max(share, 1e-12))


def _correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1]) if b.std() > 1e-9 else 0.0


def r_peaks(lead):
    """Samples at which a lead [T] has its R peaks."""
    import neurokit2 as nk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cleaned = nk.ecg_clean(lead, sampling_rate=RATE)
            return np.asarray(nk.ecg_peaks(cleaned, sampling_rate=RATE)[1]["ECG_R_Peaks"], dtype=int)
        except (ValueError, IndexError, ZeroDivisionError):  # how the library says that there is nothing to find
            return np.empty(0, dtype=int)


def _heart_rate(peaks):
    return 60 * RATE / float(np.diff(peaks).mean())


def _qrs_duration(lead, peaks):
    """Median QRS duration in ms, or None."""
    import neurokit2 as nk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waves = nk.ecg_delineate(nk.ecg_clean(lead, sampling_rate=RATE), peaks, sampling_rate=RATE, method="dwt")[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):
            return None
    onsets, offsets = (np.asarray(waves[name], dtype=float) for name in ("ECG_R_Onsets", "ECG_R_Offsets"))
    durations = (offsets - onsets) * 1000 / RATE
    durations = durations[(durations > 20) & (durations < 300)]
    return float(np.median(durations)) if len(durations) else None


def _wave_errors(signal, recon, peaks):
    """Errors of QRS amplitude and ST level at the original's beats, over leads and beats."""
    whole = [p for p in peaks if p >= 50 and p + 75 <= signal.shape[1]]
    if not whole:
        return {}

    def measure(x):
        qrs = np.stack([np.ptp(x[:, p - 25 : p + 25], axis=1) for p in whole])
        baseline = np.stack([x[:, p - 40 : p - 30].mean(1) for p in whole])
        st = np.stack([x[:, p + 55 : p + 65].mean(1) for p in whole]) - baseline
        return qrs, st

    (qrs, st), (qrs_after, st_after) = measure(signal), measure(recon)
    return {
        "qrs_amplitude_mv": float(np.abs(qrs - qrs_after).mean()),
        "qrs_amplitude_percent": float(100 * np.abs(qrs - qrs_after).sum() / max(qrs.sum(), 1e-9)),
        "st_level_mv": float(np.abs(st - st_after).mean()),
        "leads": {
            lead: {"qrs_amplitude_mv": float(q), "st_level_mv": float(t)}
            for lead, q, t in zip(LEADS, np.abs(qrs - qrs_after).mean(0), np.abs(st - st_after).mean(0), strict=True)
        },
    }
