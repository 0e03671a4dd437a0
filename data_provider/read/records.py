"""Any ECG file -> `Record`: millivolts, leads in standard order, sampling rate, notes on what was done for it."""

import dataclasses

import numpy as np

from data_provider.read.clinical_files import read_other
from data_provider.read.leads import LEADS, choose_leads, complete_leads
from data_provider.read.silence import said, silent_runs
from data_provider.read.wfdb_files import read_wfdb
from data_provider.read.wfdb_header import record_file
from utils.tools import UserError

__all__ = ["LEADS", "Record", "RecordError", "read_record", "record_file"]

UNREADABLE, TOO_SHORT, MISSING_SAMPLES = "unreadable", "shorter than 10 s", "missing samples"
IMPLAUSIBLE_MV = 10.0  # worth a note
SMALL_MV = 0.05  # likewise, where no lead spans more: asystole, or a file in volts that was taken for millivolts
IMPOSSIBLE_MV = 1e6  # not an ECG
UNIT_IN_MV = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}
_WRITTEN_OUT = {"milli": "mv", "micro": "uv", "nano": "nv", "": "v"}
UNIT_IN_MV |= {f"{word}volt{s}": UNIT_IN_MV[short] for word, short in _WRITTEN_OUT.items() for s in ("", "s")}


class RecordError(UserError):
    """A file that cannot be read as a 12-lead ECG; the text is the path and the fault."""

    def __init__(self, path, fault, kind=UNREADABLE):
        super().__init__(f"{path}: {fault}")
        self.path, self.fault, self.kind = str(path), fault, kind

    def __reduce__(self):
        return RecordError, (self.path, self.fault, self.kind)


@dataclasses.dataclass(frozen=True)
class Record:
    """One ECG.

    Attributes
    ----------
    signal : float32 array [12, T]
        Millivolts, leads in the order of `LEADS`; NaN where the file says that a sample is missing.
    sample_rate : float
        Hz.
    notes : tuple of str
        What was derived, left out or assumed.
    path : str
    """

    signal: np.ndarray
    sample_rate: float
    notes: tuple
    path: str


def read_record(path, lead_order="name", sample_rate=None, units=None, leads=None):
    """Read a record.

    Parameters
    ----------
    path : str or Path
        A WFDB record with or without extension, or a file of another format (see `data_provider.read.clinical_files`).
    lead_order : {"name", "file"}
        Find leads by their names, or take the first twelve signals as they come.
    sample_rate, units, leads : optional
        Hz, "mV" | "uV" | "V" and names, for files that don't say.

    Raises
    ------
    RecordError
        Anything wrong with the file.
    """
    signal, sample_rate, notes = read_millivolts(path, lead_order, None, sample_rate, units, leads)
    return Record(signal.astype(np.float32), sample_rate, (*notes, *signal_warnings(signal, sample_rate)), str(path))


def read_millivolts(path, lead_order="name", buffers=None, sample_rate=None, units=None, leads=None):
    """As `read_record`, but (float64 mV [12, T], rate, notes): the published codes rest on scaling from float64.

    With a ``buffers`` the array is good until the next record is read into it.
    """
    notes = []
    try:
        file = record_file(path)
        if file.suffix == ".hea":
            names, units, columns, sample_rate, notes = read_wfdb(file, buffers)
        else:
            names, units, columns, sample_rate, notes = read_other(file, sample_rate, units, leads)
        rows = choose_leads(names, lead_order)
        for row in rows.values():
            scale = UNIT_IN_MV.get(units[row].strip().lower())
            if scale is None:
                raise ValueError(f"lead {names[row]} is in {units[row] or 'unknown units'}, not in volts")
            if scale != 1:
                columns[row] *= scale
        signal, derived = complete_leads(columns, rows)
        _check_amplitude(signal)
    except ValueError as error:
        noted = f" ({'; '.join(notes)})" if notes else ""  # the reason may lie there: a channel that was damaged
        raise RecordError(path, f"{error}{noted}") from error
    except OSError as error:
        raise RecordError(path, f"cannot be read ({error.strerror or error})") from error
    if derived:
        notes = [*notes, f"derived from other limb leads: {', '.join(derived)}"]
    if len(names) > len(LEADS):
        which = "by position" if lead_order == "file" else "by name"
        notes = [*notes, f"12 of {len(names)} signals taken {which}"]
    return signal, sample_rate, notes


def _check_amplitude(signal):
    if signal.min() > -IMPOSSIBLE_MV and signal.max() < IMPOSSIBLE_MV:  # false for NaN too
        return
    largest = np.fmax.reduce(np.abs(signal), axis=None)
    if largest >= IMPOSSIBLE_MV:
        raise ValueError(f"holds values up to {largest:.3g} mV")


def signal_warnings(signal, sample_rate):
    """Warnings about a signal in mV: flat leads, silence, missing samples, amplitudes that no heart makes."""
    notes = []
    low, high = np.fmin.reduce(signal, axis=1), np.fmax.reduce(signal, axis=1)
    flat = [lead for lead, span in zip(LEADS, high - low, strict=True) if not span > 0]
    if flat:
        notes.append(f"flat: {', '.join(flat)}")
    missing = float(np.isnan(signal).mean())
    if missing:
        notes.append(f"{missing:.2%} of the samples are missing")
    silence = silent_runs(signal, sample_rate)
    if silence:
        notes.append(f"no lead changes for {said(silence, sample_rate)}")
    amplitude = implausible_amplitude(signal)
    return [*notes, f"implausible amplitude: {amplitude}"] if amplitude else notes


def implausible_amplitude(signal):
    """In words what is too large or too small for an ECG in mV; "" where nothing is, or all leads are flat."""
    low, high = np.fmin.reduce(signal, axis=1), np.fmax.reduce(signal, axis=1)
    largest, span = float(np.fmax.reduce(np.abs([low, high]), axis=None)), float(np.fmax.reduce(high - low))
    if largest > IMPLAUSIBLE_MV:
        return f"up to {largest:.3g} mV"
    return f"no lead spans more than {span:.2g} mV; are its units right?" if 0 < span < SMALL_MV else ""
