"""An exam answered: its items in batches, the longest first, each batch's answers handed on as soon as they are there.

Batches are made of all items before they are shared among the processes, and again after a stop, so neither changes an
answer.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch

from data_provider.manifests import item_paths
from model.architecture import most_positions
from model.generation import Prompt, greedy, log_likelihoods, why_unshared
from model.prompts import answer_text, ecg_first, prompt_ids, prompt_texts, shared_length
from utils.scores import patient_of, split_answer
from utils.tools import UserError

MAX_NEW_TOKENS = {"qa": 170, "report": 200}  # the published ones
QUESTIONS = 64  # most questions that go on from an ECG in one go


@dataclass(frozen=True)
class AnswerModel:
    """What answers: the LLM (its adapter merged), its tokenizer, the ECG's tokens and the words of the prompts."""

    model: object
    tokenizer: object
    vocabulary: object
    prompts: dict


@dataclass(frozen=True)
class Exam:
    """What is asked.

    Attributes
    ----------
    items : dict
        Index in the manifest -> item.
    task : {"qa", "report"}
    batch_size : int
        Items a batch; ECGs, where the ECG stands first in the prompts.
    max_new_tokens : int
    candidates : callable, optional
        Item -> the answers whose likelihoods are wanted; None: texts are generated.
    """

    items: dict
    task: str
    batch_size: int
    max_new_tokens: int
    candidates: object = None


@dataclass(frozen=True)
class ExamPlan:
    """How an exam is answered: batches, each a list of lists of indices that share a beginning, and by which way;
    ``longest`` is the most tokens of a prompt with its answer."""

    batches: list
    shares_ecg: bool
    plain: bool
    text: str
    longest: int


