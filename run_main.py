"""Stages 2 and 3: an LLM learns the codes of ECGs, then to answer and to report.

python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]     (the launchers do this)

``--plan`` checks settings and inputs, and prints how many processes to start, or ``finished``.
"""

import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, read_manifest
from data_provider.signal import SignalPolicy
from utils.machine import pick_device, pick_dtype, processes_wanted, set_threads, start_processes
from utils.runs import is_finished, results_folder
from utils.settings import TINY_LLM, load_settings, require, unused_keys
from utils.tools import UserError, entry_point, sha256_file, sha256_json


@dataclass
class Plan:
    """A run that has been checked: what it reads, where it writes, what it is made of."""

    stage: str
    settings: object
    folder: Path
    llm_path: Path
    manifests: dict  # "train", "valid" -> list of paths
    tokenizer_fingerprint: str
    inputs: dict
    processes: int

    @property
    def fingerprint(self):
        return sha256_json([self.settings.fingerprint(self.stage, {"num_processes"}), self.inputs, self.processes])


def make_plan(stage, argv):
    """Check everything that can be checked without a model; raises `UserError`."""
    from ecg_tokenizer.codec import tokenizer_fingerprint
    from model.checkpoint_files import check_fits, checkpoint_hash, llm_hash, tuning_of
    from model.prompts import check_ecg_first, read_prompts
    from model.tiny_llm import tiny_llm

    settings = load_settings(stage, argv)
    require(settings, "root_path_ecg", "tokenizer_path")
    if stage == "pretrain":
        roots = {"qa": settings.root_path_json, "report": settings.root_report_json}
        if not any(roots.values()):
            require(settings, "root_report_json")
    elif settings.tasktype == "qa":
        require(settings, "root_path_json")
        roots = {"qa": settings.root_path_json}
    else:
        require(settings, "root_report_json")
        roots = {"report": settings.root_report_json}
    manifests = {
        split: [manifest_path(root, settings.dataset, task, split) for task, root in roots.items() if root]
        for split in ("train", "valid")
    }
    for paths in manifests.values():
        for path in paths:
            check_records_exist(read_manifest(path), settings.root_path_ecg, path)
    fingerprint = tokenizer_fingerprint(settings.tokenizer_path)
    llm_path = tiny_llm(settings.results) if settings.local_llm_path == TINY_LLM else Path(settings.local_llm_path)
    inputs = {
        "manifests": [sha256_file(path) for paths in manifests.values() for path in paths],
        "tokenizer": fingerprint,
        "llm": llm_hash(llm_path),
    }
    if stage == "finetune":
        inputs["prompts"] = read_prompts(settings.prompts)
        if settings.share_ecg:
            check_ecg_first(inputs["prompts"], settings.tasktype)
        if settings.pretrain_path:
            check_fits(settings.pretrain_path, fingerprint, llm_path)
            if tuning_of(settings.pretrain_path) != settings.tuning:
                raise UserError(f"TUNING={settings.tuning}, but {settings.pretrain_path} was tuned the other way")
            inputs["pretrained"] = checkpoint_hash(settings.pretrain_path)
    tasktype = getattr(settings, "tasktype", "")
    folder = results_folder(settings.results, stage, tasktype, settings.dataset)
    processes = processes_wanted(settings.num_processes, settings.device)
    return Plan(stage, settings, folder, llm_path, manifests, fingerprint, inputs, processes)


def policy_of(settings):
    """How records become signals, from the settings."""
    return SignalPolicy(
        crop=settings.crop,
        short=settings.short_records,
        max_gap_s=settings.max_gap_s,
        lead_order=settings.lead_order,
    )


def stored_codes(settings, tokenizer, paths, rank):
    """The store that holds the codes of these records; the first process encodes what is missing."""
    import torch.distributed as dist

    from ecg_tokenizer.code_store import CodeStore, store_folder
    from ecg_tokenizer.encode import encode_records

    policy = policy_of(settings)
    folder = store_folder(settings.codes_root, tokenizer.fingerprint, policy, settings.root_path_ecg)
    if rank == 0:
        encode_records(tokenizer, settings.root_path_ecg, paths, folder, policy, workers=settings.workers)
    dist.barrier()
    return CodeStore.open(folder, tokenizer.fingerprint, policy)


