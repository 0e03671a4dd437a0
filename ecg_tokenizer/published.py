"""The published tokenizer's network (HeartLLM, arXiv 2508.15338), with its parameter names, so that its weights load.

The encoder sees one lead at a time, with the same weights; one linear layer combines the leads before the quantiser.
The decoder works on 384 channels at up to the full sampling rate, which is why it is slow.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ecg_tokenizer.quantizers import FSQ

LEADS, SAMPLES, CHANNELS = 12, 5000, 32
CONFIG = {"architecture": "published", "quantizer": "fsq", "levels": (6, 6, 6, 6), "codes_per_ecg": 313}


class PublishedNetwork(nn.Module):
    """5000 samples -> 313 positions x 4 dimensions x 6 levels -> 5008 samples, of which the first 5000 count."""

    def __init__(self):
        super().__init__()
        self.quantizer = FSQ(CONFIG["levels"])
        self.enc = Encoder()
        self.dec = Decoder()

    def encode(self, x):
        """Signals [B, 12, 5000] -> what the quantiser rounds, [B, 313, 4]."""
        return self.enc(x)

    def hidden_matrices(self):
        """No matrices for Muon: AdamW trains everything, as published."""
        return ()

    def decode(self, values):
        """Quantised values [B, 313, 4] -> signals [B, 12, 5000]."""
        return self.dec(values)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                Block(1 if stage == 0 else CHANNELS, CHANNELS),
                nn.Conv1d(CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False),
            )
            for stage in range(4)
        )
        self.bottleneck = Block(CHANNELS, CHANNELS)
        self.to_code = nn.Linear(LEADS * CHANNELS, 4)

    def forward(self, x):
        h = x.reshape(-1, 1, x.shape[-1])  # one lead at a time
        for block in self.blocks:
            h = block(h)
        h = self.bottleneck(h)
        return self.to_code(h.reshape(len(x), LEADS * CHANNELS, -1).transpose(1, 2))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        width = LEADS * CHANNELS
        self.expand = nn.Linear(4, width)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(width, width, 3, stride=2, padding=1, output_padding=1) for _ in range(4)
        )
        self.dec = nn.ModuleList(Block(width, width) for _ in range(4))
        self.final = nn.Conv1d(width, LEADS, 1)

    def forward(self, values):
        h = self.expand(values).transpose(1, 2)
        for up, block in zip(self.up, self.dec, strict=True):
            h = block(up(h))
        return self.final(h)[..., :SAMPLES]


class Block(nn.Module):
    """Four parallel branches, the input added, GroupNorm, LeakyReLU."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.inc = Branches(inputs, outputs // 4)
        self.match = nn.Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else None
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x):
        h = self.inc(x) + (x if self.match is None else self.match(x))
        return F.leaky_relu(self.norm(h), 0.01)


class Branches(nn.Module):
    """Convolutions of kernel 3, 5 and 7, and a max-pool with a kernel-1 convolution, side by side."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.b1 = nn.Conv1d(inputs, outputs, 3, padding=1, bias=False)
        self.b2 = nn.Conv1d(inputs, outputs, 5, padding=2, bias=False)
        self.b3 = nn.Conv1d(inputs, outputs, 7, padding=3, bias=False)
        self.b4 = nn.Conv1d(inputs, outputs, 1, bias=False)

    def forward(self, x):
        pooled = F.max_pool1d(x, 3, stride=1, padding=1)
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(pooled)], dim=1)
