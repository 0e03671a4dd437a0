"""Packing: sequences of different lengths in rows of equal length, several in a row where they fit.

Positions restart with every sequence, from which transformers sees where one ends: no sequence attends to another.
Sequences that begin with the same tokens (questions on one ECG, where the prompt has the ECG first) become one with
branches: the beginning is computed once, and each branch attends to it and to itself. Either way the losses are those
of the separate sequences (`tests/model/test_language_side.py`). Padding stands on the left, as a sequence of its own,
so that the supervised ends of the rows line up.
"""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Example:
    """One sequence for the LLM: ``labels`` equal ``input_ids`` where they are supervised, else -100.

    ``shared`` is the number of tokens at its beginning that other examples of the batch may share.
    """

    input_ids: list[int]
    labels: list[int]
    shared: int = 0


@dataclass
class _Sequence:
    """An example, or several with a common beginning; ``branches`` is 0 there and counts from 1 behind it."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)

    def add(self, example, start, branch):
        self.input_ids += example.input_ids[start:]
        self.labels += example.labels[start:]
        self.positions += range(start, len(example.input_ids))
        self.branches += [branch] * (len(example.input_ids) - start)


def _join_shared(examples):
    """`_Sequence`s of the examples, those with the same shared beginning joined."""
    sequences, joined = [], {}
    for example in examples:
        beginning = tuple(example.input_ids[: example.shared])
        if not beginning:
            sequences.append(_Sequence())
            sequences[-1].add(example, 0, 0)
            continue
        if beginning not in joined:
            joined[beginning] = _Sequence()
            joined[beginning].add(Example(list(beginning), example.labels[: example.shared]), 0, 0)
            sequences.append(joined[beginning])
        sequence = joined[beginning]
        sequence.add(example, example.shared, sequence.branches[-1] + 1)
    return sequences


def pack(lengths, row_length):
    """First fit, longest first: lists of indices into ``lengths``, one list a row."""
    rows, space = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(space) if lengths[index] <= free), None)
        if row is None:
            row = len(rows)
            rows.append([])
            space.append(row_length)
        rows[row].append(index)
        space[row] -= lengths[index]
    return rows


def collate(examples, pad, packed=True):
    """A batch of `Example`s as tensors, in rows as long as the longest sequence.

    Parameters
    ----------
    packed : bool
        Where False, each example has a row of its own, padded on the right: attention backwards never sees padding
        there, so any causal LM computes it exactly, whatever it makes of positions (`model.architecture`).

    Returns
    -------
    dict of tensors
        ``input_ids``, ``position_ids``, ``labels`` : int64 [rows, length]; with shared beginnings also ``allowed`` :
        bool [rows, 1, length, length], which token may attend to which. Not packed: no ``position_ids``.
    """
    if not packed:
        return _rows(examples, pad)
    sequences = _join_shared(examples)
    lengths = [len(sequence.input_ids) for sequence in sequences]
    row_length = max(lengths)
    columns = {"input_ids": [], "position_ids": [], "labels": [], "branches": [], "owners": []}
    for row in pack(lengths, row_length):
        free = row_length - sum(lengths[index] for index in row)
        ids, positions, labels = [pad] * free, list(range(free)), [-100] * free
        branches, owners = [0] * free, [-1] * free
        for index in row[::-1]:  # the longest last: its end, the one most likely supervised, is the row's end
            sequence = sequences[index]
            ids += sequence.input_ids
            labels += sequence.labels
            positions += sequence.positions
            branches += sequence.branches
            owners += [index] * lengths[index]
        for name, values in zip(columns, (ids, positions, labels, branches, owners), strict=True):
            columns[name].append(values)
    batch = {name: torch.tensor(rows, dtype=torch.long) for name, rows in columns.items()}
    branches, owners = batch.pop("branches"), batch.pop("owners")
    if branches.any():
        batch["allowed"] = _allowed(branches, owners)
    return batch


def _rows(examples, pad):
    length = max(len(example.input_ids) for example in examples)
    ids = [example.input_ids + [pad] * (length - len(example.input_ids)) for example in examples]
    labels = [example.labels + [-100] * (length - len(example.labels)) for example in examples]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def _allowed(branches, owners):
    """Attention backwards, within a sequence, to its beginning and to the own branch."""
    branch_of_query, branch_of_key = branches[:, :, None], branches[:, None, :]
    same = owners[:, :, None] == owners[:, None, :]
    same &= (branch_of_key == 0) | (branch_of_key == branch_of_query)
    return torch.tril(same)[:, None]


def supervised_tokens(batch):
    """How many tokens of a batch are supervised."""
    return int((batch["labels"] != -100).sum())
