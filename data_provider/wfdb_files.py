"""PhysioNet's WFDB files: our own look at the header first, so that no file can cost more than it holds."""

import re
from pathlib import Path

MAX_VALUES = 60_000_000  # samples x signals that one record may declare: 80 minutes of 12 leads at 1000 Hz
BYTES_A_SAMPLE = {"8": 1, "16": 2, "61": 2, "80": 1, "160": 2, "24": 3, "32": 4, "212": 1.5, "310": 4 / 3, "311": 4 / 3}
COMPRESSED = {"508", "516", "524"}
_FORMAT = re.compile(r"^(\d+)(x\d+)?(:\d+)?(\+\d+)?$")
_GAIN = re.compile(r"^(-?[\d.]+(?:[eE][-+]?\d+)?)(\((-?\d+)\))?(?:/(\S+))?$")


def read_wfdb(path):
    """Read a WFDB record.

    Parameters
    ----------
    path : str or Path
        With or without ``.hea``, ``.dat`` or ``.mat``.

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
    import wfdb

    try:
        record = wfdb.rdrecord(str(header["path"].with_suffix("")), physical=True, smooth_frames=True)
    except Exception as error:  # the library raises many kinds; whatever it is, the file is at fault
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from error
    if record.p_signal is None or not record.p_signal.size:
        raise ValueError("holds no samples")
    if header["samples"] and record.sig_len != header["samples"]:
        raise ValueError(f"{record.sig_len} samples on disk, the header says {header['samples']}")
    return header["names"], header["units"], record.p_signal.T, header["sample_rate"], header["notes"]


def check_wfdb(path):
    """The header of a record (see `read_header`), after a look whether its files are there and long enough."""
    header_path = record_file(path)
    header = read_header(header_path)
    _check_files(header_path.parent, header)
    return {**header, "path": header_path}


def read_header(path):
    """A WFDB header as a dict, checked. ValueError says what is wrong with it."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError("no such record (neither the file nor its .hea)") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if len(text) > 1_000_000 or b"\0" in text:
        raise ValueError("is not a WFDB header")
    lines = [line.strip() for line in text.decode("utf-8", errors="replace").splitlines()]  # comments may be anything
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError("the header is empty")
    words = lines[0].split()
    try:
        count = int(words[1])
        sample_rate = float(words[2].split("/")[0].split("(")[0]) if len(words) > 2 else 250.0
        samples = int(words[3]) if len(words) > 3 else 0
    except (IndexError, ValueError):
        raise ValueError(f"the header's first line is not a WFDB record line: {lines[0][:60]}") from None
    if "/" in words[0]:
        raise ValueError("records of several segments are not read")
    if not 0 < count <= 256 or len(lines) < 1 + count:
        raise ValueError(f"the header declares {count} signals and describes {len(lines) - 1}")
    if not 1 <= sample_rate <= 100_000:
        raise ValueError(f"the header says {sample_rate:g} samples a second")
    if samples < 0 or samples * count > MAX_VALUES:
        raise ValueError(f"the header declares {samples} samples, more than the {MAX_VALUES // count} that are read")
    header = {"sample_rate": sample_rate, "samples": samples, "notes": [], "names": [], "units": [], "signals": []}
    for number, line in enumerate(lines[1 : 1 + count], 1):
        _read_signal_line(line, number, header)
    return header


def _read_signal_line(line, number, header):
    words = line.split(None, 8)
    form = _FORMAT.match(words[1]) if len(words) > 1 else None
    if form is None:
        raise ValueError(f"signal {number} has no format: {line[:60]}")
    if "/" in words[0] or "\\" in words[0] or words[0].startswith("."):
        raise ValueError(f"the header points outside its folder: {words[0][:60]}")
    gain = _GAIN.match(words[2]) if len(words) > 2 else None
    if len(words) > 2 and gain is None:
        raise ValueError(f"signal {number} has no valid gain: {words[2][:40]}")
    name = words[8].strip() if len(words) > 8 else ""
    value = float(gain[1]) if gain else 0.0
    if gain and not value:
        raise ValueError(f"signal {number} ({name}) has gain 0, so its amplitude is not known")
    if not gain:
        header["notes"].append(f"signal {number} ({name}) has no gain: 200 per mV assumed, as WFDB does")
    header["names"].append(name)
    header["units"].append((gain and gain[4]) or "mV")
    samples_a_frame, skew, offset = (int(part[1:]) if part else None for part in form.groups()[1:])
    header["signals"].append(
        {
            "file": words[0],
            "format": form[1],
            "plain": samples_a_frame in (None, 1) and not skew,
            "frame": samples_a_frame or 1,
            "offset": offset or 0,
            "gain": value or 200.0,
            "baseline": int(gain[3]) if gain and gain[3] else (_integer(words[4]) if len(words) > 4 else 0),
        }
    )


def _integer(word):
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"the header says {word[:40]} where a whole number stands") from None


def _check_files(folder, header):
    """Every file the header names is there and as long as the header says."""
    for name in dict.fromkeys(signal["file"] for signal in header["signals"]):
        signals = [signal for signal in header["signals"] if signal["file"] == name]
        try:
            size = (folder / name).stat().st_size
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


def record_file(path):
    """The file that stands for a record: its header, or the file itself where the path has an extension that exists."""
    path = Path(path)
    header = path if path.suffix == ".hea" else path.with_name(path.name + ".hea")
    if not header.is_file() and path.suffix in (".dat", ".mat"):
        header = path.with_suffix(".hea")
    return header if header.is_file() or not path.is_file() else path
