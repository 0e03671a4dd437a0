"""Stages 2 and 3: an LLM learns the codes of ECGs, then to answer and to report.

python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]     (the launchers do this)

``--plan`` checks settings and inputs, says what memory the run needs, and prints how many processes to start, or
``finished``.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from model.parts import read_items, training_parts
from model.stage import SAVED, Plan, find_llm, say_once
from utils.machine import memory_of_a_process, print_rank0, processes_wanted, start_process
from utils.nodes import Machines
from utils.runs import plan_or_run, results_folder
from utils.settings import given_keys, load_settings, pick, require
from utils.sharing import sharers_of
from utils.tools import REPOSITORY, UserError, entry_point, read_json, sha256_file


def make_plan(stage, argv):
    """Check everything that can be checked without a model; raises `UserError`."""
    from ecg_tokenizer.codec import tokenizer_fingerprint
    from model.agreement import agree
    from model.checkpoint_files import check_fits, checkpoint_hash, llm_hash
    from model.memory_plan import check_four_bit, plan_lines
    from model.prompts import check_ecg_first

    settings = load_settings(stage, argv)
    if stage == "finetune":
        settings, prompts, lines = agree(settings, given_keys(argv), "PRETRAIN_PATH", stage)
        say_once(lines)
    require(settings, "tokenizer_path")
    if settings.load_in_4bit:
        check_four_bit(settings.tuning)
    if settings.tuning == "full" and settings.weight_decay and not settings.train_code_rows:
        raise UserError("TRAIN_CODE_ROWS=false keeps rows as they are, WEIGHT_DECAY moves all of TUNING=full: set it 0")
    parts = training_parts(stage, settings)
    manifests = {split: [path for part in parts for path in part.manifests[split]] for split in ("train", "valid")}
    fingerprint, llm_path = tokenizer_fingerprint(settings.tokenizer_path), find_llm(settings)
    inputs = {
        "manifests": [sha256_file(path) for paths in manifests.values() for path in paths],
        "tokenizer": fingerprint,
        "llm": llm_hash(llm_path),
        "deepspeed": read_json(REPOSITORY / "ds_config_zero2.json"),
    }
    folder = results_folder(settings.results, stage, settings.tasktype, settings.dataset)
    if stage == "finetune":
        inputs["prompts"] = prompts
        if settings.share_ecg:
            for task in settings.tasktype:
                check_ecg_first(prompts, task)
        if settings.pretrain_path:
            check_fits(settings.pretrain_path, fingerprint, llm_path)
            inputs["pretrained"] = checkpoint_hash(settings.pretrain_path)
            if Path(settings.pretrain_path).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"PRETRAIN_PATH={settings.pretrain_path} lies in this run's own folder; set RESULTS")
    machines = pick(settings, Machines)
    processes = processes_wanted(settings.num_processes, settings.device, machines)
    room = memory_of_a_process(settings.device, max(1, processes // machines.nodes))
    lines = plan_lines(settings, stage, llm_path, processes, *room)
    return Plan(stage, settings, folder, llm_path, manifests, inputs, processes, parts, lines)


def model_to_train(plan, ecg_tokenizer, alphabets, dtype):
    """What stage 2 left, or the LLM itself with the ECG's tokens and what is to be trained: (model, tokenizer, ids)."""
    from ecg_tokenizer.code_features import code_features
    from model.checkpoints import build_model, load_model

    settings = plan.settings
    if plan.stage == "finetune" and settings.pretrain_path:
        options = {"dtype": dtype, "dropout": settings.lora_dropout, "text_rows": False, "to_train": True}
        options["four_bit"] = settings.load_in_4bit
        return load_model(settings.pretrain_path, plan.llm_path, **alphabets, **options)
    lora = {"rank": settings.lora_r, "alpha": settings.lora_alpha, "dropout": settings.lora_dropout}
    features = code_features(ecg_tokenizer) if settings.code_rows == "codec" else None
    more = {"tuning": settings.tuning, "dtype": dtype, "code_features": features, "four_bit": settings.load_in_4bit}
    return build_model(plan.llm_path, **alphabets, **lora, **more)


