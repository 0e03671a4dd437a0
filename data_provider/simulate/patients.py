"""Simulated patients and their ECGs: findings, rhythm, beat times and the twelve leads, all drawn from a seed.

Everything about a patient follows from (seed, patient number) alone, and everything about an ECG from (seed, patient
number, which of the patient's ECGs), so that a longer simulation begins with a shorter one's records.
"""

from dataclasses import dataclass

import numpy as np

from data_provider.simulate.dipole import dipole_path, fibrillation, sinus_beat, ventricular_beat
from data_provider.simulate.lead_field import (
    ELECTRODES,
    SAMPLE_RATE,
    SAMPLES,
    electrode_noise,
    independent_leads,
    twelve_leads,
)

SECONDS = SAMPLES / SAMPLE_RATE
FOLDS = 10
ECTOPIC_QT = 0.40  # of ventricular beats, in s
STAGES = ("Stadium I", "Stadium II", "Stadium III")
# Chronic findings, the same in all ECGs of a patient, and their share of the patients. Infarction is not drawn with
# left bundle branch block (which hides it), nor with anything that would contradict its own criteria.
CHRONIC = {
    (): 0.23,
    ("CLBBB",): 0.13,
    ("CRBBB",): 0.10,
    ("LVH",): 0.11,
    ("IMI",): 0.10,
    ("AMI",): 0.13,
    ("LVOLT",): 0.10,
    ("CRBBB", "IMI"): 0.02,
    ("LVH", "IMI"): 0.02,
    ("IMI", "LVOLT"): 0.02,
    ("CRBBB", "LVOLT"): 0.02,
    ("AMI", "LVOLT"): 0.02,
}
HEALTHY = 0.20  # share of patients whose ECGs are all normal
# Electrodes noisy together, as PTB-XL's columns name the leads ("alles" is German for all): text -> electrodes, share
ALL, ARMS_LEGS = tuple(ELECTRODES), ("RA", "LA", "LL")
STATIC = ((" , alles,  ", ALL, 0.6), (" , I-AVF,  ", ARMS_LEGS, 0.4))
DRIFT = (
    (" , alles", ALL, 0.6),
    (" , II-AVF", ("LL",), 0.15),
    (" , V1", ("V1",), 0.1),
    (" , V5,V6", ("V5", "V6"), 0.15),
)


@dataclass(frozen=True)
class Patient:
    """What stays the same from ECG to ECG; ``age`` in years at the first one, ``axis`` in degrees, ``gain`` about 1."""

    number: int
    seed: int
    fold: int
    ecgs: int
    age: int
    sex: int
    height: float
    weight: float
    chronic: tuple
    healthy: bool
    axis: float
    gain: float
    stage: int
    fibrillates: bool


@dataclass(frozen=True)
class Ecg:
    """One ECG of a patient: SCP statements, rhythm, rate (beats a minute), intervals (s), ectopic beats, noise."""

    patient: Patient
    which: int
    findings: tuple
    rhythm: str
    stage: str | None
    rate: float
    pr: float
    qt: float
    ectopics: int
    static: tuple
    drift: tuple


def draw_patient(seed, number):
    """Patient ``number`` (from 0) of a simulation."""
    rng = np.random.default_rng([seed, number, 0])
    healthy = bool(rng.random() < HEALTHY)
    kinds = list(CHRONIC)
    chronic = kinds[rng.choice(len(kinds), p=list(CHRONIC.values()))]
    # inferior Q waves turn the axis themselves; calling that left axis deviation would be double counting
    left = rng.random() < 0.27 and "IMI" not in chronic and not healthy
    axis = rng.uniform(-62, -38) if left else rng.uniform(2, 25) if "IMI" in chronic else rng.uniform(8, 75)
    sex = int(rng.integers(2))
    height = rng.normal(176 if sex == 0 else 164, 7)
    weight = rng.normal(25.5, 4) * (height / 100) ** 2
    known = rng.random(2) < 0.6
    return Patient(
        number=number,
        seed=seed,
        fold=_fold(seed, number),
        ecgs=int(rng.choice([1, 2, 3], p=[0.8, 0.15, 0.05])),
        age=int(np.clip(rng.normal(54 if healthy else 62, 15), 18, 95)),
        sex=sex,
        height=round(height) if known[0] else np.nan,
        weight=round(max(weight, 40)) if known[1] else np.nan,
        chronic=() if healthy else chronic,
        healthy=healthy,
        axis=axis,
        gain=float(np.exp(0.15 * rng.standard_normal())),
        stage=int(rng.integers(3)),
        fibrillates=bool(rng.random() < 0.22) and not healthy,
    )


