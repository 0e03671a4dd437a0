"""The data set card: what went into the manifests, by which rules, and the hash of each, so that two groups can tell
whether they scored the same items."""

import itertools
import os
import time
from collections import Counter

from data_provider.manifests import item_paths, write_manifest
from data_provider.prepare.croissant import croissant
from data_provider.prepare.inventory import SPLITS
from data_provider.prepare.leaks import check_no_leaks
from utils.tools import UserError, sha256_bytes, sha256_file, write_json

FORMAT = 1


def write_data_set(out, name, reports, questions, card, patients, duplicates):
    """Write the manifests and, beside them, the card.

    Parameters
    ----------
    out : Path
    name : str
    reports, questions : dict
        Split -> items (a list or `Items`). A manifest without any item in any split is not written.
    card : dict
        What is known so far; ``leak_check``, ``files`` and ``records_sha256`` are added.
    patients, duplicates
        For the leak check, see `leaks.HeldOut`.

    Returns
    -------
    card : dict
        As written to ``OUT/report/NAME/dataset_card.json`` and ``OUT/ecgqa/NAME/dataset_card.json``.

    Raises
    ------
    UserError
        There is no item at all; manifests of an earlier run are moved aside then, for they would look current.
    """
    card = {
        "format": FORMAT,
        "name": name,
        **card,
        "leak_check": check_no_leaks([reports, questions], patients, duplicates),
    }
    files, folders = {}, []
    for folder, file_name, manifest in (
        (out / "report" / name, "{}.json", reports),
        (out / "ecgqa" / name, "template_{}_background.json", questions),
    ):
        if not any(map(len, manifest.values())):
            set_aside(folder)
            continue
        folders.append(folder)
        for split in SPLITS:
            path = folder / file_name.format(split)
            write_manifest(path, manifest[split])
            files[str(path.relative_to(out))] = {"items": len(manifest[split]), "sha256": sha256_file(path)}
    if not files:
        raise UserError(f"{name}: nothing usable, no manifest is written: {_reasons(card)}")
    card["files"] = files
    card["records_sha256"] = records_digest([reports, questions])
    for folder in folders:
        write_json(folder / "dataset_card.json", card)
        write_json(folder / "croissant.json", croissant(card, folder.relative_to(out).as_posix()))
    return card


def set_aside(folder):
    """Rename the folder of an earlier run whose manifests this one does not replace, and say so."""
    if folder.is_dir():
        dated = f"{folder.name}.{time.strftime('%Y-%m-%d_%H%M%S')}"
        names = itertools.chain([dated], (f"{dated}_{number}" for number in itertools.count(2)))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        os.rename(folder, aside)
        print(f"moved aside, for this run has no such items: {folder} -> {aside}", flush=True)


def _reasons(card):
    """Why rows were left out, with examples."""
    records = card["records"] or {"rows": 0, "left_out": {}, "unreadable": {}}
    left_out = {**records["left_out"], **card["reports"]["left_out"]}
    reasons = [f"{count} {reason}" for reason, count in _falling(left_out)]
    examples = [f"{path}: {fault}" for path, fault in list(records["unreadable"].items())[:3]]
    return f"{records['rows']} rows, left out: {'; '.join([', '.join(reasons) or 'none', *examples])}"


def records_digest(manifests):
    """SHA-256 of which record is in which split, whatever the order of the items: of the sorted lines "record TAB
    split". Two groups with the same digest train and test on the same ECGs, even where their questions differ."""
    pairs = {
        (path, split) for manifest in manifests for split in SPLITS for i in manifest[split] for path in item_paths(i)
    }
    return sha256_bytes("".join(f"{path}\t{split}\n" for path, split in sorted(pairs)).encode())


def by_type(items):
    """Question type -> number of items."""
    return dict(sorted(Counter(item["question_type"] for item in items).items()))


def summary(card):
    """The card in a few lines for people."""
    records = card["records"]
    lines = [f"{records['rows']:,} rows: {records['used']:,} with a record that can be used"]
    lines += [f"  {count:,} left out: {reason}" for reason, count in _falling(records["left_out"])]
    lines += [f"    {path}: {fault}" for path, fault in list(records["unreadable"].items())[:5]]
    lines.append("  records: " + _listed(records["by_split"]))
    if records["patients_in_two_splits"]:
        lines.append(f"  {records['patients_in_two_splits']} patients are in more than one split")
    lines.append("reports: " + _listed(card["reports"]["items"]))
    lines += [f"  {count:,} left out: {reason}" for reason, count in _falling(card["reports"]["left_out"])]
    questions = card["questions"]
    for split in SPLITS if any(of_split["kept"] or "samples" in of_split for of_split in questions.values()) else ():
        of_split = questions[split]
        lines.append(f"questions, {split}: {_listed(of_split['kept']) or 'none'}")
        if "samples" in of_split:
            total = sum(of_split["samples"].values())
            lines.append(f"  of {total:,} samples in the copy of ECG-QA ({_listed(of_split['samples']) or 'none'})")
        lines += [f"  {count:,} left out: {reason}" for reason, count in _falling(of_split.get("left_out", {}))]
        lines += [f"  {count:,} left out as a leak: {reason}" for reason, count in _falling(of_split.get("leaks", {}))]
        chunks = of_split.get("missing_chunks")
        if chunks:
            shown = ", ".join(chunks[:4]) + (f", ... {chunks[-1]}" if len(chunks) > 5 else ", ".join(["", *chunks[4:]]))
            lines.append(f"  {len(chunks)} chunks of 10,000 samples are not in the copy: {shown}")
    if "questions_not_asked" in card:
        lines.append(
            f"  {card['questions_not_asked']:,} more were possible: left out for balance, or the ECG asked enough"
        )
    lines.append(f"record -> split: SHA-256 {card['records_sha256']}")
    for note in card.get("notes", ()):
        lines.append(f"note: {note}")
    check = card["leak_check"]
    duplicates = (
        "duplicates not looked for" if card["duplicates"] is None else f"{len(card['duplicates'])} groups of duplicates"
    )
    lines.append(
        f"leak check: {check['train']:,} training ECGs against {check['held_out']:,} of valid and test ({duplicates}): "
        f"{check['leaks']} leaks; {check['valid_shared_with_test']} of valid share a patient or signal with test"
    )
    return "\n".join(lines)


def _falling(counts):
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _listed(counts):
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
