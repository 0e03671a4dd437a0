"""Amplitude codes: the standard deviation of each lead in mV, on a logarithmic scale of 64 levels.

The network sees every lead at standard deviation 1, so the waveform's codes do not hold the amplitude. Level 0 is a
lead without signal, 1 to 63 are 25 steps a decade (9.6 % each) from 0.01 mV to 3 mV. Twelve levels of 6 bits are 72
bits an ECG, 7.2 bit/s.
"""

import numpy as np

SCALES = 64
SMALLEST_MV = 0.01  # a lead with a smaller standard deviation is noise, and decoded as flat
STEPS_PER_DECADE = 25


def scale_levels(std):
    """Levels of standard deviations.

    Parameters
    ----------
    std : array [..., 12]
        mV; 0 for a constant lead (`data_provider.read.signal.standardise` gives 1 for it).

    Returns
    -------
    levels : int64 array [..., 12]
        0 to 63. From 0.0096 to 3.16 mV the level's scale is at most 4.7 % off; larger ones get the last level.
    """
    steps = STEPS_PER_DECADE * np.log10(np.maximum(std, SMALLEST_MV / 10) / SMALLEST_MV)
    return np.clip(np.rint(steps) + 1, 0, SCALES - 1).astype(np.int64)


def scales_of(levels):
    """Standard deviations, mV float32 [..., 12], of levels; level 0 is 0 mV."""
    levels = np.asarray(levels)
    scales = SMALLEST_MV * 10 ** ((levels - 1) / STEPS_PER_DECADE)
    return np.where(levels > 0, scales, 0).astype(np.float32)
