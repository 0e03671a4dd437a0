"""Views of a training ECG: other codes of the same findings, the same in every run, kept apart from the plain ones."""

import dataclasses

import numpy as np
import pytest

from data_provider.read.signal import SignalPolicy, load_signal
from ecg_tokenizer.encode import encode_records
from ecg_tokenizer.store import CodeStore
from ecg_tokenizer.views import View, changed, load
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer
from tests.wfdb_maker import write_record
from utils.tools import UserError

POLICY = SignalPolicy()


@pytest.fixture
def root(tmp_path):
    signal = beats(rate_bpm=70, seed=1)
    signal[4] = 0  # a lead without signal
    write_record(tmp_path / "files" / "r0", signal)
    write_record(tmp_path / "files" / "r1", beats(rate_bpm=90, seed=2))
    return tmp_path / "files"


def test_a_view_keeps_the_rate_the_flat_leads_and_the_amplitudes(root):
    """An ECG whose ends meet anywhere has an early beat or a pause there: its labels would no longer be true."""
    x, _, std = load_signal(root / "r0", POLICY)
    for number in range(1, 6):
        view, _, same = load(root, "r0", View(POLICY, number))
        assert view.dtype == np.float32 and view.shape == x.shape and np.array_equal(std, same)
        assert not view[4].any() and np.allclose(view.std(axis=1)[np.arange(12) != 4], 1, atol=1e-4)
        assert np.abs(view - x).mean() > 0.1
        peaks = np.flatnonzero(np.abs(view[0]) > 0.6 * np.abs(view[0]).max())
        beats_at = peaks[np.flatnonzero(np.diff(peaks, prepend=-1000) > 100)]
        intervals = np.diff(beats_at) / 500
        assert np.abs(intervals - 60 / 70).max() < 0.05, intervals


def test_views_differ_and_come_out_the_same_again(root):
    first, second = (load(root, "r0", View(POLICY, number))[0] for number in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, load(root, "r0", View(POLICY, 1))[0])
    x = np.zeros((12, 5000), np.float32)
    assert not changed(x, 500, np.random.default_rng(0)).any(), "an ECG without any signal"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_of_views_is_not_taken_for_the_plain_one(root, tmp_path, workers):
    tokenizer = small_tokenizer(config=WITH_AMPLITUDE)
    plain = encode_records(tokenizer, root, ["r0", "r1"], tmp_path / "store", POLICY)
    folder = tmp_path / "store/view1"
    view = encode_records(tokenizer, root, ["r0", "r1"], folder, View(POLICY, 1), workers)
    for path in ("r0", "r1"):
        x, _, std = load(root, path, View(POLICY, 1))
        assert np.array_equal(view[path], tokenizer.encode_rows(x[None], std[None])[0])
        assert np.array_equal(view[path][:12], plain[path][:12]), "amplitudes"
        assert not np.array_equal(view[path][12:], plain[path][12:])
    assert len(CodeStore.open(tmp_path / "store", tokenizer.fingerprint, POLICY)) == 2
    for policy in (POLICY, View(POLICY, 2), View(dataclasses.replace(POLICY, crop="centre"), 1)):
        with pytest.raises(UserError, match="other signals"):
            CodeStore.open(folder, tokenizer.fingerprint, policy)
