"""Scores from predictions alone: ``python -m utils.evaluation predictions.jsonl --task qa|report --out metrics.json``.

Whoever has the predictions can recompute every figure: the floor's answers stand in the rows, the controls' predictions
in ``predictions_shuffled.jsonl`` and ``predictions_blank.jsonl`` beside the file, and what the run was made of in
``provenance.json``. No model, manifest or ECG is needed.
"""

import json
from pathlib import Path

from utils.scores.caption_scores import coco_scores, nltk_scores, rouge_scores
from utils.scores.floors import attach_floor
from utils.tools import UserError, read_json, write_atomically

__all__ = ["attach_floor", "exact_match", "score_file", "score_qa", "score_report", "split_answer"]
CONTROLS = ("shuffled", "blank")
TASKS = ("qa", "report")
NO_FLOOR = {"skipped": "the predictions hold no floor"}


def split_answer(text):
    """A generated QA answer as its items: stripped, then split at "." (published way; nothing else is cleaned)."""
    return text.strip().split(".")


def is_exact(prediction, reference):
    """Whether a QA prediction holds the reference's items, as sets; an empty text (``[""]``) is always wrong.

    A generated text is split at "."; where an item holds one itself ("72.5 bpm"), the items are joined and split as the
    text was, on both sides, so that the right text is exact. Others are compared as they are.
    """
    return prediction not in ([], [""]) and _item_set(prediction) == _item_set(reference)


def _item_set(items):
    return set(split_answer(".".join(items)) if any("." in item for item in items) else items)


def exact_match(rows, field="prediction"):
    """Share of exact answers, overall and by type.

    Parameters
    ----------
    rows : list of dict
        QA rows; ``field`` and ``reference`` are lists of answer items.

    Returns
    -------
    dict
        ``overall``, ``by_question_type``, ``by_attribute_type``: shares from 0 to 1.
    """

    def share(chosen):
        return sum(is_exact(row[field], row["reference"]) for row in chosen) / len(chosen)

    def share_by(key):
        groups = sorted({row[key] for row in rows})
        return {group: share([row for row in rows if row[key] == group]) for group in groups}

    return {
        "overall": share(rows),
        "by_question_type": share_by("question_type"),
        "by_attribute_type": share_by("attribute_type"),
    }


def score_qa(rows, controls=None):
    """The metrics of QA predictions; ``controls``: name -> the rows of that control."""
    metrics = {"count": len(rows), "exact_match": exact_match(rows)}
    metrics["floor"] = exact_match(rows, "floor") if "floor" in rows[0] else NO_FLOOR
    if controls:
        metrics["controls"] = {name: {"exact_match": exact_match(other)} for name, other in controls.items()}
    return metrics


def score_report(rows, controls=None):
    """The metrics of report predictions; ``controls``: name -> the rows of that control."""
    texts = {"predictions": [row["prediction"] for row in rows]}
    if "floor" in rows[0]:
        texts["floor"] = [row["floor"] for row in rows]
    for name, other in (controls or {}).items():
        texts[name] = [row["prediction"] for row in other]
    references = [row["reference"] for row in rows]
    coco = coco_scores({name: (predictions, references) for name, predictions in texts.items()})
    scores = {
        name: {
            "nltk": nltk_scores(predictions, references),
            "rouge": rouge_scores(predictions, references),
            "coco": coco[name],
        }
        for name, predictions in texts.items()
    }
    metrics = {"count": len(rows), **scores["predictions"], "floor": scores.get("floor", NO_FLOOR)}
    if controls:
        metrics["controls"] = {name: scores[name] for name in controls}
    return metrics


def score_file(path, task):
    """The metrics of a predictions file and of what lies beside it, see the top of this file.

    Parameters
    ----------
    path : path
        predictions.jsonl
    task : {"qa", "report"}

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
    rows = read_predictions(path, task)
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


def control_path(path, name):
    """Where the predictions of a control lie, beside those of the run."""
    path = Path(path)
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


def _check_same_items(rows, path, others, other_path):
    if [(row["index"], row["reference"]) for row in rows] != [(row["index"], row["reference"]) for row in others]:
        raise UserError(f"{other_path}: its items are not those of {path}; make both in one run, or remove it")


def write_predictions(path, rows):
    """Write prediction rows as JSON lines, atomically."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_predictions(path, task):
    """Read and check predictions.jsonl; any fault is a `UserError` that names the file and the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error})") from error
    rows, seen = [], {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not valid JSON ({error})") from error
        fault = _fault_of_row(row, task)
        if fault:
            raise UserError(f"{path}: line {number}: {fault}")
        first = seen.setdefault(row["index"], number)
        if first != number:
            raise UserError(f"{path}: line {number}: item {row['index']} stands in line {first} already")
        if ("floor" in row) != ("floor" in (rows or [row])[0]):
            raise UserError(f"{path}: line {number}: either every line has `floor` or none")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: holds no predictions")
    return rows


def _fault_of_row(row, task):
    """What is wrong with a row, or ""."""
    if not isinstance(row, dict):
        return "is not a JSON object"
    for key in ("index", "prediction", "reference"):
        if key not in row:
            return f"has no `{key}`"
    if type(row["index"]) is not int:
        return "`index` is not a whole number"
    for key in ("prediction", "reference", "floor"):
        fault = _fault_of_text(row, key, task) if key in row else ""
        if fault:
            return fault
    for key in ("question_type", "attribute_type") if task == "qa" else ():
        if not isinstance(row.get(key), str):
            return f"`{key}` is missing or not a text"
    return ""


def _fault_of_text(row, key, task):
    value = row[key]
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if task == "qa" and not is_list:
        hint = " (is it a report's? --task report)" if isinstance(value, str) else ""
        return f"`{key}` is not a list of texts{hint}"
    if task == "report" and not isinstance(value, str):
        return f"`{key}` is not a text" + (" (is it an answer? --task qa)" if is_list else "")
    return ""


def summary(metrics):
    """The main figures as lines of text: the score, its floor, its controls."""

    def figures(scores):
        if "skipped" in scores:
            return f"skipped: {scores['skipped']}"
        if "nltk" not in scores:
            return f"exact match {100 * scores.get('exact_match', scores)['overall']:.1f} %"
        coco = scores["coco"]
        text = f"nltk BLEU-4 {scores['nltk']['bleu4']:.3f}, METEOR {scores['nltk']['meteor']:.3f}"
        text += f"; ROUGE-L F {scores['rouge']['rouge-l']['f']:.3f}; "
        if "skipped" in coco:
            return text + f"coco skipped: {coco['skipped']}"
        return text + f"coco BLEU-4 {coco['bleu4']:.3f}, METEOR {coco['meteor']:.3f}, CIDEr {coco['cider']:.3f}"

    named = {f"{metrics['count']} items": metrics, "constant answer": metrics["floor"], **metrics.get("controls", {})}
    return [f"{name}: {figures(scores)}" for name, scores in named.items()]
