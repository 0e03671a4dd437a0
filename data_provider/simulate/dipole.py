"""The heart of the simulated ECGs: a current dipole whose path in each beat depends on the findings.

Each wave of a beat (P, Q, R, S, T and their parts) is a Gaussian in time whose amplitude is a vector: x to the
patient's left, y to the feet, z to the back, in mV of the Frank leads. The sum over waves and beats is the dipole's
path; lead_field.py turns it into the leads.

Sources: waves as Gaussians, McSharry et al., IEEE Trans Biomed Eng 50 (2003) 289; the dipole in three dimensions,
Sameni et al., EURASIP J Adv Signal Process 2007, 043407. What each finding does to the waves follows textbook criteria,
AHA/ACCF/HRS 2009 (J Am Coll Cardiol 53, 976-1011), and is modelled, not fitted to recordings.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_provider.simulate.lead_field import DOWER, SAMPLE_RATE, SAMPLES, independent_leads


@dataclass(frozen=True)
class Wave:
    """One Gaussian: ``centre`` in s after the QRS onset, widths (standard deviations) in s, ``vector`` in mV."""

    centre: float
    before: float
    after: float
    vector: np.ndarray
    follows_qt: bool = False  # the T wave moves with the QT interval of each beat

    def scaled(self, factor):
        return replace(self, vector=self.vector * factor)


@dataclass(frozen=True)
class Beat:
    """A kind of beat: its waves by name; ``qt`` is the QT interval in s that its T wave is drawn for."""

    waves: dict
    qt: float

    def scaled(self, qrs, rest):
        """The beat with its QRS waves times ``qrs`` and all others (P, ST, T) times ``rest``."""
        return replace(self, waves={n: wave.scaled(qrs if _is_qrs(n) else rest) for n, wave in self.waves.items()})


def _is_qrs(name):
    return name[0] in "QRS" and name != "ST"


def _wave(centre, width, vector, after=None, follows_qt=False):
    return Wave(centre, width, width if after is None else after, np.array(vector, float), follows_qt)


# QRS waves of undisturbed conduction: septum (Q), free walls (R), base (S, S'). About 90 ms in all.
NORMAL_QRS = {
    "Q": (0.016, 0.0065, (-0.12, -0.04, -0.30)),
    "R": (0.040, 0.0100, (1.15, 0.85, 0.20)),
    "S": (0.060, 0.0090, (0.15, 0.00, 0.70)),
    "S'": (0.075, 0.0075, (-0.18, -0.08, 0.15)),
}
# Left bundle branch block: no septal q, two slow humps to the left and back (the notch), about 150 ms.
CLBBB_QRS = {
    "R": (0.042, 0.0150, (0.95, 0.45, 0.75)),
    "R2": (0.072, 0.0150, (0.48, 0.20, 0.70)),
    "R'": (0.102, 0.0165, (0.95, 0.40, 0.75)),
}
# Right bundle branch block: a normal first half, then a slow vector to the right and the front, about 140 ms.
CRBBB_QRS = {
    "Q": (0.016, 0.0065, (-0.12, -0.04, -0.32)),
    "R": (0.040, 0.0100, (1.10, 0.80, 0.25)),
    "S": (0.058, 0.0080, (0.15, 0.00, 0.45)),
    "R'": (0.098, 0.0175, (-0.50, 0.00, -0.78)),
}
LVH_QRS = {
    "Q": (0.017, 0.0065, (-0.15, -0.05, -0.22)),
    "R": (0.044, 0.0110, (2.00, 1.00, 0.55)),
    "S": (0.066, 0.0100, (0.50, 0.05, 1.35)),
    "S'": (0.083, 0.0080, (-0.15, -0.10, 0.20)),
}
# Ventricular ectopic beats: from the right ventricle's outflow, or from the left ventricle's apex.
PVC_QRS = (
    {"R": (0.055, 0.0230, (0.45, 1.30, 0.85)), "R'": (0.100, 0.0240, (0.35, 1.10, 1.05))},
    {"R": (0.055, 0.0230, (-0.55, -1.00, -1.00)), "R'": (0.100, 0.0240, (-0.25, -1.30, -0.70))},
)
# ST and T vectors: (ST, T). Infarctions by stage, as PTB-XL's infarction_stadium1 has them.
NORMAL_ST_T = ((0.0, 0.0, 0.0), (0.33, 0.27, -0.20))
CLBBB_ST_T = ((-0.10, -0.04, -0.15), (-0.50, -0.20, -0.50))
CRBBB_ST_T = ((0.0, 0.0, 0.02), (0.32, 0.25, 0.22))
LVH_ST_T = ((-0.16, -0.04, -0.14), (-0.46, -0.12, -0.38))
IMI_ST_T = {
    "Stadium I": ((-0.12, 0.30, 0.06), (0.15, 0.55, -0.15)),
    "Stadium II": ((0.0, 0.04, 0.0), (0.30, -0.40, -0.22)),
    "Stadium III": ((0.0, 0.0, 0.0), (0.32, 0.12, -0.22)),
}
AMI_ST_T = {
    "Stadium I": ((0.12, 0.0, -0.28), (0.40, 0.20, -0.50)),
    "Stadium II": ((0.0, 0.0, -0.05), (-0.22, 0.14, 0.38)),
    "Stadium III": ((0.0, 0.0, 0.0), (0.26, 0.24, 0.02)),
}
IMI_Q = (0.023, 0.0115, (0.00, -0.78, -0.30))
AMI_Q = (0.024, 0.0110, (0.05, 0.05, 0.75))


def sinus_beat(findings, stage, axis, pr, qt, gain, rng):
    """The waves of a conducted beat.

    Parameters
    ----------
    findings : set of str
        SCP statements; of these, CLBBB, CRBBB, LVH, IMI, AMI, LVOLT and AFIB (no P wave) change the beat.
    stage : str or None
        ``"Stadium I"``, ``"Stadium II"`` or ``"Stadium III"`` of an infarction.
    axis : float
        Electrical axis of the QRS in the frontal plane, in degrees (0 is lead I, 90 is aVF).
    pr, qt : float
        PR and QT intervals in s.
    gain : float
        The patient's own voltage, about 1.
    rng : numpy.random.Generator
        Individual variation; the same generator state gives the same heart.

    Returns
    -------
    Beat
    """
    conduction = next((name for name in ("CLBBB", "CRBBB", "LVH") if name in findings), None)
    table = dict({"CLBBB": CLBBB_QRS, "CRBBB": CRBBB_QRS, "LVH": LVH_QRS, None: NORMAL_QRS}[conduction])
    if conduction == "CRBBB" and "LVH" in findings:
        raise ValueError("CRBBB and LVH are not drawn together")
    if "IMI" in findings:
        table["Q"] = IMI_Q
    if "AMI" in findings:
        table["Q"] = AMI_Q
        table["R"] = (*table["R"][:2], np.add(table["R"][2], (0.0, 0.0, 0.38)))
        table["S"] = (*table["S"][:2], np.add(table["S"][2], (0.0, 0.0, -0.25)))
    stretch = rng.uniform(0.94, 1.06)
    qrs = {name: _wave(c * stretch, w * stretch, _vary(v, rng)) for name, (c, w, v) in table.items()}
    waves = _turn_to_axis(qrs, axis, conduction)
    if "AFIB" not in findings:
        waves |= _p_wave(pr, rng)
    st, t = _st_t(conduction, findings, stage)
    waves |= _st_t_waves(st, t, qt, max(wave.centre + 2 * wave.after for wave in qrs.values()), rng)
    return _voltage(Beat(waves, qt), findings, gain, rng)


def ventricular_beat(gain, qt, rng):
    """A premature ventricular beat: no P wave, QRS of about 150 ms, ST and T discordant (opposite to the QRS)."""
    table = PVC_QRS[int(rng.integers(len(PVC_QRS)))]
    qrs = {name: _wave(c, w, _vary(v, rng) * gain) for name, (c, w, v) in table.items()}
    against = -0.5 * qrs["R'"].vector
    return Beat(qrs | _st_t_waves(0.25 * against, against, qt, 0.15, rng), qt)


def _vary(vector, rng):
    """Variation between hearts: a vector changed by 10 % along each axis, and a little in direction."""
    vector = np.asarray(vector, float)
    return vector * (1 + 0.10 * rng.standard_normal(3)) + 0.02 * rng.standard_normal(3)


def _p_wave(pr, rng):
    """Right atrium (down and to the front), then left atrium (left and to the back): 100 ms, negative end in V1."""
    gain = rng.uniform(0.85, 1.25)
    return {
        "P": _wave(-pr + 0.038, 0.017, _vary((0.05, 0.09, -0.05), rng) * gain),
        "P'": _wave(-pr + 0.070, 0.017, _vary((0.08, 0.07, 0.05), rng) * gain),
    }


def _st_t(conduction, findings, stage):
    """ST and T vectors; an infarction's replace those of normal conduction and add to those of the other patterns."""
    infarction = IMI_ST_T if "IMI" in findings else AMI_ST_T if "AMI" in findings else None
    if infarction is None:
        return {"CLBBB": CLBBB_ST_T, "CRBBB": CRBBB_ST_T, "LVH": LVH_ST_T, None: NORMAL_ST_T}[conduction]
    st, t = infarction[stage]
    if conduction is None:
        return st, t
    own_st, own_t = {"CRBBB": CRBBB_ST_T, "LVH": LVH_ST_T}[conduction]
    return np.add(st, own_st), np.add(own_t, np.subtract(t, NORMAL_ST_T[1]))


