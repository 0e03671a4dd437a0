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


def augment(x, chances=Chances()):
    """A batch of ECGs changed, and what the network is to draw of them.

    Parameters
    ----------
    x : float tensor [B, 12, T]
        Standardised ECGs at 500 Hz; random numbers come from torch's own generators.
    chances : Chances

    Returns
    -------
    seen : float tensor [B, 12, T]
        What the encoder is given, each lead standardised.
    target : float tensor [B, 12, T]
        The same on the same scale, without hum and muscle noise.
    """
    x = _other_time_axis(x, chances)
    x = x + MIXING * torch.randn(len(x), x.shape[1], x.shape[1], device=x.device) @ x
    x = _other_leads(x, chances)
    x = _with_pacing(x, chances)
    x = _with_pause(x, chances)
    target, seen = _filtered(x, chances)
    mean = seen.mean(-1, keepdim=True)
    deviation = seen.std(-1, keepdim=True, correction=0)
    deviation = torch.where(deviation < 1e-4, 1.0, deviation)  # a lost lead stays flat
    return (seen - mean) / deviation, (target - mean) / deviation


def _met(chance, x):
    """Which ECGs of the batch meet a change: bool [B, 1, 1]."""
    return torch.rand(len(x), 1, 1, device=x.device) < chance


def _uniform(low, high, x, leads=False):
    shape = (len(x), x.shape[1] if leads else 1, 1)
    return low + (high - low) * torch.rand(shape, device=x.device)


def _other_time_axis(x, chances):
    """Begun at another sample (what is cut off goes on at the end), and stretched: linear between two samples."""
    length = x.shape[2]
    start = torch.randint(length, (len(x), 1, 1), device=x.device)
    factor = torch.where(_met(chances.stretch, x), torch.exp(_uniform(-0.36, 0.34, x)), 1.0)
    at = start + factor * torch.arange(length, device=x.device)
    low = at.floor()
    share = (at - low).expand_as(x)
    low = low.long() % length
    first = torch.gather(x, 2, low.expand_as(x))
    second = torch.gather(x, 2, ((low + 1) % length).expand_as(x))
    return first + share * (second - first)


def _other_leads(x, chances):
    """Leads in any order, some of them upside down, or leads lost."""
    order = torch.argsort(torch.rand(len(x), x.shape[1], device=x.device), dim=1)[:, :, None].expand_as(x)
    sign = torch.where(torch.rand(len(x), x.shape[1], 1, device=x.device) < 0.3, -1.0, 1.0)
    x = torch.where(_met(chances.swapped_leads, x), sign * torch.gather(x, 1, order), x)
    lost = torch.rand(len(x), x.shape[1], 1, device=x.device) < chances.lost_lead
    return torch.where(lost, 0.0, x)


def _with_pacing(x, chances):
    """Spikes of 2 ms at a steady rate, up to five deviations high, of another height in every lead."""
    at = torch.arange(x.shape[2], device=x.device)
    period = _uniform(0.5, 1.2, x) * RATE
    spike = ((at + _uniform(0, 500, x)) % period) < 1
    height = 5 * (2 * torch.rand(len(x), x.shape[1], 1, device=x.device) - 1)
    return x + torch.where(_met(chances.pacing, x), spike * height, 0.0)


def _with_pause(x, chances):
    """A stretch of up to three seconds at each lead's median."""
    at = torch.arange(x.shape[2], device=x.device)
    start = _uniform(0, x.shape[2], x)
    silent = (at >= start) & (at < start + _uniform(0.5, 3, x) * RATE) & _met(chances.pause, x)
    return torch.where(silent, x.median(-1, keepdim=True).values, x)


def _filtered(x, chances):
    """Through a recorder's filters, in the frequency domain: (with the wander, with hum and muscle noise too)."""
    length = x.shape[2]
    hertz = torch.fft.rfftfreq(length, 1 / RATE, device=x.device)
    spectrum = torch.fft.rfft(x)
    deviation = x.std(-1, keepdim=True, correction=0) * (length / 2) ** 0.5  # of a spectrum with power 1
    white = torch.complex(*torch.randn(2, *spectrum.shape, device=x.device).unbind(0)) * deviation

    slow = 1 / (1 + (hertz / 0.3) ** 4)
    slow = slow / slow.square().mean().sqrt()
    size = torch.where(_met(chances.wander, x), _uniform(0, 1.5, x) * _uniform(0, 1, x, leads=True), 0.0)
    clean = spectrum + size * slow * white * 0.7

    cut = torch.exp(_uniform(-3.0, -0.4, x))  # 0.05 to 0.67 Hz
    passed = 1j * hertz / (1j * hertz + cut)
    filters = torch.where(_met(chances.high_pass, x), passed, torch.ones_like(passed))
    cut, order = _uniform(40, 150, x), torch.randint(1, 7, (len(x), 1, 1), device=x.device)
    passed = (1 + (hertz / cut) ** (2 * order)).rsqrt()
    filters = filters * torch.where(_met(chances.low_pass, x), passed, torch.ones_like(passed))

    fast = (hertz > 20).float()
    fast = fast / fast.square().mean().sqrt()
    size = torch.where(_met(chances.muscle, x), _uniform(0, 0.3, x) * _uniform(0, 1, x, leads=True), 0.0)
    noise = size * fast * white * 0.7
    clean = clean * filters
    seen = torch.fft.irfft(clean + noise * filters, n=length) + _hum(x, chances)
    return torch.fft.irfft(clean, n=length), seen


def _hum(x, chances):
    mains = torch.where(_met(0.5, x), 50.0, 60.0)
    phase = 2 * torch.pi * (mains / RATE * torch.arange(x.shape[2], device=x.device) + _uniform(0, 1, x))
    size = _uniform(0, 0.3, x) * _uniform(0, 1, x, leads=True) * x.std(-1, keepdim=True, correction=0)
    wave = torch.sin(phase) + 0.3 * torch.sin(3 * phase + 1)
    return torch.where(_met(chances.hum, x), size * wave, 0.0)
