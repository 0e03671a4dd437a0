"""What is in an ECG file: ``python -m data_provider.records FILE [--out F.npy] [--plot F.png]``."""

import argparse
from pathlib import Path

import numpy as np

from data_provider.read import LEADS, RecordError, SignalPolicy, fit_signal, fit_windows, read_record, standardise
from utils.tools import entry_point, write_atomically


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m data_provider.records", description="Say what is in an ECG file.")
    add = parser.add_argument
    add("file")
    add("--out", metavar="F.npy", help="save the signal: float32 mV [12, T]; with --window all [N, 12, 5000]")
    add("--plot", metavar="F.png", help="draw it on ECG paper")
    add("--window", choices=("first", "centre", "all"), help="10 s at 500 Hz of it, or all of them in turn")
    add("--lead-order", choices=("name", "file"), default="name", help="find leads by name or by position")
    add("--tokenizer", metavar="P", help="ECG tokenizer whose loss is told (default: the one in this repository)")
    add("--sample-rate", type=float, metavar="HZ", help="for files that don't say")
    add("--units", choices=("mV", "uV", "V"), help="for files that don't say")
    add("--leads", type=lambda text: text.split(","), metavar="I,II,...", help="in the file's order, likewise")
    return parser


@entry_point
def main(argv):
    options = build_parser().parse_args(argv)
    record = read_record(options.file, options.lead_order, options.sample_rate, options.units, options.leads)
    samples = record.signal.shape[1]
    print(f"{options.file}: {samples} samples at {record.sample_rate:g} Hz, {samples / record.sample_rate:g} s")
    print("lead    min mV  max mV  first")
    for lead, row in zip(LEADS, record.signal, strict=True):
        print(f"{lead:4} {np.fmin.reduce(row):9.3f} {np.fmax.reduce(row):7.3f} {row[0]:7.4f}")
    for note in record.notes:
        print(f"note: {note}")
    print(*lost_in_codes(record, options.tokenizer), sep="\n")
    signal, rate = record.signal, record.sample_rate
    if options.window:
        if options.window == "all":
            signal = fit_windows(record, SignalPolicy())
            print(f"{len(signal)} windows of 10 s at 500 Hz")
        else:
            signal = fit_signal(record, SignalPolicy(crop=options.window))
            print(f"{options.window} 10 s at 500 Hz")
        rate = 500.0
    if options.out:
        write_atomically(options.out, lambda temporary: _save(temporary, signal))
        print(f"saved {options.out}: float32 {list(signal.shape)} mV")
    if options.plot:
        from utils.plots import plot_ecg

        plot_ecg(options.plot, signal[0] if signal.ndim == 3 else signal, rate, title=Path(options.file).name)
        print(f"drawn {options.plot}")


def lost_in_codes(record, tokenizer_path=None):
    """Lines that say how much of the record's first 10 s an ECG tokenizer loses."""
    # The only import upwards: this is a command, and the first one that users try on their own files.
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.familiarity import ecg_loss, familiar_level, loss_lines
    from ecg_tokenizer.weights import SHIPPED

    path = tokenizer_path or SHIPPED
    try:
        x, _, _ = standardise(fit_signal(record, SignalPolicy()))
    except RecordError as error:
        return [f"codes: none ({error.fault})"]
    return loss_lines(ecg_loss(EcgTokenizer.from_pretrained(path), x[None])[0], familiar_level(path))


def _save(path, signal):
    with open(path, "wb") as file:
        np.save(file, signal)


if __name__ == "__main__":
    main()
