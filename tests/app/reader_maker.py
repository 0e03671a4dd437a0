"""A reader that was never trained, for tests of all that stands around what it says."""

import json

import torch

from app.known_questions import questions_of
from model.checkpoints import build_model, save_checkpoint
from model.prompts import PROMPTS
from model.tiny_llm import tiny_llm
from tests.tokenizer_maker import WITH_AMPLITUDE, small_tokenizer
from utils.tools import write_json

ECG_FIRST = {
    "qa": "<|start_ecg|>{codes}<|end_ecg|>\nQuestion: {question}\nAnswer:",
    "report": "<|start_ecg|>{codes}<|end_ecg|>\nReport:",
}


def item(question, kind, answer, attribute=None, template=101, **more):
    fields = {"question": question, "question_type": kind, "attribute_type": "scp_code", "template_id": template}
    return fields | {"attribute": attribute, "answer": answer, "ecg_path": "one", "background": ""} | more


VERIFY = "Would a reader of this ECG note {}?"
FINDINGS = ("atrial fibrillation", "sinus bradycardia", "sinus tachycardia")
TRAIN = [
    *(item(VERIFY.format(name), "single-verify", [said], [name]) for name in FINDINGS for said in ("yes", "no")),
    *(item("What is the rhythm of this ECG?", "single-query", [name], None, 121) for name in FINDINGS),
    item("Is the rhythm of both ECGs the same?", "comparison_consecutive-verify", ["yes"], ["rhythm"], 201),
    item("Is the rhythm of both ECGs the same?", "comparison_consecutive-verify", ["no"], ["rhythm"], 201),
]


def make_reader(folder, tasks="qa", threshold=None, prompts=PROMPTS, train=TRAIN):
    """A tokenizer and a checkpoint below ``folder``; returns the KEY=VALUE words that name them."""
    tokenizer = small_tokenizer(config=WITH_AMPLITUDE)
    tokenizer.save(folder / "tokenizer")
    llm = tiny_llm(folder)
    model, words, _ = build_model(llm, tokenizer.n_codes, "full", n_scales=tokenizer.n_scales)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    card = {"stage": "finetune", "tokenizer_fingerprint": tokenizer.fingerprint, "inputs": {"prompts": prompts}}
    card["settings"] = {"LEAD_ORDER": "name", "TUNING": "full", "TASKTYPE": tasks, "USE_AMP": False}
    reader = folder / "reader"
    save_checkpoint(reader, model, words, card)
    write_json(reader / "questions.json", questions_of(train))
    if threshold is not None:
        write_json(reader / "abstention.json", {"threshold": threshold})
    return [f"CKP_PATH={reader}", f"TOKENIZER_PATH={folder / 'tokenizer'}"], llm


def rows(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]
