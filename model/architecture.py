"""What differs from LLM to LLM: where its text model is, what LoRA takes, how its sequences may be laid out.

Everything is found in the model itself, by the kinds of its modules and by trying, and not in a list of names.
"""

import random

import torch
from torch import nn

from model.packing import Example, collate
from utils.tools import UserError


def text_tower(model):
    """The causal LM inside a model of several modalities (Gemma 3, ...), its weights shared; any other as it is."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    from transformers import AutoModelForCausalLM

    decoder, output = model.get_decoder(), model.get_output_embeddings()
    try:
        with torch.device("meta"):
            tower = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise UserError(f"{model.config.model_type}: its text model cannot stand alone in transformers") from error
    if type(decoder) is not type(tower.base_model) or output is None:
        raise UserError(f"{model.config.model_type}: its text model is no {type(tower).__name__}")
    setattr(tower, tower.base_model_prefix, decoder)
    tower.set_output_embeddings(output)
    tower.config = decoder.config
    return tower


def most_positions(model):
    """The longest sequence that the LLM reads; infinite where its positions have no end (ALiBi)."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")


def lora_targets(model):
    """Names, for PEFT, of the linear layers of the LLM, all but the output layer."""
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    chosen = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not output}
    # A router is called a linear layer in some LLMs, but gives more than one tensor: it stays frozen.
    chosen = {n: m for n, m in chosen.items() if "Router" not in type(m).__name__}
    if not chosen:
        raise UserError(f"the LLM ({model.config.model_type}) has no linear layer that LoRA could take")
    return _short_names(model, chosen, ".")


def lora_coverage(model):
    """What of an LLM in an adapter LoRA takes, and which matrices are left frozen.

    Returns
    -------
    layers, frozen : list of str
        Last names of the linear layers with LoRA; the last two names of other matrices (experts stored as one tensor,
        convolutions). Embeddings and the output layer are no part of either.
    """
    llm = model.get_base_model()
    layers = [name for name, module in llm.named_modules() if hasattr(module, "lora_A")]
    ends = (llm.get_input_embeddings(), llm.get_output_embeddings())
    embeddings = [name for name, m in llm.named_modules() if isinstance(m, nn.Embedding) or m in ends]
    known = tuple(f"{name}." for name in layers + embeddings)
    frozen = {n for n, p in llm.named_parameters() if p.ndim > 1 and not p.requires_grad and not n.startswith(known)}
    frozen = {".".join(name.removesuffix(".weight").split(".")[-2:]) for name in frozen}
    return sorted({name.rsplit(".", 1)[-1] for name in layers}), sorted(frozen)


def norm_names(model):
    """Names, for PEFT, of the LLM's normalisation modules that have weights (input_layernorm, ..., norm)."""
    return _short_names(model, _norms(model), "")


def _norms(model):
    """Name -> module of the outermost modules whose class is called a norm."""
    norms = {}
    for name, module in model.named_modules():
        if "Norm" in type(module).__name__ and not name.startswith(tuple(f"{outer}." for outer in norms)):
            norms[name] = module
    return {name: module for name, module in norms.items() if any(True for _ in module.parameters())}


def _short_names(model, chosen, separator):
    """The last names of the chosen modules; their whole names where another module's name ends alike.

    PEFT finds ``target_modules`` behind a point and ``modules_to_save`` at the end of any name.
    """
    others = [name for name, _ in model.named_modules() if name not in chosen and not name.startswith(tuple(chosen))]
    names = set()
    for name in chosen:
        last = name.rsplit(".", 1)[-1]
        ambiguous = last.isdigit() or any(f"{separator}{other}".endswith(separator + last) for other in others)
        names.add(name if ambiguous else last)
    return sorted(names)


def attention_mask(config, batch, dtype):
    """What is added to the attention's logits for a batch with ``allowed``, as every implementation takes it.

    Layers with a sliding window see no further back than the window, counted in a sequence's own positions. An LLM that
    has layers of both kinds takes one mask a kind.
    """
    allowed, positions = batch["allowed"], batch["position_ids"]
    window = getattr(config, "sliding_window", None)
    near = allowed
    if window:
        near = allowed & ((positions[:, :, None] - positions[:, None, :]) < window)[:, None]
    masks = {"full_attention": allowed, "sliding_attention": near}
    masks = {kind: _added(mask, dtype) for kind, mask in masks.items()}
    kinds = set(getattr(config, "layer_types", None) or [])
    if "sliding_attention" in kinds:
        return masks
    return masks["full_attention" if kinds else "sliding_attention"]


def _added(allowed, dtype):
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def exact_layouts(model, loss_of, vocabulary, longest, seed=0):
    """Which layouts of a batch give this LLM the losses of separate sequences: tried on random text.

    Learned positions that count from the row's start, recurrent layers and the like show themselves. Where layers see a
    window only, the trial is longer than it, unless all of the run's sequences are shorter.

    Parameters
    ----------
    loss_of : callable
        (model, batch) -> sum of the losses: `model.heartllm.loss_sum`.
    longest : int
        Tokens of the run's longest sequence.

    Returns
    -------
    set
        Of "packed" (several sequences a row) and "shared" (several with one beginning).
    """
    config, rng = model.config, random.Random(seed)
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    windows = [window for window in windows if isinstance(window, int) and window < longest]
    length = min(longest, max(windows, default=0) + 32)

    def text(count):
        return [rng.randrange(vocabulary.text_size) for _ in range(count)]

    beginning = text(length - 8)
    trials = {
        "packed": [Example(ids, ids) for ids in (text(length), text(length // 2), text(length // 2 - 1))],
        "shared": [Example(ids, ids, len(beginning)) for ids in (beginning + text(n) for n in (8, 5, 7))],
    }
    training = model.training
    model.eval()
    exact = {name for name, examples in trials.items() if _is_exact(model, loss_of, examples, vocabulary.pad)}
    model.train(training)
    return exact


@torch.no_grad()
def _is_exact(model, loss_of, examples, pad):
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype

    def mean_loss(batch, counted):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = loss_of(model, {name: tensor.to(device) for name, tensor in batch.items()})
        return loss.item() / counted

    for chosen in examples:
        first = chosen.shared + 1  # in a row, what stands before it may be another sequence's
        labels = [-100] * first + chosen.labels[first:]
        one = Example(chosen.input_ids, labels, chosen.shared)
        rest = [Example(e.input_ids, [-100] * len(e.labels), e.shared) for e in examples if e is not chosen]
        counted = len(labels) - first
        alone = mean_loss(collate([one], pad, packed=False), counted)
        try:
            together = mean_loss(collate([*rest, one], pad), counted)
        except torch.OutOfMemoryError:
            raise  # says nothing of the layout
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
            return False  # it takes no positions, or no mask for them
        # In float32 what different kernels make of rounding; in bf16 more, and what a neighbour leaks is more still.
        if not abs(together - alone) <= (1e-4 if dtype == torch.float32 else 2e-2):
            return False
    return True
