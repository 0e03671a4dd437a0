"""Attention sequence by sequence: no time goes into pairs of tokens of which neither may attend to the other.

For where there is no flex attention (a CPU). A batch's tokens are gathered from its packed rows into beginnings, one a
sequence, and what branches off them, several branches a row; each part is computed by PyTorch's scaled dot product,
beginnings causally and without a mask, branches with the keys of their beginning before their own.
"""

from dataclasses import dataclass

import torch

from model.packing import pack

SEQUENCES = "heartllm_sequences"
BRANCH_ROW = 96  # tokens of several branches in one row: longer rows mask more of each other, shorter ones are many


@dataclass(eq=False)
class Part:
    """Sequences with beginnings of similar length; numbers of tokens count through the batch's flattened rows.

    Attributes
    ----------
    tokens : int64, [sequences, beginning + rows * row]
        Each sequence's beginning, then its branches; 0 where there is none.
    beginning, row : int
        Length of the longest beginning, and of a row of branches (0: there are none).
    masks : dict
        Length of the sliding window (0: none) -> (mask among beginnings, mask of rows of branches), to be added:
        [sequences, 1, beginning, beginning] and [sequences * rows, 1, row, beginning + row]; None where causality is
        enough, and where there are no branches.
    """

    tokens: torch.Tensor
    beginning: int
    row: int
    masks: dict


@dataclass(eq=False)
class Parts:
    """A batch's `Part`s, and where each of its tokens stands among theirs: ``place``, int64 [rows * length]."""

    parts: list
    place: torch.Tensor


def parts_of(batch, window=0, dtype=torch.float32):
    """The `Parts` of a batch of `model.packing.collate`, on its device, for layers with and without this window."""
    owners, branches, positions = (
        batch[name].flatten().cpu() if name in batch else None for name in ("owners", "branches", "position_ids")
    )
    branches = torch.zeros_like(owners) if branches is None else branches
    sequences = {}
    for number, (owner, branch) in enumerate(zip(owners.tolist(), branches.tolist(), strict=True)):
        if owner >= 0:
            sequences.setdefault(owner, {}).setdefault(branch, []).append(number)
    alike = {}
    for sequence in sequences.values():
        alike.setdefault((len(sequence[0]).bit_length(), len(sequence) > 1), []).append(sequence)
    device, place, parts, done = batch["input_ids"].device, torch.zeros_like(owners), [], 0
    for group in alike.values():
        tokens, beginning, row = _lay_out(group)
        real = tokens >= 0
        place[tokens[real]] = done + torch.nonzero(real.flatten()).squeeze(1)
        done += tokens.numel()
        tokens = tokens.clamp(min=0)
        masks = {
            size: tuple(mask if mask is None else _to_add(mask, dtype).to(device) for mask in found)
            for size in {0, window}
            for found in [_masks(real, branches[tokens], positions[tokens], beginning, row, size)]
        }
        parts.append(Part(tokens.to(device), beginning, row, masks))
    return Parts(parts, place.to(device))


def _lay_out(group):
    """Tokens of sequences (dicts: branch -> its tokens' numbers), -1 where there is none; the two lengths of `Part`."""
    beginning = max(len(sequence[0]) for sequence in group)
    tails = [[sequence[branch] for branch in sorted(sequence) if branch] for sequence in group]
    row = max((len(branch) for tail in tails for branch in tail), default=0)
    row = row and max(row, BRANCH_ROW)
    packed = [pack(list(map(len, tail)), row) for tail in tails]
    tokens = torch.full((len(group), beginning + row * max(map(len, packed))), -1)
    for own, sequence, tail, rows in zip(tokens, group, tails, packed, strict=True):
        own[: len(sequence[0])] = torch.tensor(sequence[0])
        for number, chosen in enumerate(rows):
            numbers = [token for index in chosen for token in tail[index]]
            at = beginning + number * row
            own[at : at + len(numbers)] = torch.tensor(numbers)
    return tokens, beginning, row


