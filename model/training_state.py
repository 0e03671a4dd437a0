"""What a run of stage 2 or 3 goes on from: float32 weights and AdamW's moments, for any number of processes.

DeepSpeed's own checkpoints hold a part a process and load only into as many. A save is a folder ``resume/step<N>`` of
safetensors; ``resume/latest`` names it once it is whole, and then the one before goes.
"""

import shutil
from pathlib import Path

import torch

from model.stage import SAVED
from utils.tools import UserError, read_json, write_atomically, write_json

PROGRESS = "progress.json"
SHARD_BYTES = 1 << 30  # so that the first process need not hold all of a large model's state
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(engine, folder, progress, writes):
    """Save a DeepSpeed engine's trained weights and their moments, and ``progress`` (a dict).

    All processes call it; those that write do so, one a folder.
    """
    from safetensors import SafetensorError

    latest, name = Path(folder) / SAVED, f"step{progress['step']}"
    try:
        _write_tensors(engine, latest.parent / name, writes)
        if writes:
            write_json(latest.parent / name / PROGRESS, progress)
            write_atomically(latest, lambda temporary: temporary.write_text(name))
            for old in latest.parent.iterdir():
                if old.is_dir() and old.name != name:
                    shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{latest.parent / name}: cannot be written ({error}); the save before it is kept") from error


def _write_tensors(engine, folder, writes):
    """Each trained parameter in float32 and its moments, put together by all processes."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
    from safetensors.torch import save_file

    if writes:
        shutil.rmtree(folder, ignore_errors=True)  # half a save of a killed run
        folder.mkdir(parents=True)
    trained, shard, size, shards = _trained(engine), {}, 0, 0
    for number, (key, parameter) in enumerate(trained.items(), start=1):
        tensors = {key: safe_get_full_fp32_param(parameter)}
        tensors |= {f"{key}/{moment}": safe_get_full_optimizer_state(parameter, moment) for moment in MOMENTS}
        if not writes:
            continue
        shard |= {part: tensor.cpu().contiguous() for part, tensor in tensors.items()}
        size += 12 * parameter.numel()
        if size > SHARD_BYTES or number == len(trained):
            save_file(shard, folder / f"{shards:05d}.safetensors")
            shard, size, shards = {}, 0, shards + 1


def load_state(engine, folder):
    """Put the last save into a fresh engine of the same model; returns the ``progress`` saved with it."""
    from safetensors import SafetensorError, safe_open

    latest = Path(folder) / SAVED
    state = latest.parent / latest.read_text()
    progress, trained, missing = read_json(state / PROGRESS), _trained(engine), None
    _make_moments(engine, progress["step"])
    try:
        found = set()
        for file in sorted(state.glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                keys = trained.keys() & set(tensors.keys())
                found |= keys
                for key in keys:
                    _set(trained[key], tensors, key)
        missing = next((key for key in trained if key not in found), None)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{state}: the save cannot be loaded ({error}); RESUME=false starts over") from error
    if missing:
        raise UserError(f"{state}: the save lacks {missing}; RESUME=false starts over")
    return progress


def _trained(engine):
    return {name: parameter for name, parameter in engine.module.named_parameters() if parameter.requires_grad}


def _make_moments(engine, step):
    """The state that AdamW makes at its first step, and DeepSpeed's links into it."""
    zero, adamw = engine.optimizer, engine.optimizer.optimizer
    for flat in (parameter for group in adamw.param_groups for parameter in group["params"]):
        moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
        # Where AdamW itself keeps it: fused, beside the weights.
        adamw.state[flat] = {"step": torch.tensor(float(step), device=flat.device), **moments}
    zero._lazy_init_hp_params_optimizer_state()


def _set(parameter, tensors, key):
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    value = tensors.get_tensor(key)
    if value.shape != parameter.shape:
        raise RuntimeError(f"{key} is of shape {tuple(value.shape)}, {tuple(parameter.shape)} is needed")
    with torch.no_grad():
        parameter.copy_(value)  # the weights that compute: in bf16 its rounding, as DeepSpeed makes it
    safe_set_full_fp32_param(parameter, value.to(parameter.device))
    for moment in MOMENTS:
        safe_set_full_optimizer_state(parameter, tensors.get_tensor(f"{key}/{moment}").to(parameter.device), moment)
