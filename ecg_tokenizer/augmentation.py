"""Training ECGs made different at every pass: few records teach more, and other recorders become less foreign.

What recorders and rooms do: filters (high-pass, low-pass), a lower sampling rate, mains hum, muscle noise, wandering
baselines, lost or swapped leads, pacing spikes, pauses. What hearts do: other rates, other axes. Hum and muscle noise
are given to the network but not asked back: no code can hold them, and a target without them has a steadier gradient.
"""

from dataclasses import dataclass

import torch

RATE = 500  # Hz of the signals
MIXING = 0.05  # standard deviation of the share that each lead takes of each other


@dataclass(frozen=True)
class Chances:
    """Share of the ECGs (of the leads, for ``lost_lead``) that meet each change, and how large it is at most.

    Only what helped on ECGs of other recorders is on by default (EXPERIMENTS.md): filters and noise changed nothing
    there, swapped and lost leads cost more elsewhere than they gave.
    """

    stretch: float = 0.5  # of the time axis, by a factor from 0.7 to 1.4
    high_pass: float = 0.0  # first order, 0.05 to 0.67 Hz
    low_pass: float = 0.0  # 40 to 150 Hz, of order 1 to 6; steep ones are what a low sampling rate leaves
    hum: float = 0.0  # 50 or 60 Hz and the third harmonic, up to 0.3 of a lead's deviation
    muscle: float = 0.0  # white from 20 Hz on, up to 0.3 of a lead's deviation
    wander: float = 0.0  # below 0.5 Hz, up to 1.5 of a lead's deviation
    swapped_leads: float = 0.0
    lost_lead: float = 0.0
    pacing: float = 0.0
    pause: float = 0.0


@dataclass(frozen=True)
class Draw:
    """Random numbers of a whole step's ECGs, of which this process takes those of its own: ``mine`` of ``count``."""

    count: int
    mine: object  # slice or indices
    device: object

    def __call__(self, make, *shape):
        return make(self.count, *shape, device=self.device)[self.mine]

    def integers(self, low, high):
        return torch.randint(low, high, (self.count, 1, 1), device=self.device)[self.mine]

    def met(self, chance):
        """Which ECGs meet a change: bool [B, 1, 1]."""
        return self(torch.rand, 1, 1) < chance

    def uniform(self, low, high, leads=1):
        return low + (high - low) * self(torch.rand, leads, 1)


def augment(x, chances=Chances(), count=None, mine=slice(None)):
    """A batch of ECGs changed, and what the network is to draw of them.

    Parameters
    ----------
    x : float tensor [B, 12, T]
        Standardised ECGs at 500 Hz; random numbers come from torch's own generators.
    chances : Chances
    count, mine : int, slice or indices
        Where ``x`` is a process's part of a step: how many ECGs the step has, and which of them these are. They are
        changed as they would be in one process.

    Returns
    -------
    seen : float tensor [B, 12, T]
        What the encoder is given, each lead standardised.
    target : float tensor [B, 12, T]
        The same on the same scale, without hum and muscle noise.
    """
    draw = Draw(count or len(x), mine, x.device)
    x = _other_time_axis(x, chances, draw)
    x = x + MIXING * draw(torch.randn, x.shape[1], x.shape[1]) @ x
    x = _other_leads(x, chances, draw)
    x = _with_pacing(x, chances, draw)
    x = _with_pause(x, chances, draw)
    target, seen = _filtered(x, chances, draw)
    mean = seen.mean(-1, keepdim=True)
    deviation = seen.std(-1, keepdim=True, correction=0)
    deviation = torch.where(deviation < 1e-4, 1.0, deviation)  # a lost lead stays flat
    return (seen - mean) / deviation, (target - mean) / deviation


def _other_time_axis(x, chances, draw):
    """Begun at another sample (what is cut off goes on at the end), and stretched: linear between two samples."""
    length = x.shape[2]
    start = draw.integers(0, length)
    factor = torch.where(draw.met(chances.stretch), torch.exp(draw.uniform(-0.36, 0.34)), 1.0)
    at = start + factor * torch.arange(length, device=x.device)
    low = at.floor()
    share = (at - low).expand_as(x)
    low = low.long() % length
    first = torch.gather(x, 2, low.expand_as(x))
    second = torch.gather(x, 2, ((low + 1) % length).expand_as(x))
    return first + share * (second - first)


