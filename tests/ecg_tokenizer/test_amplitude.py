"""A lead's size survives its codes, to 4.7 %; without them it is lost, and with it every voltage criterion."""

import numpy as np
import pytest

from ecg_tokenizer.amplitude import SCALES, scale_levels, scales_of
from ecg_tokenizer.codec import EcgTokenizer, config_from_json, config_to_json
from tests.shared import SHARED, needs_shared
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer
from utils.tools import UserError


def test_a_scale_comes_back_within_its_bound():
    std = np.geomspace(0.0096, 3.16, 10_000).reshape(-1, 10)
    found = scales_of(scale_levels(std))
    assert found.dtype == np.float32 and found.shape == std.shape
    assert np.abs(np.log10(found / std)).max() <= 0.5 / 25 + 1e-6
    assert np.abs(found / std - 1).max() < 0.0472


def test_every_level_comes_back_from_its_scale():
    levels = np.arange(SCALES)
    assert np.array_equal(scale_levels(scales_of(levels)), levels)
    assert np.allclose(scales_of(levels)[[0, 1, 26, 51]], [0, 0.01, 0.1, 1])


def test_what_lies_outside_the_scale():
    assert scale_levels([0, 1e-9, 0.009]).tolist() == [0, 0, 0]
    assert scale_levels([3.02, 10, 1e9]).tolist() == [63, 63, 63]


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer(config=WITH_AMPLITUDE)


def test_a_row_is_the_amplitudes_and_then_the_waveform(tokenizer):
    signal = beats() / 1000
    row = tokenizer.encode(signal, 500)
    assert (tokenizer.n_codes, tokenizer.n_scales) == (1296, 64)
    assert (tokenizer.codes_per_ecg, tokenizer.row_length) == (50, 62)
    assert row.dtype == np.uint16 and row.shape == (62,)
    assert np.array_equal(row[:12], 1296 + scale_levels(signal.std(1)))
    assert np.array_equal(row[12:], small_tokenizer().encode(signal, 500)), "the waveform's codes are the same"
    assert np.array_equal(tokenizer.encode(np.stack([signal, signal]), 500), [row, row])


def test_the_size_of_an_ecg_changes_its_amplitudes_alone(tokenizer):
    signal = beats() / 1000
    row, fourfold = tokenizer.encode(signal, 500), tokenizer.encode(4 * signal, 500)
    assert set(fourfold[:12] - row[:12]) <= {15, 16}  # 25 log10(4) = 15.05
    assert np.array_equal(fourfold[12:], row[12:])


def test_decoding_gives_millivolts(tokenizer):
    signal = beats() / 1000
    row = tokenizer.encode(signal, 500)
    found, waveform = tokenizer.decode(row), small_tokenizer().decode(row[12:])
    assert found.dtype == np.float32 and found.shape == (12, 5000)
    assert np.allclose(found, waveform * signal.std(1, keepdims=True), rtol=0.048, atol=1e-6)
    assert np.array_equal(tokenizer.decode(np.stack([row, row]))[1], found)


@pytest.mark.parametrize("level", [0.0, 0.7, -12.345])
def test_a_lead_without_signal_is_decoded_as_flat(tokenizer, level):
    signal = beats() / 1000
    signal[4] = level
    row = tokenizer.encode(signal, 500)
    assert row[4] == 1296 and (row[:12] == 1296).sum() == 1
    assert not tokenizer.decode(row)[4].any() and tokenizer.decode(row)[3].any()


def test_a_flat_ecg_has_no_amplitude(tokenizer):
    """The blank control: an ECG that holds nothing must not look like one of 1 mV."""
    for std in (0, 1):
        (row,) = tokenizer.encode_rows(np.zeros((1, 12, 5000), np.float32), np.full((1, 12), std))
        assert (row[:12] == 1296).all() and not tokenizer.decode(row).any()


def test_rows_that_are_none_are_refused(tokenizer):
    row = tokenizer.encode(beats() / 1000, 500).astype(int)
    for wrong, why in (
        (row[12:], "is expected"),
        (np.r_[row[:11], 5, row[12:]], "first 12 codes"),
        (np.r_[1360, row[1:]], "first 12 codes"),
        (np.r_[row[:61], 1296], "codes must lie in"),
    ):
        with pytest.raises(ValueError, match=why):
            tokenizer.decode(wrong)


def test_it_is_kept_with_the_weights_and_older_tokenizers_have_none(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    again = EcgTokenizer.from_pretrained(tmp_path / "new")
    assert again.n_scales == 64 and again.fingerprint == tokenizer.fingerprint != small_tokenizer().fingerprint
    older = {name: value for name, value in config_to_json(WITH_AMPLITUDE).items() if name != "amplitude"}
    assert config_from_json(older, "old").amplitude is False
    for wrong in ({"amplitude": 1}, {"amplitude": "true"}, {"width": True}, {"levels": [6, True]}):
        with pytest.raises(UserError, match=f"config has {next(iter(wrong))}="):
            config_from_json(older | wrong, "wrong")


@needs_shared
def test_the_published_tokenizer_has_none():
    published = EcgTokenizer.from_pretrained(SHARED / "reference/tokenizer/best.pt")
    assert published.n_scales == 0 and published.row_length == published.codes_per_ecg == 313
