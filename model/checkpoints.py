"""What a stage leaves and the next one takes, saved and loaded: adapters, whole models, the authors' checkpoints."""

import re
from pathlib import Path

import torch

from model.checkpoint_files import CARD, resolve_checkpoint, share_weights
from model.heartllm import add_adapter, load_llm
from utils.tools import UserError, write_json

PUBLISHED_PREFIX = "llm_model.base_model.model."


def save_checkpoint(folder, model, tokenizer, card):
    """Save an adapter (PEFT) or a whole model, its tokenizer and its card.

    The card comes last: a folder without one is no checkpoint, so a killed save is never taken for one.
    """
    folder = Path(folder)
    (folder / CARD).unlink(missing_ok=True)
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)
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
):
    """A fresh model for training: the LLM with ECG tokens, plus an adapter unless all weights are tuned.

    ``code_features``: where the new rows start, see `model.code_rows.new_rows`.
    """
    model, tokenizer, vocabulary = load_llm(llm_path, n_codes, dtype, seed, n_scales, code_features)
    if tuning == "lora":
        model = add_adapter(model, vocabulary, rank, alpha, dropout)
    return model, tokenizer, vocabulary


def load_model(path, llm_path, n_codes, dtype=torch.float32, dropout=0.0, text_rows=True, seed=0, n_scales=0):
    """The model of a checkpoint, ours or the authors'.

    Parameters
    ----------
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
            llm_path, n_codes, "lora", dropout=dropout, dtype=dtype, seed=seed, n_scales=n_scales
        )
        load_published(model, vocabulary, path, text_rows)
        return model, tokenizer, vocabulary
    if not (path / "adapter_config.json").is_file():
        return load_llm(path, n_codes, dtype, seed, n_scales)
    from peft import PeftModel

    model, tokenizer, vocabulary = load_llm(llm_path, n_codes, dtype, seed, n_scales)
    model = PeftModel.from_pretrained(model, path, is_trainable=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model, tokenizer, vocabulary


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
            tensor = state.get(_published_name(name))
            if "trainable_tokens" in name:
                tensor = embedding[vocabulary.text_size :]
            if tensor is None or tensor.shape != parameter.shape:
                found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                raise UserError(f"{path}: {_published_name(name)} is {found}, {tuple(parameter.shape)} is needed")
            parameter.copy_(tensor)
        if text_rows:
            weight = model.get_base_model().get_input_embeddings().original_module.weight
            weight[: last + 1] = embedding.to(weight.dtype)


def _published_name(name):
    """Our parameter's name in the authors' state dict."""
    return "llm_model." + re.sub(r"\.modules_to_save\.default", "", name)
