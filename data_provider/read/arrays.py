"""Arrays in NPY, NPZ and MATLAB files: which of them is the ECG."""

import numpy as np

from data_provider.read.leads import LEADS, standard_name
from data_provider.read.table import Table
from data_provider.read.wfdb_header import MAX_VALUES

ARRAYS = {".npy", ".npz", ".mat"}
RATE_NAMES = {"fs", "sfreq", "freq", "frequency", "rate", "samplerate", "samplingrate", "samplingfrequency"}
LEAD_NAMES = {"leads", "leadnames", "lead", "names", "channels", "channelnames", "signame", "signames", "labels"}
UNIT_NAMES = {"units", "unit"}
LEAST_SAMPLES = 16  # of an ECG: a table of 12 lines may be of 5 columns


def read_arrays(path, leads=None):
    """The `Table` in an NPY, NPZ or MATLAB file; ValueError says what is in it instead."""
    suffix = path.suffix.lower()
    try:
        arrays = _load_mat(path) if suffix == ".mat" else _load_numpy(path)
    except NotImplementedError as error:
        raise ValueError("is a MATLAB 7.3 file, which is not read: save it with -v7") from error
    except Exception as error:  # numpy, scipy, zipfile and zlib raise many kinds on damaged files
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot be read as {suffix[1:]} ({fault[:120]})") from error
    table = _leads_by_key(arrays) or _largest(arrays, len(leads or LEADS))
    table.sample_rate = _scalar(arrays, RATE_NAMES)
    words = _words(arrays, LEAD_NAMES)
    if table.names is None and sum(map(bool, map(standard_name, words))) > 1 and len(words) in table.columns.shape:
        table.names, table.settled = words, True
        if len(words) != table.columns.shape[0]:
            table.columns = table.columns.T
    unit = _words(arrays, UNIT_NAMES)
    if table.names and unit:
        table.units = unit if len(unit) == len(table.names) else unit[:1] * len(table.names)
    return table


def _load_numpy(path):
    """Name -> array; a file of one array has no name for it. Fields of a structured array count as arrays."""
    loaded = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return _fields({"": loaded})
    unpacked = sum(part.file_size for part in loaded.zip.infolist())  # before anything is: a few MB may hold gigabytes
    if unpacked > 8 * MAX_VALUES:
        raise ValueError(f"unpacks to {unpacked} bytes, more than the {8 * MAX_VALUES} that are read")
    with loaded as file:
        return _fields({key: file[key] for key in file.files})


def _load_mat(path):
    """Name -> array of a MATLAB file; what lies in a struct is named STRUCT.FIELD."""
    from scipy.io import loadmat

    return _fields({key: value for key, value in loadmat(path).items() if not key.startswith("__")})


def _fields(arrays):
    found = {}
    for key, array in arrays.items():
        if array.dtype.names and array.size == 1:  # a MATLAB struct
            inner = array.reshape(-1)[0]
            found |= _fields({f"{key}.{name}": np.asarray(inner[name]) for name in array.dtype.names})
        elif array.dtype.names:
            found |= {name: array[name] for name in array.dtype.names}
        else:
            found[key] = array
    return found


def _leads_by_key(arrays):
    """A table of arrays that are named like leads, if there are two and more of the same length."""
    flat = {key: array.reshape(-1) for key, array in arrays.items() if standard_name(key.rpartition(".")[2])}
    flat = {key: array for key, array in flat.items() if _is_numbers(array) and array.size >= LEAST_SAMPLES}
    if len(flat) < 2:
        return None
    if len({array.size for array in flat.values()}) > 1:
        raise ValueError(f"its leads differ in length ({_shapes(flat)})")
    names = [key.rpartition(".")[2] for key in flat]
    return Table(np.array(list(flat.values()), np.float64), names, settled=True)


def _largest(arrays, expected):
    """Of the arrays with a side as long as leads are expected the one with most samples."""
    flat = {key: np.squeeze(array) for key, array in arrays.items() if _is_numbers(array) and array.size}
    tables = {key: array for key, array in flat.items() if array.ndim == 2}
    fitting = {k: a for k, a in tables.items() if expected in a.shape and a.size >= expected * LEAST_SAMPLES}
    fitting = fitting or {k: a for k, a in tables.items() if min(a.shape) > 1 and len(tables) == 1}
    if not fitting:
        batch = next((array for array in flat.values() if array.ndim == 3 and expected in array.shape), None)
        several = "; it holds several ECGs, a file of each is read" if batch is not None else ""
        raise ValueError(f"holds no array of {expected} leads ({_shapes(arrays)}){several}")
    chosen = max(fitting, key=lambda key: fitting[key].size)
    others = {key: array for key, array in arrays.items() if key != chosen and array.size > 1}
    notes = [f"array {chosen} taken, not {_shapes(others)}"] if others and len(tables) > 1 else []
    return Table(np.asarray(fitting[chosen]), notes=notes)


def _is_numbers(array):
    return array.dtype.kind in "fiu"


def _shapes(arrays):
    parts = [f"{key} {'×'.join(map(str, array.shape)) or 'one'} {array.dtype}".strip() for key, array in arrays.items()]
    return ", ".join(parts[:9]) + (f" and {len(parts) - 9} more" if len(parts) > 9 else "") or "no arrays"


def _plain(key):
    return "".join(letter for letter in key.rpartition(".")[2].lower() if letter.isalnum())


def _scalar(arrays, names):
    for key, array in arrays.items():
        if _plain(key) in names and array.size == 1 and _is_numbers(array) and array.item() > 0:
            return float(array.item())
    return None


def _words(arrays, names):
    """The texts of an array of words (MATLAB: a cell array), or []."""
    for key, array in arrays.items():
        if _plain(key) in names and array.dtype.kind in "UOS" and array.size <= 256:
            cells = [np.asarray(cell).reshape(-1) for cell in array.reshape(-1)]
            if all(cell.size == 1 and cell.dtype.kind in "US" for cell in cells):
                return [cell[0].decode(errors="replace") if cell.dtype.kind == "S" else str(cell[0]) for cell in cells]
    return []
