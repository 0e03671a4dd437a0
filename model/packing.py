"""Packing: sequences of different lengths in rows of equal length, several in a row where they fit.

Positions restart with every sequence, from which transformers sees where one ends: no sequence attends to another.
Sequences that begin with the same tokens (questions on one ECG, where the prompt has the ECG first) become one with
branches: the beginning is computed once, and each branch attends to it and to itself. Either way the losses are those
of the separate sequences (`tests/model/test_language_side.py`). Padding stands on the left, each token on its own.
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


def collate(examples, pad, packed=True, multiple=0):
    """A batch of `Example`s as tensors.

    Parameters
    ----------
    packed : bool
        Where False, each example has a row of its own, padded on the right: attention backwards never sees padding
        there, so any causal LM computes it exactly, whatever it makes of positions (`model.architecture`).
    multiple : int
        0: rows as long as the longest sequence, which bounds what a dense mask takes. Otherwise all sequences in one
        row, whose length is a multiple of this: for attention that passes over what is masked (`model.attention`).

    Returns
    -------
    dict of tensors
        ``input_ids``, ``position_ids``, ``labels``, ``owners`` (which sequence a token is of, -1 for padding) : int64
        [rows, length]; with shared beginnings also ``branches`` (0 for a beginning, then 1, 2, ...). Not packed:
        ``input_ids`` and ``labels`` only.
    """
    if not packed:
        return _rows(examples, pad)
    sequences = _join_shared(examples)
    lengths = [len(sequence.input_ids) for sequence in sequences]
    row_length = -(-sum(lengths) // multiple) * multiple if multiple else max(lengths)
    columns = {"input_ids": [], "position_ids": [], "labels": [], "branches": [], "owners": []}
    for row in pack(lengths, row_length):
        free = row_length - sum(lengths[index] for index in row)
        ids, positions, labels = [pad] * free, [0] * free, [-100] * free  # more positions than the LLM has, maybe
        branches, owners = [0] * free, [-1] * free
        for index in row[::-1]:
            sequence = sequences[index]
            ids += sequence.input_ids
            labels += sequence.labels
            positions += sequence.positions
            branches += sequence.branches
            owners += [index] * lengths[index]
        for name, values in zip(columns, (ids, positions, labels, branches, owners), strict=True):
            columns[name].append(values)
    batch = {name: torch.tensor(rows, dtype=torch.long) for name, rows in columns.items()}
    if not batch["branches"].any():
        del batch["branches"]
    return batch


def _rows(examples, pad):
    length = max(len(example.input_ids) for example in examples)
    ids = [example.input_ids + [pad] * (length - len(example.input_ids)) for example in examples]
    labels = [example.labels + [-100] * (length - len(example.labels)) for example in examples]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def supervised_tokens(batch):
    """How many tokens of a batch are supervised."""
    return int((batch["labels"] != -100).sum())


def real_tokens(batch, pad):
    """How many tokens of a batch are no padding; a shared beginning counts once."""
    return int((batch["input_ids"] != pad).sum())


def packed_length(examples):
    """Tokens that the examples take in a row, shared beginnings once."""
    return sum(len(sequence.input_ids) for sequence in _join_shared(examples))
