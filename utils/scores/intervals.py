"""95 % intervals by resampling patients: how far a score could be off, had the same kind of patients come by chance.

Questions about one ECG, and ECGs of one patient, are right or wrong together; an interval that takes them for
independent is too narrow. So whole patients are drawn, with replacement, as many as there are, 10,000 times (the
cluster bootstrap: Davison and Hinkley 1997, section 3.8), and every figure is computed anew for each draw. Two systems
are compared on the same draws, item by item. With few patients percentiles are too narrow still, so their levels are
widened as Hesterberg (2015, The American Statistician 69:371, "expanded percentile interval") does.
"""

import numpy as np
from scipy import sparse, stats

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95
BLOCK = 2**22  # weights drawn at once: 32 MiB, and the same draws on every machine


def patients(rows):
    """Who each row belongs to: its patient, else its (first) record, else itself.

    Returns
    -------
    of_row : int array [N]
        Number of the patient, from 0.
    kind : {"patients", "records", "items"}
        The coarsest word that is true of all rows.
    """
    names, kinds = [], []
    for number, row in enumerate(rows):
        path = row.get("ecg_path")
        path = path[0] if isinstance(path, list) and path else path
        kind, name = next(
            (kind, name)
            for kind, name in (("patients", row.get("patient")), ("records", path), ("items", number))
            if name is not None
        )
        names.append(f"{kind} {name}")
        kinds.append(kind)
    kind = next(kind for kind in ("items", "records", "patients") if kind in kinds)
    return np.unique(names, return_inverse=True)[1], kind


def sums_by_patient(of_row, values):
    """Sums of ``values`` [N] or [N, K] (dense or sparse) over each patient's rows: array [P, K]."""
    values = values if sparse.issparse(values) else np.asarray(values, float).reshape(len(of_row), -1)
    members = sparse.csr_array((np.ones(len(of_row)), (of_row, np.arange(len(of_row)))))
    sums = members @ values
    return sums.toarray() if sparse.issparse(sums) else sums


def resample(count, systems, resamples=RESAMPLES, seed=SEED, width=0):
    """Figures of each system for every draw of patients.

    Parameters
    ----------
    count : int
        Patients.
    systems : dict
        Name -> callable from weights [B, P] (how often each patient was drawn) to figures [B, K].
    width : int
        Numbers that such a callable holds a draw, where they are more than patients: bounds the memory.

    Returns
    -------
    dict
        Name -> float array [resamples, K], NaN where a draw holds nothing to compute a figure of.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(count, width))
    drawn = {name: [] for name in systems}
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        places = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, figures in systems.items():
                drawn[name].append(figures(weights))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def bounds(figures, counts, level=LEVEL):
    """The expanded percentile interval of each column.

    Parameters
    ----------
    figures : array [resamples, K]
    counts : int or int array [K]
        Patients behind each figure; with fewer than two nothing can be said.

    Returns
    -------
    list of [low, high] or None
    """
    figures = np.sort(figures, axis=0)  # NaN last
    known = np.isfinite(figures).sum(0)
    counts = np.broadcast_to(counts, known.shape)
    found = []
    for column, defined, patients_ in zip(figures.T, known, counts, strict=True):
        if patients_ < 2 or defined < len(column) / 2:
            found.append(None)
            continue
        t = stats.t.ppf((1 - level) / 2, patients_ - 1) * np.sqrt(patients_ / (patients_ - 1))
        low = stats.norm.cdf(t)
        found.append([float(value) for value in np.quantile(column[:defined], [low, 1 - low])])
    return found


def shares_interval(interval, share, count, level=LEVEL):
    """An interval of a share; where all or none of the items are right, which no draw can tell apart from certainty,
    Clopper and Pearson's (1934) bound for one outcome a patient."""
    if interval is None or share not in (0, 1):
        return interval
    reach = 1 - ((1 - level) / 2) ** (1 / count)
    return [0.0, reach] if share == 0 else [1 - reach, 1.0]


def nested(paths, values):
    """``{a: {b: value}}`` from paths ``(a, b)``."""
    tree = {}
    for path, value in zip(paths, values, strict=True):
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return tree


def flat(tree, paths):
    """The values at the paths of a nested dict."""
    values = []
    for path in paths:
        value = tree
        for key in path:
            value = value[key]
        values.append(value)
    return values
