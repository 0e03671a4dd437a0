"""What differs from LLM to LLM: where its text model is, what LoRA takes, which of its modules are norms.

Everything is found in the model itself, by the kinds of its modules, and not in a list of names.
"""

import torch
from torch import nn

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
