"""The exam: answers or reports for the test items, and their scores.

python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]     (eval.sh does this)
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from data_provider.data_factory import manifest_path, sample
from data_provider.manifests import read_manifest, record_paths
from model.parts import exam_settings
from model.stage import (
    Plan,
    check_manifests,
    find_llm,
    left_out_text,
    readable_items,
    say_once,
    signal_policy,
    stored_codes,
)
from utils.machine import print_rank0, processes_wanted, start_process
from utils.nodes import Machines
from utils.runs import finish_run, plan_or_run, results_folder, start_run
from utils.settings import given_keys, load_settings, pick, require
from utils.sharing import sharers_of
from utils.tools import UserError, entry_point, sha256_file, write_json


def make_plan(argv):
    """Check everything that can be checked without a model; raises `UserError`."""
    from ecg_tokenizer.codec import tokenizer_fingerprint
    from model.agreement import agree
    from model.checkpoint_files import check_fits, checkpoint_hash, llm_hash
    from model.vllm_engine import choose_engine

    settings = load_settings("eval", argv)
    settings, prompts, lines = agree(settings, given_keys(argv), "CKP_PATH", "eval")
    say_once(lines)
    settings = exam_settings(settings)
    task, root = settings.tasktype, "root_path_json" if settings.tasktype == "qa" else "root_report_json"
    require(settings, "root_path_ecg", root, "tokenizer_path", "ckp_path")
    if settings.answers == "likelihood" and task == "report":
        raise UserError("ANSWERS=likelihood compares answers to questions; TASKTYPE=report needs ANSWERS=generate")
    if settings.code_views > 1 and settings.answers != "likelihood":
        raise UserError("CODE_VIEWS: the exam averages likelihoods over an ECG's views; set ANSWERS=likelihood")
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
        "prompts": prompts,
    }
    for card in sorted(test.parent.glob("*dataset_card.json")):
        inputs[card.name] = sha256_file(card)
    folder = results_folder(settings.results, "eval", task, settings.dataset)
    processes = processes_wanted(settings.num_processes, settings.device, pick(settings, Machines))
    choose_engine(settings.engine, settings.answers, processes)
    return Plan("eval", settings, folder, llm_path, {"test": [test], "train": [train]}, inputs, processes)


def main_process(plan):
    """Answer and score: this is what each process of an exam does."""
    import torch.distributed as dist
    from tqdm import tqdm

    from ecg_tokenizer.codec import EcgTokenizer
    from model.answer_files import PARTIAL, all_answers, write_answers
    from model.answering import answer_batches, open_batches, plan_exam
    from model.generation import merge_adapter
    from model.vllm_engine import VllmEngine, choose_engine

    settings, (test,) = plan.settings, plan.manifests["test"]
    rank, world, device, dtype = start_process("eval", settings.device, settings.threads, settings.use_amp)
    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    manifest = read_manifest(test, settings.tasktype)
    listed = sample(
        [{**item, "index": index} for index, item in enumerate(manifest)], settings.test_items, settings.seed
    )
    paths, root = record_paths(listed), settings.root_path_ecg
    policy = signal_policy(settings)
    store = stored_codes(ecg_tokenizer, root, paths, settings.codes_root, policy, settings.workers)
    readable, line = readable_items(listed, store, test, root, "test")
    print_rank0(line, flush=True)
    good, how = record_paths(readable), (settings.codes_root, policy, settings.workers)
    views = [stored_codes(ecg_tokenizer, root, good, *how, view=n) for n in range(1, settings.code_views)]

    writes = sharers_of(plan.folder).number == 0  # on machines with files of their own, one process each
    if writes:
        start_run(plan.folder, plan.identity, settings.resume, PARTIAL)
        (plan.folder / PARTIAL).mkdir(parents=True, exist_ok=True)
    dist.barrier()
    done = all_answers(plan.folder, writes)  # nobody writes before all have read
    engine, why = choose_engine(settings.engine, settings.answers, world)
    answer_model = load_answer_model(plan, ecg_tokenizer, "cpu" if engine == "vllm" else device, dtype)
    answer_model = replace(answer_model, model=merge_adapter(answer_model.model))
    exam = exam_of(plan, {item["index"]: item for item in readable})
    exam_plan = plan_exam(answer_model, exam, ecg_tokenizer.row_length)
    answering = partial(answer_batches, answer_model, exam, exam_plan)
    if engine == "vllm":
        answering = VllmEngine(answer_model, exam, exam_plan.longest, device, plan.folder).answer_batches
    print_rank0(f"eval: {why or exam_plan.text}", flush=True)
    for control, ecgs_of in ecg_sources(settings, readable, [store, *views], ecg_tokenizer).items():
        answered = done.get(control, {})
        if answered:
            print_rank0(f"going on: {len(answered)} of {len(readable)} items are answered", flush=True)
        share = open_batches(exam_plan, answered)[rank::world]
        what = f"answering with {control} ECGs" if control else "answering"
        with tqdm(total=sum(len(g) for batch in share for g in batch), desc=what, unit="item", disable=rank > 0) as bar:
            for answers in answering(share, *ecgs_of):
                write_answers(plan.folder, rank, control, answers)
                bar.update(len(answers))
    dist.barrier()
    answers = all_answers(plan.folder, writes)
    if rank == 0:
        write_results(plan, exam, manifest, len(listed) - len(readable), answers)
        bad = left_out_text({root: paths}, {root: store})
        if bad:
            print(bad)
    dist.barrier()
    if writes:
        finish_run(plan.folder, plan.identity.fingerprint)


def load_answer_model(plan, ecg_tokenizer, device, dtype):
    """What answers, with its adapter as it is."""
    from model.answering import AnswerModel
    from model.checkpoints import load_model

    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = load_model(plan.settings.ckp_path, plan.llm_path, **alphabets, dtype=dtype)
    return AnswerModel(model.to(device).eval(), text_tokenizer, vocabulary, plan.inputs["prompts"])


def exam_of(plan, items):
    """What is asked: the items (index in the manifest -> item), and how they may be answered."""
    from model.answering import MAX_NEW_TOKENS, Exam
    from model.candidates import candidate_rule

    settings, (train,) = plan.settings, plan.manifests["train"]
    compares = settings.answers == "likelihood"
    return Exam(
        items=items,
        task=settings.tasktype,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens or MAX_NEW_TOKENS[settings.tasktype],
        candidates=candidate_rule(read_manifest(train, settings.tasktype)) if compares else None,
    )


def ecg_sources(settings, items, stores, ecg_tokenizer):
    """Where an item's codes come from: "" its own ECG, and for each control another; name -> callables of a path.

    ``stores`` hold the same ECGs, each encoded otherwise.
    """
    import numpy as np

    from model.controls import other_patients_ecg

    sources = {"": [store.__getitem__ for store in stores]}
    if "shuffled" in settings.controls:
        other = other_patients_ecg(items, settings.seed)
        sources["shuffled"] = [lambda path, store=store: store[other[path]] for store in stores]
    if "blank" in settings.controls:
        nothing = np.zeros((1, 12, signal_policy(settings).samples), np.float32)
        flat = ecg_tokenizer.encode_rows(nothing, np.zeros((1, 12)))[0]
        sources["blank"] = [lambda path: flat]
    return sources


def write_results(plan, exam, manifest, left_out, answers):
    """From the answers of all processes to predictions, provenance.json and metrics.json; says what came out.

    The scores of an exam before go first, so that a crash never leaves them beside other predictions.
    """
    from model.answering import prediction_row
    from model.controls import CONTROLS
    from utils.scores import attach_codes, attach_floor, control_path, score_file, summary, write_predictions

    settings, folder, (train,) = plan.settings, plan.folder, plan.manifests["train"]
    predictions = folder / "predictions.jsonl"
    for name in ("metrics.json", "provenance.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for control in ("", *CONTROLS):
        path = control_path(predictions, control) if control else predictions
        if control and control not in settings.controls:
            path.unlink(missing_ok=True)  # of an earlier run
            continue
        missing = [index for index in exam.items if index not in answers.get(control, {})]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} items have no answer, for example {missing[0]}; the same command with "
                "RESUME=true answers them"
            )
        rows = [prediction_row(exam, index, answers[control][index]) for index in sorted(exam.items)]
        if not control:
            attach_floor(rows, manifest, read_manifest(train, exam.task), exam.task)
            if exam.task == "report":
                attach_codes(rows, settings.root_path_ecg)
        write_predictions(path, rows)
    provenance = {
        "llm": settings.llm or plan.llm_path.name,
        "inputs": plan.inputs,
        "settings": {key.upper(): value for key, value in settings.of_stage("eval").items()},
        "items_left_out": left_out,
    }
    write_json(folder / "provenance.json", provenance)
    metrics = score_file(predictions, exam.task)
    write_json(folder / "metrics.json", metrics)
    write_exam_page(plan, predictions, metrics)
    print(*summary(metrics), f"-> {folder / 'metrics.json'}, report.html", sep="\n", flush=True)


def write_exam_page(plan, predictions, metrics):
    """Write report.html beside metrics.json, its ECGs read from the records themselves."""
    import tempfile
    from io import BytesIO

    from PIL import Image

    from data_provider.read import RecordError, fit_signal, read_record
    from utils.plots import plot_ecg
    from utils.scores import read_predictions, write_page

    settings, policy = plan.settings, signal_policy(plan.settings)

    def picture(path):
        try:
            signal = fit_signal(read_record(Path(settings.root_path_ecg) / path, policy.lead_order), policy)
        except RecordError as error:  # its codes were stored when it was there
            return str(error)
        with tempfile.TemporaryDirectory() as folder:
            png = Path(folder) / "ecg.png"
            plot_ecg(png, signal, policy.sample_rate)
            small = BytesIO()  # paper needs few colours: a third of the bytes, twenty-six times on the page
            Image.open(png).convert("RGB").quantize(64).save(small, "PNG", optimize=True)
            return small.getvalue()

    title = f"Exam: {settings.tasktype}, {settings.dataset}"
    write_page(plan.folder / "report.html", read_predictions(predictions, settings.tasktype), metrics, picture, title)


@entry_point
def main(argv):
    """Plan or run an exam."""
    from model.answer_files import PARTIAL

    if not argv or argv[0] != "eval":
        raise UserError("usage: python run_eval.py eval [--plan] [ENV FILE] [KEY=VALUE ...]")
    plan_or_run("eval", argv[1:], make_plan, main_process, PARTIAL)


if __name__ == "__main__":
    main()
