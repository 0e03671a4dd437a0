"""Systems on the same items, side by side: scores, paired differences with intervals, the items that changed."""

from pathlib import Path

from utils.scores.evaluation import is_exact, score_qa, score_report
from utils.scores.predictions import read_predictions, read_rows
from utils.tools import UserError

REPORT_FIGURES = (("nltk", "bleu4"), ("nltk", "meteor"), ("rouge", "rouge-l", "f"), ("labels", "micro_f1"))


def compare_files(paths, task=None):
    """Compare predictions files (or results folders) of the same items.

    Parameters
    ----------
    paths : list of path
        The first is what the others are compared with.
    task : {"qa", "report"}, optional
        By default as the first file's predictions look.

    Returns
    -------
    dict
        ``systems`` (name -> metrics), ``paired`` (each other system minus the first), ``changed`` (items).

    Raises
    ------
    UserError
        The files do not hold the same items; says how many differ.
    """
    paths = [path / "predictions.jsonl" if path.is_dir() else path for path in map(Path, paths)]
    first = read_rows(paths[0], task)[0][1]
    task = task or ("report" if isinstance(first, dict) and isinstance(first.get("prediction"), str) else "qa")
    systems = {}
    for name, path in zip(_names(paths), paths, strict=True):
        systems[name] = {row["index"]: row for row in read_predictions(path, task)}
    (base, ours), *others = systems.items()
    for (_, rows), path in zip(others, paths[1:], strict=True):
        differ = [i for i in ours.keys() | rows.keys() if _item(ours.get(i)) != _item(rows.get(i))]
        if differ:
            raise UserError(
                f"{path}: its items are not those of {paths[0]}: {len(differ)} of {len(ours.keys() | rows.keys())} "
                f"differ, for example item {min(differ)}"
            )
    order = sorted(ours)
    listed = {name: [rows[index] for index in order] for name, rows in systems.items()}
    without_floor = [{k: v for k, v in row.items() if k not in ("floor", "log_likelihoods")} for row in listed[base]]
    score = score_qa if task == "qa" else score_report
    metrics = score(without_floor, {name: rows for name, rows in listed.items() if name != base})
    scores = {base: {key: value for key, value in metrics.items() if key not in ("controls", "paired", "floor")}}
    return {
        "task": task,
        "count": len(order),
        "systems": scores | metrics["controls"],
        "paired": {name: _turned(tree) for name, tree in metrics["paired"].items()},
        "resampling": metrics["resampling"],
        "changed": {name: _changed(listed[base], rows, task) for name, rows in listed.items() if name != base},
    }


def _names(paths):
    """What tells the files apart: their folder's name, or as much of their path as it takes."""
    for depth in range(1, max(len(path.resolve().parts) for path in paths)):
        names = ["/".join(path.resolve().parts[-1 - depth : -1]) for path in paths]
        if len(set(names)) == len(names):
            return names
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"{paths[0]}: the same file twice; name different ones to compare")
    return names


def _item(row):
    return None if row is None else (row["reference"], row.get("question"), row.get("ecg_path"))


def _turned(tree):
    """Differences the other way round: the other system minus the first."""
    if "difference" in tree:
        low_high = tree["interval"]
        turned = None if tree["difference"] is None else 0.0 - tree["difference"]
        return {"difference": turned, "interval": low_high and [0.0 - low_high[1], 0.0 - low_high[0]]}
    return {key: _turned(part) for key, part in tree.items()}


def _changed(ours, theirs, task):
    """The items whose answer became right or wrong; for reports, those whose text changed."""
    changed = []
    for mine, other in zip(ours, theirs, strict=True):
        if task == "report":
            kind = "text" if mine["prediction"] != other["prediction"] else ""
        else:
            before, after = (is_exact(row["prediction"], row["reference"]) for row in (mine, other))
            kind = {(False, True): "now right", (True, False): "now wrong"}.get((before, after), "")
        if kind:
            about = {key: mine[key] for key in ("index", "question", "ecg_path", "reference") if key in mine}
            changed.append({"change": kind, **about, "before": mine["prediction"], "after": other["prediction"]})
    return changed


def comparison_lines(found, shown=10):
    """The comparison as lines of text."""
    figures = [("exact_match", "overall")] if found["task"] == "qa" else list(REPORT_FIGURES)
    if found["task"] == "qa":
        for group in ("by_question_type", "by_attribute_type", "by_template"):
            some = next(iter(found["systems"].values()))["exact_match"].get(group, {})
            figures += [("exact_match", group, key) for key in some]
    base = next(iter(found["systems"]))
    lines = [f"{found['count']} items of {found['resampling']['count']} {found['resampling']['of']}; base: {base}"]
    for path in figures:
        lines.append(" ".join(path[1:] if found["task"] == "qa" else path).replace("by_", "").replace("_", " "))
        for name, metrics in found["systems"].items():
            score = _at(metrics[path[0]], path[1:])
            text = f"  {name}: {_shown(score)} {_range(_at(metrics[path[0]]['interval'], path[1:]))}"
            if name != base:
                pair = _at(found["paired"][name], path)
                text += f"; minus base {_shown(pair['difference'], '+')} {_range(pair['interval'], '+')}"
            lines.append(text)
    for name, changed in found["changed"].items():
        kinds = sorted({item["change"] for item in changed})
        counts = ", ".join(f"{sum(item['change'] == kind for item in changed)} {kind}" for kind in kinds)
        lines.append(f"{name}: {len(changed)} items changed" + (f" ({counts})" if counts else ""))
        for item in changed[:shown]:
            lines.append(
                f"  item {item['index']}, {item['change']}: {item.get('question') or ''} reference "
                f"{item['reference']}, was {item['before']}, is {item['after']}"
            )
    return lines


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _shown(value, sign=""):
    return "-" if value is None else f"{value:{sign}.3f}"


def _range(interval, sign=""):
    return "" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
