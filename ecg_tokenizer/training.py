"""Stage 1's loop: the network learns to write an ECG in its codes and to draw it from them again.

Several processes divide each step's ECGs and average their gradients (DDP); the losses are those of one process. A
learned codebook (QUANTIZER=vq) draws its first vectors in each process, and comes out a little otherwise.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from data_provider.data_factory import epoch_steps
from ecg_tokenizer.augmentation import augment
from ecg_tokenizer.codec import config_to_json
from ecg_tokenizer.familiarity import write_familiar_level
from ecg_tokenizer.muon import Muon
from ecg_tokenizer.validation import figures_text, reconstruct, validate
from ecg_tokenizer.weights import CHECKPOINT_FILE, STATE_FILE, write_checkpoint, write_folder
from utils.processes import remember_stop
from utils.sharing import gathered
from utils.tools import Stopped, UserError, write_atomically

WARM_UP, LAST_RATE = 0.05, 0.02  # share of the training; share of the peak rate


@dataclass
class Progress:
    """How far a run is; saved with its state."""

    step: int = 0
    seconds: float = 0.0
    best_prdn: float = math.inf
    best_step: int = 0
    without_improvement: int = 0


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; each field is the setting of the same name."""

    batch: int
    epochs: int
    lr: float
    augment: bool
    val_every: int
    save_steps: int
    patience: int
    max_minutes: float
    seed: int


@dataclass(frozen=True)
class Run:
    """What a run trains with, and on."""

    options: TrainingOptions
    folder: Path
    config: object
    device: object
    dtype: object
    train: object  # float32 [N, 12, 5000] by row: an array, or `data_provider.count_store.StoredSignals`
    train_names: list
    valid: object  # the same of the validation ECGs
    rows: object = None  # int array: the rows of ``train`` that an epoch takes; of a data set named twice, twice
    rank: int = 0
    world: int = 1
    writes: bool = True  # the first process of those that see the folder


class Reconstruction(nn.Module):
    """The network as one forward pass, which is what DDP wants."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x):
        return reconstruct(self.network, x, self.dtype)


def train(run, network, log, resume):
    """Train ``network``; leaves the best one, judged by the validation ECGs, in ``run.folder``.

    Returns
    -------
    progress : Progress
    figures : dict
        The best checkpoint's validation: prdn, usage, perplexity, ...
    """
    from tqdm import tqdm

    s = run.options
    optimizers = make_optimizers(network, s.lr)
    progress, figures = _restore(run, network, optimizers) if resume else (Progress(), {})
    steps_per_epoch = math.ceil(len(run.rows) / s.batch)
    last_step, begun = steps_per_epoch * s.epochs, time.monotonic() - progress.seconds
    bar = tqdm(total=last_step, initial=progress.step, desc="tokenizer", unit="step", disable=run.rank > 0)
    forward = distributed(run, network)
    steps, steps_of, done, signals = None, None, share_done(progress, last_step, s), remember_stop()
    while done < 1 and not stops_early(progress, s):
        epoch, number = divmod(progress.step, steps_per_epoch)
        if steps_of != epoch:
            steps, steps_of = epoch_steps(len(run.rows), s.batch, s.seed, epoch), epoch
        rate = learning_rate(done)
        mse = train_step(run, forward, optimizers, run.rows[steps[number]], rate, progress.step)
        progress.step += 1
        progress.seconds, stop = agreed(run, time.monotonic() - begun, signals[0] if signals else 0)
        done = share_done(progress, last_step, s)
        if s.max_minutes:
            bar.total = min(last_step, round(progress.step / done))
        bar.update()
        bar.set_postfix(loss=f"{mse:.4f}", PRDN=f"{100 * math.sqrt(mse):.1f}%")
        if log and (progress.step % 10 == 0 or progress.step == 1):
            row = {"step": progress.step, "epoch": epoch, "samples": progress.step * s.batch, "loss": mse}
            log.log(**row, prdn=100 * math.sqrt(mse), lr=s.lr * rate, seconds=round(progress.seconds, 2))
        if progress.step % s.val_every == 0 or done >= 1:
            figures = _validate_and_keep(run, network, log, progress, epoch, figures, bar)
            progress.seconds, _ = agreed(run, time.monotonic() - begun)
        if (progress.step % s.save_steps == 0 or (stop and done < 1)) and run.writes:
            _save_state(run, network, optimizers, progress, figures)
        if stop and done < 1:
            gathered(None)  # saved everywhere
            text = f"at step {progress.step}, saved; the same command with RESUME=true goes on from here"
            raise Stopped(stop, text if run.rank == 0 else "")
    bar.close()
    return progress, figures


def distributed(run, network):
    """The network's forward pass, its gradients averaged over all processes."""
    forward = Reconstruction(network, run.dtype)
    if run.world == 1:
        return forward
    return nn.parallel.DistributedDataParallel(forward, device_ids=[run.device] if run.device.type == "cuda" else None)


