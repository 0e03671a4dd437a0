"""How fast records are read and standardised, against wfdb.rdsamp + scikit-learn's StandardScaler on the same files.

    python benchmarks/reading.py ROOT [--repeat 5]

Both give [N, 12, 5000] float32; files are read once before, so that the disk is out of the comparison. One thread.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def ours(root, paths):
    from data_provider.data_loader import load_signals
    from data_provider.read import SignalPolicy

    signals, good, _ = load_signals(root, paths, SignalPolicy())
    assert len(good) == len(paths)
    return signals


def usual(root, paths):
    import wfdb
    from sklearn.preprocessing import StandardScaler

    signals = np.empty((len(paths), 12, 5000), np.float32)
    for row, path in enumerate(paths):
        signal, _ = wfdb.rdsamp(str(root / path))
        signals[row] = StandardScaler().fit_transform(signal).T
    return signals


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with 10 s, 500 Hz WFDB records anywhere below")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    paths = [str(path.relative_to(options.root).with_suffix("")) for path in sorted(options.root.rglob("*.hea"))]
    seconds, results = {}, {}
    for _ in range(options.repeat + 1):  # the first round warms up imports and the page cache
        for name, read in (("ours", ours), ("usual", usual)):
            start = time.perf_counter()
            results[name] = read(options.root, paths)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    best = {name: min(rounds[1:]) for name, rounds in seconds.items()}
    for name, time_taken in best.items():
        each = 1e3 * time_taken / len(paths)
        print(f"{name:6} {time_taken:.3f} s for {len(paths)} records, {each:.2f} ms each, {1e3 / each:,.0f} a second")
    print(f"ratio {best['usual'] / best['ours']:.1f}")
    print(f"largest difference {np.abs(results['ours'] - results['usual']).max():.1e}")


if __name__ == "__main__":
    main()