def main_process(plan):
    """Train: this is what each process of a run does."""
    import torch

    from ecg_tokenizer.codec import EcgTokenizer
    from model.checkpoints import build_model, load_model, save_checkpoint
    from model.heartllm import trainable_parameters
    from model.prompts import read_prompts
    from model.training import Place, train
    from model.training_data import StageThree, StageTwo, longest_example, pretraining_paths, share_ecgs, usable
    from utils.tools import seed_everything

    settings, stage = plan.settings, plan.stage
    device = pick_device(settings.device, int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank, world = start_processes(device.type)
    threads, dtype = set_threads(settings.threads), pick_dtype(settings.use_amp, device)
    say = print if rank == 0 else (lambda *words, **how: None)
    say(f"{stage}: {world} process(es) x {threads} thread(s) on {device.type}, {str(dtype).split('.')[-1]}", flush=True)

    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    manifests = {split: [read_manifest(path) for path in paths] for split, paths in plan.manifests.items()}
    every_path = pretraining_paths(manifests["train"] + manifests["valid"])
    store = stored_codes(settings, ecg_tokenizer, every_path, rank)
    items = {}
    for split, lists in manifests.items():
        wanted = pretraining_paths(lists) if stage == "pretrain" else lists[0]
        items[split] = usable(wanted, store)
        left_out = len(wanted) - len(items[split])
        say(f"{split}: {len(items[split])} items" + (f", {left_out} left out (records below)" if left_out else ""))
        if not items[split]:
            raise UserError(f"{plan.manifests[split][0]}: no item has a readable record below {settings.root_path_ecg}")
    items["valid"] = sample(items["valid"], settings.val_items, settings.seed)
    bad = {path: store.bad.get(path, "not encoded") for path in every_path if path not in store}

    seed_everything(settings.seed)
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    if stage == "finetune" and settings.pretrain_path:
        how = {"dtype": dtype, "dropout": settings.lora_dropout, "text_rows": False}
        model, text_tokenizer, vocabulary = load_model(settings.pretrain_path, plan.llm_path, **alphabets, **how)
    else:
        lora = {"rank": settings.lora_r, "alpha": settings.lora_alpha, "dropout": settings.lora_dropout}
        how = {"tuning": settings.tuning, **lora, "dtype": dtype}
        model, text_tokenizer, vocabulary = build_model(plan.llm_path, **alphabets, **how)
    if stage == "pretrain":
        data = StageTwo(store, vocabulary, settings.pretrain_objective)
    else:
        prompts = read_prompts(settings.prompts)
        if settings.share_ecg:
            items = {split: share_ecgs(of_split) for split, of_split in items.items()}
        data = StageThree(store, vocabulary, text_tokenizer, prompts, settings.tasktype)
    longest, most = longest_example(data, items["train"]), model.config.max_position_embeddings
    if longest > most:
        raise UserError(f"an item takes {longest} tokens, the LLM {plan.llm_path} reads {most} at most")
    say("{:,} of {:,} parameters train".format(*trainable_parameters(model)), flush=True)
    card = {
        "stage": stage,
        "llm": settings.llm,
        "llm_path": str(plan.llm_path),
        "llm_hash": plan.inputs["llm"],
        "tokenizer_path": settings.tokenizer_path,
        "tokenizer_fingerprint": plan.tokenizer_fingerprint,
        **alphabets,
        "codes_per_ecg": ecg_tokenizer.codes_per_ecg,
        "settings": {key.upper(): value for key, value in asdict(settings).items()},
        "inputs": plan.inputs,
    }
    place = Place(plan.folder, plan.fingerprint, rank, world, device, dtype)
    save = partial(save_checkpoint, model=model, tokenizer=text_tokenizer, card=card)
    train(stage, settings, data, items, model, place, save)
    if bad:
        say(bad_records_text(bad))


@entry_point
def main(argv):
    """Plan or run a stage."""
    argv = [word for word in argv if not word.startswith("--local_rank")]
    if not argv or argv[0] not in ("pretrain", "finetune"):
        raise UserError("usage: python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]")
    stage, words = argv[0], argv[1:]
    plan = make_plan(stage, [word for word in words if word != "--plan"])
    finished = plan.settings.resume != "false" and is_finished(plan.folder, plan.fingerprint)
    if "--plan" in words:
        for key in unused_keys(stage, [word for word in words if word != "--plan"]):
            print(f"note: {key} has no effect in this stage", file=sys.stderr)
        if finished:
            print(f"{stage}: {plan.folder} is finished, made of these settings and inputs", file=sys.stderr)
        print("finished" if finished else plan.processes)
    elif not finished:
        main_process(plan)


if __name__ == "__main__":
    main()
