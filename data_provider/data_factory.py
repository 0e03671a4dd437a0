"""Which items a stage works on, and in which order, whatever the number of processes."""

import heapq
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.tools import UserError


def manifest_path(folder, dataset, task, split):
    """Path of a manifest below ROOT_PATH_JSON or ROOT_REPORT_JSON.

    The folder holds the manifests itself, or holds one folder a data set.
    """
    name = f"template_{split}_background.json" if task == "qa" else f"{split}.json"
    candidates = [Path(folder) / name, Path(folder) / dataset / name]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"no manifest {candidates[0]} (nor {candidates[1]}); `python -m data_provider.prepare` makes them")


def sample(items, limit, seed):
    """``limit`` items drawn without replacement, in their order; all where limit is 0 or not reached."""
    if not limit or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(f"sample {seed}").sample(range(len(items)), limit))
    return [items[index] for index in chosen]


def epoch_steps(n_items, items_per_step, seed, epoch):
    """The item numbers of each step of an epoch: a permutation that only the seed and the epoch decide.

    Returns
    -------
    list of int arrays
        The last one may be shorter.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n_items)
    return [order[start : start + items_per_step] for start in range(0, n_items, items_per_step)]


@dataclass(frozen=True)
class Mixture:
    """The training items of all parts, and which of them an epoch takes, whatever the number of processes.

    A part that an epoch takes two and a half times lies in ``items`` three times, one behind the other: each time that
    an item is taken has an index, and with it random numbers (`item_rng`), of its own.

    Attributes
    ----------
    items : list
    parts : list of (int, float)
        Items of a part, and how many passes an epoch makes over them.
    """

    items: list
    parts: list

    @classmethod
    def of(cls, parts):
        """From (items, passes) of each part."""
        items = [item for of_part, passes in parts for _ in range(math.ceil(passes)) for item in of_part]
        return cls(items, [(len(of_part), passes) for of_part, passes in parts])

    def __len__(self):
        return sum(_taken(count, passes) for count, passes in self.parts)

    def taken(self, seed, epoch):
        """Indices of the items that an epoch takes, sorted, int [len(self)].

        What whole passes leave over is taken from one permutation after the other, so that over the epochs no item is
        taken a second time before all have been.
        """
        start, taken = 0, []
        for number, (count, passes) in enumerate(self.parts):
            whole = math.floor(passes)
            taken.append(np.arange(start, start + whole * count))
            rest = _taken(count, passes) - whole * count
            if rest:
                turns = range(epoch * rest, (epoch + 1) * rest)
                orders = {
                    turn: np.random.default_rng([seed, number, turn, 1]).permutation(count)
                    for turn in range(turns[0] // count, turns[-1] // count + 1)
                }
                chosen = [orders[turn // count][turn % count] for turn in turns]
                taken.append(start + whole * count + np.sort(chosen))
            start += math.ceil(passes) * count
        return np.concatenate(taken)

    def steps(self, items_per_step, seed, epoch):
        """The indices of each step of an epoch, as `epoch_steps`."""
        taken = self.taken(seed, epoch)
        return [taken[step] for step in epoch_steps(len(taken), items_per_step, seed, epoch)]

    def token_steps(self, lengths, tokens, seed, epoch):
        """The indices of each step of an epoch, in the same order, as many a step as have ``tokens`` in all.

        Parameters
        ----------
        lengths : int array, [len(self.items)]
            Tokens of each item. One longer than ``tokens`` is a step of its own.
        """
        order = np.concatenate(self.steps(len(self), seed, epoch))
        until = np.cumsum(np.asarray(lengths, dtype=np.int64)[order])
        steps, start = [], 0
        while start < len(order):
            before = until[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(until, before + tokens, side="right")))
            steps.append(order[start:end])
            start = end
        return steps


def even_parts(lengths, parts):
    """Numbers of the lengths in ``parts`` lists of nearly equal sums: the longest first, each to the shortest list."""
    sums, lists = [(0, part) for part in range(parts)], [[] for _ in range(parts)]
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        total, part = heapq.heappop(sums)
        lists[part].append(number)
        heapq.heappush(sums, (total + int(lengths[number]), part))
    return lists


def _taken(count, passes):
    return max(1, round(count * passes))


def item_rng(seed, epoch, index):
    """The random numbers of one item in one epoch, the same on every process and after every resume."""
    return random.Random(f"{seed} {epoch} {index}")