def _st_t_waves(st, t, qt, qrs_end, rng):
    """A plateau from the QRS into a T wave that rises slowly, falls faster and ends (tangent) at ``qt``."""
    after = 0.036
    peak = qt - 2 * after
    return {  # the ST segment starts at its full height, at the J point
        "ST": _wave(qrs_end + 0.01, 0.014, st, max(0.04, 0.55 * (peak - qrs_end))),
        "T": _wave(peak, 0.056, _vary(t, rng), after, follows_qt=True),
    }


def _area(waves):
    return sum(wave.vector * (wave.before + wave.after) for wave in waves)


def net_axis(area):
    """Frontal axis in degrees of a net dipole vector [..., 3], from leads I and aVF as a reader determines it."""
    one, two = area @ DOWER[0], area @ DOWER[1]
    # aVF is recorded at 87 % of a bipolar lead's strength, hence 2 / sqrt(3)
    return np.degrees(np.arctan2((two - 0.5 * one) * 2 / np.sqrt(3), one))


def _turn_to_axis(qrs, axis, conduction):
    """Rotate the QRS in the frontal plane until its electrical axis is ``axis``.

    The septal wave stays as it is. So does the late wave of right bundle branch block, which is not counted either:
    there the axis is that of the first half, the left ventricle's.
    """
    counted = {name: wave for name, wave in qrs.items() if not (conduction == "CRBBB" and name == "R'")}
    turning = {name: wave for name, wave in counted.items() if name != "Q"}
    angles = np.radians(np.arange(-130, 130, 0.5))
    cos, sin = np.cos(angles), np.sin(angles)
    (x, y, z), whole = _area(turning.values()), _area(counted.values())
    turned = np.stack([cos * x - sin * y, sin * x + cos * y, np.full_like(angles, z)], axis=-1) + whole - (x, y, z)
    best = np.argmin(np.abs((net_axis(turned) - axis + 180) % 360 - 180))
    turn = np.array([[cos[best], -sin[best], 0], [sin[best], cos[best], 0], [0, 0, 1.0]])
    return qrs | {name: replace(wave, vector=turn @ wave.vector) for name, wave in turning.items()}


