"""What the likelihoods of a question's candidates tell beyond the answer: ranking, calibration, and when to abstain."""

import numpy as np
from scipy.special import softmax

from utils.scores.intervals import bounds, resample, sums_by_patient

BINS = 10
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
FEWEST = 10  # items a finding needs for an AUROC of its own


def score_likelihoods(rows, of_patient, right):
    """Scores of rows that hold ``candidates`` and ``log_likelihoods``.

    Parameters
    ----------
    rows : list of dict
    of_patient : int array [N]
    right : bool array [N]
        Whether the likeliest candidate is the answer.

    Returns
    -------
    dict
        ``brier`` (of the probability of the chosen answer), ``calibration_error`` (expected, ten equal bins; Guo et al.
        2017), ``reliability`` (a row a bin), ``risk_coverage`` (share of wrong answers where only the most certain are
        given), ``auroc`` of "yes" (``overall``, ``mean`` over the questions, ``by_question``) and their ``interval``.
    """
    confidence = np.array([softmax(row["log_likelihoods"]).max() for row in rows])
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    order = np.argsort(-confidence, kind="stable")
    questions, gap = _yes_no(rows), confidence - right
    brier, items = sums_by_patient(of_patient, gap**2), sums_by_patient(of_patient, np.ones(len(gap)))
    gaps = sums_by_patient(of_patient, gap[:, None] * (bins[:, None] == np.arange(BINS)))

    def figures(weights):
        w, total = weights[:, of_patient], (weights @ items)[:, 0]
        found = [(weights @ brier)[:, 0] / total, abs(weights @ gaps).sum(1) / total]
        found += _risks(w[:, order], ~right[order])
        aurocs = {name: auroc(w[:, places], p, yes) for name, (places, p, yes) in questions.items()}
        if aurocs:
            single = [values for name, values in aurocs.items() if name != "overall"]
            mean = np.nanmean(single, axis=0) if single else aurocs["overall"]
            found += [aurocs.pop("overall"), mean, *aurocs.values()]
        return np.stack(found, axis=1)

    count = of_patient.max() + 1
    once = figures(np.ones((1, count)))[0]
    counts = [count] * (2 + len(COVERAGES))
    if questions:
        behind = [len(set(of_patient[places])) for places, _, _ in questions.values()]
        counts += [behind[0], behind[0], *behind[1:]]
    ranges = bounds(resample(count, {"": figures}, width=len(rows))[""], counts)
    return _layout(once, ranges, questions, (confidence, right, bins))


def _yes_no(rows):
    """The yes/no questions: "overall", then each question with enough items -> (places, probability of yes, truth)."""
    places, chance, truth, groups = [], [], [], {}
    for place, row in enumerate(rows):
        candidates = [c if isinstance(c, str) else ".".join(c) for c in row["candidates"]]
        if sorted(candidates) == ["no", "yes"] and set(row["reference"]) <= {"yes", "no"}:
            groups.setdefault(str(row.get("question")), []).append(len(places))
            places.append(place)
            chance.append(softmax(row["log_likelihoods"])[candidates.index("yes")])
            truth.append(row["reference"] == ["yes"])
    if not places:
        return {}
    places, chance, truth = np.array(places), np.array(chance), np.array(truth)
    found = {"overall": (places, chance, truth)}
    for name, members in sorted(groups.items()):
        if len(members) >= FEWEST and 0 < truth[members].sum() < len(members):
            found[name] = places[members], chance[members], truth[members]
    return found


def auroc(weights, score, truth):
    """Area under the ROC curve for each row of weights [B, n], ties counted half: array [B]."""
    order = np.argsort(score, kind="stable")
    weights, truth = weights[:, order], truth[order]
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    positive = np.add.reduceat(weights * truth, starts, axis=1)
    negative = np.add.reduceat(weights * ~truth, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def _risks(weights, wrong):
    """Share of wrong answers among the most certain ones, at each coverage; weights in falling certainty."""
    given = np.cumsum(weights, axis=1)
    lost = np.cumsum(weights * wrong, axis=1)
    rows = np.arange(len(weights))
    found = []
    for coverage in COVERAGES:
        last = (given < coverage * given[:, -1:] - 1e-9).sum(1)
        found.append(lost[rows, last] / given[rows, last])
    return found


def _layout(values, ranges, questions, calibration):
    confidence, right, bins = calibration
    values, k = [None if np.isnan(value) else float(value) for value in values], 2 + len(COVERAGES)
    reliability = [
        {
            "from": b / BINS,
            "to": (b + 1) / BINS,
            "count": int((bins == b).sum()),
            "confidence": float(confidence[bins == b].mean()),
            "right": float(right[bins == b].mean()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]

    def named(parts):
        scores = {"brier": parts[0], "calibration_error": parts[1]}
        scores["risk_coverage"] = {f"{c:.1f}": part for c, part in zip(COVERAGES, parts[2:k], strict=True)}
        if questions:
            single = dict(zip(list(questions)[1:], parts[k + 2 :], strict=True))
            scores["auroc"] = {"overall": parts[k], "mean": parts[k + 1], "by_question": single}
        return scores

    return {"count": len(right), **named(values), "reliability": reliability, "interval": named(ranges)}
