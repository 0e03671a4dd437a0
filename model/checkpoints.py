"""What a stage leaves and the next one takes, saved and loaded: adapters, whole models, the authors' checkpoints."""

from pathlib import Path

import torch

from model.checkpoint_files import CARD, resolve_checkpoint, share_weights
from model.heartllm import add_adapter, keep_output_bias, load_llm
from utils.tools import UserError, write_json

PUBLISHED_PREFIX = "llm_model.base_model.model."


def save_checkpoint(folder, model, tokenizer, card, masters=None):
    """Save an adapter (PEFT) or a whole model, its tokenizer and its card.

    ``masters``: name -> float32 tensor of what trained, where the model itself holds roundings of it
    (`model.engine.float32_masters`).

    The card comes last: a folder without one is no checkpoint, so a killed save is never taken for one.
    """
    folder = Path(folder)
    (folder / CARD).unlink(missing_ok=True)
    state = model.state_dict() | masters if masters else None
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
    else:
        model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    share_weights(folder)
    write_json(folder / CARD, card)


def build_model(
    llm_path,
    n_codes,
    tuning,
    rank=64,
    alpha=16,
    dropout=0.0,
    dtype=torch.float32,
    seed=0,
    n_scales=0,
    code_features=None,
    four_bit=False,
):
    """A fresh model for training: the LLM with ECG tokens, plus an adapter unless all weights are tuned.

    ``dtype`` is that of what stays frozen. What trains is float32: an engine in bf16 takes its masters from it.
    ``code_features``: where the new rows start, see `model.code_rows.new_rows`; ``four_bit``: see `load_llm`.
    """
    whole = tuning == "full"
    loaded = load_llm(llm_path, n_codes, torch.float32 if whole else dtype, seed, n_scales, code_features, four_bit)
    model, tokenizer, vocabulary = loaded
    if not whole:
        model = _trained_in_float32(add_adapter(model, vocabulary, rank, alpha, dropout))
    return model, tokenizer, vocabulary


def _trained_in_float32(model):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def load_model(
    path,
    llm_path,
    n_codes,
    dtype=torch.float32,
    dropout=0.0,
    text_rows=True,
    seed=0,
    n_scales=0,
    to_train=False,
    four_bit=False,
):
    """The model of a checkpoint, ours or the authors'.

    Parameters
    ----------
    dropout : float
        LoRA's, whatever the checkpoint was trained with. The LLM's own dropouts stay as they are.
    four_bit : bool
        The frozen weights of the LLM under an adapter in 4 bits, see `load_llm`.
    to_train : bool
        Keep what trains in float32, whatever ``dtype``, as `build_model` does.
    text_rows : bool
        Of the authors' files only: take over the rows of text tokens too (as their evaluation does), or keep the LLM's
        own (as their stage 3 does on loading stage 2).

    Returns
    -------
    model, tokenizer, vocabulary
    """
    path = resolve_checkpoint(path)
    if path.is_file():
        model, tokenizer, vocabulary = build_model(
            llm_path, n_codes, "lora", dropout=dropout, dtype=dtype, seed=seed, n_scales=n_scales, four_bit=four_bit
        )
        load_published(model, vocabulary, path, text_rows)
    elif not (path / "adapter_config.json").is_file():
        return load_llm(path, n_codes, torch.float32 if to_train else dtype, seed, n_scales)
    else:
        model, tokenizer, vocabulary = load_llm(llm_path, n_codes, dtype, seed, n_scales, four_bit=four_bit)
        model = _load_adapter(model, path, dropout)
    return model if to_train else model.to(dtype), tokenizer, vocabulary


def _load_adapter(model, path, dropout):
    """The LLM with our adapter, what trains in float32; the file must hold every tensor of it, and no other."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = PeftConfig.from_pretrained(path)
    config.lora_dropout, config.inference_mode = dropout, False
    model = _trained_in_float32(PeftModel(model, config))
    state = load_file(path / "adapter_model.safetensors")
    for name in sorted(set(state) ^ set(get_peft_model_state_dict(model, save_embedding_layers=False))):
        where = "the LLM has no place for" if name in state else "has no"
        raise UserError(f"{path}: {where} {name}; the adapter belongs to another LLM")
    set_peft_model_state_dict(model, state)
    return keep_output_bias(model)


def load_weights(path):
    """A dict of tensors from a pickle that may hold nothing else; anything else is refused in one line."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each fault of a foreign file
        reason = "it holds more than weights" if "weights_only" in str(error) else str(error).splitlines()[0]
        raise UserError(f"{path}: refused, not a file of weights ({reason})") from error


def load_published(model, vocabulary, path, text_rows=True):
    """Put an authors' checkpoint (the state dict of their whole module) into our adapter-wrapped LLM.

    LoRA, norms and embedding rows are taken; the base inside it (float or 4-bit) and the ECG encoder are left: the LLM
    is the local one, the encoder belongs to TOKENIZER_PATH. Every tensor of ours must be found, with its shape.
    """
    state = load_weights(path)
    rows_name = PUBLISHED_PREFIX + "model.embed_tokens.weight"
    if not isinstance(state, dict) or rows_name not in state:
        raise UserError(f"{path}: not a checkpoint of the published system ({rows_name} is missing)")
    embedding, last = state[rows_name], vocabulary.new_ids[-1]
    if embedding.shape[0] != last + 1:
        raise UserError(
            f"{path}: holds rows for {embedding.shape[0]} tokens; the local LLM has {vocabulary.text_size} and "
            f"TOKENIZER_PATH's codes {last + 1 - vocabulary.text_size} more, {vocabulary.n_scales} of them for "
            "amplitudes: it belongs to another LLM or to another ECG tokenizer"
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            tensor = rows = state.get(_published_name(name))
            if "trainable_tokens" in name and rows is not None:
                tensor = rows[vocabulary.text_size :]
            if tensor is None or tensor.shape != parameter.shape:
                found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                raise UserError(f"{path}: {_published_name(name)} is {found}, {tuple(parameter.shape)} is needed")
            parameter.copy_(tensor)
            if "trainable_tokens" in name and text_rows:
                weight = model.get_submodule(name.split(".token_adapter.")[0]).original_module.weight
                weight[: last + 1] = rows.to(weight.dtype)


def _published_name(name):
    """Our parameter's name in the authors' state dict."""
    if "trainable_tokens" in name:  # an output layer that isn't tied has its own rows there
        return "llm_model." + name.split(".token_adapter.")[0] + ".weight"
    return "llm_model." + name.replace(".modules_to_save.default", "")
