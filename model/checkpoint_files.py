"""Which checkpoint lies where and what it belongs to: all that can be told without loading a weight.

A checkpoint folder of ours holds PEFT's files (or a whole model after ``TUNING=full``), the tokenizer with the ECG's
tokens, and ``heartllm.json``: which LLM and which ECG tokenizer it belongs to, and the settings of its run.
"""

from pathlib import Path

from utils.tools import UserError, read_json, sha256_bytes, sha256_file

CARD = "heartllm.json"


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


def check_fits(path, tokenizer_fingerprint, llm_path):
    """A `UserError` if a checkpoint of ours was made with another ECG tokenizer or LLM. Quick; loads no weights."""
    path = resolve_checkpoint(path)
    if path.is_file():
        return
    check_tokenizer(path, tokenizer_fingerprint)
    card = read_json(path / CARD)
    if card.get("llm_hash") != llm_hash(llm_path):
        raise UserError(f"{path}: was trained on another LLM ({card.get('llm_path')}) than LOCAL_LLM_PATH={llm_path}")


def check_tokenizer(path, fingerprint):
    """A `UserError` if a checkpoint of ours was made with another ECG tokenizer."""
    path = resolve_checkpoint(path)
    trained = fingerprint if path.is_file() else read_json(path / CARD).get("tokenizer_fingerprint")
    if trained != fingerprint:
        raise UserError(
            f"{path}: was trained with another ECG tokenizer ({str(trained)[:12]}) than TOKENIZER_PATH's "
            f"({fingerprint[:12]})"
        )


def is_whole(path):
    """Whether a checkpoint is a whole model, which needs no LLM beside it."""
    path = resolve_checkpoint(path)
    return path.is_dir() and not (path / "adapter_config.json").is_file()


def share_weights(folder):
    """Let those read a saved model's weights who may read its tokenizer; safetensors lets nobody but their owner."""
    for file in folder.glob("*.safetensors"):
        file.chmod((folder / "tokenizer_config.json").stat().st_mode)
