"""A data set's download -> the manifests that the stages read, and a card that says what went in and what did not.

python -m data_provider.prepare ptbxl --root DIR --out dataset [--ecgqa DIR]
python -m data_provider.prepare folder --root DIR --out dataset [--table FILE.csv]
"""

import argparse
from pathlib import Path

from data_provider.prepare.build import prepare_mimic, prepare_ptbxl
from data_provider.prepare.card import summary
from data_provider.prepare.ecgqa import WORDINGS
from data_provider.prepare.folder import prepare_folder
from data_provider.prepare.inventory import CHECKS
from data_provider.prepare.mimic import JOINS
from data_provider.prepare.record_checks import quality_summary
from utils.tools import entry_point


def _count(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m data_provider.prepare", description=__doc__.splitlines()[0])
    sets = parser.add_subparsers(dest="data_set", required=True)
    ptbxl = sets.add_parser("ptbxl", help="PTB-XL, or a data set in its layout")
    ptbxl.add_argument("--root", required=True, help="the download: holds ptbxl_database.csv and records500/")
    ptbxl.add_argument("--report-source", default="original", help="original, scp, or a CSV file (ecg_id, text)")
    ptbxl.add_argument("--rate", type=int, choices=(500, 100), default=500, help="records500 or records100")
    mimic = sets.add_parser("mimic-iv-ecg", help="MIMIC-IV-ECG")
    mimic.add_argument("--root", required=True, help="the download: holds record_list.csv and files/")
    mimic.add_argument("--report-join", choices=JOINS, default="sentences", help="how statements become a report")
    folder = sets.add_parser("folder", help="your own ECG files, of any format")
    folder.add_argument("--root", required=True, help="the folder that holds them, itself or further down")
    folder.add_argument("--table", help="a CSV file: file and, if known, patient_id, report, background, split")
    folder.add_argument("--convert-to", metavar="DIR", help="write them as WFDB records there, for the stages to read")
    folder.add_argument("--sample-rate", type=float, metavar="HZ", help="of CSV, NPY and MATLAB files")
    folder.add_argument("--units", choices=("mV", "uV", "V"), help="likewise")
    folder.add_argument("--leads", type=lambda text: text.split(","), metavar="I,II,...", help="likewise, in order")
    for one in (ptbxl, mimic, folder):
        one.add_argument("--out", default="dataset", help="where the manifests go")
        one.add_argument("--name", help="of the data set, in the manifests' paths (default: its own, or the folder's)")
        one.add_argument("--workers", type=_count, default=0, help="processes that read signals")
        one.add_argument("--limit", type=_count, help="use the first so many records on disk")
        one.add_argument("--seed", type=int, default=0)
    for one in (ptbxl, mimic):
        one.add_argument("--ecgqa", help="a copy of ECG-QA's repository; without it questions come from annotations")
        one.add_argument("--questions", choices=WORDINGS, default="template", help="ECG-QA's wording")
        one.add_argument("--check", choices=CHECKS, default="headers", help="how closely records are looked at")
        one.add_argument("--questions-per-ecg", type=_count, default=12, help="most questions about one ECG")
        one.add_argument("--min-positives", type=_count, default=5, help="training ECGs that a finding must have")
    return parser


@entry_point
def main(argv):
    options = vars(build_parser().parse_args(argv))
    prepare = {"ptbxl": prepare_ptbxl, "mimic-iv-ecg": prepare_mimic, "folder": prepare_folder}[options.pop("data_set")]
    card = prepare(**options)
    print(summary(card))
    if options.get("check", "signals") == "signals":
        print(quality_summary(Path(options["out"]) / card["name"] / "quality.csv"))
    print(f"written to {options['out']}")


if __name__ == "__main__":
    main()
