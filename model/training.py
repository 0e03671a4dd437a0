"""The training loop of stages 2 and 3 over a DeepSpeed engine: steps, validations, saves, going on from a save.

Which items a step takes and what is drawn at random depend on the seed, the epoch and the step alone, so a run that was
killed goes on as if it hadn't been, and the number of processes changes nothing but the speed (LoRA's dropout aside).
"""

import math
import socket
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from model.checkpoint_files import CARD
from model.engine import deepspeed_engine, float32_masters
from model.heartllm import loss_sum
from model.packing import supervised_tokens
from model.stage import SAVED
from model.throughput import Meter, measured_peak, work_of
from model.training_data import validation_batches
from model.training_state import load_state, save_state
from model.training_step import Losses, ahead, make_schedule, make_step, on_device, take_step
from utils.processes import remember_stop
from utils.runs import Identity, check_start, finish_run, start_run
from utils.sharing import gathered
from utils.tools import Stopped, UserError

SAVED_TEXT = "at step {}, saved; the same command with RESUME=true goes on from here"


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; each field is the setting of the same name."""

    batch_size: int
    accumulation: int
    train_epochs: int
    max_steps: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    verbose_steps: int
    eval_steps: int
    save_steps: int
    seed: int
    resume: str
    tokens_per_step: int = 0
    gradient_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True)
class ProcessContext:
    """Where a process runs: its folder of results, its rank among the processes, its device.

    ``writes``: whether it writes what the run leaves: the first process of all that see the folder, so that machines
    with files of their own hold all of it each.
    """

    folder: Path
    identity: Identity
    rank: int
    world: int
    device: torch.device
    dtype: torch.dtype
    writes: bool
    control: object = None  # a group of all processes over gloo, where the device's own would make a GPU wait


@dataclass
class TrainingProgress:
    """How far a run is; saved with the engine's state, all but the signals that ask it to stop."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    signals: list = field(default_factory=list)

    @property
    def saved(self):
        """What of it is saved."""
        return {"step": self.step, "samples": self.samples, "seconds": self.seconds}


def train(stage, options, data, items, model, process, save_adapter):
    """Train ``model`` on ``items["train"]``.

    Parameters
    ----------
    stage : {"pretrain", "finetune"}
    options : TrainingOptions
    data : StageTwo or StageThree
    items : dict
        What ``data`` makes examples of: "train" a `data_provider.data_factory.Mixture`, "valid" name -> list of each
        part.
    process : ProcessContext
    save_adapter : callable
        Given a folder, saves what the stage leaves there.
    """
    from tqdm import tqdm

    from utils.log import RunLog

    if process.device.type == "cuda":
        process = replace(process, control=dist.new_group(backend="gloo"))
    schedule = make_schedule(data, items["train"], options, process)
    last_step, first = schedule.last_step, process.rank == 0
    resumed = _decide_start(options, process)
    work, peak = work_of(model), measured_peak(process.device, process.dtype)
    engine = deepspeed_engine(model, options, process)
    progress = _restore(engine, process, last_step) if resumed else TrainingProgress()
    progress.signals = remember_stop()
    log = RunLog(process.folder, stage, resume_step=progress.step if resumed else None) if process.writes else None
    bar = tqdm(total=last_step, initial=progress.step, desc=stage, unit="step", disable=not first)
    begun, ended_before = time.monotonic() - progress.seconds, progress.step >= last_step
    losses, meter = Losses(process.device), Meter(peak * process.world)
    for made in ahead(partial(make_step, data, schedule, work), range(progress.step, last_step)):
        step, epoch = progress.step, schedule.epoch(progress.step)
        rate = learning_rate(step, last_step, options)
        stop = _stop(progress, process)
        total, (supervised, *done) = take_step(engine, made, rate, options.seed, step, process)
        losses.add(total, supervised, step)
        meter.add(*done)
        progress.step, progress.samples = step + 1, progress.samples + made.n_items
        progress.seconds = time.monotonic() - begun
        bar.update()
        due = _due(progress.step, schedule, options, stop)
        if any(due.values()) or process.device.type == "cpu":  # a GPU is not waited for at every step
            loss = _finite_loss(losses, schedule)
        if due["line"]:
            speed, share = meter.read()
            bar.set_postfix(loss=f"{loss:.3f}", tokens_s=f"{speed:.0f}", peak=f"{share:.0%}", refresh=False)
            row = {"step": progress.step, "epoch": epoch, "samples": progress.samples, "loss": loss, "lr": rate}
            row |= {"tokens_per_s": round(speed, 1), "peak_share": round(share, 4)}
            if log:
                log.log(**row, seconds=round(progress.seconds, 2))
        paused = time.monotonic()
        if due["validation"]:
            _validate(engine, stage, data, items["valid"], options, process, progress, epoch, log, bar)
        if due["adapter"]:
            masters = float32_masters(engine, process.writes)
            if process.writes:
                save_adapter(adapter_folder(process.folder, epoch), masters=masters)
            dist.barrier()
        if due["save"]:
            save_state(engine, process.folder, progress.saved, process.writes)
            dist.barrier()
        if stop and progress.step < last_step:
            raise Stopped(stop, SAVED_TEXT.format(progress.step) if first else "")
        meter.leave_out(time.monotonic() - paused)
    bar.close()
    adapter = adapter_folder(process.folder, schedule.epoch(last_step - 1))
    _end(engine, stage, adapter, progress, process, save_adapter if ended_before else None)


