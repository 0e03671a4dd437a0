"""Prompts -> texts: every item of an exam answered, by all processes together."""

from dataclasses import dataclass

from data_provider.manifests import item_paths
from utils.scores import split_answer
from utils.tools import UserError

MAX_NEW_TOKENS = {"qa": 170, "report": 200}  # the published ones


@dataclass(frozen=True)
class AnswerModel:
    """What answers: the LLM, its tokenizer, the ECG's tokens and the words of the prompts."""

    model: object
    tokenizer: object
    vocabulary: object
    prompts: dict


def generate_all(answer_model, items, ecg_of, task, batch_size, max_new_tokens, rank, world, description):
    """Answers to the items, on the first process: index -> text; the other processes keep their share.

    Batches are formed before they are shared among the processes, so their number changes no answer.

    Parameters
    ----------
    items : dict
        Index in the manifest -> item.
    ecg_of : callable
        Record path -> its codes.
    """
    import torch.distributed as dist
    from tqdm import tqdm

    from model.architecture import most_positions
    from model.heartllm import generate
    from model.prompts import prompt_ids

    model, tokenizer, vocabulary = answer_model.model, answer_model.tokenizer, answer_model.vocabulary
    ids = {
        index: prompt_ids(tokenizer, vocabulary, answer_model.prompts, item, task, list(map(ecg_of, item_paths(item))))
        for index, item in items.items()
    }
    needed, most = max(map(len, ids.values())) + max_new_tokens, most_positions(model)
    if needed > most:
        raise UserError(f"an item takes {needed} tokens with its answer, the LLM reads {most} at most")
    by_length = sorted(ids, key=lambda index: len(ids[index]))
    batches = [by_length[start : start + batch_size] for start in range(0, len(ids), batch_size)][rank::world]
    texts = {}
    for batch in tqdm(batches, desc=description, unit="batch", disable=rank != 0):
        answers = generate(model, tokenizer, vocabulary, [ids[index] for index in batch], max_new_tokens)
        texts.update(zip(batch, answers, strict=True))
    parts = [None] * world if rank == 0 else None
    dist.gather_object(texts, parts, dst=0)
    for part in parts or []:
        texts.update(part)
    return texts


def prediction_row(index, item, text, task):
    """One line of predictions.jsonl."""
    if task == "report":
        return {"index": index, "prediction": text.strip(), "reference": item["report"], "text": text}
    row = {"index": index, "prediction": split_answer(text), "reference": item["answer"], "text": text}
    named = ("question", "question_type", "attribute_type", "template_id", "ecg_path")
    return row | {name: item.get(name) for name in named}