def _masks(real, branches, positions, beginning, row, window):
    """As `Part.masks` has them, but bool (True may attend), from tensors like `Part.tokens`."""
    place = torch.arange(real.shape[1])

    def allowed(queries, keys):
        of_key, of_query = branches[:, None, keys], branches[:, queries, None]
        found = (place[queries, None] >= place[keys]) & real[:, None, keys] & ((of_key == 0) | (of_key == of_query))
        if window:
            found = found & (positions[:, queries, None] - positions[:, None, keys] < window)
        # A place without a token attends to the first one, which is always there: to nothing at all would be NaN.
        return found | (~real[:, queries, None] & (place[keys] == 0))

    first = slice(0, beginning)
    head = allowed(first, first)[:, None] if 0 < window < beginning else None
    rows = [slice(at, at + row) for at in range(beginning, real.shape[1], row or 1)]
    tails = [torch.cat([allowed(own, first), allowed(own, own)], -1) for own in rows]
    return head, torch.stack(tails, 1).flatten(0, 1)[:, None] if tails else None


def _to_add(mask, dtype):
    # Once for all layers: of a mask of booleans each would keep a copy like this one.
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def sequence_forward(module, query, key, value, attention_mask, scaling=None, sliding_window=None, dropout=0.0, **more):
    """Attention as transformers calls it: query [rows, heads, length, width] -> [rows, length, heads, width].

    The batch's `Parts` come as the keyword ``parts``, which transformers hands through.
    """
    if "parts" not in more or more.get("softcap") or more.get("s_aux") is not None:
        raise ValueError("attention by sequences needs to be told them, and has no soft caps and no sinks")
    rows, _, length, _ = query.shape
    widths = [tensor.shape[1] * tensor.shape[3] for tensor in (query, key, value)]
    joined = torch.cat([tensor.transpose(1, 2).reshape(rows * length, -1) for tensor in (query, key, value)], -1)
    outputs = []
    for part in more["parts"].parts:
        # As a lookup, because its backward pass is the fast one.
        found = torch.nn.functional.embedding(part.tokens, joined).split(widths, -1)
        q, k, v = (
            some.unflatten(-1, (like.shape[1], -1)).transpose(1, 2)
            for some, like in zip(found, (query, key, value), strict=True)
        )
        outputs.append(_part_forward(part, q, k, v, sliding_window or 0, scaling, dropout).flatten(0, 1))
    output = torch.nn.functional.embedding(more["parts"].place, torch.cat(outputs).flatten(1))
    return output.view(rows, length, query.shape[1], -1), None


def _part_forward(part, query, key, value, window, scaling, dropout):
    """[sequences, heads, places, width] -> [sequences, places, heads, width]."""
    how = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    head, tail = (mask if mask is None else mask.to(query.dtype) for mask in part.masks[window])
    begin = part.beginning
    first = (tensor[:, :, :begin] for tensor in (query, key, value))
    done = [torch.nn.functional.scaled_dot_product_attention(*first, attn_mask=head, is_causal=head is None, **how)]
    done[0] = done[0].transpose(1, 2)
    if part.row:
        count = (query.shape[2] - begin) // part.row

        def by_row(tensor):  # [sequences * rows, heads, row, width]
            return tensor[:, :, begin:].unflatten(2, (count, part.row)).transpose(1, 2).flatten(0, 1)

        def before(tensor):  # the beginning's, once a row
            return tensor[:, None, :, :begin].expand(-1, count, -1, -1, -1).flatten(0, 1)

        keys, values = (torch.cat([before(tensor), by_row(tensor)], 2) for tensor in (key, value))
        rows = torch.nn.functional.scaled_dot_product_attention(by_row(query), keys, values, attn_mask=tail, **how)
        rows = rows.unflatten(0, (-1, count)).permute(0, 1, 3, 2, 4)  # [sequences, rows, row, heads, width]
        done.append(rows.flatten(1, 2))
    return torch.cat(done, 1)


def use_sequences(model):
    """Set a transformers model to attention by sequences; False, and nothing changed, where it has no such choice."""
    from transformers import AttentionInterface

    AttentionInterface.register(SEQUENCES, sequence_forward)  # no mask function: transformers makes no masks then
    if not getattr(model, "_supports_sdpa", False) or not model._can_set_attn_implementation():
        return False
    model.set_attn_implementation(SEQUENCES)
    return model.config._attn_implementation == SEQUENCES
