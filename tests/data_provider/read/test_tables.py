"""Tables as people have them: headers, units, commas, empty cells and times are read for what they say."""

import numpy as np
import pytest

from data_provider.read import LEADS, RecordError, read_record
from tests.wfdb_maker import ecg

DIGITAL = ecg(40)
MV = (DIGITAL / 1000).astype(np.float32)
GIVEN = {"sample_rate": 500, "units": "mV"}
HEAD = ",".join(LEADS)
TIMES = [f"{n / 500:.3f}" for n in range(40)]


def rows(separator=",", point=".", first=(), last=""):
    """The forty samples as lines; ``first`` holds a cell for the start of each."""
    lines = []
    for number, sample in enumerate(DIGITAL.T / 1000):
        cells = [f"{value:.3f}".replace(".", point) for value in sample]
        lines.append(separator.join([*([first[number]] if len(first) else []), *cells]) + last)
    return lines


QUOTED = [",".join(f'"{cell}"' for cell in line.split(",")) for line in rows()]
TURNED = [",".join([lead, *(f"{value / 1000:.3f}" for value in DIGITAL[row])]) for row, lead in enumerate(LEADS)]
ATM = "'Elapsed time'," + ",".join(f"'{lead}'" for lead in LEADS)
CLOCK = [f"'0:00.{2 * n:03d}'" for n in range(40)]
DATES = [f"2020-01-01 10:00:00.{2 * n:03d}" for n in range(40)]
NAMES = {
    "plain": [HEAD, *rows()],
    "units in the names": [",".join(f"{lead} (mV)" for lead in LEADS), *rows()],
    "square brackets and a time": [",".join(["Time (s)", *(f"{lead} [mV]" for lead in LEADS)]), *rows(first=TIMES)],
    "spaces after commas": [HEAD.replace(",", ", "), *rows(", ")],
    "semicolons and decimal commas": [HEAD.replace(",", ";"), *rows(";", ",")],
    "tabs and decimal commas": [HEAD.replace(",", "\t"), *rows("\t", ",")],
    "blanks and decimal commas": [HEAD.replace(",", " "), *rows(" ", ",")],
    "commas, quoted, and decimal commas": [HEAD, *(line.replace(".", ",").replace('","', '";"') for line in QUOTED)],
    "blanks": [HEAD.replace(",", "  "), *rows("  ")],
    "upright bars": [HEAD.replace(",", "|"), *rows("|")],
    "PhysioBank ATM": [ATM, "'seconds'" + ",'mV'" * 12, *rows(first=TIMES)],
    "ATM with a clock": [ATM, "'hh:mm:ss.mmm'" + ",'mV'" * 12, *rows(first=CLOCK)],
    "rdsamp": ["#sample\t" + HEAD.replace(",", "\t"), *rows("\t", first=[str(n) for n in range(40)])],
    "comments before the names": ["# made by a device", "# 12.5 kg, 3, 4", HEAD, *rows()],
    "numpy.savetxt": ["# " + HEAD, *rows()],
    "pandas with an index": ["," + HEAD, *rows(first=[str(n) for n in range(40)])],
    "R with row names": [HEAD, *rows(first=[f'"{n}"' for n in range(40)])],
    "dates": ["timestamp," + HEAD, *rows(first=DATES)],
    "trailing commas": [HEAD + ",", *rows(last=",")],
    "trailing commas below the names": [HEAD, *rows(last=",")],
    "quotes": ['"' + HEAD.replace(",", '","') + '"', *QUOTED],
    "empty lines": [HEAD, "", *rows(), "", ""],
    "Excel's empty rows": [HEAD, *rows(), "," * 11, "," * 11],
    "a device's head": ["Patient;Doe", "Sampling rate;500 Hz", "", HEAD.replace(",", ";"), *rows(";")],
    "Excel's word for the delimiter": ["sep=;", HEAD.replace(",", ";"), *rows(";")],
    "names of another language": [",".join(f"Ableitung {lead}" for lead in LEADS), *rows()],
    "other columns": [HEAD + ",RESP,comment", *rows(last=",7,fine")],
    "leads as rows": TURNED,
}


def written(tmp_path, lines, encoding="utf-8", end="\n", name="t.csv"):
    path = tmp_path / name
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize("kind", NAMES)
def test_a_text_table_of_this_kind_is_read(tmp_path, kind):
    record = read_record(written(tmp_path, NAMES[kind]), **GIVEN)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)
    assert record.sample_rate == 500


