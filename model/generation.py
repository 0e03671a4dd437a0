"""Greedy answers and likelihoods by a KV cache whose rows branch: an ECG is read once, all its questions go on from it.

A row of the cache holds one beginning and, behind it, everything that branches off there. Which keys a token sees is
said by their owners: its own branch's, those of the branch that it goes on from, and the beginning's. Positions are
those that each branch would have alone, so every branch is computed as if it were.
"""

import inspect
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

NOBODY, EVERYBODY = -2, -1  # owners of keys that nobody sees (padding), and that every branch sees (the beginning)
TOGETHER = 8  # branches of a row that are read at once: few, so that masks and padding stay small
PORTION = 2**26  # most logits of candidates at a time
TOKENS = 256  # likewise most tokens a row on a CPU: each is computed against all that are read with it


@dataclass(frozen=True)
class Prompt:
    """A beginning, and the rests of the prompts that share it (one at least, of one token at least)."""

    beginning: list[int]
    rests: list[list[int]]


class RoomyLayer(DynamicLayer):
    """A layer's keys and values with room behind them, so that a token more doesn't copy all that stand before it."""

    room = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Add keys and values [rows, heads, n, width]; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, new = self.get_seq_length(), key_states.shape[-2]
        needed = before + new
        if self.room is None or self.room[0].shape[-2] < needed:
            self.room = []
            for old, added in ((self.keys, key_states), (self.values, value_states)):
                room = added.new_empty((*added.shape[:2], needed + needed // 4 + 8, added.shape[-1]))
                if before:
                    room[..., :before, :] = old
                self.room.append(room)
        for room, added in zip(self.room, (key_states, value_states), strict=True):
            room[..., before:needed, :] = added
        self.keys, self.values = (room[..., :needed, :] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices):
        """Keep these rows only."""
        super().batch_select_indices(indices)
        self.room = None


@dataclass
class _Tree:
    """What a batch has read so far: the cache, and the owner of each of its keys, int [rows, length]."""

    model: object
    cache: object
    owner: torch.Tensor


def merge_adapter(model):
    """The plain LLM with its adapter merged in: LoRA, norms and the ECG tokens' rows; another model comes back as is.

    An unmerged adapter costs two to three times as much a token.
    """
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def why_unshared(model, longest):
    """Why a cache of this LLM can't branch ("" if it can): some layers keep a state in place of keys, or forget keys.

    Parameters
    ----------
    longest : int
        Most tokens of a prompt with its answer; a sliding window that is at least as long forgets nothing.
    """
    missing = {"position_ids", "logits_to_keep", "past_key_values"} - set(inspect.signature(model.forward).parameters)
    if missing:
        return f"the LLM ({model.config.model_type}) takes no {' and no '.join(sorted(missing))}"
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention ({model.config._attn_implementation}) takes no mask of its own"
    for layer in DynamicCache(config=model.config).layers:
        slides = type(layer) is DynamicSlidingWindowLayer
        if slides and layer.sliding_window < longest:
            return f"its sliding window ({layer.sliding_window} tokens) is shorter than a prompt with its answer"
        if not slides and type(layer) is not DynamicLayer:
            return f"the LLM ({model.config.model_type}) has layers that keep no keys ({type(layer).__name__})"
    return ""


@torch.no_grad()
def greedy(model, prompts, max_new_tokens, eos, pad):
    """Greedy answers.

    Parameters
    ----------
    prompts : list of Prompt

    Returns
    -------
    list of list of list of int
        For each prompt and each of its rests the generated ids, without the end of text.
    """
    tree, branch, position, logits = _read_prompts(model, prompts, pad)
    ids, rows = logits.argmax(-1), torch.arange(len(prompts), device=branch.device)
    answers = torch.full((*branch.shape, max_new_tokens), eos, device=branch.device)
    for step in range(max_new_tokens):
        live = branch != NOBODY
        answers[rows[:, None].expand_as(branch)[live], branch[live], step] = ids[live]
        live &= ids != eos
        if step + 1 == max_new_tokens or not live.any():
            break
        # Finished answers cost nothing: live branches move to the left, rows without any leave the cache. Leaving it
        # copies it, so that a quarter of its rows go at a time.
        kept = live.any(1)
        if kept.sum() <= 0.75 * len(kept):
            tree = _Tree(model, tree.cache, tree.owner[kept])
            tree.cache.batch_select_indices(kept.nonzero().squeeze(1))
            live, branch, ids, position, rows = live[kept], branch[kept], ids[kept], position[kept], rows[kept]
        order = (~live).int().sort(dim=1, stable=True).indices[:, : int(live.sum(1).max())]
        live, ids, position = live.gather(1, order), ids.gather(1, order), position.gather(1, order)
        branch = branch.gather(1, order).where(live, NOBODY)
        columns = torch.arange(branch.shape[1], device=branch.device)
        ids = _read_on(tree, ids, position, branch, branch, columns).argmax(-1)
        position = position + 1
    return [
        [_until(answer, eos) for answer in of_prompt[: len(prompt.rests)]]
        for prompt, of_prompt in zip(prompts, answers.tolist(), strict=True)
    ]


@torch.no_grad()
def log_likelihoods(model, prompts, candidates, pad):
    """Log-likelihoods (nats) of whole candidates behind each prompt.

    Parameters
    ----------
    prompts : list of Prompt
    candidates : list of list of list of list of int
        For each prompt and each of its rests the candidates' ids, each with its end of text.

    Returns
    -------
    list of list of list of float
    """
    tree, _, position, logits = _read_prompts(model, prompts, pad)
    first = logits.float().log_softmax(-1).cpu()
    totals = [
        [[first[row, number, ids[0]].item() for ids in of_rest] for number, of_rest in enumerate(of_prompt)]
        for row, of_prompt in enumerate(candidates)
    ]
    # (branch, place in its list, ids) of what is longer than a token, the longest first: little padding
    longer = [
        [(b, c, ids) for b, of_rest in enumerate(of_prompt) for c, ids in enumerate(of_rest) if len(ids) > 1]
        for of_prompt in candidates
    ]
    longer = [sorted(of_row, key=lambda candidate: -len(candidate[2])) for of_row in longer]
    start, end = 0, max(map(len, longer))
    while start < end:  # in columns: the same portion of all rows at once
        length = max(len(of_row[start][2]) - 1 for of_row in longer if start < len(of_row))
        size = PORTION // (len(prompts) * length * logits.shape[-1])
        size = max(1, min(size, TOKENS // length) if logits.device.type == "cpu" else size)
        portion = [of_row[start : start + size] for of_row in longer]
        read = _read_candidates(tree, portion, position, length, pad)
        for row, of_row in enumerate(portion):
            for slot, (branch, place, ids) in enumerate(of_row):
                found = read[row, slot, : len(ids) - 1].gather(1, torch.tensor(ids[1:])[:, None])
                totals[row][branch][place] += found.sum().item()
        start += size
    return totals


def _read_candidates(tree, portion, position, length, pad):
    """Log-probabilities [rows, slots, length, vocabulary] behind each candidate's ids; the tree stays as it was."""
    slots, device = max(map(len, portion)), tree.owner.device
    ids = torch.full((len(portion), slots, length), pad)
    own, parent = torch.full_like(ids, NOBODY), torch.full_like(ids, NOBODY)
    for row, of_row in enumerate(portion):
        for slot, (branch, _, candidate) in enumerate(of_row):
            kept = len(candidate) - 1
            ids[row, slot, :kept] = torch.tensor(candidate[:-1])
            own[row, slot, :kept] = position.shape[1] + slot  # another owner than any branch
            parent[row, slot, :kept] = branch
    starts = position.gather(1, parent[:, :, 0].clamp(min=0).to(device))
    positions = starts[:, :, None] + torch.arange(length, device=device)
    flat = [tensor.to(device).flatten(1) for tensor in (ids, positions, own, parent)]
    before = tree.owner
    logits = _read_on(tree, *flat, torch.arange(slots * length, device=device))
    tree.cache.crop(-slots * length)
    tree.owner = before
    return logits.float().log_softmax(-1).cpu().unflatten(1, (slots, length))


def _read_prompts(model, prompts, pad):
    """Read beginnings, then rests. Returns (tree, branch [rows, branches], next position, logits behind each rest)."""
    device, rows = model.device, len(prompts)
    length = max(len(prompt.beginning) for prompt in prompts)
    branches = max(len(prompt.rests) for prompt in prompts)
    size = max(len(rest) for prompt in prompts for rest in prompt.rests)
    # Padding stands right of a beginning, where causal attention needs no mask, and left of a rest, so that the last
    # tokens of all rests stand in the same columns.
    beginnings, owner = torch.full((rows, length), pad), torch.full((rows, length), NOBODY)
    ids, own = torch.full((rows, branches, size), pad), torch.full((rows, branches, size), NOBODY)
    position = torch.zeros((rows, branches), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        beginnings[row, : len(prompt.beginning)] = torch.tensor(prompt.beginning)
        owner[row, : len(prompt.beginning)] = EVERYBODY
        for branch, rest in enumerate(prompt.rests):
            ids[row, branch, size - len(rest) :] = torch.tensor(rest)
            own[row, branch, size - len(rest) :] = branch
            position[row, branch] = len(prompt.beginning) + len(rest)
    positions = (position[:, :, None] - size + torch.arange(size)).clamp(min=0)
    # Measured: room makes a CPU faster (10 to 17 %), an H100 slower (question first: 9.9 s in place of 4.6 s).
    cache = Cache(layer_class_to_replicate=RoomyLayer if device.type == "cpu" else DynamicLayer)
    model(input_ids=beginnings.to(device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    tree = _Tree(model, cache, owner.to(device))
    logits = []
    for start in range(0, branches, TOGETHER):
        # As wide as the longest of them: callers that sort their rests by length pad little.
        end = start + TOGETHER
        wide = max(len(rest) for prompt in prompts for rest in prompt.rests[start:end])
        part = [tensor[:, start:end, size - wide :].flatten(1).to(device) for tensor in (ids, positions, own)]
        last = torch.arange(wide - 1, part[0].shape[1], wide, device=device)
        logits.append(_read_on(tree, *part, part[2], last))
    return tree, own[:, :, -1].to(device), position.to(device), torch.cat(logits, 1)


def _read_on(tree, ids, positions, own, parent, columns):
    """Logits of the given columns of ``ids`` [rows, n]; the tree grows by them.

    Parameters
    ----------
    own, parent : int tensors [rows, n]
        The branch that a token belongs to, and the one that its branch goes on from.
    """
    old, new = tree.owner[:, None, :], own[:, None, :]
    mine, above = own[:, :, None], parent[:, :, None]
    count = ids.shape[1]
    earlier = torch.ones(count, count, dtype=torch.bool, device=ids.device).tril()
    allowed = torch.cat([(old == mine) | (old == above) | (old == EVERYBODY), (new == mine) & earlier], 2)[:, None]
    dtype = tree.model.get_input_embeddings().weight.dtype
    # As what is added to the attention's logits, which every implementation takes.
    mask = torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    output = tree.model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=tree.cache,
        use_cache=True,
        logits_to_keep=columns,
    )
    tree.owner = torch.cat([tree.owner, own], 1)
    return output.logits


def _until(ids, eos):
    return ids[: ids.index(eos)] if eos in ids else ids
