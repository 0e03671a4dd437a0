"""How well the rules of utils/scores/findings.toml read reports: against PTB-XL's own SCP codes and heart axes.

    python benchmarks/labeler.py PTBXL_DATABASE.CSV [--english MANIFEST.json ...] [--folds 9 10] [--show FINDING]

A finding counts as said where the text names it present or uncertain, and as true where the row holds one of its codes,
whatever the likelihood: PTB-XL's likelihoods come from the same words of doubt. ``--english`` reads English reports of
the same ECGs, from report manifests, and says beside it how well their findings agree with those of the original texts.
The rules were written on folds 1 to 8.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def agreement(said, true):
    """Of two sets of ECGs: both, precision and recall, as text."""
    both = len(said & true)
    return f"{both:7}" + "".join(f"{both / len(part):11.3f}" if part else f"{'-':>11}" for part in (said, true))


def main():
    from utils.scores.labels import ABSENT, PRESENT, UNCERTAIN, codes_of_row, read_findings, rules, state_by_codes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--english", type=Path, nargs="*", default=[], help="report manifests with English texts")
    parser.add_argument("--folds", type=int, nargs="*", default=range(1, 11))
    parser.add_argument("--show", help="print the texts in which this finding is wrong")
    options = parser.parse_args()
    with open(options.table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["strat_fold"]) in options.folds]
    texts = originals = {row["ecg_id"]: row["report"] for row in rows}
    if options.english:
        items = [item for path in options.english for item in json.loads(path.read_text(encoding="utf-8"))]
        texts = {str(item["ecg_id"]): item["report"] for item in items}
    rows = [row for row in rows if row["ecg_id"] in texts]
    silent = [row for row in rows if "trace only requ" in texts[row["ecg_id"]]]
    rows = [row for row in rows if row not in silent]

    def who_says(reports, finding):
        ecgs = (row["ecg_id"] for row in rows)
        return {ecg for ecg in ecgs if read_findings(reports[ecg]).get(finding, ABSENT) != ABSENT}

    print(f"{len(rows)} reports, and {len(silent)} that say nothing")
    more = f"{'original':>11}{'both':>7}{'precision':>11}{'recall':>11}" if options.english else ""
    print(f"{'finding':36}{'true':>7}{'said':>7}{'both':>7}{'precision':>11}{'recall':>11}{more}")
    for name, (_, _, codes, scored) in rules().items():
        states = {row["ecg_id"]: state_by_codes(codes_of_row(row), codes) for row in rows}
        every = who_says(texts, name)
        said = {ecg for ecg in every if states[ecg] != UNCERTAIN}
        true = {ecg for ecg, state in states.items() if state == PRESENT}
        line = f"{name:36}{len(true):7}{len(said):7}{agreement(said, true)}"
        if options.english:
            original = who_says(originals, name)
            line += f"{len(original):11}{agreement(every, original)}"
        print(line + ("" if scored else "  not scored"))
        if name == options.show:
            for row in rows:
                if row["ecg_id"] in said ^ true:
                    kind = "said only" if row["ecg_id"] in said else "true only"
                    print("   ", kind, row["ecg_id"], " ".join(texts[row["ecg_id"]].split()), row["scp_codes"])


if __name__ == "__main__":
    main()