@pytest.mark.parametrize(
    "encoding, end", [("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("cp1252", "\r"), ("utf-8", "\r\n")]
)
def test_marks_and_line_ends_of_other_systems(tmp_path, encoding, end):
    lines = [",".join(f"{lead} (µV)" for lead in LEADS), *(",".join(map(str, sample)) for sample in DIGITAL.T)]
    record = read_record(written(tmp_path, lines, encoding, end), sample_rate=500)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)


@pytest.mark.parametrize("empty", ["", "NaN", "nan", "NA", "null", "-", "#N/A", '""'])
def test_empty_cells_are_missing_samples(tmp_path, empty):
    lines = [HEAD, *rows()]
    for line, cell in ((1, 0), (7, 5), (8, 11), (40, 11)):
        cells = lines[line].split(",")
        cells[cell] = empty
        lines[line] = ",".join(cells)
    signal = read_record(written(tmp_path, lines), **GIVEN).signal
    assert np.isnan(signal[[0, 5, 11, 11], [0, 6, 7, 39]]).all() and np.isnan(signal).sum() == 4
    np.testing.assert_allclose(signal[np.isfinite(signal)], MV[np.isfinite(signal)], atol=1e-7)


@pytest.mark.parametrize("kind", ["semicolons and decimal commas", "quotes", "blanks", "tabs and decimal commas"])
@pytest.mark.parametrize("above", [[], ["Patient;Doe", "made by a device"]])
def test_without_names_the_standard_order_is_assumed_and_said(tmp_path, kind, above):
    record = read_record(written(tmp_path, [*above, *NAMES[kind][1:]]), **GIVEN)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)
    assert any("standard order" in note for note in record.notes)


@pytest.mark.parametrize(
    "lines, rate",
    [
        (["time," + HEAD, *rows(first=TIMES)], 500),
        (["Time [ms]," + HEAD, *rows(first=[str(4 * n) for n in range(40)])], 250),
        (["t," + HEAD, *rows(first=[str(2 * n) for n in range(40)])], 500),
        (["Time (s)," + HEAD, *rows(first=[f"{n / 360:.3f}" for n in range(40)])], 360),
        (["Time (s)," + HEAD, *rows(first=[repr(n / 257.5) for n in range(40)])], 257.5),
        (["Zeit;" + HEAD.replace(",", ";"), *rows(";", ",", first=[t.replace(".", ",") for t in TIMES])], 500),
        (NAMES["PhysioBank ATM"], 500),
        (NAMES["ATM with a clock"], 500),
        (NAMES["dates"], 500),
        (NAMES["a device's head"], 500),
        (["Sample rate: 1 kHz", "time," + HEAD, *rows(first=TIMES)], 500),
        (rows(first=TIMES), 500),
        (["Patient,Doe", "time_ms," + HEAD, *rows(first=[str(2 * n) for n in range(40)])], 500),
    ],
)
def test_a_column_of_times_says_the_rate(tmp_path, lines, rate):
    record = read_record(written(tmp_path, lines), units="mV")
    assert record.sample_rate == pytest.approx(rate, rel=1e-9)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)


@pytest.mark.parametrize(
    "lines",
    [
        ["index," + HEAD, *rows(first=[str(n) for n in range(40)])],
        ["time," + HEAD, *rows(first=[str(n) for n in range(40)])],  # counted: as milliseconds it would say 1000 Hz
        ["time," + HEAD, *rows(first=[repr((n + n % 3) / 500) for n in range(40)])],
        rows(first=[str(n) for n in range(40)]),
    ],
)
def test_what_just_counts_says_no_rate(tmp_path, lines):
    with pytest.raises(RecordError, match="sampling rate"):
        read_record(written(tmp_path, lines), units="mV")
    np.testing.assert_allclose(read_record(written(tmp_path, lines), **GIVEN).signal, MV, atol=1e-7)


def test_what_the_file_says_counts_and_a_difference_is_noted(tmp_path):
    lines = [",".join(["Time (s)", *(f"{lead} (uV)" for lead in LEADS)])]
    lines += [",".join([time, *map(str, sample)]) for time, sample in zip(TIMES, DIGITAL.T, strict=True)]
    record = read_record(written(tmp_path, lines), sample_rate=250, units="mV", leads=LEADS[::-1])
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)
    assert record.sample_rate == 500 and len(record.notes) == 3, record.notes


def test_names_are_given_where_the_header_has_none(tmp_path):
    lines = [",".join(["Time (s)", *(f"channel {n}" for n in range(12))]), *rows(first=TIMES)]
    with pytest.raises(RecordError, match="channel 0, .*--leads"):
        read_record(written(tmp_path, lines), **GIVEN)
    record = read_record(written(tmp_path, lines), **GIVEN, leads=LEADS)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)
    counted = [",".join(map(str, range(12))), *rows()]  # pandas's names for columns without any
    np.testing.assert_allclose(read_record(written(tmp_path, counted), **GIVEN).signal, MV, atol=1e-7)
    with pytest.raises(RecordError, match="holds 12 signals .*names 2"):
        read_record(written(tmp_path, lines), **GIVEN, leads=["I", "II"])


