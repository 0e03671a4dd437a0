"""The exam: answers or reports for the test items, and their scores.

python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]     (eval.sh does this)
"""

from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.manifests import read_manifest, record_paths
from model.stage import (
    Plan,
    check_manifests,
    find_llm,
    left_out_text,
    readable_items,
    signal_policy,
    stored_codes,
)
from utils.machine import print_rank0, processes_wanted, start_process
from utils.runs import finish_run, plan_or_run, results_folder
from utils.settings import load_settings, require
from utils.tools import UserError, entry_point, sha256_file, write_json


def make_plan(argv):
    """Check everything that can be checked without a model; raises `UserError`."""
    from ecg_tokenizer.codec import tokenizer_fingerprint
    from model.checkpoint_files import check_fits, checkpoint_hash, llm_hash
    from model.prompts import read_prompts

    settings = load_settings("eval", argv)
    task, root = settings.tasktype, "root_path_json" if settings.tasktype == "qa" else "root_report_json"
    require(settings, "root_path_ecg", root, "tokenizer_path", "ckp_path")
    test, train = (manifest_path(getattr(settings, root), settings.dataset, task, split) for split in ("test", "train"))
    check_manifests([test], settings.root_path_ecg, task)
    read_manifest(train, task)
    fingerprint, llm_path = tokenizer_fingerprint(settings.tokenizer_path), find_llm(settings)
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
    folder = results_folder(settings.results, "eval", task, settings.dataset)
    processes = processes_wanted(settings.num_processes, settings.device)
    return Plan("eval", settings, folder, llm_path, {"test": [test], "train": [train]}, inputs, processes)


def main_process(plan):
    """Generate and score: this is what each process of an exam does."""
    import torch.distributed as dist

    from ecg_tokenizer.codec import EcgTokenizer
    from model.answering import MAX_NEW_TOKENS, AnswerModel, generate_all, prediction_row
    from model.checkpoints import load_model
    from model.controls import CONTROLS
    from model.prompts import read_prompts
    from utils.scores import attach_codes, attach_floor, control_path, write_predictions

    settings, (test,), (train,) = plan.settings, plan.manifests["test"], plan.manifests["train"]
    rank, world, device, dtype = start_process("eval", settings.device, settings.threads, settings.use_amp)
    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    task, manifest = settings.tasktype, read_manifest(test, settings.tasktype)
    listed = sample(
        [{**item, "index": index} for index, item in enumerate(manifest)], settings.test_items, settings.seed
    )
    paths, root = record_paths(listed), settings.root_path_ecg
    policy = signal_policy(settings)
    store = stored_codes(ecg_tokenizer, root, paths, settings.codes_root, policy, rank, settings.workers)
    readable, line = readable_items(listed, store, test, root, "test")
    print_rank0(line, flush=True)
    items = {item["index"]: item for item in readable}

    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = load_model(settings.ckp_path, plan.llm_path, **alphabets, dtype=dtype)
    answer_model = AnswerModel(model.to(device).eval(), text_tokenizer, vocabulary, read_prompts(settings.prompts))
    ecg_of = ecg_sources(settings, readable, store, ecg_tokenizer)
    longest = settings.max_new_tokens or MAX_NEW_TOKENS[task]
    predictions = plan.folder / "predictions.jsonl"
    for control in ("", *CONTROLS):
        path = control_path(predictions, control) if control else predictions
        if control not in ecg_of:
            if rank == 0:
                path.unlink(missing_ok=True)  # of an earlier run
            continue
        description = f"answering with {control} ECGs" if control else "answering"
        texts = generate_all(
            answer_model, items, ecg_of[control], task, settings.batch_size, longest, rank, world, description
        )
        if rank == 0:
            rows = [prediction_row(index, items[index], texts[index], task) for index in sorted(texts)]
            if not control:
                attach_floor(rows, manifest, read_manifest(train, task), task)
                if task == "report":
                    attach_codes(rows, settings.root_path_ecg)
            write_predictions(path, rows)
    if rank == 0:
        score(plan, predictions, len(listed) - len(items))
        bad = left_out_text(paths, store)
        if bad:
            print(bad)
    dist.barrier()


def ecg_sources(settings, items, store, ecg_tokenizer):
    """Where an item's codes come from: "" its own ECG, and for each control another; name -> callable of a path."""
    import numpy as np

    from model.controls import other_patients_ecg

    sources = {"": store.__getitem__}
    if "shuffled" in settings.controls:
        other = other_patients_ecg(items, settings.seed)
        sources["shuffled"] = lambda path: store[other[path]]
    if "blank" in settings.controls:
        nothing = np.zeros((1, 12, signal_policy(settings).samples), np.float32)
        flat = ecg_tokenizer.encode_rows(nothing, np.zeros((1, 12)))[0]
        sources["blank"] = lambda path: flat
    return sources


def score(plan, predictions, left_out):
    """Write provenance.json and metrics.json beside the predictions, and say what came out."""
    from utils.scores import score_file, summary

    provenance = {
        "llm": plan.settings.llm or plan.llm_path.name,
        "inputs": plan.inputs,
        "settings": {key.upper(): value for key, value in plan.settings.of_stage("eval").items()},
        "items_left_out": left_out,
    }
    write_json(plan.folder / "provenance.json", provenance)
    metrics = score_file(predictions, plan.settings.tasktype)
    write_json(plan.folder / "metrics.json", metrics)
    write_exam_page(plan, predictions, metrics)
    finish_run(plan.folder, plan.fingerprint)
    print(*summary(metrics), f"-> {plan.folder / 'metrics.json'}, report.html", sep="\n", flush=True)


def write_exam_page(plan, predictions, metrics):
    """Write report.html beside metrics.json, its ECGs read from the records themselves."""
    import tempfile

    from data_provider.read import RecordError, SignalPolicy, fit_signal, read_record
    from utils.plots import plot_ecg
    from utils.scores import read_predictions, write_page

    settings, policy = plan.settings, SignalPolicy()

    def picture(path):
        try:
            signal = fit_signal(read_record(Path(settings.root_path_ecg) / path), policy)
        except RecordError as error:  # its codes were stored when it was there
            return str(error)
        with tempfile.TemporaryDirectory() as folder:
            png = Path(folder) / "ecg.png"
            plot_ecg(png, signal, policy.sample_rate)
            return png.read_bytes()

    title = f"Exam: {settings.tasktype}, {settings.dataset}"
    write_page(plan.folder / "report.html", read_predictions(predictions, settings.tasktype), metrics, picture, title)


@entry_point
def main(argv):
    """Plan or run an exam."""
    if not argv or argv[0] != "eval":
        raise UserError("usage: python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]")
    plan_or_run("eval", argv[1:], make_plan, main_process)


if __name__ == "__main__":
    main()
