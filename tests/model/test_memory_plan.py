"""The memory plan: a run that is said to fit must fit."""

import pytest
import torch

from benchmarks.shapes import SHAPES, shape_config, shaped_llm
from model.heartllm import loss_sum
from model.memory_plan import LlmShape, Load, _activations, describe, memory_parts
from model.packing import Example, collate
from model.sequence_attention import BRANCH_ROW, use_sequences


def kept_bytes(layers, tuning, dropout, shared):
    """(bytes that a forward pass keeps beside the weights, tokens)."""
    model, vocabulary = shaped_llm("small", layers, tuning=tuning, rank=16, dropout=dropout)
    assert use_sequences(model.get_base_model() if hasattr(model, "get_base_model") else model)
    ids = [7] * (100 + BRANCH_ROW)
    examples = [Example(ids, [-100] * (len(ids) - 4) + ids[-4:], 100 * shared)] * (3 if shared else 1)
    batch = collate(examples, vocabulary.pad)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_sum(model.train(), batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), batch["input_ids"].numel()


@pytest.mark.parametrize("tuning, dropout, shared", [("lora", 0.05, True), ("lora", 0.05, False), ("full", 0.0, True)])
def test_a_layer_keeps_what_the_plan_says(tuning, dropout, shared, monkeypatch):
    """Lost otherwise: hours in a queue for a run that ends at its first step, out of memory."""
    monkeypatch.setitem(SHAPES, "small", (96, 256, 2, 6, 2, 16, 512, True))
    (one, tokens), (three, _) = (kept_bytes(layers, tuning, dropout, shared) for layers in (1, 3))
    keys = 3 * (100 + BRANCH_ROW) if shared else 0
    load = Load(tuning, 16, dropout, 1365, 4, tokens, 4, keys, device="cpu")
    planned = [_activations(LlmShape.of(shape_config("small", layers).to_dict()), load) for layers in (1, 3)]
    assert planned[1] - planned[0] == pytest.approx(three - one, rel=0.01)


def test_the_plan_says_what_fits():
    shape = LlmShape.of(shape_config("3b").to_dict())
    parts = memory_parts(shape, Load("lora", 64, 0.05, 1365, 2, tokens=2048, targets=128))
    assert parts["weights"] == pytest.approx(2 * 3.3e9, rel=0.03)
    assert parts["optimizer"] == pytest.approx(12 * 101e6, rel=0.02)
    total = sum(parts.values())
    assert describe(parts, 2048, total + 1)[0].endswith("fits")
    assert "does NOT fit: lower BATCH_SIZE" in describe(parts, 2048, total - 1)[0]
