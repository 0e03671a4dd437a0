"""Is an archive of a run what it says? ``python -m app.verify FILE.tar``.

Every byte is checked, every part against the hash that the exam wrote down, every item against the list that the data
card knows, and the predictions are scored again. That somebody made up a run as a whole, hashes and all, no archive can
tell: publish its SHA-256 where readers trust you.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

from app.archive import Archive
from utils.tools import UserError, entry_point, read_json, sha256_bytes, sha256_file

FORMAT, INDEX = 1, "bundle.json"
KEYS = ("folder", "task", "items", "cards", "tokenizer", "checkpoint")
SAME = 1e-9  # of a figure, relative: what another machine's sums may differ by


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m app.verify", description="Check an archive of a run.")
    parser.add_argument("archive", metavar="FILE.tar")
    return parser


@entry_point
def main(argv):
    """Check, and say what was proved."""
    path = build_parser().parse_args(argv).archive
    print(*verify(path), f"{path}: SHA-256 {sha256_file(path)}", sep="\n")


def verify(path):
    """Check an archive.

    Returns
    -------
    list of str
        What was proved, a line each.

    Raises
    ------
    UserError
        Anything in it is not what it says.
    """
    archive = Archive(path)
    index = _index(archive)
    lines = [f"{len(archive.sums)} files: every hash is right, no byte besides"]
    with tempfile.TemporaryDirectory() as folder:
        archive.extract(folder, ("exams/", "items/", "tokenizers/"))
        for exam in index["exams"]:
            lines += _verify_exam(archive, Path(folder), exam)
    return lines


def _index(archive):
    try:
        index = json.loads(archive.read(INDEX))
        fits = index["format"] == FORMAT and all(set(KEYS) <= set(exam) for exam in index["exams"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{archive.path}: {INDEX} cannot be read") from error
    if not fits or not index["exams"]:
        raise UserError(f"{archive.path}: {INDEX} is of another version, or names no exam")
    for exam in index["exams"]:
        named = [exam["items"], *exam["cards"], f"{exam['folder']}/predictions.jsonl", f"{exam['folder']}/metrics.json"]
        named += [f"{exam['folder']}/provenance.json"]
        for name in named:
            if name not in archive.sums:
                raise UserError(f"{archive.path}: {INDEX} names {name}, which is not there")
    return index


def _verify_exam(archive, folder, exam):
    exam_folder, task = folder / exam["folder"], exam["task"]
    provenance = read_json(exam_folder / "provenance.json")
    name = exam_folder.name
    inputs = provenance["inputs"]
    _check_parts(archive, folder, exam, inputs)
    rows, proved = _check_items(folder, exam, provenance, task)
    stored, again, left = read_json(exam_folder / "metrics.json"), _scores(exam_folder, task), []
    fault = difference(stored, again, left)
    if fault:
        raise UserError(f"{archive.path}: {name}/metrics.json does not follow from the predictions: {fault}")
    lines = [f"{name}: {len(rows)} predictions scored again: {_figures(stored)} figures, all the same"]
    if left:
        lines += [f"{name}: not scored again here: {score} ({why})" for score, why in sorted(set(left))]
    lines.append(f"{name}: {proved}")
    lines.append(f"{name}: checkpoint, ECG tokenizer and items are those that the exam wrote down")
    return lines


def _scores(folder, task):
    from utils.scores import score_file

    return score_file(folder / "predictions.jsonl", task)


def _check_parts(archive, folder, exam, inputs):
    """The checkpoint, the tokenizer, the items and their cards have the hashes that the exam wrote down."""
    from ecg_tokenizer.codec import tokenizer_fingerprint

    sums, checkpoint = archive.sums, exam["checkpoint"]
    if checkpoint in sums:
        adapter = sums[checkpoint]
    else:
        weights = [name for name in sorted(sums) if name.startswith(f"{checkpoint}/") and name.endswith(".safetensors")]
        adapter = sha256_bytes(*(sums[name].encode() for name in weights))
    found = {"adapter": adapter, "tokenizer": tokenizer_fingerprint(folder / exam["tokenizer"])}
    found |= {"test_manifest": sums[exam["items"]]} | {Path(card).name: sums[card] for card in exam["cards"]}
    for name, digest in found.items():
        if inputs.get(name) != digest:
            raise UserError(f"{archive.path}: {exam['folder']}: its {name} is not the one of the exam")


def _check_items(folder, exam, provenance, task):
    """The predictions' rows are the items of the list, all that the exam drew but those it left out, as they stand."""
    from data_provider.data_factory import sample
    from data_provider.manifests import read_manifest
    from utils.scores import prove_items, read_predictions

    predictions, manifest = folder / exam["folder"] / "predictions.jsonl", folder / exam["items"]
    rows, items, settings = read_predictions(predictions, task), read_manifest(manifest, task), provenance["settings"]
    drawn = sample(list(range(len(items))), settings["TEST_ITEMS"], settings["SEED"])
    wrong = sorted({row["index"] for row in rows} - set(drawn))
    if wrong or len(rows) + provenance["items_left_out"] != len(drawn):
        what = f"item {wrong[0]} was not drawn" if wrong else f"{len(drawn)} items were drawn, {len(rows)} answered"
        raise UserError(f"{exam['folder']}: {what}")
    for row in rows:
        item = items[row["index"]]
        about = {"ecg_path": item["filepath"], "reference": item["report"]} if task == "report" else _about(item)
        other = [key for key, value in about.items() if row.get(key) != value]
        if other:
            raise UserError(f"{exam['folder']}: prediction {row['index']}: its {other[0]} is not that of the item list")
    proved = [f"items proved by {prove_items(manifest, folder / card)}" for card in exam["cards"]]
    return rows, "; ".join(proved) or "items are those of the list; no data card goes with it"


def _about(item):
    named = ("question", "question_type", "attribute_type", "template_id", "ecg_path")
    return {name: item.get(name) for name in named} | {"reference": item["answer"]}


def difference(stored, again, left, place=""):
    """Where stored figures differ from those made again, or "".

    What could not be made again (without Java) is added to ``left``: (name, reason).
    """
    if isinstance(again, dict) and "skipped" in again and stored != again:
        left.append((place.rsplit(".", 1)[-1], again["skipped"]))
        return ""
    if isinstance(stored, dict) and isinstance(again, dict):
        if "skipped" in stored:
            return ""
        for key, value in stored.items():
            where = f"{place}.{key}" if place else key
            skipped = key not in again and any(key == name for name, _ in left)  # what is made of skipped scores
            fault = "" if skipped else f"{where} has no source"
            fault = difference(value, again[key], left, where) if key in again else fault
            if fault:
                return fault
        return ""
    if isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        pairs = enumerate(zip(stored, again, strict=True))
        return next(filter(None, (difference(*pair, left, f"{place}[{n}]") for n, pair in pairs)), "")
    numbers = all(type(value) in (int, float) for value in (stored, again))
    if numbers and math.isclose(stored, again, rel_tol=SAME, abs_tol=SAME):
        return ""
    return "" if stored == again and type(stored) is type(again) else f"{place} is {stored}, computed again {again}"


def _figures(tree):
    """How many numbers a tree holds, but for what the run was made of."""
    if isinstance(tree, dict):
        return sum(_figures(value) for key, value in tree.items() if key != "provenance")
    if isinstance(tree, list):
        return sum(map(_figures, tree))
    return int(type(tree) in (int, float))


if __name__ == "__main__":
    main()
