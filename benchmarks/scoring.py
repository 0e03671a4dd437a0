"""Seconds and memory of scoring many predictions: 200,000 answers and 50,000 reports.

    python benchmarks/scoring.py PTBXL_DATABASE.CSV [--questions 200000] [--reports 50000]

Reports are PTB-XL's own texts, the predictions the texts of other rows, with a number in every third so that few pairs
repeat; the constant answer stands beside both. Memory is the largest of the process and of its children.
"""

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))


def questions(count, rng):
    answers = ["yes", "no", "none", "left axis deviation", "sinus rhythm"]
    for index in range(count):
        template = rng.randrange(70)
        yield {
            "index": index,
            "prediction": [rng.choice(answers)],
            "reference": [rng.choice(answers)],
            "question": f"a question of template {template} on this ECG?",
            "question_type": f"type {template % 7}",
            "attribute_type": f"attribute {template % 6}",
            "template_id": template,
            "ecg_path": f"records500/{index // 40:05d}_hr",
            "patient": str(index // 50),
            "floor": ["yes"],
        }


def reports(count, table, rng):
    with open(table, newline="", encoding="utf-8") as file:
        texts = [" ".join(row["report"].lower().split()) or "none" for row in csv.DictReader(file)]
    for index in range(count):
        text = rng.choice(texts) + (f" {index}" if index % 3 == 0 else "")
        about = {"reference": rng.choice(texts), "patient": str(index // 2), "floor": "sinusrhythmus normales ekg"}
        yield {"index": index, "prediction": text, **about}


def main():
    from utils.scores import write_predictions

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--questions", type=int, default=200_000)
    parser.add_argument("--reports", type=int, default=50_000)
    options = parser.parse_args()
    rng = random.Random(0)
    sets = {"qa": questions(options.questions, rng), "report": reports(options.reports, options.table, rng)}
    for task, rows in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.jsonl"
            write_predictions(path, rows)
            start = time.perf_counter()
            command = [sys.executable, "-m", "utils.evaluation", str(path), "--task", task, "--page"]
            subprocess.run(command, cwd=REPOSITORY, check=True)
            seconds = time.perf_counter() - start
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"{task}: {seconds:.0f} s, {memory:.2f} GiB at most in one process (so far)", flush=True)


if __name__ == "__main__":
    main()
