"""Is what a doctor reads from an ECG still in its codes? A linear probe of PTB-XL's diagnostic superclasses.

The same probe on three descriptions of each ECG: the mean beat of the raw signal, the mean beat of the codes' values
(the quantiser's output, at the code rate), and the histogram of the codes. Beats are located in the signal that the
description itself holds: for the codes, in the reconstruction. Cross-validated; a patient's ECGs stay in one fold.
"""

import ast
import csv
from pathlib import Path

import numpy as np

from ecg_tokenizer.quality_measures import RATE, RHYTHM_LEAD, _r_peaks

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
BEFORE_S, AFTER_S = 0.3, 0.5  # of the mean beat, around R
FOLDS, FEWEST = 5, 10


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


def probe(signals, recons, values, codes, n_codes, labelled):
    """Macro AUROC of each description.

    Parameters
    ----------
    signals, recons : float arrays [N, 12, 5000]
    values : float array [N, F, D]
        The quantiser's output.
    codes : int array [N, F]
    labelled : list of (patient, set of superclasses)

    Returns
    -------
    dict
        raw, latents, histogram: macro AUROC over ``classes``, those with enough ECGs.
    """
    y = np.array([[name in classes for name in CLASSES] for _, classes in labelled])
    patients = np.array([patient for patient, _ in labelled])
    used = [c for c in range(len(CLASSES)) if FEWEST <= y[:, c].sum() <= len(y) - FEWEST]
    if not used:
        return {"skipped": f"no superclass with {FEWEST} ECGs for and against"}
    histogram = np.stack([np.bincount(row, minlength=n_codes) for row in codes]).astype(float)
    described = {
        "raw": np.stack([mean_beat(x[:, ::8], _r_peaks(x[RHYTHM_LEAD]) / RATE) for x in signals]),
        "latents": np.stack(
            [mean_beat(v.T, _r_peaks(r[RHYTHM_LEAD]) / RATE) for v, r in zip(values, recons, strict=True)]
        ),
        "histogram": np.sqrt(histogram),
    }
    scores = {name: [_auroc(x, y[:, c], patients) for c in used] for name, x in described.items()}
    return {
        **{name: float(np.mean(s)) for name, s in scores.items()},
        "classes": [CLASSES[c] for c in used],
        "by_class": {name: dict(zip([CLASSES[c] for c in used], s, strict=True)) for name, s in scores.items()},
        "records": len(y),
        "folds": FOLDS,
    }


def mean_beat(channels, peaks_s):
    """The mean beat of [C, T] channels over 10 s, flat; zeros where no whole beat was found."""
    rate = channels.shape[1] / 10
    before, after = round(BEFORE_S * rate), round(AFTER_S * rate)
    starts = np.round(np.asarray(peaks_s) * rate).astype(int) - before
    beats = [channels[:, s : s + before + after] for s in starts if s >= 0 and s + before + after <= channels.shape[1]]
    return np.mean(beats, axis=0).ravel() if beats else np.zeros(len(channels) * (before + after))


def _auroc(x, y, patients):
    """AUROC of a linear classifier, cross-validated by patient; its ridge penalty is chosen within each fold."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(y))
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(x, y, patients):
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 6, 13), class_weight="balanced"))
        scores[test] = model.fit(x[train], y[train]).decision_function(x[test])
    return float(roc_auc_score(y, scores))
