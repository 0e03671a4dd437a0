"""Stage 1: train the ECG tokenizer.

python -m ecg_tokenizer.tokenizer [--plan] [ENV FILE] [KEY=VALUE ...]     (run_tokenizer.sh does this)

Leaves in LOG_ROOT: best.pt (the published layout), config.json + model.safetensors (the same weights), log.jsonl,
TensorBoard's files, finished.json, and the state that RESUME goes on from.
"""

import dataclasses
import math
import os
from contextlib import nullcontext
from pathlib import Path

from data_provider.count_store import store_signals
from data_provider.data_loader import bad_records_text, file_signatures, load_signals
from data_provider.manifests import check_records_exist, read_manifest, record_paths
from data_provider.read import SignalPolicy
from ecg_tokenizer.weights import CODER, STATE_FILE, coder_hash, weights_hash
from utils.machine import processes_wanted
from utils.nodes import Machines
from utils.runs import Identity, finish_run, plan_or_run, start_run
from utils.settings import load_settings, pick, require
from utils.sharing import gathered, sharers_of
from utils.tools import UserError, entry_point, seed_everything, sha256_file, sha256_json

VERSION = 4  # raise it when the same settings train another network: finished runs are then made anew
DEPTHS = ("encoder_depth", "decoder_depth")
MOST_CODES = 65_000  # uint16 holds them and the amplitude's
STORED_FROM = 4000  # ECGs; more are kept in a file (120 kB each) for the time of the run, in place of memory (240 kB)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has been checked."""

    settings: object
    folder: Path
    root: str  # what the record paths start from
    paths: dict  # "train", "valid" -> record paths
    signatures: dict  # record path -> its files' sizes and times
    identity: Identity

    @property
    def processes(self):
        """Processes of the run; counting GPUs needs torch."""
        s = self.settings
        processes = processes_wanted(s.num_processes, s.device, pick(s, Machines))
        if processes > s.batch:
            raise UserError(f"BATCH={s.batch}: {processes} processes have not an ECG each in a step; set NUM_PROCESSES")
        return processes


def make_plan(argv):
    """Check everything that can be checked without reading signals; raises `UserError`. Needs no torch."""
    settings = load_settings("tokenizer", argv)
    require(settings, "root_ecg", "train_path", "val_path", "log_root")
    if settings.start_from and Path(settings.start_from).resolve().is_relative_to(Path(settings.log_root).resolve()):
        raise UserError(f"START_FROM={settings.start_from} lies in LOG_ROOT, where training would write over it")
    check_network(settings)
    root, paths = read_sources(settings)
    signatures = file_signatures(root, [path for part in paths.values() for path in part])
    inputs = {
        "version": VERSION,
        "manifests": [sha256_file(path) for path in settings.train_path + settings.val_path],
        "records": sha256_json([[path, signatures[path]] for part in paths.values() for path in part]),
        "start": weights_hash(settings.start_from) if settings.start_from else None,
    }
    decides, length, other = settings.parts("tokenizer")
    identity = Identity(decides | {"inputs": inputs}, length, other)
    return Plan(settings, Path(settings.log_root), root, paths, signatures, identity)


def read_sources(settings):
    """The folder that holds all of ROOT_ECG, and the record paths below it of each split."""
    roots, manifests = settings.root_ecg, {"train": settings.train_path, "valid": settings.val_path}
    if len(settings.train_path) != len(roots) or len(settings.val_path) > len(roots):
        raise UserError(
            f"ROOT_ECG names {len(roots)} folder(s), TRAIN_PATH {len(settings.train_path)} manifest(s) and VAL_PATH "
            f"{len(settings.val_path)}; each folder needs its training manifest"
        )
    common = os.path.commonpath(roots)
    paths = {split: [] for split in manifests}
    for split, files in manifests.items():
        for root, manifest in zip(roots, files, strict=False):
            items = read_manifest(manifest)
            check_records_exist(items, root, manifest)
            below = os.path.relpath(root, common)
            paths[split] += [os.path.normpath(os.path.join(below, path)) for path in record_paths(items)]
    return common, paths


