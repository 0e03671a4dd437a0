"""Fetch the open data sets: ``python -m data_provider.download ptb-xl|mimic-iv-ecg|ecg-qa --to DIR [--limit N]``."""

import argparse

from data_provider.prepare import SOURCES, download
from utils.tools import entry_point


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m data_provider.download", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--to", required=True, help="folder for the files")
    parser.add_argument("--limit", type=int, help="the first so many records")
    parser.add_argument("--workers", type=int, default=4, help="transfers at the same time")
    parser.add_argument("--url", help="another place with the same files (a mirror)")
    return parser


@entry_point
def main(argv):
    options = build_parser().parse_args(argv)
    source = SOURCES[options.name]
    print(f"{options.name}: {source.size}. Licence: {source.licence}")
    print(f"from {options.url or source.url}", flush=True)
    count = download(options.name, options.to, options.limit, options.workers, options.url)
    print(f"{count:,} {'records' if source.tables else 'files'} in {options.to}")
    print(f"next: python -m data_provider.prepare {source.prepare.format(to=options.to)}")


if __name__ == "__main__":
    main()
