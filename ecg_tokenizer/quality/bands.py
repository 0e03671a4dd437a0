"""Noise or loss? How much of an error lies where the ECG is, and how much above and below.

The ECG's band is 0.67 to 40 Hz, as monitors filter it (AHA/ACCF/HRS 2007, doi 10.1161/CIRCULATIONAHA.106.180200). What
lies above is mostly muscle noise and hum, what lies below mostly the baseline: nobody wants them back.
"""

import math

import numpy as np

RATE = 500  # Hz
LOW_HZ, HIGH_HZ = 0.67, 40.0
ORDER = 4  # of the Butterworth band-pass, run forwards and backwards (so of 8 in effect, and without delay)


def band_errors(signal, error):
    """Errors inside and outside the ECG's band.

    Parameters
    ----------
    signal, error : float arrays [leads, T]
        Standardised signals at 500 Hz, and what a reconstruction has more than they have.

    Returns
    -------
    dict
        prdn_band: PRDN (%) of signal and reconstruction that both went through the band-pass; error_below and
        error_above: shares of the error's energy below 0.67 and above 40 Hz (by Fourier transform), 0 to 1.
    """
    from scipy.signal import sosfiltfilt

    energy = np.square(np.abs(np.fft.rfft(error, axis=-1))).sum(0)
    hertz = np.fft.rfftfreq(error.shape[-1], 1 / RATE)
    whole = max(float(energy.sum()), 1e-12)
    kept_signal, kept_error = (sosfiltfilt(_band_pass(), x, axis=-1) for x in (signal, error))
    kept_signal = kept_signal - kept_signal.mean(-1, keepdims=True)
    return {
        "prdn_band": 100 * math.sqrt(np.square(kept_error).sum() / max(np.square(kept_signal).sum(), 1e-12)),
        "error_below": float(energy[hertz < LOW_HZ].sum()) / whole,
        "error_above": float(energy[hertz > HIGH_HZ].sum()) / whole,
    }


def _band_pass():
    from scipy.signal import butter

    return butter(ORDER, [LOW_HZ, HIGH_HZ], "bandpass", fs=RATE, output="sos")
