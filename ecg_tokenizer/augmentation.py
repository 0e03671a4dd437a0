"""Training ECGs made a little different at every pass, so that few records teach more."""

import torch

MIXING = 0.05  # standard deviation of the share that each lead takes of each other


def augment(x):
    """ECGs begun at another sample, their leads slightly mixed.

    The start is drawn anew (what is cut off is put at the end), since where a recording begins is chance. Mixing the
    leads is what other electrode positions and another axis of the heart do, to first order; each lead is standardised
    again after it.

    Parameters
    ----------
    x : float tensor [B, 12, T]
        Standardised ECGs; random numbers come from torch's own generators.
    """
    start = torch.randint(x.shape[2], (len(x), 1, 1), device=x.device)
    at = (torch.arange(x.shape[2], device=x.device) + start) % x.shape[2]
    x = torch.gather(x, 2, at.expand_as(x))
    x = x + MIXING * torch.randn(len(x), x.shape[1], x.shape[1], device=x.device) @ x
    x = x - x.mean(-1, keepdim=True)
    return x / x.std(-1, keepdim=True, correction=0).clamp(min=1e-4)