def make_examples(plan, vocabulary, text_tokenizer):
    """What turns an item into the sequences of a training step."""
    from model.training_data import StageThree, StageTwo

    settings = plan.settings
    if plan.stage == "pretrain":
        return StageTwo(vocabulary, settings.pretrain_objective)
    return StageThree(vocabulary, text_tokenizer, plan.inputs["prompts"])


def fit_to_llm(data, items, model, plan, device):
    """The examples laid out as the LLM computes them exactly; a `UserError` where it can't."""
    from model.architecture import most_positions
    from model.heartllm import loss_sum
    from model.layouts import pick_layout
    from model.training_data import longest_example

    longest, most = longest_example(data, items), most_positions(model)
    if longest > most:
        raise UserError(f"an item takes {longest} tokens, the LLM {plan.llm_path} reads {most} at most")
    layout, lines = pick_layout(model, loss_sum, data.vocabulary, longest, device.type)
    if plan.settings.share_ecg and plan.stage == "finetune" and not layout.shared:
        raise UserError(
            f"SHARE_ECG=true: this LLM ({model.config.model_type}) computes questions that share an ECG otherwise than "
            "single ones; SHARE_ECG=false"
        )
    for line in lines:
        print_rank0(line)
    return replace(data, packed=layout.packed, multiple=layout.multiple)


def main_process(plan):
    """Train: this is what each process of a run does."""
    from ecg_tokenizer.codec import EcgTokenizer
    from model.checkpoints import save_checkpoint
    from model.code_rows import freeze_rows
    from model.heartllm import lora_text, trainable_parameters
    from model.training import ProcessContext, TrainingOptions, train
    from utils.tools import seed_everything

    settings, stage = plan.settings, plan.stage
    rank, world, device, dtype = start_process(stage, settings.device, settings.threads, settings.use_amp)

    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    items, left_out = read_items(plan, ecg_tokenizer)
    seed_everything(settings.seed)
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = model_to_train(plan, ecg_tokenizer, alphabets, dtype)
    if not settings.train_code_rows:
        freeze_rows(model, vocabulary)
    data = make_examples(plan, vocabulary, text_tokenizer)
    data = fit_to_llm(data, items["train"].items, model.to(device), plan, device)
    print_rank0("{:,} of {:,} parameters train".format(*trainable_parameters(model)) + lora_text(model), flush=True)
    card = {
        "stage": stage,
        "llm": settings.llm,
        "llm_path": str(plan.llm_path),
        "llm_hash": plan.inputs["llm"],
        "tokenizer_path": settings.tokenizer_path,
        "tokenizer_fingerprint": plan.inputs["tokenizer"],
        **alphabets,
        "codes_per_ecg": ecg_tokenizer.codes_per_ecg,
        "settings": {key.upper(): value for key, value in asdict(settings).items()},
        "inputs": plan.inputs,
    }
    writes = sharers_of(plan.folder).number == 0
    process = ProcessContext(plan.folder, plan.identity, rank, world, device, dtype, writes)
    save = partial(save_checkpoint, model=model, tokenizer=text_tokenizer, card=card)
    train(stage, pick(settings, TrainingOptions), data, items, model, process, save)
    if left_out:
        print_rank0(left_out)


@entry_point
def main(argv):
    """Plan or run a stage."""
    argv = [word for word in argv if not word.startswith("--local_rank")]
    if not argv or argv[0] not in ("pretrain", "finetune"):
        raise UserError("usage: python run_main.py pretrain|finetune [--plan] [ENV FILE] [KEY=VALUE ...]")
    plan_or_run(argv[0], argv[1:], partial(make_plan, argv[0]), main_process, SAVED)


if __name__ == "__main__":
    main()
