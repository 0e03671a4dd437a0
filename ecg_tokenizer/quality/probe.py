"""Is what a doctor reads from an ECG still in its codes? A linear probe of PTB-XL's diagnostic superclasses.

The same probe on three descriptions of each ECG: its mean beat as the raw signal has it, its mean beat as the codes'
values have it (the quantiser's output), and the histogram of the codes. Both beats have the same instants, 32 ms apart,
whatever the tokenizer's code rate: one that writes few codes must not make its own yardstick coarser. Beats are located
in the signal that the description itself holds (for the codes: in what they decode to), and each description also has
the leads' amplitudes, as far as it holds them. Cross-validated, a patient's ECGs in one fold; the intervals resample
patients.
"""

import ast
import csv
from pathlib import Path

import numpy as np

from ecg_tokenizer.quality.measures import RHYTHM_LEAD, r_peaks

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
BEFORE, AFTER, STEP = 144, 256, 16  # samples of the mean beat, before and after R, and between its instants
FOLDS, FEWEST = 5, 10
RESAMPLES = 2000


def superclasses(root):
    """Record path -> (patient, set of superclasses), from a PTB-XL download's tables; None where they are missing."""
    database, statements = Path(root) / "ptbxl_database.csv", Path(root) / "scp_statements.csv"
    if not (database.is_file() and statements.is_file()):
        return None
    with open(statements, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    code_column = next(iter(rows[0]))
    of_code = {row[code_column]: row["diagnostic_class"] for row in rows if row["diagnostic"] == "1.0"}
    labels = {}
    with open(database, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            codes = ast.literal_eval(row["scp_codes"])
            labels[row["filename_hr"]] = (row["patient_id"], {of_code[code] for code in codes if code in of_code})
    return labels


def probe(signals, recons, values, codes, n_codes, labelled, deviations=None, coded_deviations=None):
    """Macro AUROC of each description.

    Parameters
    ----------
    signals, recons : float arrays [N, 12, 5000]
        Standardised.
    values : float array [N, F, D]
        The quantiser's output.
    codes : int array [N, F]
    labelled : list of (patient, set of superclasses)
    deviations, coded_deviations : float arrays [N, 12], optional
        The leads' standard deviations in mV: the records', and what the codes say of them.

    Returns
    -------
    dict
        raw, latents, histogram: macro AUROC over ``classes``, those with enough ECGs; ``by_class``; ``minus_raw``: the
        difference of the other two from raw, with a 95 % interval.
    """
    y = np.array([[name in classes for name in CLASSES] for _, classes in labelled])
    patients = np.unique([patient for patient, _ in labelled], return_inverse=True)[1]
    used = [c for c in range(len(CLASSES)) if FEWEST <= y[:, c].sum() <= len(y) - FEWEST]
    if not used:
        return {"skipped": f"no superclass with {FEWEST} ECGs for and against"}
    y, names = y[:, used], [CLASSES[c] for c in used]
    of_codes = _logarithm(coded_deviations, len(y))
    histogram = np.stack([np.bincount(row, minlength=n_codes) for row in codes]).astype(float)
    described = {
        "raw": np.hstack([_mean_beats(signals.transpose(0, 2, 1), signals), _logarithm(deviations, len(y))]),
        "latents": np.hstack([_mean_beats(values, recons), of_codes]),
        "histogram": np.hstack([np.sqrt(histogram), of_codes]),
    }
    scores = {name: [_scores(x, y[:, c], patients) for c in range(len(used))] for name, x in described.items()}
    once = np.ones((1, len(y)))
    drawn = np.random.default_rng(0).integers(0, patients.max() + 1, (RESAMPLES, patients.max() + 1))
    again = np.stack([np.bincount(row, minlength=patients.max() + 1)[patients] for row in drawn]).astype(float)
    found = {name: [auroc(s, y[:, c], once)[0] for c, s in enumerate(each)] for name, each in scores.items()}
    resampled = {
        name: np.mean([auroc(s, y[:, c], again) for c, s in enumerate(each)], axis=0) for name, each in scores.items()
    }
    macro = {name: float(np.mean(each)) for name, each in found.items()}
    minus_raw = {}
    for name in ("latents", "histogram"):
        low, high = np.nanpercentile(resampled[name] - resampled["raw"], [2.5, 97.5])
        minus_raw[name] = {"mean": macro[name] - macro["raw"], "low": float(low), "high": float(high)}
    return {
        **macro,
        "minus_raw": minus_raw,
        "classes": names,
        "by_class": {name: dict(zip(names, map(float, each), strict=True)) for name, each in found.items()},
        "records": len(y),
        "patients": int(patients.max()) + 1,
        "folds": FOLDS,
    }


def mean_beat(rows, length, peaks):
    """The mean beat of [F, D] rows, one a stretch of ``length`` samples, flat; zeros where no whole beat was found.

    Rows are averaged over an instant's 16 samples, then interpolated between the middles of their stretches, so that R
    is at the same place in every beat.
    """
    from scipy.ndimage import uniform_filter1d

    width = max(1, round(STEP / length))
    rows = uniform_filter1d(rows, width, axis=0)
    places = (np.asarray(peaks, dtype=float)[:, None] + 0.5 + np.arange(-BEFORE, AFTER, STEP)) / length - 0.5
    places += 0.5 * (width % 2 == 0)  # an even number of rows has its middle half a row before the one it is written to
    places = places[(places[:, 0] >= 0) & (places[:, -1] <= len(rows) - 1)]
    if not len(places):
        return np.zeros((BEFORE + AFTER) // STEP * rows.shape[1])
    below = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - below)[..., None]
    return (rows[below] * (1 - share) + rows[below + 1] * share).mean(0).ravel()


def auroc(scores, y, weights):
    """Area under the ROC curve for each row of ``weights`` [B, N] of the ECGs; NaN where one side weighs nothing."""
    above = np.sign(scores[y][:, None] - scores[~y][None, :]) / 2 + 0.5
    for_it, against = weights[:, y], weights[:, ~y]
    with np.errstate(invalid="ignore"):
        return ((for_it @ above) * against).sum(1) / (for_it.sum(1) * against.sum(1))


def _mean_beats(rows, signals):
    length = -(-signals.shape[2] // rows.shape[1])
    return np.stack([mean_beat(r, length, r_peaks(x[RHYTHM_LEAD])) for r, x in zip(rows, signals, strict=True)])


def _logarithm(deviations, count):
    return np.empty((count, 0)) if deviations is None else np.log(np.maximum(deviations, 1e-3))


def _scores(x, y, patients):
    """How much a linear classifier that has not seen the patient takes each ECG for one of the class, [N].

    Its ridge penalty is chosen within each fold.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(y))
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(x, y, patients):
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 6, 13), class_weight="balanced"))
        scores[test] = model.fit(x[train], y[train]).decision_function(x[test])
    return scores
