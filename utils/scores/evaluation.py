"""Scores from predictions alone: ``python -m utils.evaluation predictions.jsonl --task qa|report --out metrics.json``.

Whoever has the predictions can recompute every figure: the floor's answers stand in the rows, the controls' predictions
in ``predictions_shuffled.jsonl`` and ``predictions_blank.jsonl`` beside the file, and what the run was made of in
``provenance.json``. No model, manifest or ECG is needed.
"""

from pathlib import Path

import numpy as np

from utils.scores.caption_scores import nltk_pair, rouge_pair, scores_of_pairs
from utils.scores.coco_scores import coco_items
from utils.scores.figures import LABELS, NLTK, ROUGE, attach_intervals, shares, text_figures
from utils.scores.intervals import RESAMPLES, SEED, nested, patients
from utils.scores.labels import label_counts, score_labels
from utils.scores.likelihoods import score_likelihoods
from utils.scores.predictions import control_path, read_predictions, split_answer
from utils.tools import UserError, read_json

CONTROLS = ("shuffled", "blank")
NO_FLOOR = {"skipped": "the predictions hold no floor"}
GROUPS = {"by_question_type": "question_type", "by_attribute_type": "attribute_type", "by_template": "template_id"}


def is_exact(prediction, reference):
    """Whether a QA prediction holds the reference's items, as sets; an empty text (``[""]``) is always wrong.

    A generated text is split at "."; where an item holds one itself ("72.5 bpm"), the items are joined and split as the
    text was, on both sides, so that the right text is exact. Others are compared as they are.
    """
    return prediction not in ([], [""]) and _item_set(prediction) == _item_set(reference)


def _item_set(items):
    return set(split_answer(".".join(items)) if any("." in item for item in items) else items)


def exact_match(rows, field="prediction"):
    """Share of exact answers, overall, by type and by template.

    Parameters
    ----------
    rows : list of dict
        QA rows; ``field`` and ``reference`` are lists of answer items.

    Returns
    -------
    dict
        ``overall``, ``by_question_type``, ``by_attribute_type``, and where the rows name templates ``by_template``:
        shares from 0 to 1.
    """
    right = _right(rows, field)
    paths = [path[1:] for path in _groups(rows)]
    return nested(paths, [float(right[members].mean()) for members in _groups(rows).values()])


def _right(rows, field="prediction"):
    return np.array([is_exact(row[field], row["reference"]) for row in rows])


def _groups(rows):
    """Path of each share -> the items that it is about: bool array [N]."""
    found = {("exact_match", "overall"): np.ones(len(rows), bool)}
    for name, key in GROUPS.items():
        if key == "template_id" and any(row.get(key) is None for row in rows):
            continue
        values = np.array([str(row[key]) for row in rows])
        for value in sorted(set(values), key=lambda v: (len(v), v) if key == "template_id" else v):
            found["exact_match", name, value] = values == value
    return found


def score_qa(rows, controls=None, resamples=RESAMPLES):
    """The metrics of QA predictions; ``controls``: name -> the rows of that control."""
    of_patient, kind = patients(rows)
    metrics = {"count": len(rows), "exact_match": exact_match(rows)}
    metrics["floor"] = exact_match(rows, "floor") if "floor" in rows[0] else NO_FLOOR
    if controls:
        metrics["controls"] = {name: {"exact_match": exact_match(other)} for name, other in controls.items()}
    right = {"predictions": _right(rows)} | ({"floor": _right(rows, "floor")} if "floor" in rows[0] else {})
    right |= {name: _right(other) for name, other in (controls or {}).items()}
    groups = _groups(rows)
    counts = [len(set(of_patient[members])) for members in groups.values()]
    systems = {name: shares(of_patient, groups, values) for name, values in right.items()}
    places = {"predictions": metrics, "floor": {"exact_match": metrics["floor"]}, **metrics.get("controls", {})}
    attach_intervals(metrics, places, list(groups), systems, counts, {"exact_match"}, resamples)
    compared = [place for place, row in enumerate(rows) if row.get("log_likelihoods")]
    if compared:
        some = np.unique(of_patient[compared], return_inverse=True)[1]
        metrics["likelihood"] = score_likelihoods([rows[i] for i in compared], some, right["predictions"][compared])
    metrics["resampling"] = _resampling(kind, of_patient, resamples)
    return metrics


def _resampling(kind, of_patient, resamples):
    return {"of": kind, "count": int(of_patient.max()) + 1, "resamples": resamples, "seed": SEED, "level": 0.95}


def score_report(rows, controls=None, resamples=RESAMPLES):
    """The metrics of report predictions; ``controls``: name -> the rows of that control."""
    of_patient, kind = patients(rows)
    texts = {"predictions": [row["prediction"] for row in rows]}
    if "floor" in rows[0]:
        texts["floor"] = [row["floor"] for row in rows]
    for name, other in (controls or {}).items():
        texts[name] = [row["prediction"] for row in other]
    parts, scores = text_parts(rows, texts)
    metrics = {"count": len(rows), **scores["predictions"], "floor": scores.get("floor", NO_FLOOR)}
    if controls:
        metrics["controls"] = {name: scores[name] for name in controls}
    systems = {name: text_figures(of_patient, part) for name, part in parts.items()}
    paths = systems["predictions"][0]
    counts = [int(of_patient.max()) + 1] * len(paths)
    places = {**scores, "predictions": metrics}
    attach_intervals(metrics, places, paths, {n: f for n, (_, f) in systems.items()}, counts, resamples=resamples)
    metrics["resampling"] = _resampling(kind, of_patient, resamples)
    return metrics


