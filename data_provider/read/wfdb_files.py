"""PhysioNet's WFDB files: our own look at the header first, so that no file can cost more than it holds."""

import functools
import os
import re
from pathlib import Path

import numpy as np

from data_provider.read.leads import LEADS

MAX_VALUES = 60_000_000  # samples x signals that one record may declare: 80 minutes of 12 leads at 1000 Hz
MAX_HEADER = 1_000_000  # bytes
LARGEST_KEPT = 2_000_000  # values that a BufferPool keeps memory for: five minutes of 12 leads at 500 Hz
BYTES_A_SAMPLE = {"8": 1, "16": 2, "61": 2, "80": 1, "160": 2, "24": 3, "32": 4, "212": 1.5, "310": 4 / 3, "311": 4 / 3}
MISSING_16 = -32768  # format 16's "no valid sample"
COMPRESSED = {"508", "516", "524"}
_FORMAT = re.compile(r"^(\d{1,4})(x\d{1,6})?(:\d{1,9})?(\+\d{1,9})?$", re.ASCII)
_GAIN = re.compile(r"^(-?\d*\.?\d+\.?(?:[eE][-+]?\d+)?)(\((-?\d{1,12})\))?(?:/(\S+))?$", re.ASCII)


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
    if _is_plain(header):
        signal = _read_plain(header, buffers or BufferPool())
    else:
        signal = _read_any(header)
    return header["names"], header["units"], signal, header["sample_rate"], header["notes"]


def _is_plain(header):
    """Whether all signals lie sample by sample in one file of 16-bit integers, as in PTB-XL and MIMIC-IV-ECG."""
    first = header["signals"][0]
    return all(
        signal["format"] == "16" and signal["plain"] and signal["file"] == first["file"] for signal in header["signals"]
    )


def _read_plain(header, buffers):
    """The numbers that `_read_any` gives for a plain file, to the last bit and several times as fast."""
    signals = header["signals"]
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


def _read_any(header):
    import wfdb

    try:
        record = wfdb.rdrecord(str(header["path"].with_suffix("")), physical=True, smooth_frames=True)
    except Exception as error:  # the library raises many kinds; whatever it is, the file is at fault
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from error
    if record.p_signal is None or not record.p_signal.size:
        raise ValueError("holds no samples")
    if header["samples"] and record.sig_len != header["samples"]:
        raise ValueError(f"{record.sig_len} samples on disk, the header says {header['samples']}")
    return record.p_signal.T


def check_wfdb(path):
    """The header of a record (see `read_header`), after a look whether its files are there and long enough."""
    header_path = record_file(path)
    header = read_header(header_path)
    _check_files(header_path.parent, header)
    return {**header, "path": header_path}


