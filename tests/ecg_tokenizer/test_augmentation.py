"""What training ECGs go through must be what recorders do, and must leave the network a target that it can reach."""

import dataclasses

import pytest
import torch

from ecg_tokenizer.augmentation import Chances, augment
from tests.tokenizer_maker import beats

NEVER = Chances(**{field.name: 0.0 for field in dataclasses.fields(Chances)})


@pytest.fixture
def x():
    torch.manual_seed(0)
    signals = torch.stack([torch.from_numpy(beats(rate_bpm=60 + 10 * n, seed=n).astype("float32")) for n in range(4)])
    signals = signals - signals.mean(-1, keepdim=True)
    return signals / signals.std(-1, keepdim=True, correction=0)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Chances)])
def test_each_change_alone_gives_standardised_ecgs_that_differ(name, x):
    torch.manual_seed(1)
    plain, _ = augment(x, NEVER)
    torch.manual_seed(1)
    seen, target = augment(x, dataclasses.replace(NEVER, **{name: 1.0 if name != "lost_lead" else 0.5}))
    assert seen.shape == target.shape == x.shape and torch.isfinite(seen).all() and torch.isfinite(target).all()
    assert (seen - plain).abs().max() > 0.1
    deviation = seen.std(-1, correction=0)
    assert seen.mean(-1).abs().max() < 1e-4
    assert ((deviation - 1).abs() < 1e-3).logical_or(deviation < 1e-3).all()
    assert (deviation < 1e-3).any() == (name == "lost_lead"), "a lost lead stays flat, no other becomes so"
    noisy = name in ("hum", "muscle")
    assert ((seen - target).abs().max() > 0.01) == noisy, "only noise that no code can hold is not asked back"


def test_begun_elsewhere_and_mixed_it_is_still_the_same_lead(x):
    """The largest correlation over all delays is that of nearly the same lead; another draw is another ECG."""
    torch.manual_seed(1)
    first, second = augment(x, NEVER)[0], augment(x, NEVER)[0]
    spectra = torch.fft.rfft(x), torch.fft.rfft(first)
    best = torch.fft.irfft(spectra[0].conj() * spectra[1]).amax(-1) / 5000
    assert (best > 0.8).all() and (best < 0.99999).all() and not torch.equal(first, second)


def test_what_is_not_asked_back_lies_above_the_ecg(x):
    torch.manual_seed(2)
    seen, target = augment(x, dataclasses.replace(NEVER, hum=1.0, muscle=1.0))
    power = torch.fft.rfft(seen - target).abs().square().sum((0, 1))
    hertz = torch.fft.rfftfreq(5000, 1 / 500)
    assert power[hertz < 19].sum() < 0.01 * power.sum()


def test_the_same_step_sees_the_same_ecgs(x):
    torch.manual_seed(3)
    first = augment(x)
    torch.manual_seed(3)
    assert all(map(torch.equal, first, augment(x)))
