"""Sequences of different lengths into rows of equal length, several in a row where they fit.

Positions restart with every sequence, from which transformers sees where one ends: no sequence attends to another
(separate losses and packed ones agree; `tests/test_packing.py`). Padding stands on the left, as a sequence of its own,
so that the supervised ends of the rows line up.
"""

import torch


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


def collate(examples, pad):
    """A batch of `Example`s as tensors, in rows as long as the longest one.

    Returns
    -------
    dict of tensors
        ``input_ids``, ``position_ids``, ``labels`` : int64 [rows, length].
    """
    lengths = [len(example.input_ids) for example in examples]
    row_length = max(lengths)
    columns = {"input_ids": [], "position_ids": [], "labels": []}
    for row in pack(lengths, row_length):
        # Longest last: its end, the one most likely supervised, is the row's end.
        row = row[::-1]
        free = row_length - sum(lengths[index] for index in row)
        ids, positions, labels = [pad] * free, list(range(free)), [-100] * free
        for index in row:
            ids += examples[index].input_ids
            labels += examples[index].labels
            positions += range(lengths[index])
        for name, values in zip(columns, (ids, positions, labels), strict=True):
            columns[name].append(values)
    return {name: torch.tensor(rows, dtype=torch.long) for name, rows in columns.items()}


def supervised_tokens(examples):
    """How many tokens of these examples are supervised."""
    return sum(label != -100 for example in examples for label in example.labels)
