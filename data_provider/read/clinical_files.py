"""ECG files that are not WFDB: through the libraries that know them, and tables of numbers with what they don't say.

DICOM, SCP-ECG, HL7 aECG, GE MUSE and Philips XML go through ecgdatakit, EDF and BDF through pyedflib (both optional,
requirements-optional.txt), MATLAB files through scipy; CSV, NPY and NPZ need numpy only.
"""

import importlib
import os
import warnings
from pathlib import Path

import numpy as np

from data_provider.read.leads import LEADS, standard_name
from data_provider.read.wfdb_files import MAX_VALUES

MAX_BYTES = 500_000_000
TABLES = {".csv", ".tsv", ".txt", ".npy", ".npz", ".mat"}
CALIBRATION_S = 0.2  # least length of a calibration pulse, and of the flat line around it, at an end of a recording


def read_other(path, sample_rate=None, units=None, leads=None):
    """Read a file that is not WFDB.

    Parameters
    ----------
    path : str or Path
    sample_rate : float, optional
        Hz, for files that don't say.
    units : str, optional
        mV, uV or V, for files that don't say.
    leads : sequence of str, optional
        Names of the signals in the file's order, for files that don't say; twelve without names are taken to be in
        the standard order.

    Returns
    -------
    names, units : list of str
    columns : float64 array [signals, T]
    sample_rate : float
    notes : list of str

    Raises
    ------
    ValueError
        What is wrong, in words that follow the file's name and a colon.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ValueError("no such record (neither the file nor its .hea)")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than the {MAX_BYTES // 1_000_000} MB that are read")
    if not path.stat().st_size:
        raise ValueError("is empty")
    if path.suffix.lower() in TABLES:
        return _read_table(path, sample_rate, units, leads)
    if path.suffix.lower() in (".edf", ".bdf"):
        signals = _with_library("pyedflib", _read_edf, path)
    elif b"<CardiologyXML>" in path.read_bytes()[:2000]:
        signals = _read_cardiology_xml(path)
    else:
        signals = _with_library("ecgdatakit", _read_ecgdatakit, path)
    return _assemble(signals)


def _with_library(name, read, path):
    try:
        library = importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{name} is needed to read it: pip install -r requirements-optional.txt") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about patient data and the like; what matters of the signal is checked
            return read(library, path)
    except Exception as error:  # the libraries raise many kinds; whatever it is, the file is at fault
        lines = str(error).replace(str(path), "the file").splitlines() or [""]
        raise ValueError(f"cannot be read by {name} ({type(error).__name__}: {lines[0][:150]})") from error


def _read_ecgdatakit(library, path):
    record = library.FileParser().parse(path)
    return [
        (lead.label, lead.resolution_unit if lead.is_raw else lead.units, lead.samples, float(lead.sampling_rate))
        for lead in (record.leads if not any(lead.is_raw for lead in record.leads) else record.to_physical().leads)
    ]


def _read_edf(library, path):
    with library.EdfReader(str(path)) as file:
        kept = [row for row in range(file.signals_in_file) if standard_name(file.getLabel(row))]
        if sum(file.getNSamples()[row] for row in kept) > MAX_VALUES:
            raise ValueError("declares more samples than are read")
        labels, rates = file.getSignalLabels(), file.getSampleFrequencies()
        return [(labels[row], file.getPhysicalDimension(row), file.readSignal(row), float(rates[row])) for row in kept]


def _read_cardiology_xml(path):
    """GE CardioSoft's full disclosure: integers below ``StripData``."""
    from xml.etree import ElementTree

    try:
        strip = ElementTree.parse(path).find("StripData")
        rate, resolution = float(strip.findtext("SampleRate")), strip.find("Resolution")
        if resolution.get("units") != "uVperLsb":
            raise ValueError(f"resolution in {resolution.get('units')}")
        return [
            (wave.get("lead") or "", "uV", np.array(wave.text.split(","), np.float64) * float(resolution.text), rate)
            for wave in strip.findall("WaveformData")
        ]
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"is a CardiologyXML file without a readable StripData ({error})") from error


