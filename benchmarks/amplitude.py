"""What the amplitude codes are worth: exact match of the demo with and without them, over seeds of the LLM stages.

    python benchmarks/amplitude.py [--demo results/demo] [--out results/amplitude] [--seeds 0 1 2]

After ``bash quickstart.sh``. Both kinds use the demo's tokenizer, so the waveform's codes are the same; stages 2 and 3
are trained anew for each seed. Two exams: the demo's own test, whole; and all questions that ask for a voltage, or that
one answers, on another 1,300 simulated patients. Interrupted, it goes on.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tools import UserError, entry_point, read_json, write_json

REPO = Path(__file__).resolve().parent.parent
VOLTAGES = ("low qrs voltages", "hypertrophy")
PATIENTS, SEED = 1300, 1  # of the second exam; the demo's patients are those of seed 0
QUESTIONS = "template_{}_background.json"


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=REPO / "results/demo", help="folder of the quickstart's results")
    parser.add_argument("--out", type=Path, default=REPO / "results/amplitude")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(argv)
    demo, out = options.demo.resolve(), options.out.resolve()
    if not (demo / "tokenizer/finished.json").is_file():
        raise UserError(f"{demo}: no finished tokenizer; run bash quickstart.sh first")
    exam = make_exam(out / "exam")
    rows = {}
    for amplitude in (True, False):
        tokenizer = make_tokenizer(demo / "tokenizer", out / f"tokenizer_{amplitude}", amplitude)
        for seed in options.seeds:
            results = out / f"{amplitude}_{seed}"
            rows[amplitude, seed] = train_and_examine(tokenizer, out / f"codes_{amplitude}", results, seed, exam)
    report(rows, options.seeds)


def make_exam(folder):
    """Questions about voltages on patients that no stage has seen, beside the training questions, for the floor."""
    root, made = folder / "files", folder / "ecgqa/exam"
    python("simulate", "--out", root, "--patients", PATIENTS, "--seed", SEED)
    python("prepare", "ptbxl", "--root", root, "--out", folder, "--name", "exam", "--questions-per-ecg", 7)
    every = [item for split in ("train", "valid", "test") for item in read_json(made / QUESTIONS.format(split))]
    write_json(folder / QUESTIONS.format("test"), [item for item in every if about(item["question"], item["answer"])])
    write_json(folder / QUESTIONS.format("train"), read_json(REPO / "dataset/ecgqa/demo" / QUESTIONS.format("train")))
    return folder


def about(*texts):
    """The first finding of VOLTAGES that the texts name, or None."""
    return next((voltage for voltage in VOLTAGES if voltage in json.dumps(texts).lower()), None)


def make_tokenizer(source, folder, amplitude):
    """The demo's tokenizer with or without amplitude codes; the network's weights are the same."""
    from ecg_tokenizer.codec import EcgTokenizer

    tokenizer = EcgTokenizer.from_pretrained(source)
    EcgTokenizer(tokenizer.network, dataclasses.replace(tokenizer.config, amplitude=amplitude)).save(folder)
    return folder


def train_and_examine(tokenizer, codes, results, seed, exam):
    """Stages 2 and 3 and both exams with the demo's settings: the predictions of (the demo's test, the exam)."""
    shared = f"TOKENIZER_PATH={tokenizer}", f"CODES_ROOT={codes}", f"SEED={seed}", "RESUME=auto"
    here, second = f"RESULTS={results}", f"RESULTS={results / 'exam'}"
    pretrained = results / "_demo_pretrain/checkpoint/checkpoint_epoch1"
    tuned = results / "qa_demo_finetune/checkpoint/checkpoint_epoch1"
    launch("pretrain.sh", "pretrain.env", here, *shared)
    launch("finetune.sh", "ft_qa.env", here, f"PRETRAIN_PATH={pretrained}", *shared)
    whole = f"CKP_PATH={tuned}", "TEST_ITEMS=0", "CONTROLS=", *shared
    launch("eval.sh", "test_qa.env", here, *whole)
    launch("eval.sh", "test_qa.env", second, f"ROOT_PATH_JSON={exam}", f"ROOT_PATH_ECG={exam / 'files'}", *whole)
    files = (folder / "qa_demo_test/predictions.jsonl" for folder in (results, results / "exam"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def launch(script, env, *settings):
    subprocess.run(["bash", REPO / script, REPO / "env/demo" / env, *settings], check=True)


def python(module, *words):
    subprocess.run([sys.executable, "-m", f"data_provider.{module}", *map(str, words)], check=True, cwd=REPO)


def report(rows, seeds):
    """Exact match of both kinds on both exams: of each seed, and their mean."""
    from utils.scores import exact_match

    def percent(chosen, field):
        return 100 * exact_match(chosen, field)["overall"]

    def show(name, which, *kind):
        for amplitude in (True, False):
            chosen = [select(rows[amplitude, seed][which], *kind) for seed in seeds]
            scores = [percent(one, "prediction") for one in chosen]
            scores += [statistics.mean(scores), percent(chosen[0], "floor")]
            figures = "  ".join(f"{score:5.1f}" for score in scores)
            print(f"{name:42}  {len(chosen[0]):5}  {str(amplitude).lower():9}  {figures}")

    print(f"\n{'exact match, %':42}  items  AMPLITUDE  {'  '.join(f'seed{seed}' for seed in seeds)}   mean  floor")
    show("the demo's test, all questions", 0)
    show("other patients, questions about voltages", 1)
    for voltage in VOLTAGES:
        show(f"    {voltage}, asked for", 1, voltage, True)
        show(f"    {voltage}, to be named", 1, voltage, False)


def select(rows, voltage=None, asked=True):
    """The rows whose question names a voltage finding (``asked``), or whose answer alone does."""
    about_it = [row for row in rows if voltage in (None, about(row["question"], row["reference"]))]
    return [row for row in about_it if voltage is None or asked == bool(about(row["question"]))]


if __name__ == "__main__":
    main()
