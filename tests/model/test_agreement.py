"""An adapter that is examined, or trained on, with other words, leads or ranks than its own gives scores of nothing."""

import json

import pytest

import run_eval
import run_main
from model.agreement import agree
from model.prompts import PROMPTS
from utils.settings import Settings
from utils.tools import UserError

OWN_WORDS = {"qa": "<|start_ecg|>{codes}<|end_ecg|> {question}", "report": "<|start_ecg|>{codes}<|end_ecg|>"}


def adapter(folder, stage, **settings):
    """A checkpoint folder as far as it is read before a model is loaded."""
    card = {"stage": stage, "settings": {"LEAD_ORDER": "file", "TUNING": "lora", "TASKTYPE": "report", **settings}}
    card["settings"]["PRETRAIN_OBJECTIVE"] = "causal"
    card["inputs"] = {"prompts": OWN_WORDS} if stage == "finetune" else {}
    folder.mkdir()
    (folder / "heartllm.json").write_text(json.dumps(card))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return folder


WRONG = {  # what must agree, wrong once: stage, whose adapter, what is given, what the line says
    "task, exam": ("eval", "finetune", "TASKTYPE=qa", "TASKTYPE=report, not qa"),
    "prompts, exam": ("eval", "finetune", "PROMPTS={words}", "other prompt words"),
    "lead order, exam": ("eval", "finetune", "LEAD_ORDER=name", "LEAD_ORDER=file, not name"),
    "tuning, exam": ("eval", "finetune", "TUNING=full", "TUNING=lora, not full"),
    "rank, exam": ("eval", "finetune", "LORA_R=16", "LORA_R=4, not 16"),
    "alpha, exam": ("eval", "finetune", "LORA_ALPHA=16", "LORA_ALPHA=8, not 16"),
    "no task at all, exam": ("eval", "pretrain", "LEAD_ORDER=file", "learned no task"),
    "lead order": ("finetune", "pretrain", "LEAD_ORDER=name", "LEAD_ORDER=file, not name"),
    "tuning": ("finetune", "pretrain", "TUNING=full", "TUNING=lora, not full"),
    "rank": ("finetune", "pretrain", "LORA_R=16", "LORA_R=4, not 16"),
    "alpha": ("finetune", "pretrain", "LORA_ALPHA=16", "LORA_ALPHA=8, not 16"),
    "objective": ("finetune", "pretrain", "PRETRAIN_OBJECTIVE=forecast", "PRETRAIN_OBJECTIVE=causal, not forecast"),
    "task": ("finetune", "finetune", "TASKTYPE=qa", "TASKTYPE=report, not qa"),
    "prompts": ("finetune", "finetune", "PROMPTS={words}", "other prompt words"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mismatch_is_one_line_and_exit_code_2_before_anything_is_loaded(name, tmp_path, capsys):
    stage, left_by, given, says = WRONG[name]
    words = tmp_path / "words.json"
    words.write_text(json.dumps(PROMPTS))
    entry, key = (run_eval, "CKP_PATH") if stage == "eval" else (run_main, "PRETRAIN_PATH")
    folder = adapter(tmp_path / "adapter", left_by)
    with pytest.raises(SystemExit) as stopped:
        entry.main([stage, f"{key}={folder}", given.format(words=words)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"error: {key}={folder}") and says in lines[0]


def test_what_is_not_given_is_the_adapters_own_and_said(tmp_path):
    path = str(adapter(tmp_path / "adapter", "finetune"))
    settings, prompts, lines = agree(Settings(ckp_path=path), {"CKP_PATH"}, "CKP_PATH", "eval")
    assert (settings.tasktype, settings.lead_order, settings.lora_r) == (("report",), "file", 4)
    assert prompts == OWN_WORDS
    assert lines == ["CKP_PATH: LEAD_ORDER=file", "CKP_PATH: TASKTYPE=report", "CKP_PATH: PROMPTS: its words"]
    settings, _, lines = agree(Settings(pretrain_path=path), set(), "PRETRAIN_PATH", "finetune")
    assert (settings.lora_r, settings.lora_alpha) == (4, 8) and "PRETRAIN_PATH: LORA_R=4" in lines


def test_what_is_overridden_is_taken_and_said(tmp_path):
    path = str(adapter(tmp_path / "adapter", "finetune"))
    settings = Settings(ckp_path=path, override=("tasktype", "lead_order"))
    settings, prompts, lines = agree(settings, {"TASKTYPE", "LEAD_ORDER"}, "CKP_PATH", "eval")
    assert (settings.tasktype, settings.lead_order, prompts) == (("qa",), "name", PROMPTS)
    assert "CKP_PATH: OVERRIDE: LEAD_ORDER=name, trained with file" in lines


def test_the_authors_file_has_the_published_rank(tmp_path):
    (tmp_path / "checkpoint_epoch0.pth").write_bytes(b"")
    settings = Settings(ckp_path=str(tmp_path / "checkpoint_epoch0.pth"), lora_r=16)
    settings, prompts, _ = agree(settings, set(), "CKP_PATH", "eval")
    assert settings.lora_r == 64 and prompts == PROMPTS


def test_an_adapter_of_two_tasks_is_examined_in_each_without_more_words(tmp_path):
    """And one of a single task still not in the other; what was trained goes on with both unless one is asked for."""
    path = str(adapter(tmp_path / "adapter", "finetune", TASKTYPE=["qa", "report"]))
    for task in ("qa", "report"):
        settings, prompts, _ = agree(Settings(ckp_path=path, tasktype=(task,)), {"TASKTYPE"}, "CKP_PATH", "eval")
        assert settings.tasktype == (task,) and prompts == OWN_WORDS
    assert agree(Settings(ckp_path=path), set(), "CKP_PATH", "eval")[0].tasktype == ("qa",)
    start = Settings(pretrain_path=path)
    assert agree(start, set(), "PRETRAIN_PATH", "finetune")[0].tasktype == ("qa", "report")
    assert agree(start, {"TASKTYPE"}, "PRETRAIN_PATH", "finetune")[0].tasktype == ("qa",)
    one = str(adapter(tmp_path / "one", "finetune", TASKTYPE="qa"))
    with pytest.raises(UserError, match="trained with TASKTYPE=qa, not qa,report"):
        agree(Settings(pretrain_path=one, tasktype=("qa", "report")), {"TASKTYPE"}, "PRETRAIN_PATH", "finetune")
