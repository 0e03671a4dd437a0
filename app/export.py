"""A checkpoint as one folder that others can load: the LLM with its adapter and code rows merged, and all it needs.

``python -m app.export CKP --to DIR``. Plain transformers and vLLM load DIR, with no code of this repository; code
tokens are real tokens of its text tokenizer. Beside the weights lie the ECG tokenizer, the prompts, a chat template, a
model card and the SHA-256 of every file.
"""

import argparse
import shutil
from pathlib import Path

from app.chat_template import chat_template
from app.model_card import base_licence, licence_files, model_card
from data_provider.read import LEADS
from ecg_tokenizer.familiarity import FILE as FAMILIAR
from utils.tools import REPOSITORY, UserError, entry_point, make_folder_once, read_json, sha256_file, write_json

FORMAT, SUMS, ECG_TOKENIZER, PROMPTS = 1, "SHA256SUMS", "ecg_tokenizer", "prompts.json"
POLICY = ("LEAD_ORDER", "SHORT_RECORDS", "CROP", "MAX_GAP_S")
ASKING = ("questions.json", "abstention.json")  # what `heartllm ask` wants beside a reader, where it was made
DTYPES = ("float32", "bfloat16", "float16")


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m app.export", description="Write a checkpoint as one merged model.")
    add = parser.add_argument
    add("checkpoint", metavar="CKP", help="what stage 3 left, or the authors' .pth")
    add("--to", metavar="DIR", required=True, help="the folder to make")
    add("--llm", metavar="P", default="", help="the LLM that the adapter belongs to, where it has moved")
    add("--tokenizer", metavar="P", default="", help="its ECG tokenizer, where that has moved")
    add("--prompts", metavar="P", default="", help="prompt words of an authors' .pth (default: as PROMPTS)")
    add("--metrics", metavar="P", action="append", default=[], help="an exam of it, for the model card; may repeat")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights (default: float32)")
    add("--license", default="", help="of the base LLM, where its folder does not say")
    return parser


@entry_point
def main(argv):
    """Export a checkpoint and say what came out."""
    options = build_parser().parse_args(argv)
    folder = export(
        options.checkpoint,
        options.to,
        llm=options.llm,
        tokenizer=options.tokenizer,
        prompts=options.prompts,
        metrics=options.metrics,
        dtype=options.dtype,
        licence=options.license,
    )
    card = read_json(folder / "heartllm.json")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"{folder}: {size:.0f} MB, {card['dtype']}, tasks {', '.join(card['settings']['TASKTYPE'])}")
    print(f'ask it: heartllm serve {folder}, then heartllm client FILE "question" --model {folder}')


def export(checkpoint, to, llm="", tokenizer="", prompts="", metrics=(), dtype="float32", licence=""):
    """Make the folder ``to`` of a checkpoint.

    Parameters
    ----------
    checkpoint : path
        A folder that stage 3 left, or the authors' file.
    to : path
        A folder that isn't there yet; it appears whole.
    llm, tokenizer : path, optional
        Where they lie, if not where the checkpoint says.
    prompts : path, optional
        Of the authors' files, which hold none.
    metrics : list of paths
        Exams of this very checkpoint, for the model card.
    dtype : {"float32", "bfloat16", "float16"}
    licence : str
        Of the base LLM.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        ``to`` is there already; the checkpoint has learned no task; a part is missing or belongs to another; an exam
        is of another checkpoint.
    """
    to = Path(to)
    if to.exists():
        raise UserError(f"{to}: is there already; name a folder that isn't")
    parts = _parts(checkpoint, llm, tokenizer, prompts)
    exams = [read_exam(path, parts["facts"]["checkpoint_sha256"]) for path in metrics]
    parts["facts"]["base_licence"] = licence or base_licence(parts["llm_path"])
    return make_folder_once(to, lambda folder: _write(folder, parts, exams, dtype))


