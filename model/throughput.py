"""How fast a machine trains, and how much of what it could: tokens a second, share of its measured peak."""

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """Floating-point operations of forward and backward pass: a token, a supervised token, a pair that attends.

    A matrix of N numbers takes 2 N a token forwards, 2 N for the gradient of its input, and 2 N more for its own where
    it trains. Attention takes 4 x width a pair and layer forwards, twice that backwards. What checkpointing computes
    again does not count; a sliding window is left out of account, so there the share is somewhat too high.
    """

    token: float
    target: float
    pair: float


def work_of(model):
    """The `Work` of an LLM, with or without an adapter."""
    llm = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, output = llm.config, llm.get_output_embeddings()
    inside = {id(module) for module in output.modules()}
    token = target = 0
    for module in llm.modules():
        if isinstance(module, torch.nn.Linear):
            # in_features: a 4-bit matrix holds two of its numbers in one
            operations = (6 if module.weight.requires_grad else 4) * module.in_features * module.out_features
            if id(module) in inside:
                target += operations
            else:
                token += operations
    heads = getattr(config, "num_attention_heads", 0)
    width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(1, heads)
    return Work(token, target, 12 * heads * width * getattr(config, "num_hidden_layers", 0))


def batch_work(work, batch, pad):
    """(tokens that are no padding, floating-point operations) of a batch on the CPU."""
    real = batch["input_ids"] != pad
    tokens, targets = int(real.sum()), int((batch["labels"] != -100).sum())
    positions = batch.get("position_ids")
    if positions is None:
        positions = torch.arange(real.shape[1]).expand_as(real)
    pairs = int((positions[real] + 1).sum())  # a token sees those before it in its sequence (and branch), and itself
    return tokens, work.token * tokens + work.target * targets + work.pair * pairs


def measured_peak(device, dtype, seconds=0.3):
    """Floating-point operations a second of a large matrix product here: what the share is a share of."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, until = 0.0, None
    while until is None or time.monotonic() < until:
        begun = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if until is None:  # the first one warms up
            until = time.monotonic() + seconds
        else:
            best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best


class Meter:
    """Tokens and operations since the last look, without the time that went into anything else."""

    def __init__(self, peak):
        self.peak, self.since, self.tokens, self.operations = peak, time.monotonic(), 0.0, 0.0

    def add(self, tokens, operations):
        self.tokens += tokens
        self.operations += operations

    def leave_out(self, seconds):
        """Of the time since the last look, so many seconds were no training."""
        self.since += seconds

    def read(self):
        """(tokens a second, share of the peak of all processes together), and start over."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        speed = self.tokens / seconds, self.operations / seconds / self.peak
        self.since, self.tokens, self.operations = time.monotonic(), 0.0, 0.0
        return speed