def agreed(run, seconds, signal=0):
    """The slowest process's seconds, by which the learning rate may go, and the signal that any of them was sent."""
    if run.world == 1:
        return seconds, signal
    both = torch.tensor([seconds, signal], dtype=torch.float64, device=run.device)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return both[0].item(), int(both[1].item())


def make_optimizers(network, lr):
    """Muon for the hidden layers' matrices, AdamW for all else (for the published network: for all)."""
    matrices = [matrix for matrix in network.hidden_matrices() if matrix.requires_grad]
    others = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in others]
    optimizers = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)]
    if matrices:
        optimizers.append(Muon(matrices, lr=10 * lr))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def share_done(progress, last_step, s):
    """How much of the training is behind, 0..1: in steps, or in minutes where those end it first."""
    minutes = progress.seconds / 60 / s.max_minutes if s.max_minutes else 0.0
    return min(1.0, max(progress.step / last_step, minutes))


def stops_early(progress, s):
    """Whether PATIENCE validations brought no improvement."""
    return 0 < s.patience <= progress.without_improvement


def learning_rate(done):
    """Share of the peak rate: a linear warm-up, then half a cosine."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.02)
    return LAST_RATE + (1 - LAST_RATE) * (0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def train_step(run, forward, optimizers, chosen, rate, step):
    """One step over the ECGs ``chosen`` at ``rate`` times the peak learning rates; returns the mean squared error.

    ``forward`` is what `distributed` makes; this process takes every ``world``-th ECG.
    """
    # Randomness (augmentation; a learned codebook's k-means, revived codes) is the step's: a resumed run repeats it.
    torch.manual_seed(run.options.seed * 1_000_003 + step)
    mine = slice(run.rank, None, run.world) if run.rank < len(chosen) else slice(0, 1)  # too few: one that counts 0
    x = torch.from_numpy(run.train[chosen[mine]]).to(run.device)
    seen, target = augment(x, count=len(chosen), mine=mine) if run.options.augment else (x, x)
    recon, _, quantizer_loss = forward(seen)
    mse = (recon - target).square().mean()
    weight = len(x) / len(chosen) if run.rank < len(chosen) else 0.0  # of this process's mean; DDP divides by world
    ((mse + quantizer_loss) * (weight * run.world)).backward()
    value = mse.detach() * weight
    if run.world > 1:
        dist.all_reduce(value)
    value = value.item()
    if not math.isfinite(value):
        names = ", ".join(run.train_names[index] for index in chosen)
        raise UserError(f"the loss is {value} at step {step + 1}; its records: {names}; a lower LR may help")
    torch.nn.utils.clip_grad_norm_(forward.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        optimizer.step()
        optimizer.zero_grad()
    return value


def _validate_and_keep(run, network, log, progress, epoch, figures, bar):
    """Validate; the best so far goes to best.pt and to the folder. Returns the best figures."""
    new, losses = validate(network, run.valid, run.device, run.dtype, run.rank, run.world)
    if log:
        log.log_validation(step=progress.step, epoch=epoch, val_loss=new["mse"], **new)
    if run.rank == 0:
        bar.write(f"step {progress.step}: " + figures_text(new, network.quantizer.n_codes))
    if new["prdn"] >= progress.best_prdn:
        progress.without_improvement += 1
        return figures
    progress.best_prdn, progress.best_step, progress.without_improvement = new["prdn"], progress.step, 0
    if not run.writes:
        return new
    config, state = config_to_json(run.config), network.state_dict()
    write_checkpoint(run.folder / CHECKPOINT_FILE, config, state, progress.step)
    write_folder(run.folder, config, state)
    write_familiar_level(run.folder, losses)
    return new


def _save_state(run, network, optimizers, progress, figures):
    state = {
        "model": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
        "figures": figures,
    }
    write_atomically(run.folder / STATE_FILE, lambda temporary: torch.save(state, temporary))


def _restore(run, network, optimizers):
    path = run.folder / STATE_FILE
    try:
        state = torch.load(path, map_location=run.device, weights_only=True)
        network.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        progress = Progress(**state["progress"])
    except Exception as error:
        raise UserError(f"{path}: the saved state cannot be loaded ({error}); RESUME=false starts over") from error
    steps = gathered(progress.step)
    if len(set(steps)) > 1:
        raise UserError(f"{path}: the machines hold saves of different steps ({steps}, by process); copy one to all")
    if run.rank == 0:
        print(f"going on from step {progress.step}", flush=True)
    return progress, state["figures"]
