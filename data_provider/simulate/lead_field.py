"""The lead field of the simulated ECGs: the twelve leads of a heart dipole, and the noise of nine electrodes.

Source of the lead field: Dower, Machado and Osborne, Clin Cardiol 3 (1980) 87 (the leads from the Frank axes: x to the
patient's left, y to the feet, z to the back).
"""

import numpy as np

SAMPLE_RATE = 500
SAMPLES = 5000
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)
ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")


def independent_leads(dipole):
    """Leads I, II, V1..V6 [8, T] in mV of a dipole [3, T] (Dower's lead field)."""
    return DOWER @ dipole


def electrode_noise(rng, muscle, mains, drift):
    """What the electrodes add to the leads I, II, V1..V6 [8, SAMPLES], in mV.

    Noise arises at the nine electrodes, so it reaches the leads as in a real recording: the right arm's in I, II and
    aVR, a chest electrode's in its own lead alone, and Einthoven's law holds for it too.

    Parameters
    ----------
    muscle, mains, drift : array [9]
        RMS in mV at each of ELECTRODES: broad-band muscle noise (15-150 Hz), 50 Hz hum, slow baseline (under 0.6 Hz).
    """
    length = 6000  # longer than the record, since noise made from a spectrum repeats itself after this
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    slow = np.where((frequency > 0.04) & (frequency < 0.6), 1 / np.maximum(frequency, 0.1), 0.0)
    fast = 1 / (1 + (15 / np.maximum(frequency, 0.1)) ** 4) / (1 + (frequency / 110) ** 4)
    unit = [shape / np.sqrt(2 * np.sum(shape**2)) for shape in (slow, fast)]  # RMS 1 after the inverse transform
    spectrum = rng.standard_normal((9, 2 * len(frequency))).view(complex) / np.sqrt(2)
    density = np.outer(drift, unit[0]) + np.outer(muscle, unit[1])
    noise = np.fft.irfft(spectrum * density, length)[:, :SAMPLES] * length
    hum = 2 * np.pi * 50 * np.arange(SAMPLES) / SAMPLE_RATE + rng.uniform(0, 6.28, (9, 1))
    noise += np.sqrt(2) * np.asarray(mains)[:, None] * np.sin(hum)
    central = noise[:3].mean(axis=0)  # Wilson's central terminal
    return np.concatenate([noise[1:2] - noise[0], noise[2:3] - noise[0], noise[3:] - central])


def twelve_leads(independent):
    """All twelve leads [12, T], int16 at 1000 adu/mV, in the standard order, from I, II, V1..V6 [8, T] in mV.

    III, aVR, aVL and aVF are made from the rounded I and II: II = I + III exactly, the others to half a unit.
    """
    adu = np.rint(independent * 1000).astype(np.int64)
    one, two = adu[0], adu[1]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.clip(np.concatenate([np.rint(limb), adu[2:]]), -32767, 32767).astype(np.int16)
