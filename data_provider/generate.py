"""A generated corpus for stage 1: ``python -m data_provider.generate --to DIR --number N``."""

import argparse

from data_provider.simulate import generate
from utils.tools import entry_point


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(prog="python -m data_provider.generate", description=__doc__.split("\n")[0])
    parser.add_argument("--to", required=True, help="folder for the records and manifests; stage 1's ROOT_ECG")
    parser.add_argument("--number", type=int, required=True, help="ECGs; every tenth goes to valid.json")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same ECGs (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1; the ECGs do not depend on it)")
    options = parser.parse_args(argv)
    done = generate(options.to, options.number, options.seed, options.workers)
    state = "already there, unchanged" if done["reused"] else "written"
    print(f"{options.to}: {done['number'] - len(done['left_out'])} ECGs (seed {done['seed']}) {state}")
    for number, fault in done["left_out"].items():
        print(f"  left out: ECG {number}, {fault}")


if __name__ == "__main__":
    main()
