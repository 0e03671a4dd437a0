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
    depth : int
        Codes a position. Each after the first writes down what the one before rounded away, over the same levels, so
        every stage works at its own scale (arXiv 2508.15860 on why it must), and in an alphabet of its own.
    """

    def __init__(self, levels, depth=1):
        super().__init__()
        self.n_codes = depth * math.prod(levels)
        self.dim = len(levels)
        self.depth = depth
        steps = torch.tensor(levels, dtype=torch.float32) - 1
        radix = torch.tensor([math.prod(levels[:d]) for d in range(len(levels))])
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("radix", radix, persistent=False)

    def forward(self, z):
        """Quantise ``z`` float32 [B, F, dim]: (values in 0..1 [B, F, dim], codes int64 [B, F * depth], loss 0)."""
        position = rest = torch.sigmoid(z) * self.steps
        levels = []
        for _ in range(self.depth):
            levels.append(torch.round(rest))
            rest = (rest - levels[-1] + 0.5) * self.steps  # what is left lies in -0.5..0.5 of a step
        levels = torch.stack(levels, dim=-2)  # [B, F, depth, dim]
        quantised = position + (self._join(levels) - position).detach()
        codes = (levels.long() * self.radix).sum(-1) + self._alphabets()
        return quantised / self.steps, codes.flatten(-2), z.new_zeros(())

    def from_codes(self, codes):
        """The values in 0..1 [B, F, dim] that `forward` gives for these codes [B, F * depth]."""
        codes = codes.unflatten(-1, (-1, self.depth)) - self._alphabets()
        levels = torch.div(codes[..., None], self.radix, rounding_mode="floor") % (self.steps + 1).long()
        return self._join(levels) / self.steps

    def _alphabets(self):
        """The first code of each stage, [depth]."""
        return torch.arange(self.depth, device=self.radix.device) * (self.n_codes // self.depth)

    def _join(self, levels):
        """Positions on the first stage's scale, [B, F, dim], of the stages' levels [B, F, depth, dim]."""
        position, scale = levels[..., 0, :], 1.0
        for stage in range(1, self.depth):
            position = position + (levels[..., stage, :] / self.steps - 0.5) * scale
            scale = scale / self.steps
        return position


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


def make_quantizer(config):
    """The quantiser that a `NetworkConfig` names."""
    return FSQ(config.levels, config.residual_depth) if config.quantizer == "fsq" else VQ(config.codebook_size)


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
