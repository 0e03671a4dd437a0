"""Simulated ECGs: ``python -m data_provider.simulate --out DIR --patients N``."""

import argparse

from data_provider.simulate.write import simulate
from utils.tools import entry_point


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(prog="python -m data_provider.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder for the simulated download")
    parser.add_argument("--patients", type=int, required=True, help="patients, each with one to three ECGs")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes (default 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1; the bytes do not depend on it)")
    parser.add_argument("--fresh", action="store_true", help="make it again even when it is there")
    options = parser.parse_args(argv)
    done = simulate(options.out, options.patients, options.seed, options.fresh, options.workers)
    state = "already there, unchanged" if done["reused"] else "written"
    print(f"{options.out}: {done['records']} ECGs of {done['patients']} patients (seed {done['seed']}) {state}")


if __name__ == "__main__":
    main()