def plan_exam(answer_model, exam, ecg_length):
    """Make an exam's batches; nothing is read but the items' words.

    Parameters
    ----------
    ecg_length : int
        Codes of an ECG.

    Raises
    ------
    UserError
        An item is longer than what the LLM reads, or the LLM can't compare candidates.
    """
    lengths = {index: sum(prompt_lengths(answer_model, exam, index, ecg_length)) for index in exam.items}
    longest = max(lengths.values()) + exam.max_new_tokens
    most = most_positions(answer_model.model)
    if longest > most:
        raise UserError(f"an item takes {longest} tokens with its answer, the LLM reads {most} at most")
    reason = why_unshared(answer_model.model, longest)
    if reason and exam.candidates:
        raise UserError(f"ANSWERS=likelihood: {reason}; ANSWERS=generate works")
    shares = ecg_first(answer_model.prompts, exam.task) and not reason
    groups = {}
    for index, item in exam.items.items():
        groups.setdefault(tuple(item_paths(item)) if shares else index, []).append(index)
    sorted_groups = (sorted(group, key=lambda index: (-lengths[index], index)) for group in groups.values())
    groups = [part for group in sorted_groups for part in _parts(group, -(-len(group) // QUESTIONS))]

    def size(group):
        beginning, _ = prompt_lengths(answer_model, exam, group[0], ecg_length) if shares else (0, 0)
        return beginning + len(group) * (lengths[group[0]] - beginning)

    groups.sort(key=lambda group: (-size(group), group[0]))
    batches = [groups[start : start + exam.batch_size] for start in range(0, len(groups), exam.batch_size)]
    ways = "an ECG is read once for all its questions" if shares else "each item by itself, the question comes first"
    text = f"each item by itself, by transformers' own loop: {reason}" if reason else ways
    return ExamPlan(batches, shares, bool(reason), text, longest)


def prompt_lengths(answer_model, exam, index, ecg_length):
    """Tokens of an item's prompt up to the end of its ECG's block, and behind it; no prompt is made for it."""
    item, count = exam.items[index], _counter(answer_model.tokenizer)
    before, behind_amplitudes, behind_codes, after = prompt_texts(answer_model.prompts, item, exam.task)
    block = ecg_length + 2 + count(behind_amplitudes) + count(behind_codes)
    beginning = len(answer_model.vocabulary.bos) + count(before) + len(item_paths(item)) * block
    return beginning, count(after)


@lru_cache(1)
def _counter(tokenizer):
    return lru_cache(4096)(lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0)


def open_batches(plan, done):
    """The batches without the items that are done: whole ones stay as they were."""
    batches = ([[i for i in group if i not in done] for group in batch] for batch in plan.batches)
    batches = ([group for group in batch if group] for batch in batches)
    return [batch for batch in batches if batch]


def answer_batches(answer_model, exam, plan, batches, *ecgs_of):
    """Answer the batches one by one.

    A batch that the device's memory can't hold is halved, and so are those that follow.

    Parameters
    ----------
    ecgs_of : callables
        Record path -> its codes. Of several, that encode an ECG otherwise, the log-likelihoods are averaged.

    Yields
    ------
    list of (index, answer)
        A batch's, or a part's of it; an answer is a text, or the candidates' log-likelihoods (list of float).
    """
    most = exam.batch_size
    for batch in batches:
        parts = [batch]
        while parts:
            part = parts.pop()
            answers = _answer(answer_model, exam, plan, part, ecgs_of) if len(part) <= most else None
            if answers is not None:
                yield answers
                continue
            halves = _halves(part)
            if not halves:
                raise UserError(f"item {part[0][0]}: doesn't fit into the memory of {answer_model.model.device} alone")
            if len(part) <= most:
                most = max(1, len(part) // 2)
                n = sum(map(len, part))
                print(f"out of memory with a batch of {n} items ({len(part)} beginnings): halved", flush=True)
            parts += reversed(halves)


def _answer(answer_model, exam, plan, batch, ecgs_of):
    """The answers to a batch; None where the device's memory doesn't hold it."""
    model, tokenizer, vocabulary = answer_model.model, answer_model.tokenizer, answer_model.vocabulary
    groups = [[exam.items[i] for i in group] for group in batch]
    views = [[_prompt(answer_model, exam, plan, group, ecg_of) for group in groups] for ecg_of in ecgs_of]
    prompts = views[0]
    try:
        if exam.candidates:
            ids = [[_candidate_ids(answer_model, exam, item) for item in group] for group in groups]
            likely = [log_likelihoods(model, of_view, ids, vocabulary.pad) for of_view in views]
            by_group = zip(*likely, strict=True)
            answers = [[_mean(of_views) for of_views in zip(*of_group, strict=True)] for of_group in by_group]
        elif plan.plain:
            whole = [prompt.beginning + prompt.rests[0] for prompt in prompts]
            answers = [[text] for text in generate(model, tokenizer, vocabulary, whole, exam.max_new_tokens)]
        else:
            ids = greedy(model, prompts, exam.max_new_tokens, vocabulary.eos, vocabulary.pad)
            answers = [tokenizer.batch_decode(of_group, skip_special_tokens=True) for of_group in ids]
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return [pair for group, values in zip(batch, answers, strict=True) for pair in zip(group, values, strict=True)]


def _mean(of_views):
    """The mean over views of each candidate's log-likelihood."""
    return [round(sum(values) / len(values), 4) for values in zip(*of_views, strict=True)]


def _prompt(answer_model, exam, plan, items, ecg_of):
    """The prompt of items that share a beginning; of one, all but its last token is the beginning."""
    tokenizer, vocabulary, words = answer_model.tokenizer, answer_model.vocabulary, answer_model.prompts
    first = prompt_ids(tokenizer, vocabulary, words, items[0], exam.task, list(map(ecg_of, item_paths(items[0]))))
    if not plan.shares_ecg:
        return Prompt(first[:-1], [first[-1:]])
    end = shared_length(first, vocabulary)
    after = [prompt_texts(words, item, exam.task)[-1] for item in items]
    rests = tokenizer(after, add_special_tokens=False)["input_ids"] if any(after) else [[] for _ in items]
    if not all(rests):  # nothing behind the ECG: its end starts the answer
        return Prompt(first[: end - 1], [[vocabulary.end, *rest] for rest in rests])
    return Prompt(first[:end], rests)


def _candidate_ids(answer_model, exam, item):
    texts = [answer_text({"answer": answer}, exam.task) for answer in exam.candidates(item)]
    ids = answer_model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[*of_text, answer_model.vocabulary.eos] for of_text in ids]


def _halves(batch):
    """A batch in two: its groups, or the questions of its only one; None where there is but one item."""
    if len(batch) > 1:
        return _parts(batch, 2)
    return [[half] for half in _parts(batch[0], 2)] if len(batch[0]) > 1 else None


def _parts(values, count):
    """A list in ``count`` parts as equal as can be."""
    ends = [len(values) * part // count for part in range(count + 1)]
    return [values[start:end] for start, end in pairwise(ends)]


@torch.no_grad()
def generate(model, tokenizer, vocabulary, prompts, max_new_tokens):
    """Greedy answers to a batch of prompts, by transformers' own loop: for LLMs whose cache can't branch.

    Parameters
    ----------
    prompts : list of list of int
        Token ids; shorter ones are padded on the left.

    Returns
    -------
    list of str
        What was generated before the end of text, without special tokens.
    """
    length = max(map(len, prompts))
    ids = torch.tensor([[vocabulary.pad] * (length - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
    )
    return tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)


def prediction_row(exam, index, answer):
    """One line of predictions.jsonl; ``answer`` is what `answer_batches` gave for the item."""
    item = exam.items[index]
    patient = patient_of(item)
    patient = None if patient == item_paths(item)[0] else patient  # unknown: whoever resamples takes the record
    if exam.task == "report":
        about = {"ecg_path": item["filepath"], "patient": patient}
        return {"index": index, "prediction": answer.strip(), "reference": item["report"], "text": answer} | about
    more, text = {}, answer
    if exam.candidates:
        candidates = exam.candidates(item)
        text = answer_text({"answer": candidates[max(range(len(answer)), key=answer.__getitem__)]}, exam.task)
        more = {"candidates": candidates, "log_likelihoods": answer}
    row = {"index": index, "prediction": split_answer(text), "reference": item["answer"], "text": text}
    named = ("question", "question_type", "attribute_type", "template_id", "ecg_path")
    return row | {name: item.get(name) for name in named} | {"patient": patient} | more
