"""From a vector a position to one whole number, and back: finite scalar quantisation, or a learned codebook.

FSQ: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv 2309.15505. Each dimension is squashed and
rounded to a few levels; the code is the levels written as one number, first dimension least significant. There is no
codebook to collapse. VQ: van den Oord et al., arXiv 1711.00937, with the codebook as a moving average, started by
k-means, and codes that die moved to where the data are (the library vector-quantize-pytorch).
"""

import math

import torch
from torch import nn


class FSQ(nn.Module):
    """Finite scalar quantisation with a straight-through gradient.

    Parameters
    ----------
    levels : sequence of int
        Levels of each dimension; with (6, 6, 6, 6) a code is v0 + 6 v1 + 36 v2 + 216 v3.
    """

    def __init__(self, levels):
        super().__init__()
        self.n_codes = math.prod(levels)
        self.dim = len(levels)
        steps = torch.tensor(levels, dtype=torch.float32) - 1
        radix = torch.tensor([math.prod(levels[:d]) for d in range(len(levels))])
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("radix", radix, persistent=False)

    def forward(self, z):
        """Quantise ``z`` float32 [..., dim]: (values in 0..1 [..., dim], codes int64 [...], loss 0)."""
        position = torch.sigmoid(z) * self.steps
        level = torch.round(position)
        quantised = position + (level - position).detach()
        codes = (level.long() * self.radix).sum(-1)
        return quantised / self.steps, codes, z.new_zeros(())

    def from_codes(self, codes):
        """The values in 0..1 that `forward` gives for these codes."""
        levels = torch.div(codes[..., None], self.radix, rounding_mode="floor") % (self.steps + 1).long()
        return levels / self.steps


class VQ(nn.Module):
    """A learned codebook of ``n_codes`` vectors in ``dim`` dimensions (few, so that all codes stay in use)."""

    def __init__(self, n_codes, dim=8):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.n_codes = n_codes
        self.dim = dim
        self.book = VectorQuantize(
            dim,
            n_codes,
            decay=0.99,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            commitment_weight=0.25,
            rotation_trick=False,
        )

    def forward(self, z):
        """Quantise ``z`` float32 [B, F, dim]: (vectors [B, F, dim], codes int64 [B, F], commitment loss)."""
        quantised, codes, loss = self.book(z)
        return quantised, codes, loss.sum()

    def from_codes(self, codes):
        """The vectors of these codes."""
        return self.book.get_output_from_indices(codes)


def make_quantizer(kind, levels, codebook_size):
    """The quantiser that the settings name."""
    return FSQ(levels) if kind == "fsq" else VQ(codebook_size)


def code_use(counts):
    """How many codes of the codebook are used, and the perplexity of their distribution.

    Parameters
    ----------
    counts : int tensor [n_codes]

    Returns
    -------
    usage : float
        Share of all codes that occur.
    perplexity : float
        2 to the entropy in bits; n_codes when all are equally frequent.
    """
    p = counts.double() / counts.sum().clamp(min=1)
    entropy = -(p * p.clamp(min=1e-12).log()).sum()
    return (counts > 0).double().mean().item(), entropy.exp().item()
