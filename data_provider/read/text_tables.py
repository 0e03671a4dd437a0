"""CSV and its relatives: delimiters, decimal commas, comments, quotes, rows of names and units, empty cells.

The first lines are looked at here; the numbers are read by pandas.
"""

import csv
import re
from collections import Counter

import numpy as np

from data_provider.read.leads import standard_name
from data_provider.read.table import Table

TEXTS = {".csv", ".tsv", ".txt"}
HEAD_BYTES, HEAD_LINES = 4_000_000, 200  # of a file, in which its first rows of numbers must be
DELIMITERS = ("\t", ";", ",", "|", None)  # in this order, for a comma may be the decimal point; None: any white space
MISSING = ("", "-", "--", "?", "na", "n/a", "#n/a", "nan", "null", "none")
_LINE_END = re.compile(r"\r\n|\n|\r")
_NUMBER = re.compile(r"^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$|^[+-]?inf(inity)?$", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")
_UNIT = re.compile(r"^\W*(milli|micro|nano|[munµμ])?(volts?|v|s|secs?|seconds?|[hms]{1,2}:mm.*)\W*$", re.IGNORECASE)
_RATE = re.compile(
    r"(?:sampl\w*[ _-]*(?:rate|freq\w*)|\bfs)[^\d\n]{0,20}?(\d+(?:\.\d+)?)\s*(?:hz|sps)?(?!\s*[\d.a-z])", re.IGNORECASE
)


def read_text_table(path):
    """The `Table` in a text file; ValueError says what is wrong with it."""
    with open(path, "rb") as file:
        start = file.read(HEAD_BYTES)
        file.seek(-min(HEAD_BYTES, file.seek(0, 2)), 2)
        end = file.read()
    encoding = _encoding(start)
    lines = _LINE_END.split(start.decode(encoding, errors="ignore"))
    if "\0" in lines[0]:
        raise ValueError("is no text")
    delimiter, first, width = _first_numbers(lines[:HEAD_LINES])
    last = next((line for line in reversed(_LINE_END.split(end.decode(encoding, errors="ignore"))) if line.strip()), "")
    if not _is_comment(last) and len(_cells(last, delimiter)) != width:
        raise ValueError(f"its last line holds {len(_cells(last, delimiter))} cells, its first row of numbers {width}")
    cells = [cell for line in lines[first : first + 20] for cell in _cells(line, delimiter)]
    decimal_comma = any("," in cell and _NUMBER.match(cell) for cell in cells)
    frame = _read_numbers(path, encoding, delimiter, first, width, lines[first], decimal_comma)
    row_names = bool(_cells(lines[first], delimiter)[-1])  # of R, which have no name above; else an empty last cell
    names, units = _names_and_units([line for line in lines[:first] if line.strip()], delimiter, width, row_names)
    table = _as_table(frame, names, units, first)
    rate = next(filter(None, map(_RATE.search, lines[:first])), None)
    table.sample_rate = float(rate[1]) if rate else None
    if decimal_comma:
        table.notes.append("decimal commas")
    return table


def _encoding(start):
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        start[: max(0, len(start) - 4)].decode("utf-8-sig")
        return "utf-8-sig"
    except UnicodeDecodeError:
        return "latin-1"  # the µ of Windows too


def _cells(line, delimiter):
    """A line's cells without quotes and the blanks around them."""
    if '"' in line and delimiter is not None:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        except (csv.Error, StopIteration):
            cells = line.split(delimiter)
    else:
        cells = line.split(delimiter)
    return [cell.strip(" \t'\"") for cell in cells]


def _is_numbers(cells):
    """Whether a row holds numbers: most of its cells behind the first, which may be a name or a time."""
    filled = [cell for cell in cells[1:] if cell.lower() not in MISSING]
    return 2 * sum(bool(_NUMBER.match(cell)) for cell in filled) >= max(len(filled), len(cells) - 1, 1)


def _is_comment(line):
    return line.lstrip().startswith(("#", "%", "//")) and not line.lstrip().upper().startswith("#N/A")


def _first_numbers(lines):
    """Delimiter, number of the first row of numbers, and its cells: as most rows of numbers have them."""
    best = (0, None, 0, 0)
    for delimiter in DELIMITERS:
        rows = {}
        for number, line in enumerate(lines):
            if line.strip() and not _is_comment(line):
                cells = _cells(line, delimiter)
                if _is_numbers(cells):
                    rows[number] = cells
        for width, count in Counter(map(len, rows.values())).most_common(1):
            if count > 2 * best[0]:
                best = count, delimiter, [number for number, cells in rows.items() if len(cells) == width], width
    count, delimiter, numbers, width = best
    if not count:
        raise ValueError(f"holds no row of numbers in its first {HEAD_LINES} lines")
    first = _cells(lines[numbers[0]], delimiter)
    cells = [cell for cell in first[not _NUMBER.match(first[0]) :] if cell]
    if count > 1 and len(cells) > 2 and cells in ([str(n + start) for n in range(len(cells))] for start in (0, 1)):
        numbers.pop(0)  # 0, 1, 2, ...: the names that pandas gives to columns without any
    return delimiter, numbers[0], width


def _names_and_units(lines, delimiter, width, row_names):
    """The rows of names and of units before the numbers (None where there is none), each of ``width`` cells."""
    names, units = None, None
    for line in lines:
        comment = _is_comment(line)  # numpy.savetxt writes the names as one
        cells = _cells(line.lstrip().lstrip("#%/ \t") if comment else line, delimiter)
        if len(cells) == width - 1 and row_names:
            cells = ["", *cells]
        cells += [""] * (width - len(cells)) if len(cells) > 1 and not comment else []
        if len(cells) < width or any(cells[width:]):
            continue
        cells = cells[:width]
        filled = [cell for cell in cells if cell]
        leads = sum(bool(standard_name(cell)) for cell in filled)
        if filled and 2 * sum(bool(_UNIT.match(cell)) for cell in filled) > len(filled):
            units = cells
        elif leads or (not (names or comment) and len(filled) >= width - 1 and not all(map(_NUMBER.match, filled))):
            names = cells
    return names, units


def _read_numbers(path, encoding, delimiter, first, width, line, decimal_comma):
    import pandas

    try:
        return pandas.read_csv(
            path,
            encoding=encoding,
            encoding_errors="replace",
            sep=r"\s+" if delimiter is None else delimiter,
            decimal="," if decimal_comma else ".",
            header=None,
            names=list(range(width)),
            index_col=False,
            skiprows=first,
            quotechar="'" if "'" in line else '"',
            skipinitialspace=True,
            na_values=[*MISSING, *(word.upper() for word in MISSING)],
            float_precision="round_trip",
            low_memory=False,
        )
    except (ValueError, OverflowError, MemoryError) as error:  # pandas's ParserError is a ValueError
        raise ValueError(f"cannot be read as a table ({(str(error).splitlines() or [''])[0][:120]})") from error


def _as_table(frame, names, units, first):
    """The columns that hold anything as numbers; a first column of lead names turns the table over."""
    frame = frame.dropna(how="all").dropna(how="all", axis=1) if names is None else frame.dropna(how="all")
    columns, kept, clock = [], [], None
    for number in frame:
        column = frame[number]
        if column.dtype.kind in "fiu":
            if names is not None and not names[number] and column.isna().all():
                continue  # behind the last delimiter
            values = column.to_numpy(np.float64)
        else:
            texts = [str(cell).strip(" \t'\"") for cell in column]
            if number == 0 and sum(bool(standard_name(text)) for text in texts) * 2 > len(texts):
                return Table(_numbers(frame.drop(columns=0), first), texts, settled=True)
            if clock is None and not standard_name(names[number] if names else "") and all(map(_CLOCK.search, texts)):
                clock, values = len(columns), np.array(list(map(_clock_seconds, texts)))
            elif names and not standard_name(names[number]):
                continue  # words in a column that is no lead
            else:
                values = _column_of(texts, number, first)
        columns.append(values)
        kept.append(number)
    if not columns:
        raise ValueError("holds no column of numbers")
    names, units = ([row[number] for number in kept] if row else None for row in (names, units))
    return Table(np.array(columns), names, units, clock=clock, settled=bool(names) or clock is not None)


def _numbers(frame, first):
    texts = [[str(cell) for cell in frame[number]] for number in frame]
    return np.array([_column_of(column, number, first) for number, column in enumerate(texts)]).T


def _column_of(texts, number, first):
    """A column of texts as numbers; ValueError with the line of what is none."""
    for row, text in enumerate(texts, first + 1):
        if text.lower() not in MISSING and not _NUMBER.match(text):
            raise ValueError(f"{text[:40]!r} is not a number (column {number + 1}, line {row} or soon after)")
    return np.array([np.nan if text.lower() in MISSING else float(text.replace(",", ".")) for text in texts])


def _clock_seconds(text):
    hours, minutes, seconds = _CLOCK.search(text).groups()
    return 3600.0 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
