"""How fast a data set is encoded: by how many processes, with how many reading threads each, and in how much memory.

    python benchmarks/encoding.py [--records 2000] [--processes 1 2 4] [--workers 0 2] [--no-network]

Simulated ECGs in WFDB files, as many names as asked for (folders that are links to the same files, so that the disk is
out of the comparison). With --no-network the codes are samples of the signal: what reading and the store alone take,
for which a fast GPU waits. Each line is a store of its own, filled by that many processes as shards, merged, and
compared with the first line's, code by code. The time is from the first process's first record to the merged store;
starting Python and loading the tokenizer are not in it.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tools import UserError, entry_point

BASE = 100  # records that there really are


def make_records(folder, count):
    """A root below ``folder`` with ``count`` record paths; returns (root, paths)."""
    from data_provider.simulate import simulate

    simulate(folder / "files", BASE, seed=0, progress=False)
    found = sorted((folder / "files").rglob("*.hea"))[:BASE]
    names = [path.relative_to(folder / "files").with_suffix("") for path in found]
    (folder / "root").mkdir()
    copies = -(-count // len(names))
    for number in range(copies):
        (folder / "root" / f"copy{number:05d}").symlink_to(folder / "files")
    return folder / "root", [f"copy{number:05d}/{name}" for number in range(copies) for name in names][:count]


class NoNetwork:
    """A tokenizer's stand-in, whose codes cost nothing and still depend on the signal."""

    def __init__(self, tokenizer):
        self.fingerprint, self.row_length = "no network", tokenizer.row_length

    def encode_rows(self, x, std):
        return np.abs(x[:, 0, : self.row_length] * 1000).astype(np.uint16)


def load_tokenizer(path, network):
    """The tokenizer at ``path``, or its stand-in."""
    from ecg_tokenizer.codec import EcgTokenizer
    from utils.machine import pick_device

    tokenizer = EcgTokenizer.from_pretrained(path, pick_device("auto"))
    return tokenizer if network else NoNetwork(tokenizer)


def encode_a_shard(tokenizer, root, paths, folder, shard, workers, ready, results):
    """One process: waits for the others, encodes its share, tells (begun, ended, peak bytes)."""
    import torch

    from data_provider.read import SignalPolicy
    from ecg_tokenizer.encode import encode_shard
    from utils.machine import count_cores

    torch.set_num_threads(max(1, count_cores() // shard[1]))
    tokenizer = load_tokenizer(*tokenizer)
    ready.wait()
    begun = time.time()
    encode_shard(tokenizer, root, paths, folder, SignalPolicy(), shard, workers)
    results.put((begun, time.time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def fill_store(tokenizer, root, paths, folder, processes, workers):
    """Fill a new store: (seconds, most bytes that a process took)."""
    start = multiprocessing.get_context("spawn")
    ready, results = start.Barrier(processes), start.Queue()
    how = [(tokenizer, root, paths, folder, (n, processes), workers, ready, results) for n in range(processes)]
    shards = [start.Process(target=encode_a_shard, args=words) for words in how]
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    if any(shard.exitcode for shard in shards):
        raise UserError("a process failed; its lines say why")
    told = [results.get() for _ in shards]
    return max(t[1] for t in told) - min(t[0] for t in told), max(t[2] for t in told)


def store_as_set(folder, tokenizer):
    """A hash of what a store holds, whatever the order."""
    from data_provider.read import SignalPolicy
    from ecg_tokenizer.store import CodeStore

    store = CodeStore.open(folder, tokenizer.fingerprint, SignalPolicy())
    rows = sorted(store.rows.values())
    digests = sorted(hashlib.sha256(path.encode() + store[path].tobytes()).hexdigest() for path in store.rows)
    return hashlib.sha256("".join(digests).encode()).hexdigest(), len(store), rows == list(range(len(rows)))


@entry_point
def main(argv):
    """Measure and print a table."""
    from ecg_tokenizer.weights import SHIPPED

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="reading threads a process")
    parser.add_argument("--tokenizer", default=str(SHIPPED))
    parser.add_argument("--no-network", action="store_true", help="measure reading and the store alone")
    options = parser.parse_args(argv)
    if options.records < 1 or min(options.processes) < 1 or min(options.workers) < 0:
        raise UserError("--records and --processes must be at least 1, --workers at least 0")
    tokenizer, first = (options.tokenizer, not options.no_network), None
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {options.records:,} records")
    print("processes  threads  seconds   ECG/s  GB a process  store")
    with tempfile.TemporaryDirectory() as scratch:
        root, paths = make_records(Path(scratch), options.records)
        for processes in options.processes:
            for workers in options.workers:
                folder = Path(scratch) / f"store-{processes}-{workers}"
                seconds, peak = fill_store(tokenizer, root, paths, folder, processes, workers)
                held, count, once = store_as_set(folder, load_tokenizer(*tokenizer))
                first = first or held
                if not once or count != len(paths):
                    raise AssertionError(f"{count} records of {len(paths)}, each once: {once}")
                same = "the same codes" if held == first else "OTHER CODES"
                speed = f"{seconds:8.1f} {len(paths) / seconds:7.0f}"
                print(f"{processes:9} {workers:8} {speed} {peak / 1e9:13.2f}  {same}", flush=True)


if __name__ == "__main__":
    main()