@pytest.mark.parametrize(
    "lines, reason",
    [
        ([HEAD, *rows()[:20], "a,b,c,d,e,f,g,h,i,j,k,l", *rows()[20:]], "'a' is not a number .*column 1"),
        ([HEAD, *rows()[:20], "0.1,0.2"], "its last line holds 2 cells, its first row of numbers 12"),
        ([HEAD, *rows()[:20], rows()[20] + ",9", *rows()[20:]], "cannot be read as a table"),
        ([HEAD], "no row of numbers"),
        (["hello", "world"], "no row of numbers"),
        ([HEAD.replace("V6", "MCL1"), *rows()], "no lead V6 among .*left out: MCL1"),
        ([HEAD.replace("V6", "V5"), *rows()], "lead V5 is there twice"),
        ([HEAD + " (mmHg)", *rows()], r"no lead V6 among .*left out: V6 \(mmHg\)"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_reason(tmp_path, lines, reason):
    with pytest.raises(RecordError, match=reason) as error:
        read_record(written(tmp_path, lines), **GIVEN)
    assert "\n" not in str(error.value)


def _mat(path, **arrays):
    from scipy.io import savemat

    savemat(path, arrays)


ECG = DIGITAL / 1000
NAMED = {lead: row for lead, row in zip(LEADS, ECG, strict=True)}
CELLS = np.array(LEADS, dtype=object)
ARRAYS = {
    "transposed": ("npy", lambda path: np.save(path, ECG.T)),
    "a batch of one": ("npy", lambda path: np.save(path, ECG[None])),
    "one behind": ("npy", lambda path: np.save(path, ECG.T[..., None])),
    "Fortran order": ("npy", lambda path: np.save(path, np.asfortranarray(ECG))),
    "a time beside": ("npy", lambda path: np.save(path, np.vstack([np.arange(40) / 500, ECG]).T)),
    "a structured array": ("npy", lambda path: np.save(path, np.rec.fromarrays(ECG[::-1], names=list(LEADS[::-1])))),
    "labels before the ECG": ("npz", lambda path: np.savez(path, labels=np.eye(5), ecg=ECG)),
    "a median beat first": ("npz", lambda path: np.savez(path, median=ECG[:, :20] * 0, rhythm=ECG)),
    "an array a lead": ("npz", lambda path: np.savez(path, **NAMED)),
    "names and a rate": ("npz", lambda path: np.savez(path, x=ECG[::-1], leads=np.array(LEADS[::-1]), fs=500)),
    "MATLAB, another name": ("mat", lambda path: _mat(path, ecg12=ECG, age=[[60.0]])),
    "MATLAB, a struct": ("mat", lambda path: _mat(path, ECG={"data": ECG.T, "sex": "Male"})),
    "MATLAB, names and a rate": ("mat", lambda path: _mat(path, sig=ECG[::-1], leads=CELLS[::-1], Fs=500.0)),
    "MATLAB, a variable a lead": ("mat", lambda path: _mat(path, **NAMED)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_array_that_has_the_leads_is_found(tmp_path, kind):
    suffix, write = ARRAYS[kind]
    write(tmp_path / f"t.{suffix}")
    rate = {} if "rate" in kind or "time" in kind else {"sample_rate": 500}
    record = read_record(tmp_path / f"t.{suffix}", units="mV", **rate)
    np.testing.assert_allclose(record.signal, MV, atol=1e-7)
    assert record.sample_rate == 500
    if kind in ("labels before the ECG", "a median beat first"):
        assert any("taken, not" in note for note in record.notes)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((20, 12, 40)), r"20×12×40 float64.*several ECGs"),
        (np.zeros((5, 7, 9)), r"5×7×9"),
        (np.zeros(40), "40"),
        (np.zeros((12, 40), bool), "12×40 bool"),
        (np.zeros((12, 40), complex), "complex"),
        (np.array(list("abc")), "<U1"),
    ],
)
def test_an_array_of_another_shape_is_refused_with_it(tmp_path, array, reason):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(RecordError, match=reason):
        read_record(tmp_path / "t.npy", **GIVEN)


def test_a_new_matlab_file_says_how_to_save_it(tmp_path):
    (tmp_path / "t.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(RecordError, match="-v7"):
        read_record(tmp_path / "t.mat", **GIVEN)
