"""The training loop of stages 2 and 3 over a DeepSpeed engine: steps, validations, saves, going on from a save.

Which items a step takes and what is drawn at random depend on the seed, the epoch and the step alone, so a run that was
killed goes on as if it hadn't been, and the number of processes changes nothing but the speed (LoRA's dropout aside).
"""

import math
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

from model.checkpoint_files import CARD
from model.heartllm import loss_sum
from model.packing import supervised_tokens
from model.stage import SAVED
from model.training_data import step_batches, validation_batches
from model.training_state import load_state, save_state
from utils.processes import remember_stop
from utils.runs import Identity, check_start, finish_run, start_run
from utils.sharing import gathered
from utils.tools import REPOSITORY, Stopped, UserError, read_json

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

    items_per_step = options.batch_size * options.accumulation * process.world
    steps_per_epoch = math.ceil(len(items["train"]) / items_per_step)
    last_step = min(options.max_steps or math.inf, steps_per_epoch * options.train_epochs)
    resumed = _decide_start(options, process)
    engine = deepspeed_engine(model, options, process)
    progress = _restore(engine, process, last_step) if resumed else TrainingProgress()
    progress.signals = remember_stop()
    first = process.rank == 0
    log = RunLog(process.folder, stage, resume_step=progress.step if resumed else None) if process.writes else None
    bar = tqdm(total=last_step, initial=progress.step, desc=stage, unit="step", disable=not first)
    begun, steps, steps_of = time.monotonic() - progress.seconds, None, None
    ended_before = progress.step >= last_step
    while progress.step < last_step:
        epoch, number = divmod(progress.step, steps_per_epoch)
        if steps_of != epoch:
            steps, steps_of = items["train"].steps(items_per_step, options.seed, epoch), epoch
        rate = learning_rate(progress.step, last_step, options)
        context = epoch, rate, options, process, progress
        loss, tokens, stop = _train_step(engine, data, items["train"].items, steps[number], *context)
        speed = tokens / (time.monotonic() - begun - progress.seconds)
        progress.seconds = time.monotonic() - begun
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", tokens_s=f"{speed:.0f}", refresh=False)
        ends = progress.step == last_step
        if log and (progress.step % options.verbose_steps == 0 or progress.step == 1 or ends):
            row = {"step": progress.step, "epoch": epoch, "samples": progress.samples, "loss": loss, "lr": rate}
            log.log(**row, tokens_per_s=round(speed, 1), seconds=round(progress.seconds, 2))
        if progress.step % options.eval_steps == 0 or ends:
            _validate(engine, stage, data, items["valid"], options, process, progress, epoch, log, bar)
        if progress.step % steps_per_epoch == 0 or ends:
            masters = float32_masters(engine, process.writes)
            if process.writes:
                save_adapter(adapter_folder(process.folder, epoch), masters=masters)
            dist.barrier()
        if progress.step % options.save_steps == 0 or ends or stop:
            save_state(engine, process.folder, progress.saved, process.writes)
            dist.barrier()
        if stop and not ends:
            raise Stopped(stop, SAVED_TEXT.format(progress.step) if first else "")
    bar.close()
    adapter = adapter_folder(process.folder, (last_step - 1) // steps_per_epoch)
    if ended_before:  # gone on from a save of the last step, behind which what the stage leaves may be missing
        masters = float32_masters(engine, process.writes)
        if process.writes and not (adapter / CARD).is_file():
            save_adapter(adapter, masters=masters)
    if process.writes:
        summary = {"steps": progress.step, "seconds": round(progress.seconds, 1)}
        finish_run(process.folder, process.identity.fingerprint, **summary)
    if first:
        print(f"{stage}: {progress.step} steps in {progress.seconds:.0f} s -> {adapter}")


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


def deepspeed_engine(model, options, process):
    """A DeepSpeed engine around the model, as ds_config_zero2.json and the settings say."""
    import deepspeed

    if process.device.type == "cpu":
        # Its compilation takes a minute, and one that is killed blocks every later run; gloo does the same work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=options.weight_decay)
    config = read_json(REPOSITORY / "ds_config_zero2.json")
    config["train_micro_batch_size_per_gpu"] = options.batch_size
    config["gradient_accumulation_steps"] = options.accumulation
    config["bf16"] = {"enabled": process.dtype == torch.bfloat16}
    exact = [parameter.detach().clone() for parameter in trained] if process.dtype == torch.bfloat16 else []
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    for parameter, value in zip(trained, exact, strict=False):  # its masters are roundings of what was trained so far
        deepspeed.utils.safe_set_full_fp32_param(parameter, value.to(parameter.device))
    engine.train()
    return engine


def float32_masters(engine, writes):
    """Name -> float32 tensor on the CPU of what trains, where the engine's own parameters are bf16 roundings of it.

    All processes must call it, since each holds a part; empty in float32, and on processes that do not write.
    """
    if not engine.bfloat16_enabled():
        return {}
    from deepspeed.utils import safe_get_full_fp32_param

    known, masters = {}, {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            if id(parameter) not in known:
                master = safe_get_full_fp32_param(parameter)
                known[id(parameter)] = master.cpu() if writes else None
            masters[name] = known[id(parameter)]
    return masters if writes else {}


def _train_step(engine, data, items, chosen, epoch, rate, options, process, progress):
    """One optimizer step over ``items[chosen]``: (mean loss a supervised token, tokens, signal), over all processes."""
    batches = step_batches(
        data, items, chosen, process.rank, process.world, options.batch_size, options.seed, epoch, options.accumulation
    )
    supervised = sum(map(supervised_tokens, batches))
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    signalled = progress.signals[0] if progress.signals else 0
    counts = torch.tensor([supervised, tokens], dtype=torch.float64, device=process.device)
    dist.all_reduce(counts)
    stop = torch.tensor(signalled, device=process.device)
    dist.all_reduce(stop, dist.ReduceOp.MAX)  # one process may have the signal a step before another
    # Dropout's randomness belongs to the step and the process, so that a run that goes on repeats it.
    torch.manual_seed((options.seed * 1_000_003 + progress.step) * 4096 + process.rank)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), dtype=torch.float64, device=process.device)
    for batch in batches:
        loss = loss_sum(engine, {name: tensor.to(process.device) for name, tensor in batch.items()})
        total += loss.detach()
        # DeepSpeed averages over processes and accumulated batches; the mean over supervised tokens is wanted.
        engine.backward(loss * (process.world * options.accumulation / counts[0].item()))
        engine.step()
    dist.all_reduce(total)
    loss = total.item() / counts[0].item()
    if not math.isfinite(loss):
        names = "; ".join(str(items[int(index)])[:120] for index in chosen)
        raise UserError(f"the loss is {loss} at step {progress.step + 1}; its items: {names}")
    progress.step += 1
    progress.samples += len(chosen)
    return loss, counts[1].item(), int(stop.item())


@torch.no_grad()
def _validate(engine, stage, data, items, options, process, progress, epoch, log, bar):
    """Mean loss over the validation items, of several parts also each one's; for stage 2 also in bits a code, beside
    the bits of knowing nothing."""
    engine.eval()
    sums = torch.zeros(len(items), 2, dtype=torch.float64, device=process.device)
    for part, of_part in zip(sums, items.values(), strict=True):
        for batch in validation_batches(data, of_part, process.rank, process.world, options.batch_size, options.seed):
            part[0] += loss_sum(engine.module, {name: tensor.to(process.device) for name, tensor in batch.items()})
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
