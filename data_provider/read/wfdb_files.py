"""PhysioNet's WFDB records: the plain ones read here, all others by wfdb."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from data_provider.read.leads import LEADS, standard_name
from data_provider.read.libraries import with_library
from data_provider.read.wfdb_header import check_wfdb

LARGEST_KEPT = 2_000_000  # values that a BufferPool keeps memory for: five minutes of 12 leads at 500 Hz
MISSING_16 = -32768  # format 16's "no valid sample"


class BufferPool:
    """Arrays that are used again from record to record: fresh memory costs more than the arithmetic in it."""

    def __init__(self):
        self._buffers = {}

    def array(self, shape, dtype):
        """An uninitialised array; the next call with this dtype hands out the same memory."""
        size = shape[0] * shape[1]
        if size > LARGEST_KEPT:
            return np.empty(shape, dtype)
        if dtype not in self._buffers or self._buffers[dtype].size < size:
            self._buffers[dtype] = np.empty(size, dtype)
        return self._buffers[dtype][:size].reshape(shape)


def read_wfdb(path, buffers=None):
    """Read a WFDB record.

    Parameters
    ----------
    path : str or Path
        With or without ``.hea``, ``.dat`` or ``.mat``.
    buffers : BufferPool, optional
        The result may lie in it.

    Returns
    -------
    names, units : list of str
    columns : float64 array [signals, T]
        Physical values in `units`; NaN where a sample is missing.
    sample_rate : float
    notes : list of str

    Raises
    ------
    ValueError
        What is wrong, in words that follow the file's name and a colon.
    """
    header = check_wfdb(path)
    if not is_plain(header):
        *found, notes = _read_any(header)
        return *found, header["notes"] + notes
    signal = _read_plain(header, buffers or BufferPool())
    return header["names"], header["units"], signal, header["sample_rate"], header["notes"]


def is_plain(header):
    """Whether all signals lie sample by sample in one file of 16-bit integers, as in PTB-XL and MIMIC-IV-ECG."""
    first = header["signals"][0]
    return all(
        signal["format"] == "16" and signal["plain"] and signal["file"] == first["file"] for signal in header["signals"]
    )


def _read_plain(header, buffers):
    """The numbers that `_read_any` gives for a plain file, to the last bit and several times as fast."""
    signals, digital = header["signals"], read_digital(header, buffers)
    columns = buffers.array(digital.shape[::-1], "<f8")
    columns[...] = digital.T
    missing = columns == MISSING_16 if digital.min() == MISSING_16 else None
    baselines = np.array([[signal["baseline"]] for signal in signals], np.float64)
    if baselines.any():
        columns -= baselines
    columns /= np.array([[signal["gain"]] for signal in signals])
    if missing is not None:
        columns[missing] = np.nan
    return columns


def read_digital(header, buffers=None):
    """The counts of a plain file as they lie there: int16 array [T, signals]."""
    signals, buffers = header["signals"], buffers or BufferPool()
    digital = buffers.array((header["samples"] or header["present"], len(signals)), "<i2")
    if not digital.size:
        raise ValueError("holds no samples")
    try:
        with open(header["path"].parent / signals[0]["file"], "rb", buffering=0) as file:
            file.seek(signals[0]["offset"])
            if file.readinto(digital) != digital.nbytes:
                raise ValueError(f"{signals[0]['file']} changed while it was read")
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    return digital


def _read_any(header):
    """Names, units, columns, sampling rate and notes of a record of any format that wfdb knows."""
    kept = _leads_of_one_rate(header)
    with tempfile.TemporaryDirectory() as folder:
        path = _plain_header(header, Path(folder))
        record, notes = with_library("wfdb", lambda wfdb, path: _through_wfdb(wfdb, path, kept), path)
    if not record.e_p_signal or not len(record.e_p_signal[0]):
        raise ValueError("holds no samples")
    if header["samples"] and record.sig_len != header["samples"]:
        raise ValueError(f"{record.sig_len} samples on disk, the header says {header['samples']}")
    frame = header["signals"][kept[0]]["frame"]
    if frame > 1:
        notes.append(f"{frame} samples a frame: {header['sample_rate'] * frame:g} samples a second")
    names, units = ([header[field][row] for row in kept] for field in ("names", "units"))
    return names, units, np.array(record.e_p_signal, np.float64), header["sample_rate"] * frame, notes


def _through_wfdb(wfdb, path, kept):
    return wfdb.rdrecord(str(path), physical=True, smooth_frames=False, channels=kept)


def _leads_of_one_rate(header):
    """The signals with as many samples a frame as the leads have; wfdb would average the others to the slowest."""
    frames = [(name, signal["frame"]) for name, signal in zip(header["names"], header["signals"], strict=True)]
    of_leads = {frame for name, frame in frames if standard_name(name)} or {frame for _, frame in frames}
    if len(of_leads) > 1:
        rates = ", ".join(f"{name} {header['sample_rate'] * frame:g} Hz" for name, frame in frames)
        raise ValueError(f"its leads differ in sampling rate ({rates})")
    return [row for row, (_, frame) in enumerate(frames) if frame in of_leads]


def _plain_header(header, folder):
    """The record once more in ``folder``, without what wfdb stumbles over: a date, a name with a slash or a dot."""
    aliases, lines = {}, [f"r {len(header['signals'])} {header['sample_rate']:.12g} {header['samples'] or ''}".strip()]
    for signal in header["signals"]:
        if signal["file"] not in aliases:
            alias = aliases[signal["file"]] = f"s{len(aliases)}{os.path.splitext(signal['file'])[1]}"
            source = (header["path"].parent / signal["file"]).absolute()
            try:
                os.symlink(source, folder / alias)
            except OSError:  # no such links there
                shutil.copyfile(source, folder / alias)
        lines.append(f"{aliases[signal['file']]} {signal['rest']}")
    (folder / "r.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "r"


def write_record(path, leads, sample_rate):
    """Write a 16-bit WFDB record, byte for byte as ``wfdb.wrsamp`` does (test_simulate.py compares the two).

    wfdb's own writer spends 20 ms on a header, five times what the ECG itself takes.

    Parameters
    ----------
    path : Path
        Without extension.
    leads : int16 array [12, T]
        At 1000 adu/mV, in the order of `LEADS` (written as PTB-XL spells them); `MISSING_16` is a missing sample.
    sample_rate : float
        Hz.
    """
    lines = [f"{path.name} {len(leads)} {sample_rate:.12g} {leads.shape[1]}"]
    sums = leads.sum(axis=1, dtype=np.int64) % 65536
    for name, first, checksum in zip(LEADS, leads[:, 0], sums, strict=True):
        lines.append(f"{path.name}.dat 16 1000.0(0)/mV 16 0 {first} {checksum} 0 {name.upper()}")
    path.with_suffix(".dat").write_bytes(np.ascontiguousarray(leads.T, "<i2").tobytes())
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="ascii")