def _end(engine, stage, adapter, progress, process, save_adapter):
    """Mark the run as finished.

    ``save_adapter``: given where the run went on from a save of its last step, behind which what the stage leaves may
    be missing.
    """
    if save_adapter:
        masters = float32_masters(engine, process.writes)
        if process.writes and not (adapter / CARD).is_file():
            save_adapter(adapter, masters=masters)
    if process.writes:
        summary = {"steps": progress.step, "seconds": round(progress.seconds, 1)}
        finish_run(process.folder, process.identity.fingerprint, **summary)
    if process.rank == 0:
        print(f"{stage}: {progress.step} steps in {progress.seconds:.0f} s -> {adapter}")


def _due(step, schedule, options, stop):
    """What is to be done behind a step: a line in the log, a validation, an adapter, a save."""
    ends = step == schedule.last_step
    return {
        "line": step % options.verbose_steps == 0 or step == 1 or ends,
        "validation": step % options.eval_steps == 0 or ends,
        "adapter": schedule.ends_epoch(step) or ends,
        "save": step % options.save_steps == 0 or ends or bool(stop),
    }


def _stop(progress, process):
    """The signal that asks the run to stop, or 0: one process may have it a step before another."""
    stop = torch.tensor(progress.signals[0] if progress.signals else 0)
    dist.all_reduce(stop, dist.ReduceOp.MAX, group=process.control)
    return int(stop)


def _finite_loss(losses, schedule):
    """The last step's loss; a `UserError` that names the items where one was not finite since the last look."""
    loss, bad = losses.read()
    if bad is None:
        return loss
    names = "; ".join(str(schedule.mixture.items[int(index)])[:120] for index in schedule.chosen(bad))
    raise UserError(f"the loss is not finite at step {bad + 1}; its items: {names}")


def adapter_folder(folder, epoch):
    """Where an epoch's adapter lies; the name is the published one."""
    return Path(folder) / "checkpoint" / f"checkpoint_epoch{epoch}"


def learning_rate(step, last_step, options):
    """The rate of a step: a linear warm-up, then constant, or a half cosine down to a tenth."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return options.learning_rate
    share = (step - options.warmup_steps) / max(1, last_step - options.warmup_steps)
    return options.learning_rate * (0.55 + 0.45 * math.cos(math.pi * share))


@torch.no_grad()
def _validate(engine, stage, data, items, options, process, progress, epoch, log, bar):
    """Mean loss over the validation items, of several parts also each one's; for stage 2 also in bits a code, beside
    the bits of knowing nothing."""
    engine.eval()
    sums = torch.zeros(len(items), 2, dtype=torch.float64, device=process.device)
    for part, of_part in zip(sums, items.values(), strict=True):
        for batch in validation_batches(data, of_part, process.rank, process.world, options.batch_size, options.seed):
            part[0] += loss_sum(engine.module, on_device(batch, process.device))
            part[1] += supervised_tokens(batch)
    dist.all_reduce(sums)
    engine.train()
    if log is None:
        return
    loss = (sums[:, 0].sum() / sums[:, 1].sum()).item()
    more, text = {}, f"step {progress.step}: validation loss {loss:.4f}"
    if stage == "pretrain":
        more = {"bits_per_code": loss / math.log(2), "log2_codes": math.log2(data.vocabulary.n_codes)}
        text += f", {more['bits_per_code']:.2f} bits per code (log2 of {data.vocabulary.n_codes} codes: "
        text += f"{more['log2_codes']:.2f})"
    if len(items) > 1:
        more["val_loss_by_part"] = {name: (part[0] / part[1]).item() for name, part in zip(items, sums, strict=True)}
        text += "; " + ", ".join(f"{name} {value:.4f}" for name, value in more["val_loss_by_part"].items())
    log.log_validation(step=progress.step, epoch=epoch, val_loss=loss, **more)
    if process.rank == 0:
        bar.write(text)


def _decide_start(options, process):
    """Whether to go on from a save: those that write look what their folders hold, and must find the same."""
    found = None
    if process.writes:
        goes_on, _ = check_start(process.folder, process.identity, options.resume, SAVED)
        found = socket.gethostname(), (process.folder / SAVED).read_text() if goes_on else "no save to go on from"
    found = dict(filter(None, gathered(found)))
    if len(set(found.values())) > 1:
        text = "; ".join(f"{host} has {save}" for host, save in found.items())
        raise UserError(
            f"{process.folder}: the machines hold different saves: {text}; copy the folder of the one that is further "
            "to the others, or start over with RESUME=false"
        )
    resumed = start_run(process.folder, process.identity, options.resume, SAVED) if process.writes else None
    return next(one for one in gathered(resumed) if one is not None)


def _restore(engine, process, last_step):
    progress = TrainingProgress(**load_state(engine, process.folder))
    if progress.step > last_step:
        raise UserError(
            f"{process.folder}: is at step {progress.step}, but MAX_STEPS and TRAIN_EPOCHS end it at {last_step}; "
            "RESUME=false moves it aside and starts over"
        )
    if process.rank == 0:
        print(f"going on from step {progress.step}", flush=True)
    return progress
