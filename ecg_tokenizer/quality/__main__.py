"""The codec's report: ``python -m ecg_tokenizer.quality``."""

import argparse
import json
from pathlib import Path

from data_provider.data_factory import sample
from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, read_manifest, record_paths
from data_provider.read import SignalPolicy
from ecg_tokenizer.quality.report import evaluate, find_labels, paired_differences, read_ecgs
from utils.tools import UserError, entry_point, write_json


@entry_point
def main(argv):
    """Evaluate one tokenizer, or several on the same records."""
    parser = argparse.ArgumentParser(prog="python -m ecg_tokenizer.quality", description=main.__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", help="a tokenizer: a folder or a best.pt (ours or the authors')")
    which.add_argument("--compare", nargs="+", metavar="P", help="two or more tokenizers, compared with the first")
    parser.add_argument("--manifest", required=True, help="manifest that names the ECGs (unseen ones)")
    parser.add_argument("--root", required=True, help="folder that the record paths start from")
    parser.add_argument("--out", required=True, help="folder for quality.json and quality.html")
    parser.add_argument("--limit", type=int, default=0, help="evaluate on a seeded sample of so many ECGs; 0 is all")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(argv)
    if options.compare and len(options.compare) < 2:
        raise UserError("--compare takes two or more tokenizers; --checkpoint evaluates one")
    items = read_manifest(options.manifest)
    check_records_exist(items, options.root, options.manifest)
    from ecg_tokenizer.quality.page import write_page
    from utils.machine import pick_device

    paths = sample(record_paths(items), options.limit, 0)
    millivolts, x, good, bad = read_ecgs(options.root, paths, SignalPolicy())
    labelled = find_labels(options.root, good)
    evaluated = [
        evaluate(checkpoint, millivolts, x, labelled, pick_device(options.device))
        for checkpoint in options.compare or [options.checkpoint]
    ]
    report = {
        "manifest": options.manifest,
        "records": len(good),
        "bad": bad,
        "tokenizers": [figures for figures, *_ in evaluated],
        "differences": [paired_differences(evaluated[0][1], other[1]) for other in evaluated[1:]],
        "by_record": {path: [part[1][n]["prdn"] for part in evaluated] for n, path in enumerate(good)},
    }
    out = Path(options.out)
    write_json(out / "quality.json", json.loads(json.dumps(report)))
    write_page(out / "quality.html", report, good, millivolts, evaluated)
    for figures in report["tokenizers"]:
        print(
            f"{figures['tokenizer']}: PRDN {figures['signal']['prdn']:.1f} %, {figures['codes']['codes_used']} of "
            f"{figures['codes']['n_codes']} codes, perplexity {figures['codes']['perplexity']:.0f}, "
            f"{figures['codes']['bits_per_second']:.0f} bit/s"
        )
    print(f"{len(good)} ECGs -> {out / 'quality.json'}, {out / 'quality.html'}")
    if bad:
        print(bad_records_text(bad))


if __name__ == "__main__":
    main()
