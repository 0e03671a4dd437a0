"""The JSON lists that say which record goes with which question or report: read, checked item by item, written."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_provider.read import record_file
from utils.tools import UserError, read_json, write_atomically

LOOKING_THREADS = 64  # on a network disk a look at a file takes a millisecond, and most of it is waiting


def read_manifest(path, task="any"):
    """Read a manifest.

    Parameters
    ----------
    path : str or Path
    task : {"qa", "report", "any"}
        What every item must be; "any" takes both.

    Returns
    -------
    items : list of dict

    Raises
    ------
    UserError
        With the file and the number of the first bad item, counted from 0.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise UserError(f"{path}: a manifest is a JSON list of items, this is a {type(items).__name__}")
    if not items:
        raise UserError(f"{path}: the manifest is empty")
    for number, item in enumerate(items):
        fault = _fault(item, task)
        if fault:
            raise UserError(f"{path}: item {number}: {fault}")
    return items


def item_paths(item):
    """The record path (for comparison questions: both), relative to the data set's root."""
    paths = item["ecg_path"] if "question" in item else item["filepath"]
    return list(paths) if isinstance(paths, list) else [paths]


def item_background(item):
    """What is known of the patient: the background before "Recording Details", to the letter ("" for MIMIC-IV-ECG)."""
    return (item.get("background") or "").split("Recording Details")[0]


def record_paths(items):
    """Every record path of the items once, in order of first use."""
    return list(dict.fromkeys(path for item in items for path in item_paths(item)))


def check_records_exist(items, root, manifest_path):
    """A `UserError` when ``root`` holds none of the items' records. Stops at the first that is there."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder (it should hold the records of {manifest_path})")
    paths = record_paths(items)
    if not _any_exists(root, paths):
        raise UserError(f"{root}: none of the {len(paths)} records of {manifest_path} is there, for example {paths[0]}")


def _any_exists(root, paths):
    """Whether one of the records is there; the first is looked at first, then all in threads (they may be many)."""

    def exists(part):
        return any(os.path.isfile(record_file(os.path.join(root, path))) for path in part)

    if exists(paths[:10]):
        return True
    with ThreadPoolExecutor(LOOKING_THREADS) as pool:
        found = any(pool.map(exists, [paths[start : start + 500] for start in range(10, len(paths), 500)]))
        pool.shutdown(cancel_futures=True)
    return found


def write_manifest(path, items):
    """Write the items as JSON, one item a line, atomically."""

    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            for number, item in enumerate(items):
                file.write((",\n" if number else "[\n") + json.dumps(item, ensure_ascii=False))
            file.write("\n]\n" if items else "[]\n")

    write_atomically(path, write)


def path_fault(path):
    """What is wrong with a record path of a manifest, or None."""
    if not isinstance(path, str) or not path.strip():
        return "the record path is not a text"
    if path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
        return f"the record path leaves the data set's root: {path[:100]}"
    if max(map(len, path.encode(errors="surrogatepass").split(b"/"))) > 200:
        return f"the record path is too long: {path[:100]}..."
    return None


def _fault(item, task):
    if not isinstance(item, dict):
        return f"not an object but a {type(item).__name__}"
    if "question" in item and "report" in item:
        return "is both a question and a report"
    if task == "qa" or (task == "any" and "question" in item):
        return _qa_fault(item)
    if task == "report" or (task == "any" and "report" in item):
        return _report_fault(item)
    return "has neither a question nor a report"


def _qa_fault(item):
    for field in ("question", "question_type", "attribute_type"):
        if not isinstance(item.get(field), str) or not item[field].strip():
            return f"`{field}` must be a text"
    answer = item.get("answer")
    if not isinstance(answer, list) or not answer or not all(isinstance(part, str) and part.strip() for part in answer):
        return "`answer` must be a list of texts"
    paths = item.get("ecg_path")
    if isinstance(paths, list) and not 1 <= len(paths) <= 2:
        return f"`ecg_path` names {len(paths)} records, one or two can be asked about"
    return _common_fault(item, "ecg_path", paths if isinstance(paths, list) else [paths])


def _report_fault(item):
    if not isinstance(item.get("report"), str) or not item["report"].strip():
        return "`report` must be a text"
    return _common_fault(item, "filepath", [item.get("filepath")])


def _common_fault(item, field, paths):
    if item.get(field) is None:
        return f"`{field}` is missing"
    if not isinstance(item.get("background", ""), str | None):
        return "`background` must be a text"
    return next(filter(None, map(path_fault, paths)), None)
