"""The codec's report: ``python -m ecg_tokenizer.quality``."""

import argparse
import json
from pathlib import Path

import numpy as np

from data_provider.data_factory import sample
from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, read_manifest, record_paths
from data_provider.read import SignalPolicy
from ecg_tokenizer.quality.report import by_source, evaluate, find_labels, paired_differences, read_ecgs
from utils.tools import UserError, entry_point, write_json


@entry_point
def main(argv):
    """Evaluate one tokenizer, or several on the same records."""
    options = build_parser().parse_args(argv)
    if options.compare and len(options.compare) < 2:
        raise UserError("--compare takes two or more tokenizers; --checkpoint evaluates one")
    if len(options.manifest) != len(options.root):
        raise UserError(f"{len(options.manifest)} manifests, but {len(options.root)} folders: each needs its --root")
    from ecg_tokenizer.quality.page import write_page
    from utils.machine import pick_device

    ecgs = read_sources(options.manifest, options.root, options.limit)
    evaluated = [
        evaluate(checkpoint, ecgs["millivolts"], ecgs["x"], ecgs["labelled"], pick_device(options.device))
        for checkpoint in options.compare or [options.checkpoint]
    ]
    for figures, records, _, codes in evaluated:
        figures["by_source"] = by_source(ecgs["sources"], records, codes, figures)
    report = {
        "manifest": ", ".join(options.manifest),
        "records": len(ecgs["names"]),
        "bad": ecgs["bad"],
        "tokenizers": [figures for figures, *_ in evaluated],
        "differences": [paired_differences(evaluated[0][1], other[1]) for other in evaluated[1:]],
        "by_record": {name: [part[1][n]["prdn"] for part in evaluated] for n, name in enumerate(ecgs["names"])},
    }
    out = Path(options.out)
    write_json(out / "quality.json", json.loads(json.dumps(report)))
    write_page(out / "quality.html", report, ecgs["names"], ecgs["millivolts"], evaluated)
    print_figures(report)
    print(f"{report['records']} ECGs -> {out / 'quality.json'}, {out / 'quality.html'}")
    if report["bad"]:
        print(bad_records_text(report["bad"]))


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m ecg_tokenizer.quality", description=main.__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", help="a tokenizer: a folder or a best.pt (ours or the authors')")
    which.add_argument("--compare", nargs="+", metavar="P", help="two or more tokenizers, compared with the first")
    parser.add_argument("--manifest", nargs="+", required=True, help="of the ECGs (unseen ones); one for each source")
    parser.add_argument("--root", nargs="+", required=True, help="folder that the record paths of each start from")
    parser.add_argument("--out", required=True, help="folder for quality.json and quality.html")
    parser.add_argument("--limit", type=int, default=0, help="a seeded sample of so many ECGs a source; 0 is all")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser


def read_sources(manifests, roots, limit):
    """The ECGs of every source: millivolts, x, names, sources and labelled of each ECG; bad (name -> reason)."""
    parts, names, sources, labelled, bad = [], [], [], [], {}
    for manifest, root in zip(manifests, roots, strict=True):
        items = read_manifest(manifest)
        check_records_exist(items, root, manifest)
        millivolts, x, good, faults = read_ecgs(root, sample(record_paths(items), limit, 0), SignalPolicy())
        source = Path(manifest).resolve().parent.name
        prefix = f"{source}/" if len(manifests) > 1 else ""
        parts.append((millivolts, x))
        names += [prefix + path for path in good]
        sources += [source] * len(good)
        labelled.append(find_labels(root, good))
        bad |= {prefix + path: reason for path, reason in faults.items()}
    millivolts, x = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    everyone = None if None in labelled else [label for of_source in labelled for label in of_source]
    return {"millivolts": millivolts, "x": x, "names": names, "sources": sources, "labelled": everyone, "bad": bad}


def print_figures(report):
    """A line a tokenizer, and one for each of several sources."""
    for figures in report["tokenizers"]:
        print(
            f"{figures['tokenizer']}: PRDN {figures['signal']['prdn']:.1f} %, {figures['codes']['codes_used']} of "
            f"{figures['codes']['n_codes']} codes, perplexity {figures['codes']['perplexity']:.0f}, "
            f"{figures['codes']['bits_per_second']:.0f} bit/s"
        )
        for source, part in figures["by_source"].items():
            print(
                f"  {source}: {part['ecgs']} ECGs, PRDN {part['prdn']:.1f} % (worst {part['prdn_worst']:.1f}), "
                f"0.67-40 Hz {part['prdn_band']:.1f} %; of the error {part['error_above']:.0%} above 40 Hz, "
                f"{part['error_below']:.0%} below 0.67 Hz"
            )


if __name__ == "__main__":
    main()
