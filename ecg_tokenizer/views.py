"""Other views of a training ECG, encoded beside the plain one: begun elsewhere, its leads slightly mixed.

Of what stage 1 does to its ECGs (`ecg_tokenizer.augmentation`) only what a reader would not see: no other rate, no
filter, no noise, no lost or swapped lead, since the labels speak of these. The amplitudes are the plain ECG's.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from data_provider.read import SignalPolicy, load_signal
from utils.tools import sha256_json

VERSION = 1  # raise it when the same view gives other numbers: stored ones are then made anew
LONGEST_CUT, SEAM = 2.0, 0.5  # s: what may be left out at the end, and what is compared to find where


@dataclass(frozen=True)
class View:
    """What is done to a record before it is encoded: `SignalPolicy`, and view ``number`` (from 1) on top."""

    policy: SignalPolicy
    number: int

    @property
    def samples(self):
        return self.policy.samples

    def fingerprint(self):
        """Hash of all that decides the numbers, as hex."""
        return sha256_json([self.policy.fingerprint(), "view", self.number, VERSION])


def load(root, path, policy):
    """The signal to encode, as `data_provider.read.load_signal` gives it: (x, mean, std).

    Parameters
    ----------
    root : Path
    path : str
        Record path below it. It, not the root, decides what is random about a view.
    policy : SignalPolicy or View
    """
    if not isinstance(policy, View):
        return load_signal(root / path, policy)
    x, mean, std = load_signal(root / path, policy.policy)
    digest = hashlib.sha256(f"{path}\0{policy.number}".encode(errors="surrogatepass")).digest()
    rate = policy.policy.sample_rate
    return changed(x, rate, np.random.default_rng(int.from_bytes(digest[:8], "big"))), mean, std


def changed(x, sample_rate, rng):
    """A standardised ECG [12, T] begun at another sample, each lead with a little of each other; float32 [12, T].

    What is cut off at the beginning goes on behind the end, as if the ECG went round. So that no early or late beat
    arises where the ends meet, up to `LONGEST_CUT` seconds are left out there: the ECG is closed where it looks most
    like its beginning. A lead without any signal stays so.
    """
    from ecg_tokenizer.augmentation import MIXING  # needs PyTorch, which whoever reads files only need not wait for

    length = x.shape[1]
    period = _period(x, sample_rate)
    turned = x[:, (rng.integers(period) + np.arange(length)) % period].astype(np.float64)
    there = np.ptp(x, axis=1) >= 1  # a lead of deviation 1 spans 2 at least
    turned[there] += MIXING * rng.standard_normal((there.sum(), there.sum())) @ turned[there]
    turned[there] -= turned[there].mean(axis=1, keepdims=True)
    turned[there] /= turned[there].std(axis=1, keepdims=True)
    return turned.astype(np.float32)


def _period(x, sample_rate):
    """The longest of the lengths [T - `LONGEST_CUT`, T - `SEAM`] at which the ECG goes on as it began (correlation)."""
    seam, longest = round(SEAM * sample_rate), round(LONGEST_CUT * sample_rate)
    length = x.shape[1]
    first = length - longest
    beginning, end = x[:, :seam].astype(np.float64), x[:, first:].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(end, seam, axis=1)  # [12, longest - seam + 1, seam]
    products = np.einsum("cws,cs->w", windows, beginning)
    power = np.einsum("cws,cws->w", windows, windows)
    likeness = products / np.sqrt(np.maximum(power, 1e-9))
    return first + int(np.flatnonzero(likeness >= likeness.max() - 0.03 * abs(likeness.max()))[-1])
