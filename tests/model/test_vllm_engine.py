"""ENGINE=vllm: what vLLM is handed must be the merged LLM and the right prompts; here something stands in for vLLM."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from model.answering import plan_exam
from model.vllm_engine import VllmEngine, choose_engine
from tests.model.test_answering import ECG_FIRST, answer_model, codes, ending, exam, llm, plain_answers  # noqa: F401
from utils.tools import UserError


class SamplingParams(SimpleNamespace):
    """vLLM's, as far as it is used: greedy, and the end of text is the only end."""


class LLM:
    """Answers as vLLM does: from a folder, prompt by prompt, the token that ended an answer among its tokens."""

    def __init__(self, model, dtype, max_model_len, **_):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.longest = max_model_len

    def generate(self, prompts, greedy, use_tqdm):
        assert greedy.temperature == 0 and greedy.ignore_eos
        outputs = []
        for prompt in prompts:
            ids, new = prompt["prompt_token_ids"], []
            assert len(ids) + greedy.max_tokens <= self.longest
            while len(new) < greedy.max_tokens and not set(new) & set(greedy.stop_token_ids):
                with torch.no_grad():
                    new.append(int(self.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=new)]))
        return outputs


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.parametrize("file", ["", ECG_FIRST], ids=["question first", "ECG first"])
def test_its_answers_are_those_of_the_plain_way(llm, ending, file, vllm, tmp_path):  # noqa: F811
    answering, asked = answer_model(llm, file, eos=ending), exam(items=9)
    plan = plan_exam(answering, asked, 52)
    engine = VllmEngine(answering, asked, plan.longest, torch.device("cpu"), tmp_path)
    assert not list(tmp_path.iterdir()), "the folder that it was loaded from is gone"
    found = [pair for batch in engine.answer_batches(plan.batches, codes) for pair in batch]
    assert len(found) == len(asked.items) and dict(found) == plain_answers(answering, asked)


def test_the_choice_is_said_and_never_made_in_silence(monkeypatch):
    assert choose_engine("own", "likelihood", 8) == ("own", "")
    for answers, processes, fault in (("likelihood", 1, "ENGINE=own"), ("generate", 2, "NUM_PROCESSES=1")):
        with pytest.raises(UserError, match=fault):
            choose_engine("vllm", answers, processes)
    for spec, name in ((None, "own"), (object(), "vllm")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
        engine, line = choose_engine("vllm", "generate", 1)
        assert engine == name and "vLLM" in line
