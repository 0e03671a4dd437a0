"""Users bring what their machine writes: it is read to the right millivolts, or refused with a true reason."""

import sys

import numpy as np
import pytest
import wfdb

from data_provider.read.clinical_files import read_other
from data_provider.read.records import LEADS, RecordError, read_record
from data_provider.read.signal import SignalPolicy, fit_windows
from data_provider.records import main
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record

OTHER = SHARED / "data/other"
MV = (ecg() / 1000).astype(np.float32)


@pytest.fixture(scope="module")
def ecgdatakit():
    return pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")


# file, samples, rate, first value of lead I, its range, a word of the notes
READS = [
    ("challenge/JS20000", 5000, 500, -0.034, None, None),
    ("challenge/JS20004", 5000, 500, None, None, "flat: V2, V4, V6"),
    ("challenge/HR00599", 5000, 500, None, None, "implausible amplitude"),
    ("challenge/Q0010", 6000, 500, None, None, None),
    ("challenge/Q0017", 28934, 500, None, None, None),
    ("challenge/E00009", 5000, 500, -58 / 4880, None, None),
    ("ptb/s0010_re", 38400, 1000, -0.2445, (-0.628, 0.646), "12 of 15 signals"),
    ("dicom/Example.dcm", 5000, 500, -0.005, (-0.305, 0.415), "missing"),
    ("dicom/anonymous_ecg.dcm", 10_000, 1000, 0.1, None, None),
    ("dicom/example-DICOM1.dcm", 5000, 500, None, (-0.268, 0.224), None),
    ("scp/Example.scp", 5000, 500, -0.005, (-0.305, 0.415), None),
    ("hl7_aecg/Example.xml", 5000, 500, -0.005, (-0.305, 0.415), None),
    ("muse/MUSE_20200923_093504_79000_example.xml", 5000, 500, 0.1074, (-0.190, 0.493), "III, aVR, aVL, aVF"),
    ("philips/3191723_ZZDEMOPTONLY_1-04_orig.xml", 5300, 500, 0.165, None, "0.4 s of calibration pulse at the end"),
    ("philips/129DYPRG.XML", 5264, 500, 0.240, None, "0.47 s of calibration pulse at the end"),
    ("cardiologyxml/example-XML1.xml", 5000, 500, None, (-0.22, 0.69), None),
]


@needs_shared
@pytest.mark.parametrize("name, samples, rate, first, span, note", READS)
def test_real_files_give_their_known_values(ecgdatakit, name, samples, rate, first, span, note):
    record = read_record(OTHER / name)
    lead = record.signal[0]
    assert record.signal.shape == (12, samples) and record.sample_rate == rate and record.signal.dtype == np.float32
    if first is not None:
        assert lead[0] == pytest.approx(first, abs=6e-5)
    if span:
        assert (np.nanmin(lead), np.nanmax(lead)) == pytest.approx(span, abs=1e-3)
    assert (note or "") in " ".join(record.notes)
    residual = record.signal[1] - record.signal[0] - record.signal[2]
    assert np.nanmax(np.abs(residual)) < 0.02 * max(1, np.nanmax(np.abs(record.signal[:3])))


@needs_shared
@pytest.mark.parametrize("name", ["challenge/HR06000", "challenge/Q0017", "challenge/HR00599", "ptb/s0010_re"])
def test_wfdb_files_equal_the_librarys_own_reading(name):
    record = wfdb.rdrecord(str(OTHER / name))
    rows = [[lead.upper() for lead in record.sig_name].index(lead.upper()) for lead in LEADS]
    np.testing.assert_array_equal(read_record(OTHER / name).signal, record.p_signal.T[rows].astype(np.float32))


@needs_shared
@pytest.mark.parametrize("name", ["scp/Example.scp", "dicom/anonymous_ecg.dcm", "philips/129DYPRG.XML"])
def test_other_files_equal_the_librarys_own_reading(ecgdatakit, name):
    signals = {lead.label: lead.samples for lead in ecgdatakit.FileParser().parse(OTHER / name).leads}
    signal = read_record(OTHER / name).signal
    expected = np.stack([signals[lead] for lead in LEADS])[:, : signal.shape[1]]
    np.testing.assert_array_equal(signal, expected.astype(np.float32))


@needs_shared
def test_a_dicom_file_equals_pydicoms_reading():
    pydicom = pytest.importorskip("pydicom", reason="needs requirements-optional.txt")
    values = pydicom.dcmread(OTHER / "dicom/anonymous_ecg.dcm").waveform_array(0)  # microvolts
    np.testing.assert_allclose(read_record(OTHER / "dicom/anonymous_ecg.dcm").signal, values.T / 1000, atol=1e-6)


@needs_shared
def test_the_same_ecg_in_three_formats(ecgdatakit):
    scp, xml, dicom = (
        read_record(OTHER / name).signal for name in ("scp/Example.scp", "hl7_aecg/Example.xml", "dicom/Example.dcm")
    )
    there = ~np.isnan(dicom)
    np.testing.assert_allclose(scp, xml, atol=1e-6)
    np.testing.assert_allclose(dicom[there], xml[there], atol=1e-6)


