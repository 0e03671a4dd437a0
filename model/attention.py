"""How attention is computed in training, and which token may attend to which in packed rows.

On a GPU by flex attention with a block mask: blocks of 128 x 128 that nobody may attend to are passed over, so rows may
be long and hold many sequences. On a CPU, where flex attention has no backward pass, sequence by sequence
(`model.sequence_attention`). An LLM that takes neither gets a dense mask, in rows as long as the longest sequence. Both
masks come from one function, `attends`.
"""

import functools

import torch

from model.sequence_attention import SEQUENCES, parts_of

FLEX = "heartllm_flex"
BLOCK = 128  # flex attention's; a packed row's length is a multiple of it there


def attends(owners, branches, positions, window=0):
    """The rule as flex attention takes it: (row, head, query, key) -> whether the query may attend to the key.

    Backwards, within a sequence, to its beginning and to the own branch; under a sliding window no further back than
    it, counted in the sequence's own positions.

    Parameters
    ----------
    owners, branches, positions : int tensors, [rows, length]
        As `model.packing.collate` makes them; ``branches`` may be None.
    """

    def rule(row, _head, query, key):
        allowed = (query >= key) & (owners[row, query] == owners[row, key])
        if branches is not None:
            of_key = branches[row, key]
            allowed = allowed & ((of_key == 0) | (of_key == branches[row, query]))
        if window:
            allowed = allowed & (positions[row, query] - positions[row, key] < window)
        return allowed

    return rule


def dense_mask(rule, rows, length, device):
    """A rule for every pair of tokens: bool [rows, 1, length, length]."""
    number = torch.arange(max(rows, length), device=device)
    return rule(number[:rows, None, None, None], None, number[:length, None], number[:length])


def packed_attention(llm, batch):
    """What tells an LLM which tokens of packed rows may attend to which, as keywords of its forward pass.

    Nothing where transformers finds it by itself: with a dense mask, where no beginnings are shared (it sees the
    restarting positions). An LLM that has layers with and without a sliding window takes one mask a kind.
    """
    config, dtype = llm.config, next(llm.parameters()).dtype
    window = getattr(config, "sliding_window", None) or 0
    if config._attn_implementation == SEQUENCES:
        return {"parts": parts_of(batch, window, dtype)}
    flex = config._attn_implementation == FLEX
    branches = batch.get("branches")
    if branches is None and not flex:
        return {}

    def mask(window):
        rule = attends(batch["owners"], branches, batch["position_ids"], window)
        if flex:
            return block_mask(rule, *batch["owners"].shape, batch["owners"].device)
        allowed = dense_mask(rule, *batch["owners"].shape, batch["owners"].device)
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)

    kinds = set(getattr(config, "layer_types", None) or [])
    if "sliding_attention" in kinds:
        return {"attention_mask": {"full_attention": mask(0), "sliding_attention": mask(window)}}
    return {"attention_mask": mask(0 if kinds else window)}


def block_mask(rule, rows, length, device):
    """A rule as flex attention's `BlockMask`."""
    return _compiled("create_block_mask", device.type)(rule, rows, None, length, length, device=str(device))


@functools.cache
def _compiled(name, device_type):
    """A function of PyTorch's flex attention; on a GPU compiled once for all lengths, on a CPU (tests) as it is.

    Static shapes would be compiled anew at every length, 15 s each.
    """
    from torch.nn.attention import flex_attention

    function = getattr(flex_attention, name)
    return torch.compile(function, dynamic=True) if device_type == "cuda" else function


def flex_forward(module, query, key, value, attention_mask, scaling=None, softcap=None, s_aux=None, dropout=0.0, **_):
    """Attention as transformers calls it: query [rows, heads, length, width] -> [rows, length, heads, width]."""
    if dropout or s_aux is not None:
        raise ValueError("flex attention has no dropout and no sinks here")

    def capped(score, _row, _head, _query, _key):
        return softcap * torch.tanh(score / softcap)

    from torch.nn.attention.flex_attention import flex_attention

    inside = torch.compiler.is_compiling()  # of a layer that COMPILE=true compiles whole
    compute = flex_attention if inside else _compiled("flex_attention", query.device.type)
    shared_heads = query.shape[1] != key.shape[1]
    output = compute(
        query,
        key,
        value,
        score_mod=capped if softcap else None,
        block_mask=attention_mask,
        scale=scaling,
        enable_gqa=shared_heads,
    )
    return output.transpose(1, 2).contiguous(), None


def use_flex(model):
    """Set a transformers model to flex attention; False, and nothing changed, where it has no such choice."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, flex_attention_mask

    AttentionInterface.register(FLEX, flex_forward)
    AttentionMaskInterface.register(FLEX, flex_attention_mask)
    if not getattr(model, "_supports_flex_attn", False) or not model._can_set_attn_implementation():
        return False
    model.set_attn_implementation(FLEX)
    return model.config._attn_implementation == FLEX
