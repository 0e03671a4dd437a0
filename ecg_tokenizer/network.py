"""The tokenizer's default network: cheap ends, all the thought at the code rate.

The signal is cut into one patch a code (16 samples x 12 leads for 313 codes); each position sees its patch and half of
each neighbour's, all leads at once. A transformer over the positions (rotary positions, so that any length works)
decides what the code should say, the quantiser writes it down, a mirrored transformer reads it, and overlapping patches
are added up to the signal again. Nothing runs at the sampling rate, which is what makes it fast on a CPU.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ecg_tokenizer.quantizers import make_quantizer

LEADS, SAMPLES = 12, 5000


@dataclass(frozen=True)
class NetworkConfig:
    """What a tokenizer's network is made of; saved with its weights."""

    architecture: str = "default"
    quantizer: str = "fsq"
    levels: tuple = (6, 6, 6, 6)
    codebook_size: int = 1296
    codes_per_ecg: int = 313
    width: int = 128
    heads: int = 4
    encoder_depth: int = 4
    decoder_depth: int = 4


def build_network(config):
    """The network of a `NetworkConfig`, with fresh weights.

    All have ``encode(x [B, 12, 5000]) -> z [B, F, dim]``, ``quantizer(z) -> values, codes, loss``, and
    ``decode(values) -> [B, 12, 5000]``.
    """
    if config.architecture == "published":
        from ecg_tokenizer.published import PublishedNetwork

        return PublishedNetwork()
    return DefaultNetwork(config)


class DefaultNetwork(nn.Module):
    """Patch stem, transformer, quantiser, transformer, patch head."""

    def __init__(self, config):
        super().__init__()
        self.positions = config.codes_per_ecg
        self.patch = math.ceil(SAMPLES / self.positions)
        self.quantizer = make_quantizer(config.quantizer, config.levels, config.codebook_size)
        width, wide_patch = config.width, LEADS * 2 * self.patch
        self.stem = nn.Linear(wide_patch, width)
        self.encoder = Transformer(width, config.heads, config.encoder_depth)
        self.to_code = nn.Linear(width, self.quantizer.dim)
        self.from_code = nn.Linear(self.quantizer.dim, width)
        self.decoder = Transformer(width, config.heads, config.decoder_depth)
        self.head = nn.Linear(width, wide_patch)

    def encode(self, x):
        """Signals [B, 12, 5000] -> what the quantiser rounds, [B, F, dim]."""
        left = self.patch // 2
        right = (self.positions + 1) * self.patch - SAMPLES - left
        windows = F.pad(x, (left, right)).unfold(-1, 2 * self.patch, self.patch)  # [B, 12, F, 2 patch]
        h = self.stem(windows.transpose(1, 2).flatten(2))
        return self.to_code(self.encoder(h))

    def decode(self, values):
        """Values [B, F, dim] -> signals [B, 12, 5000]; each writes its patch and half of its neighbours'."""
        h = self.head(self.decoder(self.from_code(values)))
        h = h.unflatten(-1, (LEADS, 2, self.patch)).permute(3, 0, 2, 1, 4)  # [2, B, 12, F, patch]
        first, second = h.flatten(3)
        whole = F.pad(first, (0, self.patch)) + F.pad(second, (self.patch, 0))
        left = self.patch // 2
        return whole[..., left : left + SAMPLES]


class Transformer(nn.Module):
    """Pre-norm transformer blocks with rotary positions (Su et al., arXiv 2104.09864), attention in both directions."""

    def __init__(self, width, heads, depth):
        super().__init__()
        self.head_width = width // heads
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, h):
        turns = rotations(h.shape[1], self.head_width, h.device)
        for block in self.blocks:
            h = block(h, turns)
        return self.norm(h)


class Block(nn.Module):
    """Attention, then an MLP of four times the width."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h, turns):
        qkv = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = rotate(qkv[0], turns), rotate(qkv[1], turns), qkv[2]
        mixed = F.scaled_dot_product_attention(q, k, v)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm2(h))))


def rotations(length, width, device):
    """Cosines and sines of the rotary angles, [2, length, width / 2]."""
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x, turns):
    """Rotate the two halves of the last dimension against each other, by an angle that grows with the position."""
    a, b = x.chunk(2, -1)
    cos, sin = turns.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
