"""One step of stages 2 and 3: which items it takes, its batches made ahead in a thread, its loss and gradients.

What a step takes depends on the seed and the step alone, by items (BATCH_SIZE) or by tokens (TOKENS_PER_STEP).
"""

from bisect import bisect_right
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from data_provider.data_factory import even_parts
from model.heartllm import loss_sum, to_device
from model.packing import supervised_tokens
from model.throughput import batch_work
from model.training_data import item_lengths, step_batches
from utils.tools import UserError

AHEAD = 2  # steps whose batches are made before they are needed


class Schedule:
    """Which items each step takes, and which of them this process.

    Parameters
    ----------
    mixture : data_provider.data_factory.Mixture
    options : model.training.TrainingOptions
    rank, world : int
    lengths : int array, [len(mixture.items)]
        Tokens of each item; needed where ``options.tokens_per_step`` is set.
    """

    def __init__(self, mixture, options, rank, world, lengths=None):
        self.mixture, self.options, self.rank, self.world, self.lengths = mixture, options, rank, world, lengths
        self._epoch, self._steps = None, None
        self._ends = []  # number of the step that each epoch ends before
        for epoch in range(options.train_epochs):
            if options.max_steps and self._ends and self._ends[-1] >= options.max_steps:
                break
            known = len(self._ends) and not options.tokens_per_step  # all epochs are as long by items
            count = self._ends[0] if known else len(self._steps_of(epoch))
            self._ends.append((self._ends[-1] if self._ends else 0) + count)
        self.last_step = min(options.max_steps or self._ends[-1], self._ends[-1])

    def _steps_of(self, epoch):
        if self._epoch != epoch:
            options, items = self.options, self.mixture
            if options.tokens_per_step:
                steps = items.token_steps(self.lengths, options.tokens_per_step, options.seed, epoch)
            else:
                steps = items.steps(options.batch_size * options.accumulation * self.world, options.seed, epoch)
            self._epoch, self._steps = epoch, steps
        return self._steps

    def epoch(self, step):
        """The epoch of a step; both count from 0."""
        return bisect_right(self._ends, step)

    def ends_epoch(self, step):
        """Whether an epoch ends before this step."""
        return step in self._ends

    def chosen(self, step):
        """Indices of the items that a step takes, over all processes."""
        epoch = self.epoch(step)
        return self._steps_of(epoch)[step - (self._ends[epoch - 1] if epoch else 0)]

    def shares(self, chosen):
        """This process's part of them, in as many batches as are accumulated."""
        size, count = self.options.batch_size, self.options.accumulation
        if not self.options.tokens_per_step:
            mine = chosen[self.rank :: self.world]
            return [mine[number * size : (number + 1) * size] for number in range(count)]
        parts = even_parts(self.lengths[chosen], self.world * count)
        return [chosen[parts[self.rank + self.world * number]] for number in range(count)]


def make_schedule(data, mixture, options, process):
    """The `Schedule` of a run; by tokens, the items' lengths are counted first, by all processes together."""
    lengths = None
    if options.tokens_per_step:
        lengths = torch.from_numpy(item_lengths(data, mixture.items, process.rank, process.world)).to(process.device)
        dist.all_reduce(lengths)
        lengths = lengths.cpu().numpy()
        if lengths.max() > options.tokens_per_step:
            raise UserError(
                f"TOKENS_PER_STEP={options.tokens_per_step}: one item alone takes {lengths.max()}; a step holds many"
            )
    return Schedule(mixture, options, process.rank, process.world, lengths)


@dataclass(frozen=True)
class StepBatches:
    """This process's batches of a step; ``counts``: supervised tokens, tokens, floating-point operations in them."""

    batches: list
    counts: np.ndarray
    n_items: int


def make_step(data, schedule, work, step):
    """The `StepBatches` of a step."""
    chosen, seed = schedule.chosen(step), schedule.options.seed
    shares = schedule.shares(chosen)
    batches = step_batches(data, schedule.mixture.items, shares, chosen, seed, schedule.epoch(step))
    counts = [(supervised_tokens(b), *batch_work(work, b, data.vocabulary.pad)) for b in batches]
    return StepBatches(batches, np.sum(counts, axis=0, dtype=np.float64), len(chosen))


def ahead(make, steps):
    """``make(step)`` of each step in turn; the next ones are made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def on_device(batch, device):
    """The tensors that the LLM reads on the device; the labels stay (`model.heartllm.loss_sum`)."""
    return {name: tensor if name == "labels" else to_device(tensor, device) for name, tensor in batch.items()}


def take_step(engine, made, rate, seed, step, process):
    """One optimizer step.

    Parameters
    ----------
    made : StepBatches
    rate : float
        Learning rate.
    step : int
        Counts from 0.

    Returns
    -------
    total : tensor
        This process's sum of losses, on its device: nobody has waited for it.
    counts : float64 array
        As `StepBatches.counts`, over all processes.
    """
    counts = torch.from_numpy(made.counts.copy())
    dist.all_reduce(counts, group=process.control)
    # Dropout's randomness belongs to the step and the process, so that a run that goes on repeats it.
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + process.rank)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), dtype=torch.float64, device=process.device)
    for batch in made.batches:
        loss = loss_sum(engine, on_device(batch, process.device))
        total += loss.detach()
        # DeepSpeed averages over processes and accumulated batches; the mean over supervised tokens is wanted.
        engine.backward(loss * (process.world * len(made.batches) / counts[0].item()))
        engine.step()
    return total, counts.numpy()


class Losses:
    """The losses of a run's steps, kept on the device until somebody asks: a GPU need not wait at every step."""

    def __init__(self, device):
        self._latest = torch.zeros((), dtype=torch.float64, device=device)
        self._first_bad = torch.full((), torch.inf, dtype=torch.float64, device=device)

    def add(self, total, supervised, step):
        """This process's sum of losses at a step, and the supervised tokens of all processes."""
        self._latest = total / supervised
        bad = torch.where(torch.isfinite(total), torch.inf, float(step))
        self._first_bad = torch.minimum(self._first_bad, bad.double())

    def read(self):
        """(mean loss of the last step, first step whose loss was not finite or None); all processes call it."""
        latest, bad = self._latest.clone(), self._first_bad.clone()
        dist.all_reduce(latest)
        dist.all_reduce(bad, dist.ReduceOp.MIN)
        bad = bad.item()
        return latest.item(), None if bad == torch.inf else int(bad)
