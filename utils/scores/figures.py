"""The figures of metrics.json as functions of how often each patient was drawn, and their intervals beside them.

A system's figures are named by paths into its metrics, such as ``("exact_match", "by_template", "7")``; each system of
an exam (the model, the constant answer, the controls) has the same ones, so that any two can be compared draw by draw.
"""

import numpy as np
from scipy import sparse

from utils.scores.caption_scores import BLEU_WEIGHTS, ROUGES
from utils.scores.intervals import RESAMPLES, SEED, bounds, flat, nested, resample, shares_interval, sums_by_patient
from utils.scores.labels import f1_scores, scored_findings

METEOR = {"alpha": 0.85, "beta": 0.2, "gamma": 0.6, "delta": 0.75, "stages": (1.0, 0.6, 0.8, 0.6)}  # English
LABELS = ("labels", "labels_scp")
NLTK = (*BLEU_WEIGHTS, "meteor")
ROUGE = tuple((name, part) for name in ROUGES for part in "prf")


def shares(of_patient, groups, right):
    """Shares of right items, overall and of groups.

    Parameters
    ----------
    of_patient : int array [N]
    groups : dict
        Path -> bool array [N]: the items that the figure is about.
    right : bool array [N]

    Returns
    -------
    callable
        Weights [B, P] -> shares [B, K], in the order of the groups.
    """
    members = sparse.csr_array(np.stack(list(groups.values()), axis=1).astype(float))
    hits = sums_by_patient(of_patient, members.multiply(np.asarray(right, float)[:, None]).tocsr())
    items = sums_by_patient(of_patient, members)
    return lambda weights: (weights @ hits) / (weights @ items)


def text_figures(of_patient, parts):
    """Figures of generated texts.

    Parameters
    ----------
    parts : dict
        What each item adds: ``nltk`` [N, 5], ``rouge`` [N, 9], and where Java is there the parts of `coco_items`; where
        findings are scored ``labels`` and ``labels_scp`` [N, F, 3] of `label_counts`.

    Returns
    -------
    paths : list of tuple
    callable
        Weights [B, P] -> figures [B, K].
    """
    paths = [("nltk", name) for name in NLTK] + [("rouge", *name) for name in ROUGE]
    sums = {name: sums_by_patient(of_patient, values.reshape(len(values), -1)) for name, values in parts.items()}
    items = sums_by_patient(of_patient, np.ones(len(of_patient)))
    means = ["nltk", "rouge"]
    if "bleu" in parts:
        paths += [
            ("coco", "rouge_l"),
            ("coco", "cider"),
            *(("coco", name) for name in BLEU_WEIGHTS),
            ("coco", "meteor"),
        ]
        means += ["rouge_l", "cider"]

    labelled = [name for name in LABELS if name in parts]
    for name in labelled:
        paths += [(name, "micro_f1"), (name, "macro_f1"), *((name, "by_finding", key) for key in scored_findings())]

    def figures(weights):
        count = weights @ items
        found = [(weights @ sums[name]) / count for name in means]
        if "bleu" in parts:
            found += [corpus_bleu(weights @ sums["bleu"]), meteor(weights @ sums["meteor"])[:, None]]
        found += [f1_scores((weights @ sums[name]).reshape(len(weights), -1, 3)) for name in labelled]
        return np.concatenate(found, axis=1)

    return paths, figures


def corpus_bleu(counts):
    """pycocoevalcap's BLEU-1 to -4 from sums [B, 10]: right and all n-grams of length 1 to 4, words, words of the
    reference."""
    right, said, length, reference = counts[:, :4], counts[:, 4:8], counts[:, 8], counts[:, 9]
    precision = np.cumprod((right + 1e-15) / (said + 1e-9), axis=1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (reference + 1e-9)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))[:, None]


def meteor(counts):
    """METEOR 1.5 (Denkowski and Lavie 2014, section 2) from sums [B, 23] in the jar's order, prediction and reference
    in turn: words, function words, the content and then the function words that match at each of four stages; chunks;
    matches."""
    words, function = counts[:, 0:2], counts[:, 2:4]
    matches = counts[:, 4:20].reshape(-1, 4, 4)
    stages, delta = np.array(METEOR["stages"])[:, None], METEOR["delta"]
    matched = (stages * (delta * matches[:, :, :2] + (1 - delta) * matches[:, :, 2:])).sum(1)
    precision, recall = (matched / (delta * (words - function) + (1 - delta) * function)).T
    mean = precision * recall / (METEOR["alpha"] * precision + (1 - METEOR["alpha"]) * recall)
    fragments = counts[:, 20] / counts[:, 21:23].mean(1)
    return np.nan_to_num(mean * (1 - METEOR["gamma"] * fragments ** METEOR["beta"]))


def attach_intervals(metrics, places, paths, systems, counts, proportions=(), resamples=RESAMPLES, seed=SEED):
    """Write ``interval`` beside each score, and ``paired`` differences of the first system to the others.

    Parameters
    ----------
    metrics : dict
        Changed in place.
    places : dict
        System -> the dict of its scores inside the metrics, which the paths lead into.
    paths : list of tuple
    systems : dict
        System -> callable from weights [B, P] to figures [B, K].
    counts : int array [K]
        Patients behind each figure.
    proportions : set of str
        First keys of paths to shares of right items, see `intervals.shares_interval`.
    """
    drawn = resample(int(max(counts)), systems, resamples, seed)
    first = next(iter(systems))
    ours = flat(places[first], paths)
    for name, figures in drawn.items():
        found = bounds(figures, counts)
        values = flat(places[name], paths)
        for index, path in enumerate(paths):
            if path[0] in proportions:
                found[index] = shares_interval(found[index], values[index], counts[index])
        for family, tree in nested(paths, found).items():
            places[name][family]["interval"] = tree
        if name != first:
            ranges = bounds(drawn[first] - figures, counts)
            differences = [
                {"difference": None if None in (a, b) else a - b, "interval": interval}
                for a, b, interval in zip(ours, values, ranges, strict=True)
            ]
            metrics.setdefault("paired", {})[name] = nested(paths, differences)
