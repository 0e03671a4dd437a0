"""Answers or reports for the test items, and their scores.

python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]     (eval.sh does this)
"""

from dataclasses import dataclass
from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.data_loader import bad_records_text
from data_provider.manifests import check_records_exist, item_paths, read_manifest, record_paths
from run_main import policy_of, stored_codes
from utils.machine import processes_wanted, start_process
from utils.runs import finish_run, plan_or_run, results_folder
from utils.settings import TINY_LLM, load_settings, require
from utils.tools import UserError, entry_point, sha256_file, sha256_json, write_json

MAX_NEW_TOKENS = {"qa": 170, "report": 200}


@dataclass
class Plan:
    """An evaluation that has been checked: what it reads, where it writes, what it is made of."""

    settings: object
    folder: Path
    llm_path: Path
    test: Path
    train: Path
    provenance: dict
    processes: int

    @property
    def fingerprint(self):
        return sha256_json([self.settings.fingerprint("eval", {"num_processes"}), self.provenance["inputs"]])


def make_plan(argv):
    """Check everything that can be checked without a model; raises `UserError`."""
    from ecg_tokenizer.codec import tokenizer_fingerprint
    from model.checkpoint_files import check_fits, checkpoint_hash, llm_hash
    from model.prompts import read_prompts
    from model.tiny_llm import tiny_llm

    settings = load_settings("eval", argv)
    root = "root_path_json" if settings.tasktype == "qa" else "root_report_json"
    require(settings, "root_path_ecg", root, "tokenizer_path", "ckp_path")
    task = settings.tasktype
    test, train = (manifest_path(getattr(settings, root), settings.dataset, task, split) for split in ("test", "train"))
    check_records_exist(read_manifest(test, task), settings.root_path_ecg, test)
    read_manifest(train, task)
    fingerprint = tokenizer_fingerprint(settings.tokenizer_path)
    llm_path = tiny_llm(settings.results) if settings.local_llm_path == TINY_LLM else Path(settings.local_llm_path)
    check_fits(settings.ckp_path, fingerprint, llm_path)
    inputs = {
        "tokenizer": fingerprint,
        "adapter": checkpoint_hash(settings.ckp_path),
        "llm": llm_hash(llm_path),
        "test_manifest": sha256_file(test),
        "train_manifest": sha256_file(train),
        "prompts": read_prompts(settings.prompts),
    }
    for card in sorted(test.parent.glob("*dataset_card.json")):
        inputs[card.name] = sha256_file(card)
    provenance = {
        "llm": settings.llm or llm_path.name,
        "inputs": inputs,
        "settings": {key.upper(): value for key, value in settings.of_stage("eval").items()},
    }
    folder = results_folder(settings.results, "eval", settings.tasktype, settings.dataset)
    processes = processes_wanted(settings.num_processes, settings.device)
    return Plan(settings, folder, llm_path, test, train, provenance, processes)


