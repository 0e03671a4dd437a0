"""The tokenizer's default network: patches in and out, and most of its layers at the rate of the codes.

The signal is cut into one patch a code (16 samples x 12 leads for 313 codes); each position sees its patch and half of
each neighbour's, all leads at once. Convolutional blocks along the positions decide what the code should say, with
attention between them, since a beat is mostly a repetition of the others; the quantiser writes it down, the same kind
of blocks read it, and overlapping patches are added up to the signal again. Nothing runs at the sampling rate, which
is what makes it fast on a CPU. Why this and not something else: EXPERIMENTS.md.
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
    """What a tokenizer is made of; saved with its weights.

    ``codes_per_ecg`` counts positions; ``amplitude``: the leads' amplitudes have codes too (`ecg_tokenizer.amplitude`).
    ``codes_of``: fingerprint of the tokenizer that gives the same codes, from which only the decoder was trained on;
    ``coder``: hash of the weights that decide them (`ecg_tokenizer.weights`).
    """

    architecture: str = "default"
    quantizer: str = "fsq"
    levels: tuple = (6, 6, 6, 6)
    codebook_size: int = 1296
    codes_per_ecg: int = 313
    residual_depth: int = 1
    width: int = 128
    encoder_depth: int = 4
    decoder_depth: int = 4
    kernel: int = 9
    heads: int = 2
    amplitude: bool = False
    codes_of: str = ""
    coder: str = ""


def build_network(config):
    """The network of a `NetworkConfig`, with fresh weights.

    All have ``encode(x [B, 12, 5000]) -> z [B, F, dim]``, ``quantizer(z) -> values, codes, loss``,
    ``decode(values) -> [B, 12, 5000]``, and ``hidden_matrices()``, the parameters that Muon trains.
    """
    if config.architecture == "published":
        from ecg_tokenizer.published import PublishedNetwork

        return PublishedNetwork()
    return DefaultNetwork(config)


class DefaultNetwork(nn.Module):
    """Patch stem, blocks, quantiser, blocks, patch head."""

    def __init__(self, config):
        super().__init__()
        self.positions = config.codes_per_ecg
        self.patch = math.ceil(SAMPLES / self.positions)
        self.quantizer = make_quantizer(config)
        width, wide_patch = config.width, LEADS * 2 * self.patch
        self.stem = nn.Linear(wide_patch, width)
        self.encoder = blocks(config, config.encoder_depth)
        self.to_code = nn.Linear(width, self.quantizer.dim)
        self.from_code = nn.Linear(self.quantizer.dim, width)
        self.decoder = blocks(config, config.decoder_depth)
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

    def hidden_matrices(self):
        """The matrices between the ends."""
        return [p for part in (self.encoder, self.decoder) for p in part.parameters() if p.ndim == 2]

    def load_shallower(self, state):
        """Load weights whose stacks may have fewer blocks; the blocks behind those change nothing at first."""
        for name in ("encoder", "decoder"):
            state = _deepened(state, name, getattr(self, name))
        self.load_state_dict(state)


def _deepened(state, name, stack):
    ends = [int(key.split(".")[1]) for key in state if key.startswith(f"{name}.")]
    last, here = max(ends), len(stack) - 1  # the norm at the stack's end
    state = {key.replace(f"{name}.{last}.", f"{name}.{here}."): tensor for key, tensor in state.items()}
    for number, part in enumerate(stack[last:here], last):
        for layer in [part.out] if isinstance(part, Attention) else [part.mix, part.down]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        state |= {f"{name}.{number}.{key}": tensor for key, tensor in part.state_dict().items()}
    return state


def blocks(config, depth):
    """A stack of blocks with attention before every second one and a norm at its end, [B, F, width] -> the same."""
    stack = []
    for number in range(depth):
        if number % 2:
            stack.append(Attention(config.width, config.heads, config.codes_per_ecg))
        stack.append(Block(config.width, config.kernel))
    return nn.Sequential(*stack, nn.LayerNorm(config.width))


class Block(nn.Module):
    """Mix along the positions (a convolution in each channel), then along the channels (an MLP), each added."""

    def __init__(self, width, kernel):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h):
        h = h + self.mix(self.norm1(h).transpose(1, 2)).transpose(1, 2)
        return h + self.down(F.gelu(self.up(self.norm2(h))))


class Attention(nn.Module):
    """Look at all positions of the ECG (rotary positions: Su et al., arXiv 2104.09864), and add what was found."""

    def __init__(self, width, heads, positions):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        size = width // heads
        angles = torch.arange(positions)[:, None] * 10_000 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, h):
        q, k, v = self.to_qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (self._turn(x).to(v.dtype) for x in (q, k))  # [B, heads, F, size]
        # Written out: on a CPU the fused kernel takes twice as long in bf16, and 313 x 313 weights fit anywhere.
        weights = torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), dim=-1)
        return h + self.out((weights @ v).transpose(1, 2).flatten(2))

    def _turn(self, x):
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, first * self.sin + second * self.cos], dim=-1)
