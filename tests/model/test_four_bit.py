"""A base in 4 bits: it must train, and its adapter must come back, or days of training on one GPU are lost."""

import importlib.util

import pytest
import torch

from model.checkpoints import build_model, load_model, save_checkpoint
from model.heartllm import loss_sum
from model.memory_plan import check_four_bit
from model.packing import collate
from model.tiny_llm import tiny_llm
from tests.model.test_architectures import random_examples
from utils.tools import UserError


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_an_adapter_on_a_four_bit_base_trains_and_comes_back(tmp_path):
    from bitsandbytes.nn import Linear4bit

    llm = tiny_llm(tmp_path)
    torch.manual_seed(0)
    model, tokenizer, vocabulary = build_model(llm, 16, "lora", rank=4, four_bit=True)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 28
    assert all(layer.weight.numel() * 2 == layer.in_features * layer.out_features for layer in layers)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    batch, losses = collate(random_examples(vocabulary), vocabulary.pad), []
    for _ in range(3):
        losses.append(loss_sum(model.train(), batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    save_checkpoint(tmp_path / "adapter", model, tokenizer, {})
    assert not any("base_layer" in name for name in _saved(tmp_path / "adapter")), "the LLM itself is not saved again"
    again, _, _ = load_model(tmp_path / "adapter", llm, 16, four_bit=True)
    with torch.no_grad():
        assert loss_sum(again.eval(), batch).item() == loss_sum(model.eval(), batch).item()
        whole, _, _ = load_model(tmp_path / "adapter", llm, 16)  # the exam reads the LLM itself
        assert loss_sum(whole.eval(), batch).item() == pytest.approx(loss_sum(model, batch).item(), rel=0.1)


def _saved(folder):
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        return list(tensors.keys())


def test_where_four_bits_cannot_go_one_line_says_so(monkeypatch):
    with pytest.raises(UserError, match="TUNING=lora"):
        check_four_bit("full")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-optional.txt"):
        check_four_bit("lora")