def _assemble(signals):
    """Signals of the same length and rate as one array; a calibration pulse at an end is left out."""
    if not signals:
        raise ValueError("holds no ECG leads")
    rates, lengths = {rate for *_, rate in signals}, {len(samples) for _, _, samples, _ in signals}
    if len(rates) > 1 or len(lengths) > 1:
        raise ValueError(f"its leads differ in rate or length ({sorted(rates)} Hz, {sorted(lengths)} samples)")
    sample_rate = rates.pop()
    if not 1 <= sample_rate <= 100_000 or not lengths.pop():
        raise ValueError(f"holds no samples or says {sample_rate:g} samples a second")
    columns = np.array([samples for _, _, samples, _ in signals], np.float64)
    columns, notes = _without_calibration(columns, [unit for _, unit, *_ in signals], sample_rate)
    return [name for name, *_ in signals], [unit for _, unit, *_ in signals], columns, sample_rate, notes


def _without_calibration(columns, units, sample_rate):
    """Cut off an end at which all leads show the same step of 1 mV: the recorder's calibration pulse."""
    one_mv = {"mv": 1.0, "uv": 1000.0}.get(units[0].lower())
    if one_mv is None or len(set(units)) > 1 or len(columns) < 8:
        return columns, []
    same = np.ptp(columns, axis=0) < 0.02 * one_mv
    for backwards in (True, False):
        ordered = same[::-1] if backwards else same
        length = len(ordered) if ordered.all() else int(np.argmin(ordered))
        pulse = columns[0, -length:] if backwards else columns[0, :length]
        if CALIBRATION_S * sample_rate <= length < columns.shape[1] and abs(np.ptp(pulse) - one_mv) < 0.1 * one_mv:
            kept = columns[:, :-length] if backwards else columns[:, length:]
            end = "end" if backwards else "start"
            return kept, [f"{length / sample_rate:.2g} s of calibration pulse at the {end} left out"]
    return columns, []


def _read_table(path, sample_rate, units, leads):
    notes = []
    names, columns = _load_table(path)
    if leads:
        names = list(leads)
    elif names is None and len(columns) == len(LEADS):
        names = list(LEADS)
        notes.append("no lead names: standard order I, II, III, aVR, aVL, aVF, V1..V6 assumed")
    if names is None or len(names) != len(columns):
        raise ValueError(f"holds {len(columns)} signals without names (name them: --leads I,II,...)")
    if sample_rate is None:
        raise ValueError("does not say its sampling rate (give it: --sample-rate HZ)")
    if units is None:
        raise ValueError("does not say its units (give them: --units mV, uV or V)")
    if not 1 <= sample_rate <= 100_000:
        raise ValueError(f"{sample_rate:g} samples a second are not possible")
    return names, [units] * len(columns), columns, float(sample_rate), notes


def _load_table(path):
    """Names (None where there are none) and signals [signals, T] of a file that holds just numbers."""
    suffix, names = path.suffix.lower(), None
    try:
        if suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        elif suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[key] for key in file.files]
            values = next((array for array in arrays if array.ndim == 2), None)
        elif suffix == ".mat":
            values = _load_mat(path)
        else:
            names, values = _load_csv(path)
    except Exception as error:  # numpy, zipfile and zlib raise many kinds on damaged files
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot be read as {suffix[1:]} ({fault[:120]})") from error
    if values is None or values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise ValueError("holds no two-dimensional array of numbers")
    if values.size > MAX_VALUES:
        raise ValueError(f"holds {values.size} values, more than the {MAX_VALUES} that are read")
    along = values.T if names is not None or values.shape[0] > values.shape[1] else values
    return names, np.array(along, np.float64)


def _load_csv(path):
    """A CSV file: one sample a line; the first line may name the leads. Columns of other names (time) are left out."""
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline(100_000)
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), None)
    words = [word.strip().strip('"') for word in first.split(delimiter)]
    named = any(standard_name(word) for word in words)
    values = np.loadtxt(path, delimiter=delimiter, skiprows=int(named), ndmin=2, encoding="utf-8-sig")
    if not named:
        return None, values
    kept = [column for column, word in enumerate(words) if standard_name(word)]
    return [words[column] for column in kept], values[:, kept]


def _load_mat(path):
    """The signals of a MATLAB file: ``val`` (PhysioNet) or ``ECG.data`` (CPSC 2018)."""
    from scipy.io import loadmat

    contents = loadmat(path)
    if "val" in contents:
        return contents["val"]
    if "ECG" in contents and "data" in (contents["ECG"].dtype.names or ()):
        return contents["ECG"]["data"][0, 0]
    raise ValueError("neither `val` nor `ECG.data` inside")
