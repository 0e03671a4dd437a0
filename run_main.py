"""Stages 2 and 3: an LLM learns the codes of ECGs, then to answer and to report.

python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]     (the launchers do this)

``--plan`` checks settings and inputs, and prints how many processes to start, or ``finished``.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, read_manifest
from data_provider.signal import SignalPolicy
from utils.machine import processes_wanted, start_process
from utils.runs import plan_or_run, results_folder
from utils.settings import TINY_LLM, load_settings, require
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


def readable_items(plan, manifests, store, say):
    """The items of each split whose ECGs have codes (stage 2: the paths of those ECGs)."""
    from model.training_data import pretraining_paths, usable

    items = {}
    for split, lists in manifests.items():
        wanted = pretraining_paths(lists) if plan.stage == "pretrain" else lists[0]
        items[split] = usable(wanted, store)
        left_out = len(wanted) - len(items[split])
        say(f"{split}: {len(items[split])} items" + (f", {left_out} left out (records below)" if left_out else ""))
        if not items[split]:
            root = plan.settings.root_path_ecg
            raise UserError(f"{plan.manifests[split][0]}: no item has a readable record below {root}")
    items["valid"] = sample(items["valid"], plan.settings.val_items, plan.settings.seed)
    return items


def model_to_train(plan, alphabets, dtype):
    """What stage 2 left, or the LLM itself with the ECG's tokens and what is to be trained: (model, tokenizer, ids)."""
    from model.checkpoints import build_model, load_model

    settings = plan.settings
    if plan.stage == "finetune" and settings.pretrain_path:
        how = {"dtype": dtype, "dropout": settings.lora_dropout, "text_rows": False}
        return load_model(settings.pretrain_path, plan.llm_path, **alphabets, **how)
    lora = {"rank": settings.lora_r, "alpha": settings.lora_alpha, "dropout": settings.lora_dropout}
    return build_model(plan.llm_path, **alphabets, tuning=settings.tuning, **lora, dtype=dtype)


def main_process(plan):
    """Train: this is what each process of a run does."""
    from ecg_tokenizer.codec import EcgTokenizer
    from model.checkpoints import save_checkpoint
    from model.heartllm import trainable_parameters
    from model.prompts import read_prompts
    from model.training import Place, train
    from model.training_data import StageThree, StageTwo, longest_example, pretraining_paths, share_ecgs
    from utils.tools import seed_everything

    settings, stage = plan.settings, plan.stage
    rank, world, device, dtype = start_process(stage, settings)
    say = print if rank == 0 else (lambda *words, **how: None)

    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    manifests = {split: [read_manifest(path) for path in paths] for split, paths in plan.manifests.items()}
    every_path = pretraining_paths(manifests["train"] + manifests["valid"])
    store = stored_codes(settings, ecg_tokenizer, every_path, rank)
    items = readable_items(plan, manifests, store, say)

    seed_everything(settings.seed)
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = model_to_train(plan, alphabets, dtype)
    if stage == "pretrain":
        data = StageTwo(store, vocabulary, settings.pretrain_objective)
    else:
        if settings.share_ecg:
            items = {split: share_ecgs(of_split) for split, of_split in items.items()}
        data = StageThree(store, vocabulary, text_tokenizer, read_prompts(settings.prompts), settings.tasktype)
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
    bad = {path: store.bad.get(path, "not encoded") for path in every_path if path not in store}
    if bad:
        say(bad_records_text(bad))


@entry_point
def main(argv):
    """Plan or run a stage."""
    argv = [word for word in argv if not word.startswith("--local_rank")]
    if not argv or argv[0] not in ("pretrain", "finetune"):
        raise UserError("usage: python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]")
    plan_or_run(argv[0], argv[1:], partial(make_plan, argv[0]), main_process)


if __name__ == "__main__":
    main()