def _parts(checkpoint, llm, tokenizer, prompts):
    """All that an export is made of, checked against each other; no weight of the LLM is read yet."""
    from ecg_tokenizer.codec import EcgTokenizer
    from model.agreement import adapter_facts
    from model.checkpoint_files import CARD, check_fits, checkpoint_hash, resolve_checkpoint
    from model.prompts import read_prompts

    path = resolve_checkpoint(checkpoint)
    card = read_json(path / CARD) if path.is_dir() else {"stage": "finetune", "settings": {}}
    if card["stage"] != "finetune":
        raise UserError(f"{path}: is what stage 2 left, which has learned no task yet")
    whole = path.is_dir() and not (path / "adapter_config.json").is_file()
    llm_path = Path(llm or card.get("llm_path", ""))
    tokenizer_path = Path(tokenizer or _there(path, card.get("tokenizer_path", "")))
    for given, option, found in ((llm_path, "--llm", whole), (tokenizer_path, "--tokenizer", False)):
        if not found and (given == Path() or not given.exists()):
            raise UserError(f"{path}: belongs to {given}, which is not there; name it with {option}")
    ecg_tokenizer = EcgTokenizer.from_pretrained(tokenizer_path)
    if not whole:
        check_fits(path, ecg_tokenizer.fingerprint, llm_path)
    elif card["tokenizer_fingerprint"] != ecg_tokenizer.fingerprint:
        raise UserError(f"{path}: was trained with another ECG tokenizer than {tokenizer_path}")
    facts = adapter_facts(path)
    settings = {key: card["settings"][key] for key in ("DATASET", *POLICY) if key in card["settings"]}
    return {
        "path": path,
        "llm_path": llm_path,
        "tokenizer_path": tokenizer_path,
        "ecg_tokenizer": ecg_tokenizer,
        "facts": {
            "format": FORMAT,
            "stage": "finetune",
            "llm": card.get("llm") or llm_path.name,
            "llm_hash": card.get("llm_hash", ""),
            "checkpoint_sha256": checkpoint_hash(path),
            "tokenizer_path": ECG_TOKENIZER,
            "tokenizer_fingerprint": ecg_tokenizer.fingerprint,
            "n_codes": ecg_tokenizer.n_codes,
            "n_scales": ecg_tokenizer.n_scales,
            "codes_per_ecg": ecg_tokenizer.codes_per_ecg,
            "settings": settings | {"TUNING": "full", "TASKTYPE": list(facts.get("TASKTYPE", ("qa", "report")))},
            "inputs": {"prompts": facts.get("PROMPTS") or read_prompts(prompts)},
        },
    }


def _there(path, said):
    """Where a card's path leads: from the checkpoint (an export's), the repository (its own), or the root."""
    return next((place / said for place in (path, REPOSITORY) if said and (place / said).exists()), said)


def read_exam(path, checkpoint_sha256):
    """The metrics of an exam (its folder, or its metrics.json); a `UserError` unless it is of this checkpoint."""
    path = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    metrics = read_json(path)
    if metrics.get("provenance", {}).get("inputs", {}).get("adapter") != checkpoint_sha256:
        raise UserError(f"{path}: is the exam of another checkpoint, or does not say of which")
    return metrics


def _write(folder, parts, exams, dtype):
    import torch

    from model.answering import MAX_NEW_TOKENS
    from model.checkpoint_files import CARD, share_weights
    from model.checkpoints import load_model
    from model.generation import merge_adapter

    facts, ecg_tokenizer = parts["facts"], parts["ecg_tokenizer"]
    prompts, tasks = facts["inputs"]["prompts"], facts["settings"]["TASKTYPE"]
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, text_tokenizer, vocabulary = load_model(parts["path"], parts["llm_path"], **alphabets)
    model = merge_adapter(model).to(getattr(torch, dtype))
    facts |= {"dtype": dtype, "max_new_tokens": MAX_NEW_TOKENS}
    facts["text_prompts"] = text_is_exact(text_tokenizer, vocabulary, prompts, tasks, ecg_tokenizer.row_length)
    model.generation_config.max_new_tokens = max(MAX_NEW_TOKENS[task] for task in tasks)
    text_tokenizer.chat_template = chat_template(prompts, tasks, text_tokenizer.decode(list(vocabulary.bos)))
    model.save_pretrained(folder)
    text_tokenizer.save_pretrained(folder)
    share_weights(folder)
    ecg_tokenizer.save(folder / ECG_TOKENIZER)
    given = parts["tokenizer_path"]
    beside = {(given if given.is_dir() else given.parent) / FAMILIAR: folder / ECG_TOKENIZER / FAMILIAR}
    beside |= {parts["path"] / name: folder / name for name in ASKING}
    for source, target in beside.items():
        if source.is_file():
            shutil.copyfile(source, target)
    for file in licence_files(parts["llm_path"]):
        shutil.copyfile(file, folder / f"BASE_{file.name}")
    write_json(folder / PROMPTS, prompts)
    write_json(folder / CARD, facts)
    (folder / "README.md").write_text(model_card(facts, exams), encoding="utf-8")
    write_sums(folder)


def text_is_exact(tokenizer, vocabulary, prompts, tasks, row_length):
    """Whether a prompt written as text becomes the tokens of the training: a server that takes text needs it.

    Tokenizers that put a space before every text don't: the pieces around the ECG were tokenized each for itself.
    """
    from model.prompts import prompt_ids, prompt_string

    leads = len(LEADS) if vocabulary.n_scales else 0
    row = [vocabulary.n_codes] * leads + [number % vocabulary.n_codes for number in range(row_length - leads)]
    item = {"question": "Does this ECG show atrial fibrillation?", "background": "- Age: 54; - Sex: 1; "}
    for task in tasks:
        for ecgs in ([row], [row, row]):
            wanted = prompt_ids(tokenizer, vocabulary, prompts, item, task, ecgs)
            if tokenizer(prompt_string(prompts, item, task, ecgs, vocabulary.n_codes))["input_ids"] != wanted:
                return False
    return True


def write_sums(folder):
    """Write SHA256SUMS of all files below ``folder``, as ``sha256sum -c`` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
