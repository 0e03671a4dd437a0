"""What readers noted of an ECG, read from its codes alone by the simplest of readers: a yardstick for the LLM.

    python -m data_provider.prepare ptbxl --root data/ptbxl --out dataset --questions-per-ecg 24
    python benchmarks/yardstick.py --root data/ptbxl --questions dataset/ecgqa/ptbxl [--checkpoint P ...] [--out F.json]

For each yes/no question of the test manifest, a ridge classifier is fitted to the training ECGs that were asked it. It
is given what the codes say: the mean beat of the codes' values, the intervals between the beats, and the amplitudes;
beats are found in what the codes decode to. An LLM that answers fewer questions right does not yet read what is there,
and a tokenizer on whose codes fewer are answered has lost what it should keep. Several tokenizers are compared with the
first one. Intervals resample patients.

Beside them, on the same items: a small residual network on the signals themselves (--rival), and any exam's predictions
(--predictions; with ANSWERS=likelihood their probabilities rank the ECGs).
"""

import argparse
import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tools import UserError, entry_point, write_json

MANIFEST = "template_{}_background.json"
FEWEST = 10  # items of a question in the test manifest below which it has no AUROC of its own
RESAMPLES = 2000
PENALTIES = np.logspace(0, 5, 11)


@dataclass
class Question:
    """A yes/no question: the ECGs (rows) that are asked it, and whether each is answered by yes."""

    rows: dict  # split -> int array
    yes: dict  # split -> bool array


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--root", type=Path, required=True, help="folder of the ECGs, with PTB-XL's table of them")
    add("--questions", type=Path, required=True, help="folder of template_train_background.json and its test")
    add("--checkpoint", nargs="+", help="tokenizers: folders or best.pt (default: the one in this repository)")
    add("--rival", action="store_true", help="also train benchmarks/rival.py's network on the signals")
    add("--predictions", nargs="+", default=[], type=Path, help="predictions.jsonl of exams of the same questions")
    add("--limit", type=int, default=0, help="ask only so many of the questions, the most asked ones; 0 asks all")
    add("--out", type=Path, help="write the figures and every item's score to this JSON file")
    options = parser.parse_args(argv)
    paths, questions = read_questions(options.questions, options.limit)
    patients = read_patients(options.root, paths)
    results = {}
    for name, scores in systems(options, questions, paths):
        results[name] = judge(questions, scores, patients)
        show(name, results[name])
        if len(results) > 1:
            more = difference(next(iter(results.values())), results[name])
            print("  right minus the first: {:+.1f} points [{:+.1f}, {:+.1f}]".format(*more))
    if options.out:
        kept = {
            name: {key: value for key, value in result.items() if key != "resampled"}
            for name, result in results.items()
        }
        write_json(options.out, {"tokenizers": kept, "records": paths})


def systems(options, questions, paths):
    """What is judged, one after the other: (name, text -> score of each test ECG)."""
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.weights import SHIPPED

    for checkpoint in options.checkpoint or [SHIPPED]:
        yield (
            str(checkpoint),
            answer(questions, describe(EcgTokenizer.from_pretrained(checkpoint), options.root, paths)),
        )
    if options.rival:
        from benchmarks.rival import rival_scores

        yield "residual network on the signals", rival_scores(questions, options.root, paths)
    for file in options.predictions:
        yield str(file), predicted_scores(file, questions, paths)


def predicted_scores(file, questions, paths):
    """text -> score of each test ECG by an exam's predictions: how much likelier yes is than no, or 1 and -1."""
    from data_provider.manifests import item_paths
    from utils.scores import read_predictions

    said = {}
    for row in read_predictions(file, "qa"):
        if row["question_type"] != "single-verify":
            continue
        score = 1.0 if row["prediction"] == ["yes"] else -1.0
        if row.get("log_likelihoods"):
            yes, no = (row["log_likelihoods"][row["candidates"].index([word])] for word in ("yes", "no"))
            score = yes - no
        said[row["question"], item_paths(row)[0]] = score
    try:
        return {text: np.array([said[text, paths[row]] for row in q.rows["test"]]) for text, q in questions.items()}
    except KeyError as error:
        raise UserError(f"{file}: holds no answer to {error}; it must be of the same test manifest") from error


