"""Everything of a run in one archive: ``python -m app.bundle RESULTS [--to FILE.tar]``.

RESULTS is an exam's folder, or a results folder with several. With each exam go its predictions, metrics, settings, the
items it was asked with their data card, the checkpoint that answered with the log of its training, the ECG tokenizer;
the base LLM does not (its hash does), nor do the ECGs. ``heartllm verify`` checks all of it.
"""

import argparse
from pathlib import Path

from app.archive import write_archive
from app.verify import FORMAT, INDEX, verify
from utils.tools import UserError, entry_point, read_json, sha256_file, write_atomically

EXAM_FILES = ("metrics.json", "provenance.json", "started.json", "finished.json")
RUN_FILES = ("log.jsonl", "started.json", "finished.json")
README = """# A run of HeartLLM in one archive

`heartllm verify FILE.tar` checks every byte, scores the predictions again and compares the items with their data card;
`sha256sum -c SHA256SUMS`, after unpacking, checks the files alone. `bundle.json` says which parts go together.
Not in here: the base LLM ({llms}; its hash stands in heartllm.json) and the ECGs. The items, references and
predictions fall under the data set's licence, the weights under the base LLM's too. For research. Not a medical device.

{scores}
"""


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m app.bundle", description="Pack everything of a run.")
    add = parser.add_argument
    add("results", metavar="RESULTS", help="an exam's folder, or a results folder that holds exams")
    add("--to", metavar="FILE.tar", default="", help="the archive to write (default: RESULTS.tar)")
    return parser


@entry_point
def main(argv):
    """Pack, check what was packed, and say what is in it."""
    options = build_parser().parse_args(argv)
    path, lines = bundle(options.results, options.to)
    print(*lines, f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_file(path)}", sep="\n")


def bundle(results, to=""):
    """Pack a run; the archive appears under its name only when it has been verified.

    Returns
    -------
    Path, list of str
        The archive, and what `verify` says of it.

    Raises
    ------
    UserError
        No finished exam there; a part is missing, was changed since, or does not fit; the archive is there already.
    """
    results = Path(results).resolve()
    to = Path(to or f"{results}.tar")
    if to.suffix != ".tar":
        raise UserError(f"{to}: an archive's name ends in .tar")
    if to.exists():
        raise UserError(f"{to}: is there already; move it away, or name another (--to)")
    members, lines = collect(exam_folders(results)), []

    def write(temporary):
        with open(temporary, "wb") as file:
            write_archive(file, members)
        lines.extend(verify(temporary))

    write_atomically(to, write)
    return to, lines


def exam_folders(results):
    """The finished exams of a results folder, or of the folder of one; none is a `UserError`."""
    from utils.runs import is_aside

    results = Path(results)
    if (results / "predictions.jsonl").is_file():
        folders = [results]
    else:
        folders = [path.parent for path in sorted(results.glob("*/predictions.jsonl")) if not is_aside(path.parent)]
    folders = [folder for folder in folders if (folder / "finished.json").is_file()]
    if not folders:
        raise UserError(f"{results}: no finished exam in it (bash eval.sh makes one)")
    return folders


def collect(folders):
    """All members of an archive of these exams: name -> path or bytes."""
    import json

    from utils.scores import summary

    members, exams, llms, scores = {}, [], set(), []
    for folder in folders:
        provenance = read_json(folder / "provenance.json")
        llms.add(provenance["llm"])
        exam = {"folder": f"exams/{folder.name}", "task": provenance["settings"]["TASKTYPE"]}
        for path in [*sorted(folder.glob("predictions*.jsonl")), *(folder / name for name in EXAM_FILES)]:
            members[f"{exam['folder']}/{path.name}"] = path
        exam |= _add_items(members, provenance)
        exam |= _add_tokenizer(members, provenance) | _add_checkpoint(members, provenance)
        exams.append(exam)
        scores += [f"{folder.name}:", "", *(f"- {line}" for line in summary(read_json(folder / "metrics.json"))), ""]
    members[INDEX] = (json.dumps({"format": FORMAT, "exams": exams}, indent=2) + "\n").encode()
    text = README.format(llms=", ".join(sorted(llms)), scores="\n".join(scores).strip())
    members["README.md"] = text.encode()
    missing = [path for path in members.values() if not isinstance(path, bytes) and not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is missing; without it the archive would not be whole")
    return members


def _add_items(members, provenance):
    """The list of items, and the data card beside it."""
    from data_provider.data_factory import manifest_path

    settings = provenance["settings"]
    task = settings["TASKTYPE"]
    root = settings["ROOT_PATH_JSON" if task == "qa" else "ROOT_REPORT_JSON"]
    manifest = manifest_path(root, settings["DATASET"], task, "test")
    folder = f"items/{provenance['inputs']['test_manifest'][:12]}"
    cards = [name for name in sorted(provenance["inputs"]) if name.endswith("dataset_card.json")]
    members[f"{folder}/{manifest.name}"] = manifest
    members.update({f"{folder}/{name}": manifest.with_name(name) for name in cards})
    return {"items": f"{folder}/{manifest.name}", "cards": [f"{folder}/{name}" for name in cards]}


def _add_tokenizer(members, provenance):
    """The ECG tokenizer's files, as they lie there."""
    from ecg_tokenizer.familiarity import FILE
    from ecg_tokenizer.weights import CONFIG_FILE, WEIGHTS_FILE

    path = Path(provenance["settings"]["TOKENIZER_PATH"])
    folder = f"tokenizers/{provenance['inputs']['tokenizer'][:12]}"
    beside = path if path.is_dir() else path.parent
    whole = [beside / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
    files = whole if all(file.is_file() for file in whole) else [path]
    files += [file for file in (beside / FILE,) if file.is_file()]
    members.update({f"{folder}/{file.name}": file for file in files})
    return {"tokenizer": folder if len(files) > 1 and files[0] == whole[0] else f"{folder}/{path.name}"}


def _add_checkpoint(members, provenance):
    """The checkpoint's files, and the log of the run that made it."""
    from model.checkpoint_files import resolve_checkpoint

    path = resolve_checkpoint(provenance["settings"]["CKP_PATH"])
    name = f"checkpoints/{provenance['inputs']['adapter'][:12]}"
    if path.is_file():
        members[f"{name}/{path.name}"] = path
        return {"checkpoint": f"{name}/{path.name}"}
    members.update({f"{name}/{file.name}": file for file in sorted(path.iterdir()) if file.is_file()})
    run = path.parent.parent
    if path.parent.name == "checkpoint":
        members.update({f"{name}/run/{file}": run / file for file in RUN_FILES if (run / file).is_file()})
    return {"checkpoint": name}


if __name__ == "__main__":
    main()