@needs_shared
@pytest.mark.parametrize(
    "name, reason",
    [
        ("hl7_aecg/empty.xml", "No rhythm series"),
        ("hl7_aecg/minimum_aecg.xml", "no lead I, III, aVR, .* among II"),
        ("philips/invalid-doc-type.xml", "MortaraECG 1.03 are unsupported"),
        ("cpsc2018/A1980.mat", "does not say its sampling rate"),
        ("README.md", "cannot be read"),
    ],
)
def test_what_is_not_read_is_refused_with_its_reason(ecgdatakit, name, reason):
    with pytest.raises(RecordError, match=reason):
        read_record(OTHER / name)


@needs_shared
def test_a_matlab_struct_with_the_rate_given():
    record = read_record(OTHER / "cpsc2018/A1980.mat", sample_rate=500, units="mV")
    assert record.signal.shape == (12, 5000) and "standard order" in record.notes[0]
    assert record.signal[0, 0] == pytest.approx(0.20187, abs=1e-5)


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "csv with names", "mat"])
def test_tables_of_numbers(tmp_path, kind):
    path = tmp_path / f"t.{kind[:3]}"
    if kind == "npy":
        np.save(path, MV.T)  # either way round
    elif kind == "npz":
        np.savez(path, ecg=MV)
    elif kind == "mat":
        from scipy.io import savemat

        savemat(path, {"val": ecg()})
    elif kind == "csv":
        np.savetxt(path, MV.T, delimiter=";")
    else:
        time = np.arange(5000)[:, None] / 500
        np.savetxt(
            path, np.hstack([time, MV[::-1].T]), delimiter=",", header=",".join(["time", *LEADS[::-1]]), comments=""
        )
    with pytest.raises(RecordError, match="units" if kind == "csv with names" else "sampling rate"):
        read_record(path)  # a column of times says the rate
    with pytest.raises(RecordError, match="units"):
        read_record(path, sample_rate=500)
    record = read_record(path, sample_rate=500, units="uV" if kind == "mat" else "mV")
    np.testing.assert_allclose(record.signal, MV, rtol=1e-5, atol=1e-7)


def test_units_and_leads_can_be_given(tmp_path):
    np.save(tmp_path / "t.npy", ecg()[[1, 0, 6, 7, 8, 9, 10, 11]])
    record = read_record(tmp_path / "t.npy", sample_rate=500, units="uV", leads=["II", "I", *LEADS[6:]])
    np.testing.assert_allclose(record.signal[:3], MV[:3], atol=1e-6)
    with pytest.raises(RecordError, match="8 signals without names"):
        read_record(tmp_path / "t.npy", sample_rate=500, units="uV")


def test_tables_that_are_none(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "words.csv").write_text("hello\nworld\n")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "object.npy").read_bytes()[:20])
    (tmp_path / "bad.mat").write_bytes(b"x" * 500)
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4" + b"x" * 500)
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "unknown.abc").write_bytes(b"x" * 500)
    for path in tmp_path.iterdir():
        with pytest.raises(RecordError) as error:
            read_record(path, sample_rate=500, units="mV")
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_a_file_unpacks_to_is_known_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "ecg.npz", ecg=np.zeros((12, 5000)))
    monkeypatch.setattr("data_provider.read.arrays.MAX_VALUES", 50_000)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(RecordError, match="unpacks to 480128 bytes, more than the 400000 that are read"):
        read_record(tmp_path / "ecg.npz", sample_rate=500, units="mV")


def test_edf(tmp_path):
    pyedflib = pytest.importorskip("pyedflib", reason="needs requirements-optional.txt")
    path = tmp_path / "t.edf"
    with pyedflib.EdfWriter(str(path), 13) as file:
        for number, lead in enumerate([*LEADS, "resp"]):
            about = {"label": lead, "dimension": "uV", "sample_frequency": 500, "physical_min": -2000.0}
            file.setSignalHeader(number, about | {"physical_max": 2000.0, "digital_min": -32768, "digital_max": 32767})
        file.writeSamples([*(ecg().astype(np.float64)), np.zeros(5000)])
    record = read_record(path)
    np.testing.assert_allclose(record.signal, MV, atol=7e-5)
    assert record.sample_rate == 500


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ecgdatakit", None)
    (tmp_path / "x.scp").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"ecgdatakit is needed .* requirements-readers.txt"):
        read_other(tmp_path / "x.scp")


def test_all_windows_of_a_long_record(tmp_path):
    digital = ecg(12_000)
    record = read_record(write_record(tmp_path / "r", digital))
    windows = fit_windows(record, SignalPolicy())
    np.testing.assert_array_equal(windows, record.signal[:, :10_000].reshape(12, 2, 5000).transpose(1, 0, 2))


def test_the_command_says_saves_and_draws(tmp_path, capsys):
    path = write_record(tmp_path / "r", ecg(6000))
    main([str(path), "--out", str(tmp_path / "s.npy"), "--plot", str(tmp_path / "p.png")])
    assert np.load(tmp_path / "s.npy").shape == (12, 6000) and (tmp_path / "p.png").stat().st_size > 10_000
    assert "6000 samples at 500 Hz, 12 s" in capsys.readouterr().out
    main([str(path), "--out", str(tmp_path / "w.npy"), "--window", "centre"])
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), (ecg(6000)[:, 500:5500] / 1000).astype(np.float32))
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "nothing")])
    assert stop.value.code == 2 and "no such record" in capsys.readouterr().err