def read_questions(folder, limit=0):
    """The ECGs' paths, and text -> `Question` of the yes/no questions that both splits ask."""
    from data_provider.manifests import item_paths, read_manifest

    row_of, asked = {}, defaultdict(lambda: defaultdict(list))
    for split in ("train", "test"):
        for item in read_manifest(folder / MANIFEST.format(split), "qa"):
            if item["question_type"] == "single-verify" and item["answer"] in (["yes"], ["no"]):
                row = row_of.setdefault(item_paths(item)[0], len(row_of))
                asked[item["question"]][split].append((row, item["answer"] == ["yes"]))
    common = {text: splits for text, splits in asked.items() if len(splits) == 2}
    if not common:
        raise UserError(f"{folder}: no yes/no question is in both {MANIFEST.format('train')} and the test manifest")
    most_asked = sorted(common, key=lambda text: -len(common[text]["test"]))[: limit or None]
    questions = {}
    for text in most_asked:
        columns = {split: list(zip(*common[text][split], strict=True)) for split in ("train", "test")}
        rows, yes = ({split: np.array(columns[split][which]) for split in columns} for which in (0, 1))
        questions[text] = Question(rows, yes)
    return list(row_of), questions


def read_patients(root, paths):
    """The number of each ECG's patient, [N]."""
    table = root / "ptbxl_database.csv"
    if not table.is_file():
        raise UserError(f"{table}: no such file; intervals need to know the patients")
    with open(table, newline="", encoding="utf-8") as file:
        patient_of = {row["filename_hr"]: row["patient_id"] for row in csv.DictReader(file)}
    unknown = [path for path in paths if path not in patient_of]
    if unknown:
        raise UserError(f"{table}: does not name {unknown[0]}")
    return np.unique([patient_of[path] for path in paths], return_inverse=True)[1]