def main_process(plan):
    """Generate and score: this is what each process of an evaluation does."""
    import numpy as np
    import torch.distributed as dist

    from ecg_tokenizer.codec import EcgTokenizer
    from model.checkpoints import load_model
    from model.controls import CONTROLS, other_patients_ecg
    from model.prompts import read_prompts
    from model.training_data import usable
    from utils.evaluation import control_path, score_file, summary, write_predictions
    from utils.floors import attach_floor

    settings = plan.settings
    rank, world, device, dtype = start_process("eval", settings)
    say = print if rank == 0 else (lambda *words, **how: None)

    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    task, manifest = settings.tasktype, read_manifest(plan.test, settings.tasktype)
    listed = sample(list(range(len(manifest))), settings.test_items, settings.seed)
    paths = record_paths([manifest[index] for index in listed])
    store = stored_codes(settings, ecg_tokenizer, paths, rank)
    items = {index: manifest[index] for index in listed if usable([manifest[index]], store)}
    left_out = len(listed) - len(items)
    say(f"test: {len(items)} items" + (f", {left_out} left out (records below)" if left_out else ""), flush=True)
    if not items:
        raise UserError(f"{plan.test}: no item has a readable record below {settings.root_path_ecg}")
    plan.provenance["items_left_out"] = left_out

    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = load_model(settings.ckp_path, plan.llm_path, **alphabets, dtype=dtype)
    reader = Reader(model.to(device).eval(), text_tokenizer, vocabulary, read_prompts(settings.prompts))
    ecg_of = {"": store.__getitem__}
    if "shuffled" in settings.controls:
        other = other_patients_ecg(list(items.values()), settings.seed)
        ecg_of["shuffled"] = lambda path: store[other[path]]
    if "blank" in settings.controls:
        nothing = np.zeros((1, 12, policy_of(settings).samples), np.float32)
        flat = ecg_tokenizer.encode_rows(nothing, np.zeros((1, 12)))[0]
        ecg_of["blank"] = lambda path: flat
    predictions = plan.folder / "predictions.jsonl"
    for control in ("", *CONTROLS):
        path = control_path(predictions, control) if control else predictions
        if control not in ecg_of:
            if rank == 0:
                path.unlink(missing_ok=True)  # of an earlier run
            continue
        texts = generate_all(reader, items, ecg_of[control], settings, rank, world, control)
        if rank == 0:
            rows = [prediction_row(index, items[index], texts[index], task) for index in sorted(texts)]
            if not control:
                attach_floor(rows, manifest, read_manifest(plan.train, task), task)
            write_predictions(path, rows)
    if rank == 0:
        write_json(plan.folder / "provenance.json", plan.provenance)
        metrics = score_file(predictions, task)
        write_json(plan.folder / "metrics.json", metrics)
        finish_run(plan.folder, plan.fingerprint)
        print(*summary(metrics), f"-> {plan.folder / 'metrics.json'}", sep="\n", flush=True)
        if left_out:
            print(bad_records_text({path: store.bad.get(path, "not encoded") for path in paths if path not in store}))
    dist.barrier()


@dataclass
class Reader:
    """What answers: the LLM, its tokenizer, the ECG's tokens and the words of the prompts."""

    model: object
    tokenizer: object
    vocabulary: object
    prompts: dict


def generate_all(reader, items, ecg_of, settings, rank, world, control):
    """Answers to the items, on the first process: index -> text; the other processes keep their share.

    Batches are formed before they are shared among the processes, so their number changes no answer.
    """
    import torch.distributed as dist
    from tqdm import tqdm

    from model.heartllm import generate
    from model.prompts import prompt_ids

    task, longest = settings.tasktype, settings.max_new_tokens or MAX_NEW_TOKENS[settings.tasktype]
    words = (reader.tokenizer, reader.vocabulary, reader.prompts)
    ids = {n: prompt_ids(*words, item, task, [ecg_of(path) for path in item_paths(item)]) for n, item in items.items()}
    needed, most = max(map(len, ids.values())) + longest, reader.model.config.max_position_embeddings
    if needed > most:
        raise UserError(f"an item takes {needed} tokens with its answer, the LLM reads {most} at most")
    by_length = sorted(ids, key=lambda index: len(ids[index]))
    size = settings.batch_size
    batches = [by_length[start : start + size] for start in range(0, len(ids), size)][rank::world]
    texts = {}
    what = f"answering with {control} ECGs" if control else "answering"
    for batch in tqdm(batches, desc=what, unit="batch", disable=rank != 0):
        prompts = [ids[index] for index in batch]
        answers = generate(reader.model, reader.tokenizer, reader.vocabulary, prompts, longest)
        texts.update(zip(batch, answers, strict=True))
    parts = [None] * world if rank == 0 else None
    dist.gather_object(texts, parts, dst=0)
    for part in parts or []:
        texts.update(part)
    return texts


def prediction_row(index, item, text, task):
    """One line of predictions.jsonl."""
    from utils.evaluation import split_answer

    if task == "report":
        return {"index": index, "prediction": text.strip(), "reference": item["report"], "text": text}
    row = {"index": index, "prediction": split_answer(text), "reference": item["answer"], "text": text}
    named = ("question", "question_type", "attribute_type", "template_id", "ecg_path")
    return row | {name: item.get(name) for name in named}


@entry_point
def main(argv):
    """Plan or run an evaluation."""
    if not argv or argv[0] != "eval":
        raise UserError("usage: python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]")
    plan_or_run("eval", argv[1:], make_plan, main_process)


if __name__ == "__main__":
    main()
