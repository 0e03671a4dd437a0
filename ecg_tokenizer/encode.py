"""Every record encoded once: into a `CodeStore`, or into a file for whoever wants just the codes.

python -m ecg_tokenizer.encode --checkpoint P --root DIR --codes-root DIR [--shard I/N] --manifests FILE...
python -m ecg_tokenizer.encode --checkpoint P --root DIR --out FILE.npz [--loss] RECORD...
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_provider.data_loader import bad_records_text, file_signatures
from data_provider.manifests import read_manifest, record_paths
from data_provider.read import RecordError, SignalPolicy
from ecg_tokenizer.familiarity import ecg_loss, familiar_level
from ecg_tokenizer.store import CodeStore, StoreWriter, locked, merge_parts, new_part, store_folder
from ecg_tokenizer.views import load
from utils.tools import UserError, entry_point, write_atomically

SAVE_SECONDS = 10  # an interrupted run loses at most so much


def encode_records(tokenizer, root, paths, folder, policy, workers=0, batch_size=64, device=None, on_start=None):
    """Bring a store up to date with the records ``paths`` below ``root``.

    Encodes what the store lacks and what changed on disk since (size or modification time). Interrupted, it goes on
    where it stopped. Records that cannot be read are kept with the reason, and looked at again when their file changes.

    Parameters
    ----------
    tokenizer : EcgTokenizer
    folder : path
        See `ecg_tokenizer.store.store_folder`.
    workers : int
        Threads that read files while the network encodes; 0 reads in between.
    device : str, optional
        Where to encode; by default where the tokenizer is.
    on_start : callable, optional
        Told the number of records to encode, if there are any.

    Returns
    -------
    CodeStore
    """
    if device is not None:
        tokenizer.network.to(device)
    with locked(folder):
        merge_parts(folder, tokenizer.fingerprint, policy)
        writer = StoreWriter(folder, tokenizer.fingerprint, policy, tokenizer.row_length)
        missing = missing_records(writer.store, root, paths)
        if missing and on_start:
            on_start(len(missing))
        _encode_into(writer, tokenizer, root, missing, policy, workers, batch_size)
    del writer, missing  # of many records, too much to hold twice
    return CodeStore.open_as_it_is(folder, tokenizer.fingerprint, policy)


def missing_records(store, root, paths):
    """Path -> `file_signature` of the records that the store lacks, or has from another state of their file."""
    signatures = file_signatures(root, paths)
    return {path: signature for path, signature in signatures.items() if store.signatures.get(path) != signature}


def encode_part(tokenizer, root, missing, folder, policy, workers=0, batch_size=64, quiet=False):
    """Encode ``missing`` (`missing_records`) into a part of its own, beside other processes that do the same.

    ``quiet`` shows no bar: of many processes one is enough.
    """
    if missing:
        with new_part(folder) as part:
            writer = StoreWriter(part, tokenizer.fingerprint, policy, tokenizer.row_length)
            _encode_into(writer, tokenizer, root, missing, policy, workers, batch_size, quiet)


def encode_shard(tokenizer, root, paths, folder, policy, shard, workers=0, batch_size=64):
    """Shard ``(i, n)`` of a job array: encode every n-th record from the i-th on. Returns how many were encoded.

    The other shards may run at the same time, before or after; whoever opens the store next finds them merged.
    """
    with locked(folder):
        merge_parts(folder, tokenizer.fingerprint, policy)
        store = StoreWriter(folder, tokenizer.fingerprint, policy, tokenizer.row_length).store
    number, count = shard
    missing = missing_records(store, root, list(dict.fromkeys(paths))[number::count])
    del store
    encode_part(tokenizer, root, missing, folder, policy, workers, batch_size)
    with locked(folder):
        merge_parts(folder, tokenizer.fingerprint, policy)
    return len(missing)


def _encode_into(writer, tokenizer, root, missing, policy, workers, batch_size, quiet=False):
    records, codes, bad, saved = [], [], {}, time.monotonic()

    def save():
        if codes:
            writer.append(records, np.concatenate(codes), missing, bad)

    for batch in encode_batches(tokenizer, root, list(missing), policy, workers, batch_size, quiet=quiet):
        records += batch[0]
        codes.append(batch[1])
        bad |= batch[2]
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
            records, codes, bad, saved = [], [], {}, time.monotonic()
    save()


def encode_batches(tokenizer, root, paths, policy, workers=0, batch_size=64, losses=None, quiet=False):
    """Read and encode records, batch by batch: (good paths, codes uint16 [n, row_length], bad path -> reason).

    A list ``losses`` grows by what the codes lose of each good record (`ecg_tokenizer.familiarity.ecg_loss`).
    """
    from tqdm import tqdm

    root = Path(root)

    def read(path):
        try:
            x, _, std = load(root, path, policy)
            return path, (x, std), None
        except RecordError as error:
            return path, None, error.fault

    def submit(pool, batch):
        return [pool.submit(read, path) for path in batch]

    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    bar = tqdm(total=len(paths), desc="encoding ECGs", unit="ECG", disable=quiet or len(paths) < batch_size)
    with ThreadPoolExecutor(max(1, workers)) as pool, bar:
        ahead = submit(pool, batches[0]) if workers and batches else None
        for number, batch in enumerate(batches):
            if workers:
                results = [future.result() for future in ahead]
                ahead = submit(pool, batches[number + 1]) if number + 1 < len(batches) else None
            else:
                results = [read(path) for path in batch]
            good = [(path, ecg) for path, ecg, reason in results if reason is None]
            bad = {path: reason for path, _, reason in results if reason is not None}
            codes = np.empty((0, tokenizer.row_length), np.uint16)
            if good:
                x, std = (np.stack(part) for part in zip(*(ecg for _, ecg in good), strict=True))
                codes = tokenizer.encode_rows(x, std)
                if losses is not None:
                    waveform = codes[:, tokenizer.row_length - tokenizer.codes_per_ecg :].astype(np.int64)
                    losses.extend(ecg_loss(tokenizer, x, waveform))
            yield [path for path, _ in good], codes, bad
            bar.update(len(batch))


@entry_point
def main(argv):
    """Encode records: into the store that the stages read (--codes-root), or into one .npz (--out).

    The .npz holds ``records`` [N] and ``codes`` uint16 [N, row_length]; with --loss also ``loss`` [N]: what the codes
    lose of each ECG, PRDN in %. A store may be filled by the jobs of an array, each with its ``--shard i/n``.
    """
    options = _options(argv)
    paths = list(dict.fromkeys(options.records))
    for manifest in options.manifests:
        paths += record_paths(read_manifest(manifest))
    if not paths:
        raise UserError("no records: name them, or their --manifests")
    from ecg_tokenizer.codec import EcgTokenizer
    from utils.machine import pick_device

    tokenizer = EcgTokenizer.from_pretrained(options.checkpoint, pick_device(options.device))
    policy = SignalPolicy(
        lead_order=options.lead_order, crop=options.crop, short=options.short_records, max_gap_s=options.max_gap_s
    )
    (_to_store if options.codes_root else _to_file)(options, tokenizer, policy, paths)


def _options(argv):
    parser = argparse.ArgumentParser(prog="python -m ecg_tokenizer.encode", description=main.__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="tokenizer: a folder or a best.pt (ours or the authors')")
    parser.add_argument("--root", required=True, help="folder that the record paths start from")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", help="the .npz to write")
    where.add_argument("--codes-root", help="the stages' CODES_ROOT: fill the store that they will look for")
    parser.add_argument("--shard", metavar="I/N", type=_shard, help="of N jobs this is number I, from 0 (a store only)")
    parser.add_argument("--lead-order", default="name", choices=("name", "file"), help="leads by name, or by position")
    parser.add_argument("--crop", default="first", choices=("first", "centre"), help="which 10 s of a longer record")
    parser.add_argument("--short-records", default="refuse", choices=("refuse", "pad"), help="records below 10 s")
    parser.add_argument("--max-gap-s", default=0.2, type=float, help="longest gap that is interpolated")
    parser.add_argument("--workers", type=int, default=2, help="threads that read files")
    parser.add_argument("--batch", type=int, default=64, help="ECGs encoded at once")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--loss", action="store_true", help="decode each ECG too, and keep what was lost: PRDN in %%")
    parser.add_argument("--manifests", nargs="+", default=[], metavar="FILE", help="take all records of these")
    parser.add_argument("records", nargs="*", metavar="RECORD", help="record path, with or without extension")
    options = parser.parse_args(argv)
    if not Path(options.root).is_dir():
        raise UserError(f"--root {options.root}: no such folder")
    if options.workers < 0 or options.batch < 1:
        raise UserError("--workers must be at least 0 and --batch at least 1")
    if (options.codes_root and options.loss) or (options.out and options.shard):
        raise UserError("--loss goes with --out, --shard with --codes-root")
    return options


def _shard(text):
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no I/N with I from 0 to N-1")
    return int(number), int(count)


def _to_store(options, tokenizer, policy, paths):
    folder = store_folder(options.codes_root, tokenizer.fingerprint, policy, options.root)
    how = tokenizer, options.root, paths, folder, policy
    if options.shard:
        encoded = encode_shard(*how, options.shard, options.workers, options.batch)
        print(f"shard {options.shard[0]} of {options.shard[1]}: {encoded} ECGs encoded -> {folder}")
        return
    store = encode_records(*how, options.workers, options.batch)
    print(f"{len(store)} ECGs x {tokenizer.row_length} codes -> {folder}")
    if store.bad:
        print(bad_records_text(store.bad))


def _to_file(options, tokenizer, policy, paths):
    records, codes, bad = [], [np.empty((0, tokenizer.row_length), np.uint16)], {}
    losses = [] if options.loss else None
    for batch in encode_batches(tokenizer, options.root, paths, policy, options.workers, options.batch, losses):
        records += batch[0]
        codes.append(batch[1])
        bad |= batch[2]
    if not records:
        raise UserError(f"none of the records could be read; the first: {paths[0]}: {bad[paths[0]]}")
    arrays = {"records": np.array(records), "codes": np.concatenate(codes)}
    if losses:
        arrays["loss"] = np.array(losses)

    def write(temporary):
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(options.out, write)
    print(f"{len(records)} ECGs x {tokenizer.row_length} codes -> {options.out}")
    for line in _loss_lines(records, losses, options.checkpoint) if losses else ():
        print(line)
    if bad:
        print(bad_records_text(bad))


def _loss_lines(records, losses, checkpoint):
    """How much was lost, and the ECGs that are unlike those the tokenizer knows."""
    level = familiar_level(checkpoint) or np.inf
    yield f"lost in the codes: {np.nanmedian(losses):.0f} % of the median ECG, {np.nanmax(losses):.0f} % of the worst"
    unlike = [f"{record} ({loss:.0f} %)" for record, loss in zip(records, losses, strict=True) if loss > level]
    if unlike:
        more = f" and {len(unlike) - 10} more" if len(unlike) > 10 else ""
        yield f"warning: unlike those the tokenizer knows: {', '.join(unlike[:10])}{more}"


if __name__ == "__main__":
    main()