def describe(tokenizer, root, paths):
    """What an ECG's codes say, [N, D]: mean beat of the values, intervals, and the amplitudes if they have codes."""
    import torch

    from data_provider.read import SignalPolicy
    from ecg_tokenizer.amplitude import scales_of
    from ecg_tokenizer.encode import encode_batches
    from ecg_tokenizer.quality.measures import RHYTHM_LEAD, r_peaks
    from ecg_tokenizer.quality.probe import mean_beat

    described, leads = {}, tokenizer.row_length - tokenizer.codes_per_ecg
    for good, rows, bad in encode_batches(tokenizer, root, paths, SignalPolicy(), batch_size=32):
        if bad:
            path, reason = next(iter(bad.items()))
            raise UserError(f"{path}: {reason}; the questions must name readable ECGs")
        codes = rows[:, leads:].astype(np.int64)
        signals = tokenizer.decode_standardised(codes).cpu().numpy()
        values = tokenizer.network.quantizer.from_codes(torch.from_numpy(codes).to(tokenizer.device)).cpu().numpy()
        scales = np.log(scales_of(rows[:, :leads].astype(np.int64) - tokenizer.n_codes)) if leads else rows[:, :0]
        for number, path in enumerate(good):
            peaks = r_peaks(signals[number, RHYTHM_LEAD])
            beat = mean_beat(values[number], -(-signals.shape[2] // values.shape[1]), peaks)
            described[path] = np.concatenate([beat, intervals(peaks), scales[number]])
    return np.stack([described[path] for path in paths])


def intervals(peaks):
    """How the beats follow each other: number, mean, spread, extremes and irregularity of their distances in s."""
    between = np.diff(peaks) / 500
    if len(between) < 2:
        return np.array([len(peaks), *[0.0] * 6])
    steps = np.abs(np.diff(between))
    spread = between.std() / between.mean()
    return np.array([len(peaks), between.mean(), spread, between.min(), between.max(), steps.mean(), np.median(steps)])


def answer(questions, described):
    """text -> how much each test ECG looks like a yes, above 0 for yes; fitted on the training ECGs."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = {}
    for text, question in questions.items():
        x, y = described[question.rows["train"]], question.yes["train"]
        if y.all() or not y.any():
            scores[text] = np.full(len(question.rows["test"]), 1.0 if y.all() else -1.0)
            continue
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES, class_weight="balanced"))
        scores[text] = model.fit(x, y).decision_function(described[question.rows["test"]])
    return scores


def judge(questions, scores, patients):
    """Share of right answers and AUROC, over all and of each question, with intervals.

    Returns
    -------
    dict
        items, patients; right, auroc: [value, low, high]; questions: text -> items, right, auroc (or None); scores:
        text -> (row, is yes, score) of each item; resampled: ``right``
        of each resampling.
    """
    from ecg_tokenizer.quality.probe import auroc

    asked = np.concatenate([q.rows["test"] for q in questions.values()])
    right = np.concatenate([(scores[text] > 0) == q.yes["test"] for text, q in questions.items()])
    numbers, who = np.unique(patients[asked], return_inverse=True)
    drawn = np.random.default_rng(0).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    weight = np.stack([np.bincount(row, minlength=len(numbers)) for row in drawn]).astype(float)
    resampled = (weight[:, who] @ right) / weight[:, who].sum(1)
    number_of = {patient: number for number, patient in enumerate(numbers)}
    each, resampled_auroc = {}, []
    for text, question in questions.items():
        y, score = question.yes["test"], scores[text]
        each[text] = {"items": len(y), "right": float(((score > 0) == y).mean()), "auroc": None}
        if len(y) >= FEWEST and 0 < y.sum() < len(y):
            each[text]["auroc"] = float(auroc(score, y, np.ones((1, len(y))))[0])
            of_items = [number_of[patient] for patient in patients[question.rows["test"]]]
            resampled_auroc.append(auroc(score, y, weight[:, of_items]))
    found = [q["auroc"] for q in each.values() if q["auroc"] is not None]
    lists = {
        text: list(zip(q.rows["test"].tolist(), q.yes["test"].tolist(), scores[text].tolist(), strict=True))
        for text, q in questions.items()
    }
    return {
        "items": len(asked),
        "patients": len(numbers),
        "right": [float(right.mean()), *map(float, np.percentile(resampled, [2.5, 97.5]))],
        "auroc": _mean_with_interval(found, resampled_auroc),
        "questions": each,
        "scores": lists,
        "resampled": resampled,
    }


def _mean_with_interval(found, resampled):
    if not found:
        return None
    resampled = np.array(resampled)
    told = ~np.isnan(resampled).all(0)  # rarely, no question has both answers among the patients drawn
    low, high = np.percentile(np.nanmean(resampled[:, told], axis=0), [2.5, 97.5])
    return [float(np.mean(found)), float(low), float(high)]


def difference(first, other):
    """Points that ``other`` answers more than ``first``: the difference and its interval, patients resampled alike."""
    points = 100 * (other["right"][0] - first["right"][0])
    return points, *np.percentile(100 * (other["resampled"] - first["resampled"]), [2.5, 97.5])


def show(checkpoint, result):
    """Print a tokenizer's figures, the best read questions first."""
    percent = "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * value for value in result["right"]))
    print(f"{checkpoint}: {percent} of {result['items']} yes/no questions right ({result['patients']} patients)")
    each = sorted(result["questions"].items(), key=lambda pair: -(pair[1]["auroc"] or 0))
    judged = [(text, q) for text, q in each if q["auroc"] is not None]
    if judged:
        print("  AUROC {:.3f} [{:.3f}, {:.3f}]".format(*result["auroc"]), f"over {len(judged)} questions")
    for text, q in judged:
        print(f"  {q['auroc']:.2f}  {100 * q['right']:5.1f} %  {q['items']:4} items  {text}")


if __name__ == "__main__":
    main()
