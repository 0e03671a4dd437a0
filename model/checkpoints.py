"""What a stage leaves and the next one takes: adapters (ours), whole models, and the authors' checkpoints.

A checkpoint folder of ours holds PEFT's files (or a whole model after ``TUNING=full``), the tokenizer with the ECG's
tokens, and ``heartllm.json``: which LLM and which ECG tokenizer it belongs to, and the settings of its run.
"""

import re
from pathlib import Path

import torch

from model.heartllm import add_adapter, load_llm
from utils.tools import UserError, read_json, sha256_bytes, sha256_file, write_json

CARD = "heartllm.json"
PUBLISHED_PREFIX = "llm_model.base_model.model."


def llm_hash(path):
    """A hash that tells LLMs apart in seconds, however large.

    Of config.json and, for each safetensors file, its name, size and 64 blocks of 4 KiB spread over it.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors"))
    if not (path / "config.json").is_file() or not files:
        raise UserError(f"{path}: not an LLM folder (config.json and *.safetensors are expected)")
    chunks = [(path / "config.json").read_bytes()]
    for file in files:
        size = file.stat().st_size
        chunks.append(f"{file.name} {size}".encode())
        with open(file, "rb") as stream:
            for block in range(64):
                stream.seek(size * block // 64)
                chunks.append(stream.read(4096))
    return sha256_bytes(*chunks)


def checkpoint_hash(path):
    """SHA-256 of a checkpoint's weights: of the authors' file, or of our folder's safetensors."""
    path = resolve_checkpoint(path)
    if path.is_file():
        return sha256_file(path)
    return sha256_bytes(*(sha256_file(file).encode() for file in sorted(path.glob("*.safetensors"))))


def resolve_checkpoint(path):
    """The checkpoint at ``path``; ``checkpoint_epoch0.pth`` also finds our folder ``checkpoint_epoch0``."""
    path = Path(path)
    folder = path.with_suffix("") if path.suffix == ".pth" else path
    if path.is_file():
        return path
    if (folder / CARD).is_file():
        return folder
    raise UserError(f"{path}: no checkpoint (a folder with {CARD}, or the authors' .pth file)")


def is_published(path):
    """Whether this is the authors' file rather than one of our folders."""
    return resolve_checkpoint(path).is_file()


def check_fits(path, tokenizer_fingerprint, llm_path):
    """A `UserError` if a checkpoint of ours was made with another ECG tokenizer or LLM. Quick; loads no weights."""
    path = resolve_checkpoint(path)
    if path.is_file():
        return
    card = read_json(path / CARD)
    if card.get("tokenizer_fingerprint") != tokenizer_fingerprint:
        raise UserError(
            f"{path}: was trained with another ECG tokenizer ({str(card.get('tokenizer_fingerprint'))[:12]}) "
            f"than TOKENIZER_PATH's ({tokenizer_fingerprint[:12]})"
        )
    if card.get("llm_hash") != llm_hash(llm_path):
        raise UserError(f"{path}: was trained on another LLM ({card.get('llm_path')}) than LOCAL_LLM_PATH={llm_path}")


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
    write_json(folder / CARD, card)


def build_model(llm_path, n_codes, tuning, rank=64, alpha=16, dropout=0.0, dtype=torch.float32, seed=0):
    """A fresh model for training: the LLM with ECG tokens, plus an adapter unless all weights are tuned."""
    model, tokenizer, vocabulary = load_llm(llm_path, n_codes, dtype, seed)
    if tuning == "lora":
        model = add_adapter(model, vocabulary, rank, alpha, dropout)
    return model, tokenizer, vocabulary


def load_model(path, llm_path, n_codes, dtype=torch.float32, dropout=0.0, text_rows=True, seed=0):
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
        model, tokenizer, vocabulary = build_model(llm_path, n_codes, "lora", dropout=dropout, dtype=dtype, seed=seed)
        load_published(model, vocabulary, path, text_rows)
        return model, tokenizer, vocabulary
    if not (path / "adapter_config.json").is_file():
        return load_llm(path, n_codes, dtype, seed)
    from peft import PeftModel

    model, tokenizer, vocabulary = load_llm(llm_path, n_codes, dtype, seed)
    model = PeftModel.from_pretrained(model, path, is_trainable=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model, tokenizer, vocabulary


def tuning_of(path):
    """``"lora"`` or ``"full"``: what a checkpoint holds."""
    path = resolve_checkpoint(path)
    return "lora" if path.is_file() or (path / "adapter_config.json").is_file() else "full"


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
            f"{path}: its LLM has {embedding.shape[0] - (last + 1 - vocabulary.text_size)} text tokens, "
            f"the local one {vocabulary.text_size}: it belongs to another LLM"
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