def check_network(settings):
    """A `UserError` where the settings ask for a network that cannot be."""
    n_codes = settings.residual_depth * math.prod(settings.levels)
    if settings.quantizer == "fsq" and n_codes > MOST_CODES:
        raise UserError(f"LEVELS={','.join(map(str, settings.levels))}: {n_codes} codes, {MOST_CODES} can be stored")
    if settings.quantizer == "vq" and settings.residual_depth > 1:
        raise UserError("RESIDUAL_DEPTH needs QUANTIZER=fsq")
    if settings.keep_codes and (settings.quantizer == "vq" or not settings.start_from):
        raise UserError("KEEP_CODES needs START_FROM, whose codes are kept, and QUANTIZER=fsq")
    if settings.architecture == "published":
        fixed = {"quantizer": "fsq", "levels": (6, 6, 6, 6), "codes_per_ecg": 313}
        fixed |= {"residual_depth": 1, "encoder_depth": 0, "decoder_depth": 0}
        for name, value in fixed.items():
            if getattr(settings, name) != value:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else value
                raise UserError(f"ARCHITECTURE=published has {name.upper()}={text}; ARCHITECTURE=default has others")
    check_codes_per_ecg(settings.codes_per_ecg)


def check_codes_per_ecg(positions):
    """A `UserError` where the last of so many codes would lie wholly behind the signal's end.

    Patches have one length, the next whole number of samples: 2,000 of 3 samples are 1,000 samples too many.
    """
    samples = SignalPolicy().samples
    patch = math.ceil(samples / positions)
    if math.ceil(samples / patch) < positions:
        raise UserError(
            f"CODES_PER_ECG={positions}: patches of {patch} samples, so some codes would lie behind the signal's end; "
            f"{math.ceil(samples / patch)} or {math.ceil(samples / (patch - 1))} fit"
        )


def run_plan(plan):
    """Read the ECGs, train, and say what came out."""
    import numpy as np
    import torch

    from ecg_tokenizer.training import Run, TrainingOptions, train
    from ecg_tokenizer.validation import figures_text
    from utils.log import RunLog
    from utils.machine import pick_device, pick_dtype, set_threads, start_process

    s = plan.settings
    if "RANK" in os.environ:
        rank, world, device, dtype = start_process("tokenizer", s.device, s.threads, s.use_amp)
    else:
        rank, world, device = 0, 1, pick_device(s.device)
        dtype = pick_dtype(s.use_amp, device)
    threads, writes = set_threads(s.threads), sharers_of(plan.folder).number == 0
    seed_everything(s.seed)
    network, config = make_network(s)  # first: what is wrong with START_FROM costs no earlier run
    network = network.to(device).train()
    resume = [start_run(plan.folder, plan.identity, s.resume, STATE_FILE)] if writes else []
    resume = {found for part in gathered(resume) for found in part}
    if len(resume) > 1:
        raise UserError(f"{plan.folder}: only some machines hold a save to go on from; copy it to all, or RESUME=false")
    resume = resume.pop()
    signals, names, bad = read_signals(plan)
    row_of = {name: row for row, name in enumerate(names["train"])}
    rows = np.array([row_of[path] for path in plan.paths["train"] if path in row_of])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    say = print if rank == 0 else lambda *texts, **how: None
    say(
        f"tokenizer: {len(rows)} ECGs to train on, {len(names['valid'])} to validate; "
        f"{config.architecture} network, {parameters:,} parameters; "
        f"{device.type}, {threads} thread(s), {str(dtype).split('.')[-1]}",
        flush=True,
    )
    run = Run(
        pick(s, TrainingOptions), plan.folder, config, device, dtype, signals["train"], names["train"],
        signals["valid"], rows, rank, world, writes,
    )  # fmt: skip
    resume_step = _saved_step(plan) if resume else None
    with RunLog(plan.folder, "tokenizer", resume_step) if writes else nullcontext() as log:
        progress, figures = train(run, network, log, resume)
    summary = {**figures, "step": progress.best_step, "steps": progress.step, "seconds": round(progress.seconds, 1)}
    summary |= {"n_codes": network.quantizer.n_codes, "parameters": parameters, "torch": torch.__version__}
    if writes:
        finish_run(plan.folder, plan.identity.fingerprint, **summary, bad=bad)
    say(f"tokenizer: {figures_text(figures, network.quantizer.n_codes)}")
    minutes = progress.seconds / 60
    say(f"tokenizer: step {progress.best_step} of {progress.step}, {minutes:.1f} min -> {plan.folder}/best.pt")
    if bad:
        say(bad_records_text(bad))


