"""Which items a stage works on, and in which order, whatever the number of processes."""

import random
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


def item_rng(seed, epoch, index):
    """The random numbers of one item in one epoch, the same on every process and after every resume."""
    return random.Random(f"{seed} {epoch} {index}")
