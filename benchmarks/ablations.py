"""What each part of the recipe is worth: stage 2, stage 3 and the exam for every row of a grid file, and a table.

    python benchmarks/ablations.py benchmarks/ablations.toml --out results/ablations [--jobs 2] [--only NAME ...]

A grid file has the settings of all rows ([settings]), those of a stage ([pretrain], [finetune], [eval]), and rows
([[row]]): a name, seeds, how many training ECGs have questions (``ecgs``, for a learning curve), and what it changes
in all stages (``settings = {TOKENIZER_PATH = "..."}``) or in one (``pretrain = {CODE_ROWS = "mean"}``; ``pretrain =
false`` leaves stage 2 out). Rows whose stage 2 is the same share it.
What is finished is not run again, and what was killed goes on. A row that fails is named, and the others are run.
"""

import argparse
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tools import REPOSITORY, UserError, entry_point, read_json, sha256_json, write_json

STAGES = {"pretrain": "pretrain.sh", "finetune": "finetune.sh", "eval": "eval.sh"}


@dataclass(frozen=True, eq=False)  # each is itself alone: its settings are a dict
class Run:
    """A row with a seed: its folder, the settings of each stage, and that of its stage 2 (None where it has none)."""

    name: str
    seed: int
    folder: Path
    first: Path | None
    settings: dict
    ecgs: int


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="the grid file (TOML)")
    parser.add_argument("--out", type=Path, required=True, help="where the runs and table.md go")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; each should have THREADS of its own")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows only")
    options = parser.parse_args(argv)
    runs = read_grid(options.grid, options.out.resolve(), options.only)
    with ThreadPoolExecutor(options.jobs) as pool:
        firsts = {run.first: run for run in runs if run.first}
        made = dict(zip(firsts, pool.map(stage_two, firsts.values()), strict=True))
        ready = [run for run in runs if made.get(run.first, True)]
        done = dict(zip(ready, pool.map(stage_three_and_exam, ready), strict=True))
    text = table([run for run in runs if done.get(run)])
    (options.out / "table.md").write_text(text + "\n")
    print(text)
    failed = [f"{run.name} (seed {run.seed})" for run in runs if not done.get(run)]
    if failed:
        raise UserError(f"{', '.join(failed)}: failed; the logs are in {options.out}")


def read_grid(path, out, only=None):
    """The runs of a grid file, in its order; a fault in it is a `UserError`."""
    try:
        grid = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    rows = grid.get("row", [])
    names = [row.get("name") for row in rows]
    unknown = set(only or ()) - set(names)
    if not rows or len(set(names)) < len(names) or None in names or unknown:
        raise UserError(f"{path}: rows need names of their own ([[row]] name = ...); unknown: {sorted(unknown) or '-'}")
    wanted = [row for row in rows if not only or row["name"] in only]
    return [_run(grid, row, seed, out) for row in wanted for seed in row.get("seeds", [0])]


def _run(grid, row, seed, out):
    settings = {}
    for stage in STAGES:
        if row.get(stage) is not False:
            parts = [part.get(key, {}) for key in ("settings", stage) for part in (grid, row)]
            settings[stage] = {key: value for part in parts for key, value in part.items()} | {"SEED": seed}
    first = out / "stage2" / sha256_json(settings["pretrain"])[:12] if "pretrain" in settings else None
    folder = out / row["name"].replace(" ", "_") / f"seed{seed}"
    return Run(row["name"], seed, folder, first, settings, row.get("ecgs", 0))


def stage_two(run):
    """Whether stage 2 ended well."""
    return launch("pretrain", run.settings["pretrain"], run.first)


def stage_three_and_exam(run):
    """Whether both ended well."""
    settings = run.settings["finetune"]
    if run.ecgs:
        settings = settings | {"ROOT_PATH_JSON": fewer_ecgs(settings, run)}
    if run.first:
        settings = settings | {"PRETRAIN_PATH": last_checkpoint(run.first)}
    return launch("finetune", settings, run.folder) and launch(
        "eval", run.settings["eval"] | {"CKP_PATH": last_checkpoint(run.folder)}, run.folder
    )


