"""How fast the tokenizer trains and encodes, the default network beside the published one, and what reading costs.

    python benchmarks/tokenizer.py [--root DIR] [--rounds 5] [--seconds 5] [--threads 2]

Without --root, on simulated ECGs. Stage 1's own step and the codec's own encoding are measured, round by round in turn,
so that a busy machine slows all alike; medians over the rounds, ratios too. On a GPU also with torch.compile.
"""

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in utils/launch.sh; read when torch is imported

from utils.tools import UserError, entry_point

BATCH = {"cpu": 16, "cuda": 64}  # ECGs a training step; fewer leave a GPU idle
ENCODE_BATCH = 64  # what ecg_tokenizer.encode takes
SIMULATED_PATIENTS = 130  # some 256 ECGs
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices whose product is the peak
WANTED = {"training": 10, "encoding": 3}  # times the published network's ECG/s, float32 on a CPU
NETWORKS = ("default", "published")


@dataclass
class Contender:
    """One measured task: ``work()`` processes a batch and returns its number of ECGs."""

    task: str
    device: str
    precision: str
    network: str
    work: object
    gflop: float  # an ECG
    rates: list = field(default_factory=list)  # ECG/s of each round


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--root", type=Path, help="folder with 10 s WFDB records anywhere below (default: simulated ECGs)")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=5, help="of each contender in a round; always one batch at least")
    add("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    add("--batch", type=int, help=f"ECGs a training step (default {BATCH['cpu']}, on a GPU {BATCH['cuda']})")
    add("--encode-batch", type=int, default=ENCODE_BATCH, help=f"ECGs encoded at once (default {ENCODE_BATCH})")
    add("--device", choices=("all", "cpu", "cuda"), default="all")
    options = parser.parse_args(argv)
    least = {"rounds": 1, "seconds": 0, "threads": 0, "batch": 1, "encode_batch": 1}
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and not value >= bound:
            raise UserError(f"--{name.replace('_', '-')} must be at least {bound} (it is {value})")
    import torch

    from utils.machine import set_threads

    threads = set_threads(options.threads)
    devices = [name for name in ("cpu", "cuda") if options.device in (name, "all")]
    devices = [name for name in devices if name == "cpu" or torch.cuda.is_available()]
    print(f"{processor()}, {os.cpu_count()} cores, {threads} thread(s); torch {torch.__version__}")
    if "cuda" in devices:
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    with tempfile.TemporaryDirectory() as scratch:
        signals, reading = read(options.root, Path(scratch), options.rounds)
        print(f"{len(signals)} {'ECGs' if options.root else 'simulated ECGs'}, {options.rounds} rounds")
        contenders, peaks = [], {}
        for device in devices:
            batch = options.batch or BATCH[device]
            contenders += make_contenders(device, signals, batch, options.encode_batch)
            for precision in {c.precision for c in contenders if c.device == device}:
                peaks[device, precision] = matmul_peak(device, precision)
        measure(contenders, options.rounds, options.seconds)
        fetching = fetch_seconds(signals, options.batch or BATCH[devices[-1]])
    report(contenders, peaks, reading, fetching)


def processor():
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read(root, scratch, rounds):
    """The ECGs as stage 1's memory map, and how many a second were read and standardised by one thread."""
    import numpy as np

    from data_provider.count_store import store_signals
    from data_provider.read import SignalPolicy, load_signal

    if root is None:
        from data_provider.simulate import simulate

        root = scratch / "files"
        simulate(root, SIMULATED_PATIENTS, seed=0, progress=False)
    paths = [str(path.relative_to(root).with_suffix("")) for path in sorted(root.rglob("*.hea"))]
    if not paths:
        raise UserError(f"{root}: no record below it")
    signals, good, _ = store_signals(root, paths, SignalPolicy(), scratch)
    if not good:
        raise UserError(f"{root}: no readable record below it")
    rates, out = [], np.empty(signals.counts.shape[1:], np.float32)
    for _ in range(rounds):  # after the first reading above: from the page cache, not the disk
        start = time.perf_counter()
        for path in good:
            load_signal(root / path, SignalPolicy(), out)
        rates.append(len(good) / (time.perf_counter() - start))
    return signals, statistics.median(rates)


def make_contenders(device, signals, batch, encode_batch):
    """Training and encoding with both networks on a device, each warmed up."""
    import torch

    from utils.machine import pick_dtype

    dtypes = dict.fromkeys((torch.float32, pick_dtype(True, torch.device(device))))
    made = []
    for dtype, compiled in itertools.product(dtypes, (False, True) if device == "cuda" else (False,)):
        precision = str(dtype).split(".")[-1] + (", compiled" if compiled else "")
        for network in NETWORKS:
            work, gflop = training(network, device, dtype, signals, batch, compiled)
            made.append(Contender("training", device, precision, network, work, gflop))
    for network in NETWORKS:  # codes are computed in float32 always
        work, gflop = encoding(network, device, signals, encode_batch)
        made.append(Contender("encoding", device, "float32", network, work, gflop))
    return made


def training(name, device, dtype, signals, batch, compiled):
    """Stage 1's step with its optimizers, and the GFLOP that an ECG takes in it (forwards, backwards and updates)."""
    import torch

    from data_provider.data_factory import epoch_steps
    from ecg_tokenizer import training as stage
    from ecg_tokenizer.network import NetworkConfig, build_network
    from utils.settings import Settings, pick

    config = NetworkConfig(architecture=name)
    network = build_network(config).to(device).train()
    optimizers = stage.make_optimizers(network, Settings().lr)
    options = pick(Settings(), stage.TrainingOptions)
    run = stage.Run(options, None, config, torch.device(device), dtype, signals, ["?"] * len(signals), None)
    forward = stage.distributed(run, network)
    batch = min(batch, len(signals))
    steps = epoch_steps(len(signals), batch, seed=0, epoch=0)
    full = itertools.cycle([chosen for chosen in steps if len(chosen) == batch])  # another size is compiled anew

    def work():
        chosen = next(full)
        stage.train_step(run, forward, optimizers, chosen, 0.1, 0)
        return len(chosen)

    gflop = count_gflop(work)
    if compiled:
        network.encode, network.decode = torch.compile(network.encode), torch.compile(network.decode)
        for _ in range(3):
            work()
    return work, gflop


def encoding(name, device, signals, batch):
    """The codec's encoding of standardised signals, back on the CPU, and its GFLOP an ECG."""
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.network import NetworkConfig, build_network

    config = NetworkConfig(architecture=name)
    tokenizer = EcgTokenizer(build_network(config).to(device), config)
    starts = itertools.cycle(range(0, len(signals), batch))

    def work():
        start = next(starts)
        return len(tokenizer.encode_standardised(signals[start : start + batch].copy()).cpu())

    return work, count_gflop(work)


def count_gflop(work):
    """Billions of floating-point operations of matrix products and convolutions that an ECG takes; warms up too."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        ecgs = work()
    return counter.get_total_flops() / ecgs / 1e9


def matmul_peak(device, precision):
    """The TFLOP/s of one large product of square matrices, the best of ten."""
    import torch

    size = MATRIX[device]
    dtype = getattr(torch, precision.split(",")[0])
    a, best = torch.randn(size, size, device=device).to(dtype), float("inf")
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


def measure(contenders, rounds, seconds):
    """Measure the contenders in turn, ``rounds`` times for ``seconds`` each; fills in their rates."""
    for _ in range(rounds):
        for contender in contenders:
            done, start = 0, time.perf_counter()
            while not done or time.perf_counter() - start < seconds:
                done += contender.work()
            contender.rates.append(done / (time.perf_counter() - start))


def fetch_seconds(signals, batch):
    """Seconds that it takes to get one ECG of a shuffled batch from the memory map (which the page cache holds)."""
    import torch

    from data_provider.data_factory import epoch_steps

    start = time.perf_counter()
    for chosen in epoch_steps(len(signals), min(batch, len(signals)), seed=1, epoch=0):
        torch.from_numpy(signals[chosen])
    return (time.perf_counter() - start) / len(signals)


def report(contenders, peaks, reading, fetching):
    """Print the table, the ratios, and whether they reach WANTED."""
    rows = [("", "", "", "ECG/s", "GFLOP/ECG", "TFLOP/s", "of matmul", "ratio")]
    ratios = {}
    for key, pair in itertools.groupby(contenders, lambda c: (c.task, c.device, c.precision)):
        pair = list(pair)
        ratios[key] = statistics.median(a / b for a, b in zip(pair[0].rates, pair[1].rates, strict=True))
        for contender in pair:
            rate = statistics.median(contender.rates)
            speed = rate * contender.gflop / 1000
            rows.append((
                contender.task, f"{contender.device} {contender.precision}", contender.network, f"{rate:,.1f}",
                f"{contender.gflop:.2f}", f"{speed:.3f}", f"{speed / peaks[key[1:]]:.0%}",
                f"{ratios[key]:.1f}" if contender is pair[0] else "",
            ))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = [cell.ljust(w) if n < 3 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    print("\n" + "; ".join(f"matmul {' '.join(key)}: {peak:.2f} TFLOP/s" for key, peak in peaks.items()))
    fastest = max((c for c in contenders if c.task == "training"), key=lambda c: statistics.median(c.rates))
    rate = statistics.median(fastest.rates)
    print(f"reading and standardising: {reading:,.0f} ECG/s on one thread, once a run; "
          f"the fastest training ({fastest.device} {fastest.precision}) takes {rate:,.0f} a second, every pass")
    print(f"a batch from the memory map: {1e3 * fetching:.2f} ms an ECG, {fetching * rate:.1%} of that training's time")
    for task, wanted in WANTED.items():
        if (task, "cpu", "float32") in ratios:
            got = ratios[task, "cpu", "float32"]
            print(f"{task}, cpu float32: {got:.1f} times the published network's ECG/s, {wanted} are wanted: "
                  f"{'met' if got >= wanted else 'NOT met'}")


if __name__ == "__main__":
    main()
