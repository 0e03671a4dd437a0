"""Any ECG file -> `Record`: millivolts, leads in standard order, sampling rate, notes on what was done for it."""

import dataclasses

import numpy as np

from data_provider.leads import LEADS, choose_leads, complete_leads
from data_provider.wfdb_files import read_wfdb, record_file
from utils.tools import UserError

__all__ = ["LEADS", "Record", "RecordError", "read_record", "record_file"]

UNIT_IN_MV = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}


class RecordError(UserError):
    """A file that cannot be read as a 12-lead ECG; the text is the path and the fault."""

    def __init__(self, path, fault):
        super().__init__(f"{path}: {fault}")
        self.path, self.fault = str(path), fault

    def __reduce__(self):
        return RecordError, (self.path, self.fault)


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


def read_record(path, lead_order="name"):
    """Read a record.

    Parameters
    ----------
    path : str or Path
        With or without extension.
    lead_order : {"name", "file"}
        Find leads by their names, or take the first twelve signals as they come.

    Raises
    ------
    RecordError
        Anything wrong with the file.
    """
    signal, sample_rate, notes = read_millivolts(path, lead_order)
    return Record(signal.astype(np.float32), sample_rate, tuple(notes), str(path))


def read_millivolts(path, lead_order="name", workspace=None):
    """As `read_record`, but (float64 mV [12, T], rate, notes): the published codes rest on scaling from float64.

    With a ``workspace`` the array is good until the next record is read into it.
    """
    try:
        names, units, columns, sample_rate, notes = read_wfdb(path, workspace)
        rows = choose_leads(names, lead_order)
        for row in rows.values():
            scale = UNIT_IN_MV.get(units[row].strip().lower())
            if scale is None:
                raise ValueError(f"lead {names[row]} is in {units[row]}, not in volts")
            if scale != 1:
                columns[row] *= scale
        signal, derived = complete_leads(columns, rows)
    except ValueError as error:
        raise RecordError(path, str(error)) from error
    if derived:
        notes = [*notes, f"derived from other limb leads: {', '.join(derived)}"]
    if lead_order == "file" and len(names) > len(LEADS):
        notes = [*notes, f"first 12 of {len(names)} signals by position"]
    return signal, sample_rate, notes
