"""A tokenizer's files: a folder (config.json + model.safetensors), our best.pt, or the authors' best.pt.

No file can run code: safetensors holds numbers only, and best.pt is read with ``weights_only=True``.
"""

import hashlib
import json
import pickle
from pathlib import Path

from utils.tools import REPOSITORY, UserError, read_json, sha256_json, write_atomically, write_json

CONFIG_FILE, WEIGHTS_FILE, CHECKPOINT_FILE = "config.json", "model.safetensors", "best.pt"
STATE_FILE = "state/training.pt"  # in a run's folder: what RESUME goes on from
SHIPPED = REPOSITORY / "ecg_tokenizer/pretrained"
CODER = ("stem", "encoder", "to_code", "enc")  # the parts of a network that decide the codes
PUBLISHED_KEYS = ("enc.to_code.weight", "dec.expand.weight", "dec.final.weight")
PUBLISHED_CONFIG = {"architecture": "published", "quantizer": "fsq", "levels": [6, 6, 6, 6], "codes_per_ecg": 313}


def read_tokenizer(path):
    """The config (a dict) and the weights (name -> CPU tensor) of a tokenizer's folder or file."""
    kind, path = _locate(path)
    if kind == "folder":
        from safetensors.torch import load_file

        return read_json(path / CONFIG_FILE), _read_safetensors(path / WEIGHTS_FILE, load_file)
    return _read_checkpoint(path)


def write_folder(folder, config, state):
    """Write config.json and model.safetensors; the config comes last, so that a folder with one is whole."""
    from safetensors.torch import save

    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    # Not save_file: it makes files that only their owner can read, and groups share tokenizers.
    write_atomically(folder / WEIGHTS_FILE, lambda temporary: temporary.write_bytes(save(tensors)))
    write_json(folder / CONFIG_FILE, config)


def write_checkpoint(path, config, state, step):
    """Write a best.pt in the published layout, with our config beside the weights."""
    import torch

    checkpoint = {"model": {name: tensor.detach().cpu() for name, tensor in state.items()}, "step": step}
    write_atomically(path, lambda temporary: torch.save({**checkpoint, "config": config}, temporary))


def tokenizer_fingerprint(path):
    """Hash of config and weights: the same for a folder and its best.pt. Needs no torch for a folder.

    A tokenizer that was trained on with KEEP_CODES=true has the fingerprint of the one whose codes it kept.
    """
    return fingerprint(*_read_arrays(path), path)


def weights_hash(path):
    """Hash of config and weights, whosoever's codes they give."""
    config, arrays = _read_arrays(path)
    return _hash(config, arrays)


def fingerprint(config, arrays, path="the tokenizer"):
    """What `tokenizer_fingerprint` says, of a config and of named numpy arrays."""
    if not config.get("codes_of"):
        return _hash(config, arrays)
    if config.get("coder") != coder_hash(arrays):
        raise UserError(f"{path}: its config says whose codes it gives, but what makes them is no longer the same")
    return config["codes_of"]


def coder_hash(arrays):
    """Hash of the weights that decide the codes."""
    return _hash({}, {name: array for name, array in arrays.items() if name.split(".")[0] in CODER})


def _hash(config, arrays):
    digest = hashlib.sha256(sha256_json(config).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_arrays(path):
    kind, path = _locate(path)
    if kind == "folder":
        from safetensors.numpy import load_file

        return read_json(path / CONFIG_FILE), _read_safetensors(path / WEIGHTS_FILE, load_file)
    config, state = _read_checkpoint(path)
    return config, {name: tensor.numpy() for name, tensor in state.items()}


def _locate(path):
    """What a path names: ("folder", folder) or ("file", checkpoint)."""
    path = Path(path)
    if path == SHIPPED and not (path / WEIGHTS_FILE).is_file():
        raise UserError(f"{path}: this copy of the repository has no trained tokenizer; name the path of yours")
    if path.name in (CONFIG_FILE, WEIGHTS_FILE):
        path = path.parent
    if path.is_dir():
        if (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file():
            return "folder", path
        if (path / CHECKPOINT_FILE).is_file():
            return "file", path / CHECKPOINT_FILE
        raise UserError(f"{path}: no ECG tokenizer ({CONFIG_FILE} with {WEIGHTS_FILE}, or {CHECKPOINT_FILE}) in it")
    if not path.is_file():
        raise UserError(f"{path}: no such ECG tokenizer; train one with ecg_tokenizer/run_tokenizer.sh")
    return "file", path


def _read_safetensors(path, load_file):
    from safetensors import SafetensorError

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error


def _read_checkpoint(path):
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0][:200]
        raise UserError(f"{path}: not a plain file of weights, so it was not opened ({first})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        first = str(error).split("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({first})") from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UserError(f'{path}: not an ECG tokenizer (a checkpoint holds {{"model": weights, "step": number}})')
    if isinstance(content.get("config"), dict):
        return content["config"], state
    if all(key in state for key in PUBLISHED_KEYS):
        return dict(PUBLISHED_CONFIG), state
    raise UserError(f"{path}: the weights are of no ECG tokenizer known here (first: {next(iter(state))})")