def _voltage(beat, findings, gain, rng):
    """Bring the beat to the voltages of its findings, read as on paper: Sokolow-Lyon for LVH, amplitudes for LVOLT."""
    sokolow, limb, chest = voltages(beat)
    if "LVOLT" in findings:  # QRS below 0.5 mV in all limb leads and 1 mV in all chest leads; P and T lose less
        factor = min(rng.uniform(0.28, 0.42) / limb, 0.9 / chest)
        return beat.scaled(factor, min(1.0, 1.7 * factor))
    if "LVH" in findings:  # SV1 + RV5 or RV6 from 3.5 mV; the patient's gain must not hide it
        factor = rng.uniform(3.9, 5.2) / sokolow
        return beat.scaled(factor, np.sqrt(factor))
    factor = max(gain, 0.75 / limb)  # clear of low voltage, and of hypertrophy where its index is read
    if "CLBBB" not in findings:
        factor = max(0.75 / limb, min(factor, 3.1 / sokolow))
    return beat.scaled(factor, factor)


def voltages(beat):
    """Sokolow-Lyon index, largest peak-to-peak QRS of the limb leads, and of the chest leads: mV, of a clean beat."""
    shape = independent_leads(beat_dipole(beat, only_qrs=True))
    one, two, chest = shape[0], shape[1], shape[2:]
    limb = np.stack([one, two, two - one, two - 0.5 * one, one - 0.5 * two, 0.5 * (one + two)])
    return -chest[0].min() + chest[4:6].max(), np.ptp(limb, axis=1).max(), np.ptp(chest, axis=1).max()