def make_network(settings):
    """The network that the settings describe, and its `NetworkConfig`; drawn at random, or as START_FROM left it."""
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.network import NetworkConfig, build_network

    start = EcgTokenizer.from_pretrained(settings.start_from) if settings.start_from else None
    if settings.architecture == "published":
        config = NetworkConfig(architecture="published")
    else:
        names = "quantizer levels codebook_size codes_per_ecg residual_depth amplitude".split()
        base = start.config if start else NetworkConfig
        depths = {name: getattr(settings, name) or getattr(base, name) for name in DEPTHS}
        config = NetworkConfig(**{name: getattr(settings, name) for name in names}, **depths)
    network = build_network(config)
    if not start:
        return network, config
    free = {"codes_of", "coder"} | (set() if settings.keep_codes else {"amplitude"})  # the weights know nothing of it
    growing = {"decoder_depth"} if settings.keep_codes else set(DEPTHS)
    for name, value in dataclasses.asdict(config).items():
        given = getattr(start.config, name)
        if given != value and name not in free and not (name in growing and value > given):
            raise UserError(f"START_FROM={settings.start_from}: its {name} is {given}, in the settings {value}")
    if any(getattr(config, name) > getattr(start.config, name) for name in DEPTHS):
        network.load_shallower(start.network.state_dict())
    else:
        network.load_state_dict(start.network.state_dict())
    return network, kept_codes(network, config, start) if settings.keep_codes else config


def kept_codes(network, config, start):
    """Train only what draws the ECG; the `NetworkConfig` that says that the codes are those of ``start``."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in CODER)
    coder = coder_hash({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    return dataclasses.replace(config, codes_of=start.fingerprint, coder=coder)


def read_signals(plan):
    """The standardised signals of both splits by row, their names, and the bad records."""
    s = plan.settings
    policy = SignalPolicy(crop=s.crop, short=s.short_records, max_gap_s=s.max_gap_s, lead_order=s.lead_order)
    signals, names, bad = {}, {}, {}
    for split, what in (("train", "training"), ("valid", "validation")):
        named, text = (plan.root, plan.paths[split], policy), f"reading {what} ECGs"
        if len(plan.paths[split]) < STORED_FROM:
            found = load_signals(*named, s.workers, text)
        else:
            found = store_signals(*named, plan.folder, s.workers, text)
        signals[split], names[split] = found[:2]
        bad |= found[2]
        if not names[split]:
            path, reason = next(iter(found[2].items()))
            raise UserError(f"none of the {what} ECGs can be read; the first: {path}: {reason}")
    return signals, names, bad


def _saved_step(plan):
    import torch

    return torch.load(plan.folder / STATE_FILE, weights_only=True)["progress"]["step"]


@entry_point
def main(argv):
    """Train the ECG tokenizer: [ENV FILE] [KEY=VALUE ...]."""
    if "--help" in argv or "-h" in argv:
        print(__doc__.strip())
        return
    plan_or_run("tokenizer", argv, make_plan, run_plan, STATE_FILE, ["-m", "ecg_tokenizer.tokenizer"])


if __name__ == "__main__":
    main()
