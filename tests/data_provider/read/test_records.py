"""A misread lead, unit or length spoils all that follows without a trace; a bad file must name itself and its fault."""

import numpy as np
import pytest
import wfdb

from data_provider.read.records import LEADS, RecordError, read_record
from data_provider.read.wfdb_files import read_wfdb
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import LEADS as UPPER
from tests.wfdb_maker import ecg, write_record


def test_leads_are_found_by_name_in_any_order_and_case(tmp_path):
    digital = ecg()
    order = np.random.default_rng(1).permutation(12)
    names = [UPPER[i].lower() for i in order]
    record = read_record(write_record(tmp_path / "r", digital[order], leads=names))
    np.testing.assert_array_equal(record.signal, (digital / 1000).astype(np.float32))
    assert record.sample_rate == 500 and record.signal.dtype == np.float32


def test_lead_order_file_reads_by_position(tmp_path):
    digital = ecg()
    swapped = [*UPPER[:4], "aVF", "aVL", *UPPER[6:]]  # MIMIC-IV-ECG's header order
    path = write_record(tmp_path / "r", digital, leads=swapped)
    by_name, by_position = read_record(path).signal, read_record(path, lead_order="file").signal
    np.testing.assert_array_equal(by_position, (digital / 1000).astype(np.float32))
    np.testing.assert_array_equal(by_name[[4, 5]], by_position[[5, 4]])


def test_units_and_gains_of_each_lead(tmp_path):
    digital = ecg()
    gains = ["200(0)/mV", "1(0)/uV", "1000000(0)/V", "1000(100)/mV", *["1000/mV"] * 8]
    signal = read_record(write_record(tmp_path / "r", digital, gains=gains)).signal
    np.testing.assert_allclose(signal[0], digital[0] / 200, rtol=1e-6)
    np.testing.assert_allclose(signal[1], digital[1] / 1000, rtol=1e-6)
    np.testing.assert_allclose(signal[2], digital[2] / 1000, rtol=1e-6)
    np.testing.assert_allclose(signal[3], (digital[3] - 100.0) / 1000, rtol=1e-6)


def test_missing_limb_leads_are_derived_and_said_to_be(tmp_path):
    one, two = ecg()[:2] * 2
    chest = ecg()[6:]
    record = read_record(write_record(tmp_path / "r", np.stack([one, two, *chest]), leads=["I", "II", *UPPER[6:]]))
    expected = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2]) / 1000
    np.testing.assert_allclose(record.signal[2:6], expected, atol=1e-6)
    assert "III, aVR, aVL, aVF" in record.notes[0]
    from_augmented = np.stack([-(one + two) // 2, two - one // 2, *chest])
    record = read_record(write_record(tmp_path / "s", from_augmented, leads=["aVR", "aVF", *UPPER[6:]]))
    np.testing.assert_allclose(record.signal[0], one / 1000, atol=3e-3)  # the integers above are rounded


def test_missing_samples_are_nan(tmp_path):
    digital = ecg()
    digital[3, 7] = -32768
    signal = read_record(write_record(tmp_path / "r", digital)).signal
    assert np.isnan(signal[3, 7]) and np.isnan(signal).sum() == 1


def _header_line(tmp_path, old, new):
    path = write_record(tmp_path / "r", ecg())
    header = path.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new, 1))
    return path


