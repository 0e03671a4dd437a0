"""What a set of runs came to: one table of their scores beside their floors, and two pictures.

python run_summary.py RESULTS --tokenizer FOLDER --root ECGS --manifest TEST.json
"""

import argparse
from pathlib import Path

from data_provider.manifests import read_manifest, record_paths
from utils.runs import is_aside
from utils.scores import between
from utils.tools import UserError, entry_point, read_json

REPORT_FIGURES = (("nltk", "bleu4"), ("nltk", "meteor"), ("coco", "bleu4"), ("coco", "cider"), ("labels", "micro_f1"))


def scores(results):
    """Rows (what, score, floor, with another patient's ECG) of every metrics.json below ``results``."""
    rows = []
    for path in sorted(Path(results).glob("*_test/metrics.json")):
        metrics, name = read_json(path), path.parent.name.removesuffix("_test").replace("_", ", ")
        if "exact_match" in metrics:
            shuffled = metrics.get("controls", {}).get("shuffled", {}).get("exact_match")
            values = [metrics["exact_match"], metrics["floor"], shuffled]
            title = f"{name}: exact match, {metrics['count']} questions"
            range_ = between(values[0], "overall", 100)
            rows.append((title, percent(values[0], "overall") + range_, *(percent(v, "overall") for v in values[1:])))
            for kind in sorted(metrics["exact_match"]["by_question_type"]):
                cells = [percent(v["by_question_type"] if v else None, kind) for v in values]
                ranges = {"interval": values[0].get("interval", {}).get("by_question_type", {})}
                rows.append((f"    {kind}", cells[0] + between(ranges, kind, 100), *cells[1:]))
            continue
        for family, measure in REPORT_FIGURES:
            shuffled = metrics.get("controls", {}).get("shuffled", {})
            values = [scores.get(family, {}).get(measure) for scores in (metrics, metrics["floor"], shuffled)]
            if values[0] is not None:
                name_ = f"{name}: {family} {measure}, {metrics['count']} reports"
                cells = ["" if value is None else f"{value:.3f}" for value in values]
                rows.append((name_, cells[0] + between(metrics[family], measure), *cells[1:]))
    return rows


def percent(scores, key):
    """A share as text; nothing where it wasn't measured."""
    return f"{scores[key]:.1%}" if scores and key in scores else ""


def reconstruction(tokenizer_folder, root, manifest, picture):
    """Draw a test ECG with its reconstruction; returns PRDN (%) and perplexity of the waveforms of the first records.

    Each lead's baseline is the record's, and its amplitude too where the codes hold none.
    """
    import numpy as np
    import torch

    from data_provider.read import SignalPolicy, fit_signal, read_record, standardise
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.quantizers import code_use
    from utils.plots import plot_ecg

    tokenizer = EcgTokenizer.from_pretrained(tokenizer_folder)
    paths, policy = record_paths(read_manifest(manifest))[:32], SignalPolicy()
    signals = [fit_signal(read_record(Path(root) / path), policy) for path in paths]
    x = torch.from_numpy(np.stack([standardise(signal)[0] for signal in signals]))
    codes = tokenizer.encode_standardised(x)
    decoded = tokenizer.decode_standardised(codes)
    prdn = 100 * (((x - decoded) ** 2).sum((1, 2)) / ((x - x.mean(-1, keepdim=True)) ** 2).sum((1, 2))).sqrt()
    middle = int(prdn.argsort()[len(prdn) // 2])
    _, mean, std = standardise(signals[middle])
    shown = tokenizer.decode(tokenizer.encode(signals[middle], policy.sample_rate))
    shown = (shown if tokenizer.n_scales else shown * std[:, None]) + mean[:, None]
    title = f"{paths[middle]}: PRDN {prdn[middle]:.1f} %, {tokenizer.row_length} codes (the median of {len(paths)})"
    plot_ecg(picture, signals[middle], policy.sample_rate, reconstruction=shown, title=title)
    return prdn.mean().item(), code_use(torch.bincount(codes.flatten(), minlength=tokenizer.n_codes))[1]


def logs_in_order(results):
    """Name of a run -> its log.jsonl, in the order of the stages: tokenizer, pretrain, finetune."""
    order = {"pretrain": 1, "finetune": 2}  # the last word of their folders' names; the tokenizer's is the user's
    found = [path for path in Path(results).glob("*/log.jsonl") if not is_aside(path.parent)]
    paths = sorted(found, key=lambda path: path.parent.name)
    paths.sort(key=lambda path: order.get(path.parent.name.rpartition("_")[2], 0))
    return {path.parent.name.strip("_").replace("_", " "): path for path in paths}


@entry_point
def main(argv):
    """Print the table, draw the pictures, say where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer's folder or best.pt")
    parser.add_argument("--root", type=Path, required=True, help="folder of the records")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of unseen records")
    args = parser.parse_args(argv)
    from utils.plots import plot_curves

    rows = scores(args.results)
    if not rows:
        raise UserError(f"{args.results}: holds no results (*_test/metrics.json)")
    ecg, curves = args.results / "reconstruction.png", args.results / "training_curves.png"
    prdn, perplexity = reconstruction(args.tokenizer, args.root, args.manifest, ecg)
    plot_curves(curves, logs_in_order(args.results))
    about_tokenizer = [
        ("tokenizer: PRDN on unseen ECGs (lower is better)", f"{prdn:.1f}%", "100.0%", ""),
        ("tokenizer: perplexity of its codes", f"{perplexity:.0f}", "", ""),
    ]
    print_table(("", "score [95 %]", "floor", "other patient's ECG"), about_tokenizer + rows)
    print(f"\nan ECG and what its codes keep of it: {ecg}\nhow training went:                    {curves}")


def print_table(head, rows):
    """Columns as wide as they must be, numbers to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, tuple("-" * width for width in widths), *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print(row[0].ljust(widths[0]), *cells[1:], sep="  ")


if __name__ == "__main__":
    main()
