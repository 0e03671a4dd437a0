"""Tables of numbers (CSV, NPY, NPZ, MATLAB): which columns are leads, and what the user must say of them."""

import re

import numpy as np

from data_provider.read.arrays import ARRAYS, read_arrays
from data_provider.read.leads import LEADS, choose_leads, listed, split_unit, standard_name
from data_provider.read.text_tables import TEXTS, read_text_table
from data_provider.read.wfdb_header import MAX_VALUES

TABLES = {*TEXTS, *ARRAYS}
SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "sekunden": 1.0, "ms": 1e-3, "msec": 1e-3}
SECONDS |= {"millisecond": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microseconds": 1e-6}
_TIME = re.compile(
    r"^(?:elapsed[\W_]*|relative[\W_]*)?(?:time|zeit|tiempo|temps|tempo|t(?![a-z])|(?:m|milli)?s(?:ec(?:ond)?s?)?$)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-zµμ]+", re.IGNORECASE)
USUAL_HZ = (500, 1000, 250, 100, 200, 125, 256, 360, 400, 128, 240, 257, 300, 480, 512, 600, 800, 1024, 2000)
PLAUSIBLE_HZ = (50, 20_000)  # what a column of times without a unit may come to


def read_table(path, sample_rate=None, units=None, leads=None):
    """Read a table of numbers; parameters, results and errors as of `clinical_files.read_other`.

    What the file says (names, units, a column of times) counts; ``sample_rate``, ``units`` and ``leads`` are for what
    it does not say, and a note says where they differ.
    """
    table = read_arrays(path, leads) if path.suffix.lower() in ARRAYS else read_text_table(path)
    if table.columns.size > MAX_VALUES:
        raise ValueError(f"holds {table.columns.size} values, more than the {MAX_VALUES} that are read")
    if not table.settled:
        table.columns = _signals_first(table.columns, len(leads or LEADS))
    notes = list(table.notes)
    times = _time_columns(table)
    names, kept = _lead_columns(table, leads, times, notes)
    rate = table.sample_rate or next(filter(None, (_rate_of(table, column, sample_rate) for column in times)), None)
    if rate and sample_rate and abs(rate / sample_rate - 1) > 1e-3:
        notes.append(f"the file says {rate:g} Hz; the {sample_rate:g} Hz given are not used")
    elif rate and not sample_rate:
        notes.append(f"{rate:g} Hz, as {'the file says' if table.sample_rate else 'its column of times says'}")
    said = [_unit_of(table, column) for column in kept]
    own = sorted({unit for unit in said if unit})
    if units and any(unit.lower() != units.lower() for unit in own):
        notes.append(f"the file says {', '.join(own)}; the {units} given are not used for these leads")
    rate = rate or sample_rate
    if rate is None:
        raise ValueError("does not say its sampling rate (give it: --sample-rate HZ)")
    if units is None and not all(said):
        raise ValueError("does not say its units (give them: --units mV, uV or V)")
    if not 1 <= rate <= 100_000:
        raise ValueError(f"{rate:g} samples a second are not possible")
    columns = np.array(table.columns[kept], np.float64)
    return names, [unit or units for unit in said], columns, float(rate), notes


def _signals_first(columns, expected):
    """Bare numbers as [signals, T]: the side that is as long as leads are expected; else the shorter one."""
    sides = [abs(side - expected) if side - expected in (0, 1, 2) else 9 for side in columns.shape]
    turned = sides[1] < sides[0] if sides[0] != sides[1] else columns.shape[0] > columns.shape[1]
    return columns.T if turned else columns


def _lead_columns(table, leads, times, notes):
    """Names of the leads and the numbers of their columns."""
    every = range(len(table.columns))
    named = [column for column in every if table.names and standard_name(table.names[column])]
    own = [table.names[column] for column in named]
    if own and (not leads or _has_twelve(own)):
        if leads and [standard_name(name) for name in own] != [standard_name(name) for name in leads]:
            notes.append("the file names its leads; the names given are not used")
        others = [table.names[column] for column in every if column not in (*named, *times) and table.names[column]]
        if others:
            notes.append(f"columns that are no leads left out: {listed(others)}")
        return own, named
    signals = [column for column in every if column not in times and (not table.names or table.names[column])]
    fitting = next((some for some in (list(every), signals) if len(some) == len(leads or LEADS)), None)
    if leads and fitting:
        return list(leads), fitting
    among = f" ({listed(table.names)})" if table.names else ""
    if leads:
        raise ValueError(f"holds {len(signals)} signals{among}, --leads names {len(leads)}")
    if among or fitting is None:
        raise ValueError(f"holds {len(signals)} signals without names of leads{among} (name them: --leads I,II,...)")
    notes.append("no lead names: standard order I, II, III, aVR, aVL, aVF, V1..V6 assumed")
    return list(LEADS), fitting


def _has_twelve(names):
    try:
        return bool(choose_leads(names))
    except ValueError:
        return False


def _unit_of(table, column):
    """A column's unit by its name or by a row of units; None where neither says one."""
    unit = split_unit(table.names[column])[1] if table.names else None
    if unit or not table.units:
        return unit
    return split_unit(f"x ({table.units[column].strip(' ()[]')})")[1]


def _time_columns(table):
    """Columns of times, by name; without names those before the twelve signals that rise in even steps."""
    if table.names:
        return [column for column, name in enumerate(table.names) if _TIME.match(name)]
    if table.clock is not None:
        return [table.clock]
    first = range(max(0, min(2, len(table.columns) - len(LEADS))))
    return [column for column in first if _rises_evenly(table.columns[column])]


def _rises_evenly(values):
    steps = np.diff(values[:100_000])
    return len(steps) > 1 and bool(steps.min() > 0) and bool(np.ptp(steps) <= 0.02 * steps.mean())


def _rate_of(table, column, given):
    """The sampling rate that a column of times says, in Hz; None where its steps are uneven or just count samples."""
    times = table.columns[column]
    if len(times) < 2 or not np.isfinite(times).all():
        return None
    steps, span = np.diff(times), times[-1] - times[0]
    step, rounding = span / len(steps), _last_digit(times)
    if not 0 < step < 1e9 or np.abs(steps - step).max() > 0.02 * step + 2 * rounding:
        return None
    unit = _time_unit(table, column)
    rates = [1 / (step * seconds) for seconds in ([SECONDS[unit]] if unit else [1.0, 1e-3])]
    if not unit:
        likely = [rate for rate in rates if PLAUSIBLE_HZ[0] <= rate <= PLAUSIBLE_HZ[1]]
        rates = [] if step == 1 else sorted(likely, key=lambda rate: abs(np.log(rate / (given or rate))))
    if not rates:
        return None
    off = max(rates[0] * 2 * rounding / span, 1e-6 * rates[0])  # what the rate may be off by
    near = [*(rate for rate in USUAL_HZ if abs(rate - rates[0]) <= off), round(rates[0])]
    return float(near[0] if abs(near[0] - rates[0]) <= off else rates[0])


def _last_digit(times):
    """The step in which times are written: 0.001 for 0.003, 0.006, 0.008; 0 for many digits."""
    some = times[:1000]
    return next((10.0**-digits for digits in range(7) if np.allclose(some, np.round(some, digits), atol=1e-9)), 0.0)


def _time_unit(table, column):
    words = _WORD.findall(table.units[column]) if table.units else []
    words += _WORD.findall(table.names[column]) if table.names else []
    unit = next((word.lower() for word in words if word.lower() in SECONDS), None)
    return "s" if column == table.clock else unit
