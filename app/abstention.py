"""Below which probability is an answer better withheld? The risk-coverage curve of validation answers says so.

python -m app.abstention PREDICTIONS --out CHECKPOINT/abstention.json [--risk 0.2]

PREDICTIONS are those of an exam of the *validation* split with ANSWERS=likelihood.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import softmax

from utils.scores import is_exact, read_predictions
from utils.tools import UserError, entry_point, read_json, write_json

FILE = "abstention.json"
RISK = 0.2  # share of wrong answers among those given


def certainty(rows):
    """Probability of the answer and whether it is right: two arrays [N], of predictions with likelihoods."""
    missing = [row["index"] for row in rows if not row.get("log_likelihoods")]
    if missing:
        raise UserError(f"item {missing[0]}: has no likelihoods; the exam needs ANSWERS=likelihood")
    probability = np.array([softmax(row["log_likelihoods"]).max() for row in rows])
    return probability, np.array([bool(is_exact(row["prediction"], row["reference"])) for row in rows])


def risk_coverage(probability, right, threshold):
    """Share of wrong answers among those given (NaN where none is), and the share that is given."""
    given = probability >= threshold
    return float(np.mean(~right[given])) if given.any() else float("nan"), float(given.mean())


def choose_threshold(probability, right, risk=RISK):
    """The lowest threshold at which at most ``risk`` of the answers given are wrong; None where there is none.

    Of the thresholds that lie halfway between two answers' probabilities, so that as many as possible are given.
    """
    order = np.argsort(-probability, kind="stable")
    sorted_p = probability[order]
    risks = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(sorted_p[1:] < sorted_p[:-1], True)
    good = np.flatnonzero((risks <= risk) & last_of_ties)
    if not len(good):
        return None
    place = good[-1]
    below = sorted_p[place + 1] if place + 1 < len(sorted_p) else 0.0
    return float((sorted_p[place] + below) / 2)


def read_threshold(folder):
    """The threshold beside a checkpoint; None where none was kept."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    kept = read_json(path)
    if not isinstance(kept, dict) or not isinstance(kept.get("threshold"), float) or not 0 <= kept["threshold"] <= 1:
        raise UserError(f"{path}: holds no threshold from 0 to 1; python -m app.abstention makes it")
    return kept["threshold"]


@entry_point
def main(argv):
    """Choose the threshold of a reader, or say what one would do to other predictions."""
    parser = argparse.ArgumentParser(prog="python -m app.abstention", description=main.__doc__)
    parser.add_argument("predictions", help="predictions.jsonl of an exam with ANSWERS=likelihood")
    parser.add_argument("--risk", type=float, default=RISK, help="share of wrong answers that is accepted")
    parser.add_argument("--out", metavar="F.json", help=f"CHECKPOINT/{FILE}")
    parser.add_argument("--threshold", type=float, help="only tell risk and coverage at this one")
    options = parser.parse_args(argv)
    probability, right = certainty(read_predictions(options.predictions, "qa"))
    threshold = options.threshold
    if threshold is None:
        threshold = choose_threshold(probability, right, options.risk)
    if threshold is None:
        raise UserError(f"{options.predictions}: at no threshold are at most {options.risk:.0%} of the answers wrong")
    risk, coverage = risk_coverage(probability, right, threshold)
    whole = float(np.mean(~right))
    print(f"threshold {threshold:.3f}: {coverage:.1%} of {len(right)} answers given, {risk:.1%} of them wrong")
    print(f"without it {whole:.1%} are wrong")
    if options.out:
        kept = {"threshold": threshold, "risk": risk, "coverage": coverage, "risk_of_all": whole, "count": len(right)}
        write_json(options.out, kept)
        print(f"-> {options.out}")


if __name__ == "__main__":
    main()
