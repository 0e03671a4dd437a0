"""Predictions as files: ours, and anyone's: JSON lines, a JSON list or CSV, joined to the items of a manifest."""

import ast
import csv
import json
import re
from pathlib import Path

from utils.tools import UserError, read_json, sha256_file, write_atomically

TASKS = ("qa", "report")
KEYS = (
    "template_id",
    "question_id",
    "sample_id",
    "ecg_id",
    "ecg_path",
    "filepath",
)  # what names an item, but its index
ABOUT = ("question", "question_type", "attribute_type", "template_id", "ecg_path")
PATIENT = re.compile(r"Patient ID: *([^;]+);")
SHOWN = 5  # items that a line names


def split_answer(text):
    """A generated QA answer as its items: stripped, then split at "." (published way; nothing else is cleaned)."""
    return text.strip().split(".")


def patient_of(item):
    """The patient of a manifest item: from its field or its background; where neither tells, its record is one."""
    if item.get("patient_id") is not None:
        return str(item["patient_id"])
    found = PATIENT.search(item.get("background") or "")
    paths = item["ecg_path"] if "question" in item else item["filepath"]
    return found.group(1).strip() if found else (paths[0] if isinstance(paths, list) else paths)


def control_path(path, name):
    """Where the predictions of a control lie, beside those of the run."""
    path = Path(path)
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


def write_predictions(path, rows):
    """Write prediction rows as JSON lines, atomically."""

    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    write_atomically(path, write)


def read_predictions(path, task):
    """Read and check predictions that hold their references; any fault is a `UserError` that names file and place.

    Rows without ``index`` are numbered as they come.
    """
    rows, seen = [], {}
    numbered = read_rows(path, task)
    bare = not any(isinstance(row, dict) and "index" in row for _, row in numbered)
    for number, (place, row) in enumerate(numbered):
        if bare and isinstance(row, dict):
            row["index"] = number
        fault = _fault_of_row(row, task)
        if fault:
            raise UserError(f"{path}: {place}: {fault}")
        first = seen.setdefault(row["index"], place)
        if first != place:
            raise UserError(f"{path}: {place}: item {row['index']} stands in {first} already")
        if ("floor" in row) != ("floor" in (rows or [row])[0]):
            raise UserError(f"{path}: {place}: either every line has `floor` or none")
        rows.append(row)
    return rows


def read_rows(path, task):
    """The rows of a file by its suffix (.csv, .json: a list; else JSON lines): list of (where it stands, row)."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error})") from error
    if path.suffix == ".csv":
        lines = csv.DictReader(text.splitlines(keepends=True))
        rows = [(f"row {number}", _from_csv(row, task)) for number, row in enumerate(lines, start=1)]
    elif path.suffix == ".json":
        listed = read_json(path)
        if not isinstance(listed, list):
            raise UserError(f"{path}: not a JSON list of predictions")
        rows = [(f"item {number}", row) for number, row in enumerate(listed, start=1)]
    else:
        rows = []
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
            try:
                rows.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number} is not valid JSON ({error})") from error
    if not rows:
        raise UserError(f"{path}: holds no predictions")
    return rows


def _from_csv(row, task):
    """A CSV row's cells as JSON would hold them: whole numbers, and lists where a cell is written as one."""
    found = {}
    for key, cell in row.items():
        cell = cell if isinstance(cell, str) else ""
        if key in ("prediction", "reference", "floor"):
            found[key] = as_answer(cell) if task == "qa" else cell
        elif re.fullmatch(r"-?\d+", cell):
            found[key] = int(cell)
        elif cell:
            found[key] = _listed(cell) or cell
    return found


def as_answer(value):
    """A QA answer as its items, from a list, a list written out (``["yes"]``) or a text (``yes.no``)."""
    if isinstance(value, str):
        listed = _listed(value)
        return split_answer(value) if listed is None else listed
    return value


def _listed(text):
    if not text.strip().startswith("["):
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, list) else None