def _other_leads(x, chances, draw):
    """Leads in any order, some of them upside down, or leads lost."""
    order = torch.argsort(draw(torch.rand, x.shape[1]), dim=1)[:, :, None].expand_as(x)
    sign = torch.where(draw(torch.rand, x.shape[1], 1) < 0.3, -1.0, 1.0)
    x = torch.where(draw.met(chances.swapped_leads), sign * torch.gather(x, 1, order), x)
    lost = draw(torch.rand, x.shape[1], 1) < chances.lost_lead
    return torch.where(lost, 0.0, x)


def _with_pacing(x, chances, draw):
    """Spikes of 2 ms at a steady rate, up to five deviations high, of another height in every lead."""
    at = torch.arange(x.shape[2], device=x.device)
    period = draw.uniform(0.5, 1.2) * RATE
    spike = ((at + draw.uniform(0, 500)) % period) < 1
    height = 5 * (2 * draw(torch.rand, x.shape[1], 1) - 1)
    return x + torch.where(draw.met(chances.pacing), spike * height, 0.0)


def _with_pause(x, chances, draw):
    """A stretch of up to three seconds at each lead's median."""
    at = torch.arange(x.shape[2], device=x.device)
    start = draw.uniform(0, x.shape[2])
    silent = (at >= start) & (at < start + draw.uniform(0.5, 3) * RATE) & draw.met(chances.pause)
    return torch.where(silent, x.median(-1, keepdim=True).values, x)


def _filtered(x, chances, draw):
    """Through a recorder's filters, in the frequency domain: (with the wander, with hum and muscle noise too)."""
    length = x.shape[2]
    hertz = torch.fft.rfftfreq(length, 1 / RATE, device=x.device)
    spectrum = torch.fft.rfft(x)
    deviation = x.std(-1, keepdim=True, correction=0) * (length / 2) ** 0.5  # of a spectrum with power 1
    both = torch.randn(2, draw.count, *spectrum.shape[1:], device=x.device)[:, draw.mine]
    white = torch.complex(*both.unbind(0)) * deviation

    slow = 1 / (1 + (hertz / 0.3) ** 4)
    slow = slow / slow.square().mean().sqrt()
    size = torch.where(draw.met(chances.wander), draw.uniform(0, 1.5) * draw.uniform(0, 1, x.shape[1]), 0.0)
    clean = spectrum + size * slow * white * 0.7

    cut = torch.exp(draw.uniform(-3.0, -0.4))  # 0.05 to 0.67 Hz
    passed = 1j * hertz / (1j * hertz + cut)
    filters = torch.where(draw.met(chances.high_pass), passed, torch.ones_like(passed))
    cut, order = draw.uniform(40, 150), draw.integers(1, 7)
    passed = (1 + (hertz / cut) ** (2 * order)).rsqrt()
    filters = filters * torch.where(draw.met(chances.low_pass), passed, torch.ones_like(passed))

    fast = (hertz > 20).float()
    fast = fast / fast.square().mean().sqrt()
    size = torch.where(draw.met(chances.muscle), draw.uniform(0, 0.3) * draw.uniform(0, 1, x.shape[1]), 0.0)
    noise = size * fast * white * 0.7
    clean = clean * filters
    seen = torch.fft.irfft(clean + noise * filters, n=length) + _hum(x, chances, draw)
    return torch.fft.irfft(clean, n=length), seen


def _hum(x, chances, draw):
    mains = torch.where(draw.met(0.5), 50.0, 60.0)
    phase = 2 * torch.pi * (mains / RATE * torch.arange(x.shape[2], device=x.device) + draw.uniform(0, 1))
    size = draw.uniform(0, 0.3) * draw.uniform(0, 1, x.shape[1]) * x.std(-1, keepdim=True, correction=0)
    wave = torch.sin(phase) + 0.3 * torch.sin(3 * phase + 1)
    return torch.where(draw.met(chances.hum), size * wave, 0.0)
