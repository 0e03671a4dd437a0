"""How often the 95 % intervals hold the truth, by simulation: clusters as in our test sets, a plain bootstrap beside.

    python benchmarks/intervals.py [--runs 500] [--resamples 1000]

Each run draws patients with a level of their own (so that one patient's questions are right or wrong together: a beta
distribution with an intraclass correlation), then their answers, and asks whether the interval holds the share that the
patients were drawn with. Sizes: the simulated exam (404 questions on 30 patients), 3,642 questions on 221 patients, and
ECG-QA's PTB-XL test split in small (2,000 patients). "plain" takes questions for independent; the paired line is the
difference of two systems that share the patients' difficulty.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CASES = {  # patients, questions a patient: mean, share, intraclass correlation
    "simulated exam": (30, 13.5, 0.43, 0.15),
    "2,075 ECGs, raw half": (62, 16.0, 0.56, 0.15),
    "2,075 ECGs": (221, 16.5, 0.56, 0.15),
    "strongly clustered": (221, 16.5, 0.56, 0.4),
    "many patients": (2000, 20.0, 0.62, 0.15),
}


def draw(rng, patients, mean, share, correlation):
    """Patient of each question, and two systems' answers [N]: right or wrong."""
    sizes = np.clip(rng.geometric(1 / mean, patients), 1, 60)
    of_question = np.repeat(np.arange(patients), sizes)
    strength = 1 / correlation - 1
    level = rng.beta(share * strength, (1 - share) * strength, patients)
    draws = rng.random((2, len(of_question)))
    better = np.clip(level + 0.04, 0, 1)
    return of_question, draws[0] < level[of_question], draws[1] < better[of_question], float(np.mean(better - level))


def main():
    from utils.scores.figures import shares
    from utils.scores.intervals import bounds, resample

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    head = f"{'':24}{'patients':>9}{'by patient':>12}{'plain':>8}{'width':>8}{'plain':>8}{'paired':>8}"
    print(f"{options.runs} runs, {options.resamples} resamples\n{head}")
    for name, case in CASES.items():
        rng, held, widths = np.random.default_rng(0), np.zeros(3), np.zeros(2)
        start = time.perf_counter()
        # the difference's truth: the mean that the clipped level adds, from many patients
        truth = np.mean([draw(rng, 20_000, *case[1:])[3] for _ in range(3)])
        for run in range(options.runs):
            of_patient, first, second, _ = draw(rng, *case)
            all_items = {("all",): np.ones(len(first), bool)}
            systems = {"a": shares(of_patient, all_items, first), "b": shares(of_patient, all_items, second)}
            drawn = resample(case[0], systems, options.resamples, seed=run)
            plain = np.arange(len(first))
            alone = resample(len(first), {"a": shares(plain, all_items, first)}, options.resamples, seed=run)
            found = [bounds(drawn["a"], case[0])[0], bounds(alone["a"], len(first))[0]]
            paired = bounds(drawn["b"] - drawn["a"], case[0])[0]
            held += [low <= case[2] <= high for low, high in found] + [paired[0] <= truth <= paired[1]]
            widths += [high - low for low, high in found]
        (ours, plain, paired), (width, plain_width) = 100 * held / options.runs, 100 * widths / options.runs
        print(
            f"{name:24}{case[0]:9,}{ours:10.1f} %{plain:6.1f} %{width:8.1f}{plain_width:8.1f}{paired:6.1f} %"
            f"   {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