def join_manifest(path, task, manifest, field="prediction", missing="wrong"):
    """Anyone's predictions as rows of our own, in the manifest's order.

    Parameters
    ----------
    path : path
        Predictions; each has ``field`` and names its item: by ``index`` (its place in the manifest), by ECG-QA's
        ``template_id``, ``question_id``, ``sample_id``, ``ecg_id``, or by its record's path; as many predictions as
        items without any of these are taken in order.
    manifest : path
        The test manifest.
    missing : {"wrong", "skip"}
        What an item without a prediction counts as.

    Returns
    -------
    rows : list of dict
    joined : dict
        ``by``, ``items``, ``missing`` and ``twice`` (lists of indexes), ``manifest_sha256``.
    """
    items, numbered = read_json(manifest), read_rows(path, task)
    if not (isinstance(items, list) and items and all(isinstance(item, dict) for item in items)):
        raise UserError(f"{manifest}: not a manifest (a JSON list of items)")
    for place, row in numbered:
        if not isinstance(row, dict) or field not in row:
            raise UserError(f"{path}: {place}: has no `{field}` (--field names another)")
        row[field] = as_answer(row[field]) if task == "qa" else row[field]
        fault = _fault_of_text(row, field, task)
        if fault:
            raise UserError(f"{path}: {place}: {fault}")
    by, found, twice = _match(path, manifest, [row for _, row in numbered], items, field)
    left = [index for index in range(len(items)) if index not in found]
    rows = []
    for index, item in enumerate(items):
        if index in found or missing == "wrong":
            answer = found[index][field] if index in found else ([] if task == "qa" else "")
            rows.append(_row_of_item(index, item, answer, task))
    joined = {"by": by, "items": len(items), "missing": left, "twice": sorted(twice), "counted": missing}
    return rows, {**joined, "manifest_sha256": sha256_file(manifest)}


def _row_of_item(index, item, answer, task):
    if task == "report":
        return {
            "index": index,
            "prediction": answer,
            "reference": item["report"],
            "ecg_path": item["filepath"],
            "patient": patient_of(item),
        }
    about = {name: item.get(name) for name in ABOUT}
    return {"index": index, "prediction": answer, "reference": item["answer"], **about, "patient": patient_of(item)}


def _match(path, manifest, rows, items, field):
    """How items are named, index -> row, and the indexes that came twice (with the same answer: else a `UserError`)."""
    if all("index" in row for row in rows):
        by, places = ("index",), {str(index): [index] for index in range(len(items))}
        keys = [str(row["index"]) for row in rows]
    else:
        by = tuple(key for key in KEYS if all(key in row for row in rows) and all(key in item for item in items))
        if not by:
            if len(rows) != len(items):
                raise UserError(
                    f"{path}: {len(rows)} predictions that don't name their items ({', '.join(KEYS)} or index), and "
                    f"{manifest} has {len(items)} items"
                )
            return "order", dict(enumerate(rows)), set()
        places = {}
        for index, item in enumerate(items):
            places.setdefault(_key(item, by), []).append(index)
        keys = [_key(row, by) for row in rows]
    found, twice = {}, set()
    for row, key in zip(rows, keys, strict=True):
        if key not in places:
            raise UserError(f"{path}: a prediction for {', '.join(by)} = {key}, which is not in {manifest}")
        if len(places[key]) > 1:
            raise UserError(
                f"{path}: {', '.join(by)} = {key} names {len(places[key])} items of {manifest}; give more of "
                f"{', '.join(KEYS[:4])}"
            )
        index = places[key][0]
        if index in found:
            twice.add(index)
            if found[index][field] != row[field]:
                raise UserError(f"{path}: two different predictions for {', '.join(by)} = {key}; keep one")
        found[index] = row
    return ", ".join(by), found, twice


def _key(row, by):
    """An item's name as text, whether its numbers are written 7, "7" or 7.0 and its ECG alone or in a list."""

    def plain(value):
        values = value if isinstance(value, list) else [value]
        return " ".join(re.sub(r"\.0$", "", str(part)) for part in values)

    return " / ".join(plain(row[key]) for key in by)


def joined_lines(joined, card):
    """What is to be said of the join: how items were named, which are missing or twice, and whether they are proved.

    ``card``: what `prove_items` found, or None where no card was given.
    """
    lines = [f"{joined['items']} items, joined by {joined['by']}"]
    counted = {"wrong": "counted as wrong", "skip": "left out"}[joined["counted"]]
    for name, said in (("missing", f"without a prediction, {counted}"), ("twice", "predicted twice, the same")):
        if joined[name]:
            some = ", ".join(map(str, joined[name][:SHOWN])) + (", ..." if len(joined[name]) > SHOWN else "")
            lines.append(f"{len(joined[name])} items {said}: {some}")
    return [*lines, f"items proved by {card}" if card else "items not proved: no data card was given (--card)"]


def prove_items(manifest, card):
    """Check a manifest against the data set card that lists it; a `UserError` where they differ.

    Returns
    -------
    str
        What is proved: the card's name and digest of record -> split.
    """
    content, digest = read_json(card), sha256_file(manifest)
    for name, file in content.get("files", {}).items():
        if file["sha256"] == digest:
            records = content.get("records_sha256")
            return f"{content['name']}'s card: {name}" + (f", records {records[:16]}" if records else "")
    raise UserError(f"{manifest}: is none of the files that {card} lists (another version, or it was changed)")


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