def _fold(seed, number):
    """Of every ten patients in a row each gets another fold (1..10): balanced splits however many there are."""
    order = np.random.default_rng([seed, number // FOLDS, 1]).permutation(FOLDS)
    return int(order[number % FOLDS]) + 1


def draw_ecg(patient, which):
    """The patient's ECG number ``which`` (from 0): rhythm and quality change from one to the next, infarctions age."""
    rng = np.random.default_rng([patient.seed, patient.number, 2 + which])
    dice = rng.random(5)  # all at once: the draws of one finding do not depend on another's rule
    chronic, block = patient.chronic, {"CLBBB", "CRBBB"} & set(patient.chronic)
    if patient.healthy:
        rhythm = "SR"
    elif patient.fibrillates:
        rhythm = "AFIB"
    else:
        rhythm = ("SR", "SBRAD", "STACH")[int(np.searchsorted([0.48, 0.74], dice[0]))]
    rate = {"SR": (62, 98), "SBRAD": (40, 56), "STACH": (106, 136), "AFIB": (65, 125)}[rhythm]
    rate = rng.uniform(*rate)
    changing, pr, qtc = [], rng.uniform(0.13, 0.185), rng.uniform(0.385, 0.425)
    if not patient.healthy:
        plain = dice[1] < 0.27 and rhythm in ("SR", "SBRAD") and not block
        if plain:  # not in fast rhythms, where its end cannot be seen, nor with broad QRS, which prolongs QT by itself
            changing.append("LNGQT")
            rate = min(rate, 82)
            qtc = rng.uniform(0.51, 0.56)
        if dice[2] < 0.24 and rhythm in ("SR", "SBRAD"):
            changing.append("1AVB")
            pr = rng.uniform(0.24, 0.32)
            rate = min(rate, 88)
        if dice[3] < 0.30 and rate < 105 and not plain:
            changing.append("PVC")
    if rhythm == "STACH":
        pr = min(pr, 0.15)
    findings = (*chronic, *changing)
    if not findings and rhythm == "SR" and patient.axis > -30:
        findings = ("NORM",)
    rr = 60 / rate
    stage = STAGES[min(2, patient.stage + which)] if {"IMI", "AMI"} & set(chronic) else None
    # Fridericia's cube root keeps normal QT right at all rates; a long QT is one by Bazett's formula too
    qt = qtc * (np.sqrt(rr) if "LNGQT" in findings else np.cbrt(rr)) + (0.04 if block else 0.0)
    ectopics = int(rng.integers(1, 4)) if "PVC" in findings else 0
    static, drift = _quality(STATIC, dice[4] < 0.14, rng), _quality(DRIFT, 0.14 <= dice[4] < 0.30, rng)
    return Ecg(patient, which, findings, rhythm, stage, rate, pr, qt, ectopics, static, drift)


def _quality(kinds, there, rng):
    kind = kinds[rng.choice(len(kinds), p=[share for *_, share in kinds])]
    return kind[:2] if there else ()


def signal(ecg):
    """The twelve leads [12, 5000] of an ECG, int16 at 1000 adu/mV, and its ventricular rate per minute."""
    rng = np.random.default_rng([ecg.patient.seed, ecg.patient.number, 1001 + ecg.which])
    onsets, qt, ectopic = beat_times(ecg, rng)
    beat, extra = heart_beats(ecg)
    path = dipole_path([(beat, onsets[~ectopic], qt[~ectopic]), (extra, onsets[ectopic], qt[ectopic])])
    if ecg.rhythm == "AFIB":
        path += fibrillation(rng) * (0.6 if "LVOLT" in ecg.findings else 1.0)
    time = np.arange(SAMPLES) / SAMPLE_RATE  # breathing moves the heart under the electrodes
    path *= 1 + 0.04 * np.sin(2 * np.pi * rng.uniform(0.2, 0.33) * time + rng.uniform(0, 6.28))
    seen = onsets[(onsets > 0) & (onsets < SECONDS)]
    rate = 60 * (len(seen) - 1) / (seen[-1] - seen[0])
    return twelve_leads(independent_leads(path) + electrode_noise(rng, *_noise_levels(ecg, rng))), rate


def heart_beats(ecg):
    """The conducted and the ectopic beat of an ECG (dipole.Beat), free of noise."""
    patient = ecg.patient
    rng = np.random.default_rng([patient.seed, patient.number, 1000])  # the same beat shape in all of a patient's ECGs
    conducted = sinus_beat({*ecg.findings, ecg.rhythm}, ecg.stage, patient.axis, ecg.pr, ecg.qt, patient.gain, rng)
    low = 0.45 if "LVOLT" in ecg.findings else 1.0
    return conducted, ventricular_beat(patient.gain * low, ECTOPIC_QT, rng)


def _noise_levels(ecg, rng):
    """Muscle noise, hum and slow baseline (RMS in mV) at the electrodes: mild, strong where the columns say so."""
    muscle = np.full(9, rng.uniform(0.004, 0.010)) * rng.uniform(0.7, 1.3, 9)
    mains = rng.uniform(0.0005, 0.002, 9)
    drift = np.full(9, rng.uniform(0.008, 0.020)) * rng.uniform(0.7, 1.3, 9)
    if ecg.static:
        hit = np.isin(ELECTRODES, ecg.static[1])
        muscle[hit] += rng.uniform(0.03, 0.055)
        mains[hit] += rng.uniform(0.025, 0.05)
    if ecg.drift:
        drift[np.isin(ELECTRODES, ecg.drift[1])] += rng.uniform(0.22, 0.40)
    return muscle, mains, drift


def beat_times(ecg, rng):
    """QRS onsets [B] in s, from before the record's start to past its end, QT intervals [B] in s, which are ectopic."""
    rr, count = 60 / ecg.rate, int(14 / 60 * ecg.rate) + 6
    if ecg.rhythm == "AFIB":
        # irregularly irregular: independent intervals, never shorter than the AV node's refractory time
        intervals = np.maximum(rr * np.exp(0.24 * rng.standard_normal(count) - 0.03), 0.36)
    else:  # breathing sets the sinus node's rhythm (respiratory sinus arrhythmia)
        breath = np.sin(2 * np.pi * rng.uniform(0.2, 0.33) * rr * np.arange(count) + rng.uniform(0, 6.28))
        intervals = rr * (1 + 0.025 * breath + 0.01 * rng.standard_normal(count))
    onsets = -2 * rr + rng.uniform(0, rr) + np.concatenate([[0.0], np.cumsum(intervals)])
    ectopic = np.zeros(len(onsets), bool)
    inside = np.flatnonzero((onsets > 0.9 + 0.5 * rr) & (onsets < SECONDS - 0.8))
    places = inside[int(rng.integers(2)) :: 2]  # never two in a row
    places = places if len(places) >= ecg.ectopics else inside[::2]
    ectopic[rng.choice(places, ecg.ectopics, replace=False)] = True
    # Early by a third, with a full compensatory pause: the sinus node goes on unmoved. In fibrillation, where the beat
    # before may be near, never into its refractory time.
    early = np.maximum(onsets - rng.uniform(0.30, 0.40) * rr, np.concatenate([[-np.inf], onsets[:-1] + 0.34]))
    onsets = np.where(ectopic, early, onsets)
    # in fibrillation the QT interval follows the intervals before it, slowly
    before = np.concatenate([[rr], np.diff(onsets)])
    qt = ecg.qt * np.cbrt(0.8 + 0.2 * before / rr) if ecg.rhythm == "AFIB" else np.full(len(onsets), ecg.qt)
    return onsets, np.where(ectopic, ECTOPIC_QT, qt), ectopic
