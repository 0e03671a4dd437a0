"""Codes depend on every number here: one policy, one result, equal to the published preprocessing to the last bit."""

import numpy as np
import pytest

from data_provider.count_store import store_signals
from data_provider.data_loader import bad_records_text, load_signals
from data_provider.read.records import Record, RecordError
from data_provider.read.signal import SignalPolicy, fit_signal, load_signal, standardise
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import ecg, write_record

POLICY = SignalPolicy()


def sine(rate, seconds, frequency=5.0):
    x = np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate) + 0.3
    return Record(np.tile(x, (12, 1)).astype(np.float32), float(rate), (), "sine")


@needs_shared
def test_equals_the_published_input_to_the_last_bit():
    expected = np.load(SHARED / "reference/tokenizer/expected.npz")
    for number in (3, 9, 17):
        path = SHARED / f"data/ptbxl/records500/00000/{number:05d}_hr"
        x, mean, std = load_signal(path, POLICY)
        np.testing.assert_array_equal(x, expected[f"input_{number}"])
        assert x.dtype == np.float32 and mean.shape == std.shape == (12,)


def test_standardise_agrees_with_scikit_learn_also_for_constant_leads():
    from sklearn.preprocessing import StandardScaler

    signal = np.random.default_rng(0).normal(0.1, 2, (12, 5000))
    signal[3] = 0.1  # its variance in floating point is not 0
    signal[4] = 0
    x, mean, std = standardise(signal)
    np.testing.assert_allclose(x, StandardScaler().fit_transform(signal.T).T, atol=1e-6)
    assert std[3] == std[4] == 1 and np.abs(x[3:5]).max() < 1e-6
    np.testing.assert_allclose(x * std[:, None] + mean[:, None], signal, atol=1e-5)


@pytest.mark.parametrize("rate", [100, 125, 250, 257, 360, 400, 977.5, 1000, 2000])
def test_resampling_keeps_the_wave(rate):
    signal = fit_signal(sine(rate, 12), POLICY)
    expected = np.sin(2 * np.pi * 5 * np.arange(5000) / 500) + 0.3
    assert signal.shape == (12, 5000)
    assert np.abs(signal[0, 100:-100] - expected[100:-100]).max() < 0.01
    assert np.abs(signal[0] - expected).max() < 0.03  # the ends have neighbours on one side only


def test_resampling_down_removes_what_would_alias():
    signal = fit_signal(sine(1000, 10, frequency=400), POLICY)  # would appear at 100 Hz
    assert signal[:, 100:-100].std() < 0.01


def test_longer_records_are_cropped():
    ramp = Record(np.tile(np.arange(7000, dtype=np.float32), (12, 1)), 500.0, (), "ramp")
    assert fit_signal(ramp, POLICY)[0, 0] == 0
    assert fit_signal(ramp, SignalPolicy(crop="centre"))[0, 0] == 1000


def test_shorter_records_are_refused_or_padded_with_the_mean():
    with pytest.raises(RecordError, match="9 s long, 10 s are needed"):
        fit_signal(sine(500, 9), POLICY)
    padded = fit_signal(sine(500, 9), SignalPolicy(short="pad"))
    np.testing.assert_allclose(padded[:, 4500:], 0.3, atol=1e-3)


def test_short_gaps_are_interpolated_and_longer_ones_refused():
    record = sine(500, 10)
    record.signal[2, 1000:1100] = np.nan  # 0.2 s
    record.signal[5, :3] = np.nan
    signal = fit_signal(record, POLICY)
    np.testing.assert_allclose(signal[2, 1000:1100], np.linspace(*record.signal[2, [999, 1100]], 102)[1:-1], atol=1e-6)
    assert (signal[5, :3] == record.signal[5, 3]).all()
    record.signal[2, 1100] = np.nan
    with pytest.raises(RecordError, match=r"lead III has a gap of 0.202 s"):
        fit_signal(record, POLICY)
    record.signal[0] = np.nan
    with pytest.raises(RecordError, match="lead I holds no samples"):
        fit_signal(record, SignalPolicy(max_gap_s=100))


def test_a_gap_outside_the_window_does_no_harm():
    record = sine(500, 12)
    record.signal[0, 5500:] = np.nan
    assert np.isfinite(fit_signal(record, POLICY)).all()


def test_the_fingerprint_follows_every_setting():
    others = [SignalPolicy(crop="centre"), SignalPolicy(short="pad"), SignalPolicy(max_gap_s=0.1)]
    others += [SignalPolicy(lead_order="file"), SignalPolicy(samples=2500)]
    assert len({policy.fingerprint() for policy in [POLICY, *others]}) == 6
    assert SignalPolicy().fingerprint() == POLICY.fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_are_left_out_and_listed(tmp_path, workers):
    for name in "abc":
        write_record(tmp_path / name, ecg(seed=ord(name)))
    (tmp_path / "b.dat").write_bytes(b"")
    signals, good, bad = load_signals(tmp_path, ["a", "b", "c", "d", "a"], POLICY, workers)
    assert good == ["a", "c"] and set(bad) == {"b", "d"} and signals.shape == (2, 12, 5000)
    np.testing.assert_array_equal(signals[1], load_signal(tmp_path / "c", POLICY)[0])
    assert bad_records_text(bad).splitlines()[:2] == ["2 records left out:", "  b: b.dat is empty"]


def test_signals_are_kept_as_counts_to_the_last_bit_and_leave_no_file(tmp_path):
    """Lost otherwise: other signals in a large training than in a small one, or 100 GB on a disk after a killed run."""
    for name, samples, gain in (("a", 5000, "1000.0(0)/mV"), ("c", 6000, "1000.0(0)/mV"), ("d", 5000, "200.0(13)/mV")):
        write_record(tmp_path / name, ecg(samples, seed=ord(name)), gains=gain)
    (tmp_path / "b.hea").write_text((tmp_path / "a.hea").read_text().replace("a.dat", "b.dat"))
    paths = ["a", "b", "c", "d"]
    signals, good, bad = store_signals(tmp_path, paths, POLICY, tmp_path / "run")
    expected, same, _ = load_signals(tmp_path, paths, POLICY)
    assert good == same == ["a", "c", "d"] and list(bad) == ["b"] and not list((tmp_path / "run").iterdir())
    assert signals[np.array([2, 0, 1])].tobytes() == expected[[2, 0, 1]].tobytes()
    assert signals[1:].tobytes() == expected[1:].tobytes()
    assert np.isnan(signals.scales[:, 0, 0]).tolist() == [False, True, False], "the long one is read from its file"