def beat_dipole(beat, only_qrs=False):
    """One beat's dipole [3, 585] from 0.42 s before the QRS onset to 0.75 s after it."""
    waves = {name: wave for name, wave in beat.waves.items() if _is_qrs(name)} if only_qrs else beat.waves
    return _beats(replace(beat, waves=waves), np.zeros(1), np.array([beat.qt]))[0]


BEFORE, WINDOW = 0.42, 585  # a beat's window: s before its QRS onset, samples


def _beats(beat, fraction, qt):
    """Dipoles [B, 3, WINDOW] of a beat whose onset lies ``fraction`` s after a sample, with QT intervals ``qt`` [B]."""
    waves = list(beat.waves.values())
    later = (qt - beat.qt)[:, None] * np.array([wave.follows_qt for wave in waves])
    time = np.arange(WINDOW) / SAMPLE_RATE - BEFORE
    away = time - (np.array([wave.centre for wave in waves]) + later + fraction[:, None])[:, :, None]  # [B, W, WINDOW]
    before, after = np.array([[wave.before, wave.after] for wave in waves]).T
    shape = np.exp(-0.5 * (away / np.where(away < 0, before[:, None], after[:, None])) ** 2)
    return np.einsum("bwt,wv->bvt", shape, np.array([wave.vector for wave in waves]), optimize=True)


def dipole_path(groups):
    """The dipole [3, SAMPLES] of a recording.

    Parameters
    ----------
    groups : list of (Beat, onsets, qt)
        For each kind of beat the times of its QRS onsets in s and the QT interval of each, both [B].
    """
    margin = WINDOW
    path = np.zeros((3, SAMPLES + 2 * margin))
    for beat, onsets, qt in groups:
        if not len(onsets):
            continue
        first = np.floor(onsets * SAMPLE_RATE).astype(int)
        dipoles = _beats(beat, onsets - first / SAMPLE_RATE, qt)
        for at, dipole in zip(first - int(BEFORE * SAMPLE_RATE) + margin, dipoles, strict=True):
            if 0 <= at <= path.shape[1] - WINDOW:
                path[:, at : at + WINDOW] += dipole
    return path[:, margin:-margin]


def fibrillation(rng):
    """Fibrillatory waves [3, SAMPLES]: 5-8 Hz, of changing rate and size, largest in V1 and II."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    rate = rng.uniform(5.2, 7.5) + 0.6 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * time + rng.uniform(0, 6.28))
    phase = 2 * np.pi * np.cumsum(rate) / SAMPLE_RATE + rng.uniform(0, 6.28)
    size = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * time + rng.uniform(0, 6.28))
    wave = size * (np.sin(phase) + 0.35 * np.sin(2 * phase + 1.0))
    return rng.uniform(0.7, 1.3) * np.outer((-0.02, 0.06, -0.075), wave)