def read_header(path):
    """A WFDB header as a dict, checked. ValueError says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            text = file.read() if size <= MAX_HEADER else b""
    except FileNotFoundError:
        raise ValueError("no such record (neither the file nor its .hea)") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if size > MAX_HEADER or b"\0" in text:
        raise ValueError("is not a WFDB header")
    lines = text.decode("utf-8", errors="replace").splitlines()  # comments may be in any encoding
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError("the header is empty")
    fields = lines[0].split()
    try:
        count = int(fields[1])
        sample_rate = float(fields[2].split("/")[0].split("(")[0]) if len(fields) > 2 else 250.0
        samples = int(fields[3]) if len(fields) > 3 else 0
    except (IndexError, ValueError):
        raise ValueError(f"the header's first line is not a WFDB record line: {lines[0][:60]}") from None
    if "/" in fields[0]:
        raise ValueError("records of several segments are not read")
    if not 0 < count <= 256 or len(lines) < 1 + count:
        raise ValueError(f"the header declares {count} signals and describes {len(lines) - 1}")
    if not 1 <= sample_rate <= 100_000:
        raise ValueError(f"the header says {sample_rate:g} samples a second")
    if samples < 0 or samples * count > MAX_VALUES:
        raise ValueError(f"the header declares {samples} samples, more than the {MAX_VALUES // count} that are read")
    header = {"sample_rate": sample_rate, "samples": samples}
    header |= {"notes": [], "names": [], "units": [], "signals": [], "duplicate_key": []}
    for number, line in enumerate(lines[1 : 1 + count], 1):
        _read_signal_line(line, number, header)
    header["duplicate_key"] = (samples, *header["duplicate_key"])
    return header


def _read_signal_line(line, number, header):
    fields = line.split(None, 8)
    if len(fields) < 2:
        raise ValueError(f"signal {number} has no format: {line[:60]}")
    if "/" in fields[0] or "\\" in fields[0] or fields[0].startswith("."):
        raise ValueError(f"the header points outside its folder: {fields[0][:60]}")
    name = fields[8].rstrip() if len(fields) > 8 else ""
    try:
        signal = {"file": fields[0], **_read_format(fields[1])}
        gain, baseline, unit = _read_gain(fields[2]) if len(fields) > 2 else (None, None, "mV")
        if baseline is None:
            baseline = _read_integer(fields[4]) if len(fields) > 4 else 0
    except ValueError as error:
        raise ValueError(f"signal {number} ({name[:20]}) has {error}") from None
    if gain is None:
        header["notes"].append(f"signal {number} ({name}) has no gain: 200 per mV assumed, as WFDB does")
    header["names"].append(name)
    header["units"].append(unit)
    header["signals"].append({**signal, "gain": gain or 200.0, "baseline": baseline})
    header["duplicate_key"] += fields[5:7]  # first sample and checksum: records that differ in them differ


@functools.lru_cache  # the same few words in all headers of a data set
def _read_format(word):
    match = _FORMAT.match(word)
    if not match:
        raise ValueError(f"no valid format: {word[:40]}")
    frame, skew, offset = (int(part[1:]) if part else 0 for part in match.groups()[1:])
    return {"format": match[1], "plain": frame < 2 and not skew, "frame": frame or 1, "offset": offset}


@functools.lru_cache
def _read_gain(word):
    """Gain (units of the analogue-digital converter a physical unit), baseline or None, unit."""
    match = _GAIN.match(word)
    if not match:
        raise ValueError(f"no valid gain: {word[:40]}")
    gain = float(match[1])
    if not 1e-9 < abs(gain) < 1e12:
        raise ValueError(f"gain {match[1]}, so its amplitude is not known")
    return gain, int(match[3]) if match[3] else None, match[4] or "mV"


def _read_integer(word):
    if not re.fullmatch(r"-?\d{1,12}", word):
        raise ValueError(f"{word[:40]} where a whole number stands")
    return int(word)


def _check_files(folder, header):
    """Every file the header names is there and as long as the header says."""
    for name in dict.fromkeys(signal["file"] for signal in header["signals"]):
        signals = [signal for signal in header["signals"] if signal["file"] == name]
        try:
            size = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            raise ValueError(f"{name} is not there") from None
        if not size:
            raise ValueError(f"{name} is empty")
        kind = signals[0]["format"]
        if kind in COMPRESSED:
            continue
        if kind not in BYTES_A_SAMPLE:
            raise ValueError(f"WFDB format {kind} is not known")
        a_frame = BYTES_A_SAMPLE[kind] * sum(signal["frame"] for signal in signals)
        present = int((size - signals[0]["offset"]) / a_frame)
        if present < header["samples"]:
            raise ValueError(f"{name} holds {present} of the {header['samples']} samples that the header declares")
        most = MAX_VALUES // len(header["signals"])
        if not header["samples"] and present > most:
            raise ValueError(f"{name} holds {present} samples, more than the {most} that are read")
        header["present"] = present


def write_record(path, leads, sample_rate):
    """Write a 16-bit WFDB record, byte for byte as ``wfdb.wrsamp`` does (tests/test_simulate.py compares the two).

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
    lines = [f"{path.name} {len(leads)} {sample_rate:g} {leads.shape[1]}"]
    sums = leads.sum(axis=1, dtype=np.int64) % 65536
    for name, first, checksum in zip(LEADS, leads[:, 0], sums, strict=True):
        lines.append(f"{path.name}.dat 16 1000.0(0)/mV 16 0 {first} {checksum} 0 {name.upper()}")
    path.with_suffix(".dat").write_bytes(np.ascontiguousarray(leads.T, "<i2").tobytes())
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="ascii")


def record_file(path):
    """The file that stands for a record: its header, or the file itself where the path has an extension that exists."""
    path = os.fspath(path)
    stem, extension = os.path.splitext(path)
    headers = [path] if extension == ".hea" else [path + ".hea"]
    if extension in (".dat", ".mat"):
        headers.append(stem + ".hea")
    for header in headers:
        if os.path.isfile(header):
            return Path(header)
    return Path(path if os.path.isfile(path) else headers[0])
