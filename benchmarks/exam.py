"""How fast an exam is answered, against the way before, and whether both give the same answers.

    python benchmarks/exam.py [ENV FILE] [KEY=VALUE ...] [--ecgs N] [--questions 16]

Settings are the exam's (CKP_PATH, PROMPTS, BATCH_SIZE, MAX_NEW_TOKENS, ...). The way before: each question with its own
ECG, left-padded, through the adapter as it is, by transformers' own loop, until the last answer of a batch has ended.
``--ecgs`` takes the first N ECGs of the test manifest, ``--questions`` asks each of them that many questions (its own
first, then those of others). Loading is out of the comparison; both get a batch to warm up. "reading" is one pass of
the merged LLM over every prompt, without an answer: nothing that reads each question's ECG anew can be faster.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def chosen_items(manifest, ecgs, questions):
    """Index -> item of the items to answer, see the top of this file."""
    from data_provider.manifests import item_paths

    by_ecg = {}
    for item in manifest:
        by_ecg.setdefault(tuple(item_paths(item)), []).append(item)
    chosen = []
    for number, (paths, own) in enumerate(list(by_ecg.items())[: ecgs or None]):
        others = [item for item in manifest[number:] + manifest[:number] if len(item_paths(item)) == len(paths)]
        asked = own + [item | {"ecg_path": own[0]["ecg_path"]} for item in others if item not in own]
        chosen += asked[:questions] if questions else own
    return dict(enumerate(chosen))


def sorted_prompts(answer_model, exam, ecg_of):
    """Batches of (index, token ids), the shortest first."""
    from data_provider.manifests import item_paths
    from model.prompts import prompt_ids

    words = answer_model.tokenizer, answer_model.vocabulary, answer_model.prompts
    ids = {
        index: prompt_ids(*words, item, exam.task, list(map(ecg_of, item_paths(item))))
        for index, item in exam.items.items()
    }
    order = sorted(ids.items(), key=lambda pair: len(pair[1]))
    return (order[start : start + exam.batch_size] for start in range(0, len(order), exam.batch_size))


def answer_before(answer_model, exam, ecg_of):
    """Answers the way before; yields after each batch."""
    from model.answering import generate

    words = answer_model.tokenizer, answer_model.vocabulary
    for batch in sorted_prompts(answer_model, exam, ecg_of):
        texts = generate(answer_model.model, *words, [ids for _, ids in batch], exam.max_new_tokens)
        yield [(index, text) for (index, _), text in zip(batch, texts, strict=True)]


def read_alone(answer_model, exam, ecg_of):
    """No answers: every prompt is read once."""
    import torch

    model, pad = answer_model.model, answer_model.vocabulary.pad
    for batch in sorted_prompts(answer_model, exam, ecg_of):
        length = max(len(ids) for _, ids in batch)
        rows = torch.tensor([ids + [pad] * (length - len(ids)) for _, ids in batch], device=model.device)
        with torch.no_grad():
            model(input_ids=rows, use_cache=False, logits_to_keep=1)
        yield [(index, "") for index, _ in batch]


def answer_now(answer_model, exam, ecg_of, ecg_length):
    """Answers as the exam gives them now."""
    from model.answering import answer_batches, plan_exam

    plan = plan_exam(answer_model, exam, ecg_length)
    yield from answer_batches(answer_model, exam, plan, plan.batches, ecg_of)


def timed(batches, count, device):
    """(answers, seconds, processor seconds) of ``count`` items, from their batches."""
    import torch

    answers, wall, processor = {}, time.perf_counter(), time.process_time()
    for batch in batches:
        answers.update(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    assert len(answers) == count
    return answers, time.perf_counter() - wall, time.process_time() - processor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help="[ENV FILE] [KEY=VALUE ...], as for eval.sh")
    parser.add_argument("--ecgs", type=int, default=0, help="only the first so many ECGs")
    parser.add_argument("--questions", type=int, default=0, help="so many questions an ECG; 0 is its own")
    options = parser.parse_intermixed_args()

    from data_provider.manifests import read_manifest, record_paths
    from ecg_tokenizer.codec import EcgTokenizer
    from model.generation import merge_adapter
    from model.stage import signal_policy, stored_codes
    from run_eval import exam_of, load_answer_model, make_plan
    from utils.machine import start_process

    plan = make_plan(options.settings)
    settings, (test,) = plan.settings, plan.manifests["test"]
    _, _, device, dtype = start_process("eval", settings.device, settings.threads, settings.use_amp)
    ecg_tokenizer = EcgTokenizer.from_pretrained(settings.tokenizer_path, device=device)
    items = chosen_items(read_manifest(test, settings.tasktype), options.ecgs, options.questions)
    paths = record_paths(items.values())
    policy = signal_policy(settings)
    store = stored_codes(ecg_tokenizer, settings.root_path_ecg, paths, settings.codes_root, policy)
    answer_model, exam = load_answer_model(plan, ecg_tokenizer, device, dtype), exam_of(plan, items)
    print(f"{len(items)} items on {len(paths)} ECGs, {exam.max_new_tokens} new tokens at most")

    few = replace(exam, items=dict(list(items.items())[:2]))
    next(answer_before(answer_model, few, store.__getitem__))
    before, *old = timed(answer_before(answer_model, exam, store.__getitem__), len(items), device)
    answer_model = replace(answer_model, model=merge_adapter(answer_model.model))
    next(answer_now(answer_model, few, store.__getitem__, ecg_tokenizer.row_length))
    after, *new = timed(answer_now(answer_model, exam, store.__getitem__, ecg_tokenizer.row_length), len(items), device)
    _, *reading = timed(read_alone(answer_model, exam, store.__getitem__), len(items), device)
    for name, (wall, processor) in (("before", old), ("now", new), ("reading", reading)):
        print(f"{name:7} {len(items) / wall:8.2f} questions/s, {wall:.1f} s, {processor:.1f} processor s")
    print(f"ratio   {old[0] / new[0]:8.2f} of seconds, {old[1] / new[1]:.2f} of processor seconds")
    print(f"equal answers: {sum(before[index] == after[index] for index in items)} of {len(items)}")


if __name__ == "__main__":
    main()