FAULTS = {
    "no header": (lambda p: write_record(p / "r", ecg()).with_suffix(".hea").unlink(), "no such record"),
    "no dat": (lambda p: write_record(p / "r", ecg()).with_suffix(".dat").unlink(), "r.dat is not there"),
    "empty dat": (lambda p: write_record(p / "r", ecg()).with_suffix(".dat").write_bytes(b""), "r.dat is empty"),
    "empty header": (lambda p: write_record(p / "r", ecg()).with_suffix(".hea").write_bytes(b""), "header is empty"),
    "truncated": (
        lambda p: write_record(p / "r", ecg()).with_suffix(".dat").write_bytes(ecg().tobytes()[:999]),
        "holds 41 of the 5000 samples",
    ),
    "too many samples declared": (
        lambda p: write_record(p / "r", ecg(), declared=6000),
        "holds 5000 of the 6000 samples",
    ),
    "a thousand million samples": (
        lambda p: write_record(p / "r", ecg(), declared=10**9),
        "declares 1000000000 samples",
    ),
    "gain 0": (lambda p: _header_line(p, "1000.0(0)/mV", "0(0)/mV"), "signal 1 (I) has gain 0,"),
    "not volts": (lambda p: _header_line(p, "1000.0(0)/mV", "10/mmHg"), "is in mmHg, not in volts"),
    "lead twice": (lambda p: write_record(p / "r", ecg(), leads=["I", "i", *UPPER[2:]]), "lead I is there twice"),
    "chest lead missing": (lambda p: write_record(p / "r", ecg()[:11], leads=UPPER[:11]), "no lead V6 among I, II"),
    "signal file elsewhere": (lambda p: _header_line(p, "r.dat", "../../r.dat"), "points outside its folder"),
    "unknown format": (lambda p: _header_line(p, "r.dat 16 ", "r.dat 99 "), "format 99"),
    "no rate": (lambda p: _header_line(p, "r 12 500", "r 12 0"), "0 samples a second"),
    "signals missing": (lambda p: _header_line(p, "r 12 ", "r 14 "), "declares 14 signals and describes 12"),
    "not a header": (
        lambda p: write_record(p / "r", ecg()).with_suffix(".hea").write_bytes(b"\0\1"),
        "not a WFDB header",
    ),
    "words": (
        lambda p: write_record(p / "r", ecg()).with_suffix(".hea").write_text("hello\n"),
        "not a WFDB record line",
    ),
    "several segments": (lambda p: _header_line(p, "r 12", "r/3 12"), "several segments"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_one_line_with_the_file_and_the_fault(tmp_path, fault):
    spoil, words = FAULTS[fault]
    spoil(tmp_path)
    with pytest.raises(RecordError) as error:
        read_record(tmp_path / "r")
    assert str(error.value).startswith(f"{tmp_path / 'r'}: ") and "\n" not in str(error.value)
    assert words in str(error.value)


def test_the_fast_path_equals_wfdb_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(20):
        samples = int(rng.integers(1, 3000))
        digital = rng.integers(-32768, 32768, (12, samples)).astype("<i2")  # -32768 is a missing sample
        gains = [f"{rng.uniform(1, 5000):.{rng.integers(0, 6)}f}({rng.integers(-2000, 2000)})/mV" for _ in range(12)]
        path = write_record(tmp_path / f"r{number}", digital, gains=gains, declared="" if number == 7 else None)
        expected, fields = wfdb.rdsamp(str(path))
        names, units, columns, rate, _ = read_wfdb(path)
        np.testing.assert_array_equal(columns, expected.T)
        assert (names, units, rate) == (fields["sig_name"], fields["units"], fields["fs"])


@pytest.mark.parametrize("form", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_every_common_wfdb_format(tmp_path, form):
    digital = (ecg(2000) if form not in ("80", "508") else ecg(2000) // 8).T.astype(np.int64)
    wfdb.wrsamp(
        "r",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=digital,
        fmt=[form] * 12,
        adc_gain=[1000.0] * 12,
        baseline=[0] * 12,
        write_dir=str(tmp_path),
    )
    np.testing.assert_array_equal(read_record(tmp_path / "r").signal, (digital.T / 1000).astype(np.float32))


def test_zero_level_without_a_baseline_is_the_adc_zero(tmp_path):
    path = _header_line(tmp_path, "1000.0(0)/mV 16 0", "1000.0/mV 16 50")
    np.testing.assert_array_equal(read_record(path).signal, wfdb.rdsamp(str(path))[0].T.astype(np.float32))


def test_a_comment_that_is_not_utf8_does_no_harm(tmp_path):
    path = write_record(tmp_path / "r", ecg(), comment=b"# Gr\xf6\xdfe: 1,80 m\n")
    np.testing.assert_array_equal(read_record(path).signal, (ecg() / 1000).astype(np.float32))


def test_the_path_may_have_an_extension(tmp_path):
    path = write_record(tmp_path / "r", ecg())
    for name in ("r", "r.hea", "r.dat"):
        assert read_record(path.with_name(name)).signal.shape == (12, 5000)


@needs_shared
def test_real_records_equal_wfdbs_reading():
    for number in (1, 137, 463):
        path = SHARED / f"data/ptbxl/records500/00000/{number:05d}_hr"
        expected, fields = wfdb.rdsamp(str(path))
        record = read_record(path)
        np.testing.assert_array_equal(record.signal, expected.T.astype(np.float32))
        assert [name.upper() for name in LEADS] == fields["sig_name"] and record.notes == ()


@needs_shared
def test_mat_files_with_an_offset():
    record = read_record(SHARED / "data/other/challenge/HR06000")
    assert record.signal[0, 0] == np.float32(0.010)
    assert (round(float(record.signal[0].min()), 3), round(float(record.signal[0].max()), 3)) == (-0.270, 0.565)
