"""An exam as one HTML page that needs no other file: its scores with floors and controls, calibration, items."""

import base64
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import softmax

from utils.scores.caption_scores import rouge_pair
from utils.scores.evaluation import is_exact
from utils.tools import write_atomically

TEMPLATE = Path(__file__).with_name("report_page.html")
BEST, DRAWN, ANSWERS, SEED = 3, 20, 8, 0
TEXT_FIGURES = (
    ("BLEU-1 (nltk)", ("nltk", "bleu1"), 1),
    ("BLEU-4 (nltk)", ("nltk", "bleu4"), 1),
    ("METEOR (nltk)", ("nltk", "meteor"), 1),
    ("ROUGE-1 F", ("rouge", "rouge-1", "f"), 1),
    ("ROUGE-L F", ("rouge", "rouge-l", "f"), 1),
    ("BLEU-4 (coco)", ("coco", "bleu4"), 1),
    ("METEOR (coco)", ("coco", "meteor"), 1),
    ("CIDEr (coco)", ("coco", "cider"), 10),
    ("findings, micro F1", ("labels", "micro_f1"), 1),
    ("findings, macro F1", ("labels", "macro_f1"), 1),
    ("findings against SCP codes, micro F1", ("labels_scp", "micro_f1"), 1),
)
PAIRED = (
    ("exact match", ("exact_match", "overall"), 1),
    ("BLEU-4 (nltk)", ("nltk", "bleu4"), 1),
    ("CIDEr (coco)", ("coco", "cider"), 10),
    ("findings, micro F1", ("labels", "micro_f1"), 1),
)
NAMES = {"floor": "constant answer", "shuffled": "another patient's ECG", "blank": "a flat ECG"}


def write_page(path, rows, metrics, picture=None, title="Exam"):
    """Write the page.

    Parameters
    ----------
    path : path
    rows : list of dict
        Prediction rows.
    metrics : dict
        As in metrics.json: every figure shown is one of it.
    picture : callable, optional
        Record path -> PNG bytes of its ECG on paper, or a text that says why it can't be drawn.
    title : str
    """
    from jinja2 import Environment, FileSystemLoader

    is_qa = "exact_match" in metrics
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True)
    page = environment.get_template(TEMPLATE.name).render(
        title=title,
        metrics=metrics,
        resampling=metrics["resampling"],
        sections=_qa_sections(metrics) if is_qa else _report_sections(metrics),
        confusion=_confusion(rows) if is_qa else None,
        differences=_differences(metrics),
        likelihood=metrics.get("likelihood"),
        items=_items(rows, is_qa, picture),
        provenance=json.dumps(metrics.get("provenance", {}), indent=2, ensure_ascii=False),
    )
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _systems(metrics):
    """Name -> (where its scores stand in the metrics, those scores)."""
    found = {"the model": ((), metrics)}
    if "skipped" not in metrics["floor"]:
        found[NAMES["floor"]] = (("floor",), metrics["floor"])
    for name, scores in metrics.get("controls", {}).items():
        found[NAMES.get(name, name)] = (("controls", name), scores)
    return found


def _bars(metrics, path, largest=1):
    """A figure of every system: list of dict with where it stands in metrics.json, value and interval."""
    bars = []
    for name, (place, scores) in _systems(metrics).items():
        inner = path[1:] if place == ("floor",) and path[0] == "exact_match" else path
        value, interval = _at(scores, inner), _at(scores, _beside(inner, path[0]))
        if value is not None:
            where = "/".join((*place, *inner))
            bars.append({"name": name, "path": where, "value": value, "interval": interval, "largest": largest})
    return bars


def _beside(path, family):
    """Where the interval of a figure stands: ``interval`` comes behind its family."""
    return (family, "interval", *path[1:]) if path[0] == family else ("interval", *path)


def _at(tree, path):
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _qa_sections(metrics):
    """Titles and their figures: (title, open or folded, [(label, bars)])."""
    sections = [("Exact match", True, [("all questions", _bars(metrics, ("exact_match", "overall")))])]
    for title, group, is_open in (
        ("By question type", "by_question_type", True),
        ("By attribute", "by_attribute_type", True),
        ("By template", "by_template", False),
    ):
        keys = metrics["exact_match"].get(group, {})
        if keys:
            sections.append((title, is_open, [(key, _bars(metrics, ("exact_match", group, key))) for key in keys]))
    return sections