def launch(stage, settings, results):
    """Run a launcher with these settings alone; its output goes to a log. Whether it ended well.

    The processor seconds of a stage are added up in a file beside it, over all starts.
    """
    results.mkdir(parents=True, exist_ok=True)
    env = results / f"{stage}.env"
    settings = settings | {"RESULTS": results, "RESUME": "auto"}
    env.write_text("".join(f'{key}="{value}"\n' for key, value in settings.items()))
    with open(results / f"{stage}.log", "a") as log:
        command = ["bash", REPOSITORY / STAGES[stage], env]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)  # of all processes that it started
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen is told, since it did not wait itself
    spent = results / f"{stage}_processor_seconds.json"
    before = read_json(spent) if spent.exists() else 0
    write_json(spent, round(before + used.ru_utime + used.ru_stime, 1))
    return process.returncode == 0


def last_checkpoint(results):
    """What the training stage below ``results`` left last."""
    found = results.glob("*/checkpoint/checkpoint_epoch*")
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint_epoch")))


def fewer_ecgs(settings, run):
    """A folder of QA manifests whose training questions are about ``run.ecgs`` ECGs only, drawn by the seed."""
    import random

    from data_provider.data_factory import manifest_path

    folder = run.folder / "manifests"
    train, valid = (manifest_path(settings["ROOT_PATH_JSON"], settings["DATASET"], "qa", s) for s in ("train", "valid"))
    items = read_json(train)
    paths = sorted({item["ecg_path"] for item in items})
    kept = set(random.Random(f"ecgs {run.seed}").sample(paths, run.ecgs))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / train.name, [item for item in items if item["ecg_path"] in kept], indent=None)
    write_json(folder / valid.name, read_json(valid), indent=None)
    return folder


def table(runs):
    """The runs as a Markdown table: exact match in %, intervals over patients, differences to the first row.

    A run is compared with the first row's run of its seed, where there is one, otherwise with the first run.
    """
    from utils.scores import compare_files

    kinds = ("verify", "choose", "query")
    titles = ["row", "seed", "bits a code", "exact match", *kinds, "minus floor", "minus other patient's ECG"]
    titles += ["minus the first row", "processor minutes"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    of_seed = {run.seed: run for run in runs if run.name == runs[0].name}
    for run in runs:
        metrics = read_json(exam_of(run) / "metrics.json")
        score, paired = metrics["exact_match"], metrics["paired"]
        by_type = [f"{100 * score['by_question_type'][f'single-{kind}']:.1f}" for kind in kinds]
        gains = [_range(paired.get(base, {}).get("exact_match", {}).get("overall")) for base in ("floor", "shuffled")]
        first = ""
        base = runs[0] if run.name == runs[0].name else of_seed.get(run.seed, runs[0])
        if run is not base:
            found = compare_files([exam_of(base) / "predictions.jsonl", exam_of(run) / "predictions.jsonl"], "qa")
            first = _range(next(iter(found["paired"].values()))["exact_match"]["overall"])
        low, high = score["interval"]["overall"]
        overall = f"{100 * score['overall']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        cells = [run.name, run.seed, bits(run), overall, *by_type, *gains, first, f"{minutes(run):.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def exam_of(run):
    """The folder of a run's exam."""
    return next(run.folder.glob("qa_*_test"))


def bits(run):
    """Bits a code at stage 2's last validation, as text; of several data sets the first one's."""
    import json
    import math

    if not run.first:
        return "-"
    (log,) = run.first.glob("*/log.jsonl")
    last = [row for row in map(json.loads, log.read_text().splitlines()) if "val_loss" in row][-1]
    loss = next(iter(last.get("val_loss_by_part", {"": last["val_loss"]}).values()))
    return f"{loss / math.log(2):.2f}"


def minutes(run):
    """Processor minutes of both training stages."""
    files = [run.folder / "finetune_processor_seconds.json"]
    files += [run.first / "pretrain_processor_seconds.json"] if run.first else []
    return sum(map(read_json, files)) / 60


def _range(difference):
    if not difference:
        return ""
    low, high = difference["interval"]
    return f"{100 * difference['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    main(sys.argv[1:])
