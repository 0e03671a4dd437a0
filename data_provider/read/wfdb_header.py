"""PhysioNet's WFDB headers: our own look at them first, so that no file can cost more than it holds."""

import functools
import os
import re
from pathlib import Path

MAX_VALUES = 60_000_000  # samples x signals that one record may declare: 80 minutes of 12 leads at 1000 Hz
MAX_HEADER = 1_000_000  # bytes
BYTES_A_SAMPLE = {"8": 1, "16": 2, "61": 2, "80": 1, "160": 2, "24": 3, "32": 4, "212": 1.5, "310": 4 / 3, "311": 4 / 3}
COMPRESSED = {"508", "516", "524"}
_FORMAT = re.compile(r"^(\d{1,4})(x\d{1,6})?(:\d{1,9})?(\+\d{1,9})?$", re.ASCII)
_GAIN = re.compile(r"^(-?\d*\.?\d+\.?(?:[eE][-+]?\d+)?)(\((-?\d{1,12})\))?(?:/(\S+))?$", re.ASCII)


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
    lines = text.decode("utf-8-sig", errors="replace").splitlines()  # comments may be in any encoding
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
    if _has_segments(fields[0], lines[1:2]):
        raise ValueError("records of several segments are not read")
    if not 0 < count <= 256 or len(lines) < 1 + count:
        raise ValueError(f"the header declares {count} signals and describes {len(lines) - 1}")
    if not 1 <= sample_rate <= 100_000:
        raise ValueError(f"the header says {sample_rate:g} samples a second")
    header = {"sample_rate": sample_rate, "samples": samples}
    header |= {"notes": [], "names": [], "units": [], "signals": [], "duplicate_key": []}
    for number, line in enumerate(lines[1 : 1 + count], 1):
        _read_signal_line(line, number, header)
    a_frame = sum(signal["frame"] for signal in header["signals"])
    if samples < 0 or samples * a_frame > MAX_VALUES:
        raise ValueError(f"the header declares {samples} samples, more than the {MAX_VALUES // a_frame} that are read")
    header["duplicate_key"] = (samples, *header["duplicate_key"])
    return header


def _has_segments(name, first_line):
    """Whether a record's name says so ("r/3"); a folder before it ("ge_beats/med") is no number of segments."""
    folder, slash, end = name.rpartition("/")
    return bool(slash) and end.isdigit() and not (first_line and first_line[0].startswith(folder + "/"))


def _read_signal_line(line, number, header):
    fields = line.split(None, 8)
    if len(fields) < 2:
        raise ValueError(f"signal {number} has no format: {line[:60]}")
    file = fields[0].replace("\\", "/")
    if file.startswith("/") or any(part.startswith(".") for part in file.split("/")):
        raise ValueError(f"the header points outside its folder: {fields[0][:60]}")
    name = fields[8].rstrip() if len(fields) > 8 else ""
    try:
        signal = {"file": file, "rest": " ".join(fields[1:]), **_read_format(fields[1])}
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
    """Every file the header names is there (or beside it, where it names a folder) and as long as the header says."""
    for signal in header["signals"]:
        if "/" in signal["file"] and not os.path.isfile(os.path.join(folder, signal["file"])):
            signal["file"] = os.path.basename(signal["file"])
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
        most = MAX_VALUES // sum(signal["frame"] for signal in header["signals"])
        if not header["samples"] and present > most:
            raise ValueError(f"{name} holds {present} samples, more than the {most} that are read")
        header["present"] = present


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