def _report_sections(metrics):
    figures = [(title, _bars(metrics, path, largest)) for title, path, largest in TEXT_FIGURES]
    sections = [("Scores of the texts", True, [(title, bars) for title, bars in figures if bars])]
    for title, family in (
        ("Findings, against the reference's", "labels"),
        ("Findings, against SCP codes", "labels_scp"),
    ):
        names = metrics.get(family, {}).get("by_finding", {})
        figures = [(name, _bars(metrics, (family, "by_finding", name))) for name, v in names.items() if v is not None]
        if figures:
            sections.append((title + ": F1", False, figures))
    return sections


def _differences(metrics):
    """The model minus each other system, item by item: list of dict with where it stands in metrics.json."""
    rows = []
    for name, families in metrics.get("paired", {}).items():
        for label, path, largest in PAIRED:
            pair = _at(families, path) or {}
            if pair.get("difference") is not None:
                row = {"name": NAMES.get(name, name), "label": label, "value": pair["difference"], "largest": largest}
                where = "/".join(("paired", name, *path, "difference"))
                rows.append(row | {"path": where, "interval": pair["interval"]})
    return rows


def _confusion(rows):
    """The most frequent answers against what was answered: names and a table of counts."""
    pairs = Counter((" + ".join(sorted(row["reference"])), " + ".join(sorted(row["prediction"]))) for row in rows)
    references = Counter(" + ".join(sorted(row["reference"])) for row in rows)
    names = [name for name, _ in references.most_common(ANSWERS)]
    table = []
    for name in names:
        cells = [pairs[name, other] for other in names]
        table.append((name, [*cells, references[name] - sum(cells)], references[name]))
    return {"names": names, "rows": table}


def _items(rows, is_qa, picture):
    """Best, worst and drawn items, each with its ECG: list of (title, list of dict)."""
    good = np.array([_goodness(row, is_qa) for row in rows])
    best, worst = (_one_of_each_question(rows, np.argsort(sign * good, kind="stable")) for sign in (-1, 1))
    drawn = sorted(random.Random(SEED).sample(range(len(rows)), min(DRAWN, len(rows))))
    drawings = {}
    found = []
    for title, places in (("Best", best), ("Worst", worst), ("Drawn at random", drawn)):
        found.append((title, [_item(rows[place], is_qa, picture, drawings) for place in places]))
    return found


def _one_of_each_question(rows, order):
    """The first ``BEST`` places of an order whose questions differ: a page of one question tells little."""
    found = {}
    for place in order:
        found.setdefault(rows[place].get("question") or int(place), place)
        if len(found) == BEST:
            break
    return list(found.values())


def _goodness(row, is_qa):
    """How good an answer is: for reports ROUGE-L F; for questions whether right, and how sure of it."""
    if not is_qa:
        return rouge_pair(row["prediction"], row["reference"])["rouge-l f"]
    right = is_exact(row["prediction"], row["reference"])
    sure = softmax(row["log_likelihoods"]).max() if row.get("log_likelihoods") else 0.5
    shared = len(set(row["prediction"]) & set(row["reference"])) / max(1, len(set(row["reference"])))
    return 2 + sure if right else shared - sure


def _item(row, is_qa, picture, drawings):
    paths = row.get("ecg_path") or []
    paths = paths if isinstance(paths, list) else [paths]
    for path in paths if picture else ():
        if path not in drawings:
            drawn = picture(path)
            is_text = isinstance(drawn, str)
            drawings[path] = {"fault": drawn} if is_text else {"png": base64.b64encode(drawn).decode()}
    shown = {
        "index": row["index"],
        "paths": paths,
        "ecgs": [(path, drawings[path]) for path in paths if path in drawings],
        "question": row.get("question"),
        "answers": [("answer", row["prediction"]), ("reference", row["reference"])],
        "right": is_exact(row["prediction"], row["reference"]) if is_qa else None,
    }
    if "floor" in row:
        shown["answers"].append(("constant answer", row["floor"]))
    shown["answers"] = [(name, ", ".join(text) if isinstance(text, list) else text) for name, text in shown["answers"]]
    if row.get("log_likelihoods"):
        chances = softmax(row["log_likelihoods"])
        candidates = [c if isinstance(c, str) else ", ".join(c) for c in row["candidates"]]
        shown["chances"] = [(candidates[i], float(chances[i])) for i in np.argsort(-chances)[:5]]
    return shown