def text_parts(rows, texts):
    """What each item adds to each score, and the scores: two dicts by the names of ``texts`` (name -> predictions)."""
    references = [row["reference"] for row in rows]
    pairs = {name: list(zip(predictions, references, strict=True)) for name, predictions in texts.items()}
    every = [pair for listed in pairs.values() for pair in listed]
    nltk = scores_of_pairs(nltk_pair, every, "BLEU and METEOR (nltk)")
    rouge = scores_of_pairs(rouge_pair, every, "ROUGE")
    coco = coco_items({name: (predictions, references) for name, predictions in texts.items()})
    truths = {"labels": references}
    if all("scp_codes" in row for row in rows):
        truths["labels_scp"] = [row["scp_codes"] for row in rows]
    parts, scores = {}, {}
    for name, listed in pairs.items():
        part = {
            "nltk": np.array([[nltk[pair][key] for key in NLTK] for pair in listed]),
            "rouge": np.array([[rouge[pair][" ".join(key)] for key in ROUGE] for pair in listed]),
            **coco[name][1],
            **{key: label_counts(texts[name], truth) for key, truth in truths.items()},
        }
        scores[name] = {
            "nltk": dict(zip(NLTK, part["nltk"].mean(0).tolist(), strict=True)),
            "rouge": nested(ROUGE, part["rouge"].mean(0).tolist()),
            "coco": coco[name][0],
            **{key: score_labels(part[key]) for key in LABELS if key in part},
        }
        parts[name] = part
    return parts, scores


def score_file(path, task, rows=None):
    """The metrics of a predictions file and of what lies beside it, see the top of this file.

    Parameters
    ----------
    path : path
        predictions.jsonl
    task : {"qa", "report"}
    rows : list of dict, optional
        The predictions, where they are read already.

    Returns
    -------
    dict
        What metrics.json holds.

    Raises
    ------
    UserError
        A file is missing or malformed, or a control's rows are not those of the predictions.
    """
    path = Path(path)
    rows = read_predictions(path, task) if rows is None else rows
    controls = {}
    for name in CONTROLS:
        beside = control_path(path, name)
        if beside.exists():
            controls[name] = read_predictions(beside, task)
            _check_same_items(rows, path, controls[name], beside)
    metrics = (score_qa if task == "qa" else score_report)(rows, controls)
    provenance = path.with_name("provenance.json")
    metrics["provenance"] = read_json(provenance) if provenance.exists() else {}
    return metrics


def _check_same_items(rows, path, others, other_path):
    if [(row["index"], row["reference"]) for row in rows] != [(row["index"], row["reference"]) for row in others]:
        raise UserError(f"{other_path}: its items are not those of {path}; make both in one run, or remove it")


def summary(metrics):
    """The main figures as lines of text: the score with its interval, its floor, its controls."""

    def figures(scores):
        if "skipped" in scores:
            return f"skipped: {scores['skipped']}"
        if "nltk" not in scores:
            shares_ = scores.get("exact_match", scores)
            return f"exact match {100 * shares_['overall']:.1f} %{between(shares_, 'overall', 100)}"
        nltk, rouge, coco = scores["nltk"], scores["rouge"], scores["coco"]
        text = f"nltk BLEU-4 {nltk['bleu4']:.3f}{between(nltk, 'bleu4')}, "
        text += f"METEOR {nltk['meteor']:.3f}{between(nltk, 'meteor')}; ROUGE-L F {rouge['rouge-l']['f']:.3f}; "
        if scores.get("labels") and scores["labels"]["micro_f1"] is not None:
            text += f"findings F1 {scores['labels']['micro_f1']:.3f}{between(scores['labels'], 'micro_f1')}; "
        if "skipped" in coco:
            return text + f"coco skipped: {coco['skipped']}"
        return text + f"coco BLEU-4 {coco['bleu4']:.3f}, METEOR {coco['meteor']:.3f}, CIDEr {coco['cider']:.3f}"

    named = {f"{metrics['count']} items": metrics, "constant answer": metrics["floor"], **metrics.get("controls", {})}
    return [f"{name}: {figures(scores)}" for name, scores in named.items()]


def score_table(metrics):
    """QA shares by type, attribute and template, a line each; nothing for reports, whose scores `summary` holds."""
    lines, scores = [], metrics.get("exact_match", {})
    for group in GROUPS:
        if group in scores:
            lines.append(group.replace("_", " "))
            within = {"interval": scores["interval"][group]}
            shares_ = scores[group].items()
            lines += [f"  {key}: {100 * value:.1f} %{between(within, key, 100)}" for key, value in shares_]
    return lines


def between(scores, key, scale=1):
    """ " [low, high]" of a score, or nothing where none is known."""
    interval = scores.get("interval", {}).get(key)
    if interval is None:
        return ""
    low, high = (f"{scale * value:.{1 if scale > 1 else 3}f}" for value in interval)
    return f" [{low}, {high}]"
