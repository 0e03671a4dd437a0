"""A training step must not depend on how its tokens are laid out, nor on how many processes share them."""

import random

import numpy as np
import pytest
import torch

from data_provider.data_factory import Mixture, even_parts
from model import sequence_attention
from model.attention import BLOCK, FLEX, attends, block_mask, dense_mask, use_flex
from model.checkpoints import build_model
from model.engine import compile_layers
from model.heartllm import loss_sum
from model.layouts import exact_layouts
from model.packing import Example, collate, packed_length, real_tokens, supervised_tokens
from model.sequence_attention import SEQUENCES, use_sequences
from model.throughput import batch_work, work_of
from model.training import TrainingOptions
from model.training_step import Schedule, ahead
from tests.model.test_architectures import make_llm


def questions(vocabulary, ecgs=4, asked=5, seed=0, shared=True):
    """Questions on ECGs, like stage 3's: the ECG first, a short answer supervised."""
    rng = random.Random(seed)
    examples = []
    for _ in range(ecgs):
        ecg = [rng.randrange(vocabulary.text_size) for _ in range(rng.randrange(20, 40))]
        for _ in range(rng.randrange(1, asked + 1)):
            rest = [rng.randrange(vocabulary.text_size) for _ in range(rng.randrange(6, 14))]
            labels = [-100] * (len(ecg) + len(rest) - 3) + rest[-3:]
            examples.append(Example(ecg + rest, labels, len(ecg) if shared else 0))
    return examples


def gradients(model, batches):
    model.zero_grad()
    total = sum(loss_sum(model, batch) for batch in batches)
    total.backward()
    return total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_padded_packed_and_shared_steps_have_the_same_losses_and_gradients(name, tmp_path):
    """Lost otherwise: a fast step that learns from other text than it says, by a leak between neighbours."""
    model, _, vocabulary = build_model(make_llm(name, tmp_path), 16, "full")
    plain, shared = questions(vocabulary, shared=False), questions(vocabulary)
    counted = sum(label != -100 for example in plain for label in example.labels)
    pad = vocabulary.pad
    ways = {
        "one by one": [collate([example], pad, packed=False) for example in plain],
        "padded": [collate(plain, pad, packed=False)],
        "packed": [collate(plain, pad)],
        "packed, one row": [collate(plain, pad, multiple=BLOCK)],
        "packed and shared": [collate(shared, pad)],
        "packed and shared, one row": [collate(shared, pad, multiple=BLOCK)],
    }
    row = ways["packed and shared, one row"][0]
    assert row["input_ids"].shape[0] == 1 and row["input_ids"].shape[1] % BLOCK == 0
    assert row["owners"].max() >= 3 and row["branches"].max() >= 2, "several groups of questions in a row"
    assert real_tokens(row, pad) == packed_length(shared) < packed_length(plain)
    expected, of_each = gradients(model.train(), ways["one by one"])
    for way, batches in ways.items():
        assert sum(map(supervised_tokens, batches)) == counted
        loss, found = gradients(model, batches)
        assert abs(loss - expected) / counted < 1e-4, way
        for parameter, gradient in of_each.items():
            assert torch.allclose(found[parameter], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max()), way


@pytest.mark.parametrize("window", [0, 7])
def test_the_block_mask_of_a_gpu_is_the_dense_mask_of_a_cpu(tiny_vocabulary, window):
    """Lost otherwise: what is proved here on a CPU would say nothing of what a GPU computes."""
    batch = collate(questions(tiny_vocabulary), tiny_vocabulary.pad, multiple=BLOCK)
    owners, branches, positions = (batch[name] for name in ("owners", "branches", "position_ids"))
    rule = attends(owners, branches, positions, window)
    dense = dense_mask(rule, *owners.shape, owners.device)
    blocks = block_mask(rule, *owners.shape, owners.device)
    rebuilt = torch.zeros_like(dense)
    for query in range(owners.shape[1] // BLOCK):
        for count, numbers in (
            (blocks.kv_num_blocks, blocks.kv_indices),
            (blocks.full_kv_num_blocks, blocks.full_kv_indices),
        ):
            for key in numbers[0, 0, query, : count[0, 0, query]].tolist():
                block = slice(query * BLOCK, (query + 1) * BLOCK), slice(key * BLOCK, (key + 1) * BLOCK)
                rebuilt[0, 0][block] = dense[0, 0][block]  # within a block, flex attention asks the rule
    assert torch.equal(rebuilt, dense) and dense.any(-1).all()
    # ... and the rule is what it says, written down otherwise: token by token.
    for query in range(owners.shape[1]):
        for key in random.Random(query).sample(range(owners.shape[1]), 20):
            q, k = (int(owners[0, i]) for i in (query, key))
            of_q, of_k = (int(branches[0, i]) for i in (query, key))
            near = not window or int(positions[0, query] - positions[0, key]) < window
            assert dense[0, 0, query, key] == (key <= query and q == k and of_k in (0, of_q) and near)


@pytest.fixture(scope="module")
def tiny_vocabulary(tmp_path_factory):
    return build_model(make_llm("llama", tmp_path_factory.mktemp("llm")), 16, "full")[2]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3_text", "mistral, window 8"])
def test_flex_attention_has_the_losses_of_the_dense_mask(name, tmp_path):
    """Its forward pass runs on a CPU too. Lost otherwise: everything that a GPU trains on."""
    model, _, vocabulary = build_model(make_llm(name, tmp_path), 16, "lora", rank=2)
    batch = collate(questions(vocabulary), vocabulary.pad, multiple=BLOCK)
    model.eval()
    with torch.no_grad():
        dense = loss_sum(model, batch)
        exact, faults = exact_layouts(model, loss_sum, vocabulary, longest=40, use=use_flex)
        assert exact == {"packed", "shared"} and not faults
        assert model.get_base_model().config._attn_implementation == FLEX
        assert loss_sum(model, batch).item() == pytest.approx(dense.item(), abs=1e-4 * supervised_tokens(batch))


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", "gpt2", "mistral, window 8"])
def test_attention_by_sequences_has_the_losses_and_gradients_of_the_dense_mask(name, tmp_path):
    """Lost otherwise: everything that a CPU trains on. Many short branches fill several rows of an ECG."""
    model, _, vocabulary = build_model(make_llm(name, tmp_path), 16, "full")
    many = questions(vocabulary, ecgs=3, asked=40) + questions(vocabulary, ecgs=5, asked=1, seed=1)
    for examples in (many, questions(vocabulary, shared=False), many + questions(vocabulary, seed=2, shared=False)):
        batch = collate(examples, vocabulary.pad)
        llm = model.eval()
        llm.set_attn_implementation("sdpa")
        loss, expected = gradients(model, [batch])
        assert use_sequences(llm) and llm.config._attn_implementation == SEQUENCES
        again, found = gradients(model, [batch])
        assert again == pytest.approx(loss, abs=1e-4 * supervised_tokens(batch))
        for parameter, gradient in expected.items():
            assert torch.allclose(found[parameter], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max()), parameter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_branch_that_sees_another_is_found_in_either_precision(dtype, tmp_path, monkeypatch):
    """Lost otherwise: answers learned from the next question's, or a pretrained LLM slowed down for its rounding."""
    model, _, vocabulary = build_model(make_llm("llama", tmp_path), 16, "full")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3 if parameter.ndim == 2 else 1  # what an untrained LLM makes of its context is too little
    model.to(dtype)
    assert exact_layouts(model, loss_sum, vocabulary, longest=40, use=use_sequences)[0] == {"packed", "shared"}
    masks = sequence_attention._masks
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr(sequence_attention, "_masks", lambda real, b, *more: masks(real, torch.zeros_like(b), *more))
    exact, faults = exact_layouts(model, loss_sum, vocabulary, longest=40, use=use_sequences)
    assert exact == {"packed"} and "neighbour's text" in faults["shared"]


@pytest.mark.parametrize("checkpointing", [True, False])
def test_checkpointed_and_compiled_layers_compute_the_same(checkpointing, tmp_path):
    """Lost otherwise: a faster or smaller step that learns something else."""
    model, _, vocabulary = build_model(make_llm("llama", tmp_path), 16, "lora", rank=2)
    batches = [collate(questions(vocabulary, seed=seed), vocabulary.pad) for seed in (0, 1)]  # of other lengths
    loss, expected = gradients(model.train(), batches)
    llm = model.get_base_model()
    assert use_sequences(llm)
    if checkpointing:
        llm.activation_checkpointing_enable({"use_reentrant": False})
    else:
        compile_layers(llm, backend="aot_eager")  # all but the kernels, which take minutes
    again, found = gradients(model, batches)
    assert again == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-5) for name in expected)


# ---- which items a step takes


def options(**more):
    values = dict.fromkeys(TrainingOptions.__dataclass_fields__, 0) | {"accumulation": 1, "train_epochs": 2}
    return TrainingOptions(**values | {"batch_size": 4, "seed": 5} | more)


def test_steps_of_tokens_take_every_item_once_and_are_the_same_for_any_processes():
    """Lost otherwise: items that no step takes, and losses that change with the cluster."""
    lengths = np.random.default_rng(0).integers(5, 60, 300)
    mixture = Mixture.of([(list(range(300)), 1)])
    one = Schedule(mixture, options(tokens_per_step=500), 0, 1, lengths)
    ranks = [Schedule(mixture, options(tokens_per_step=500, accumulation=2), rank, 3, lengths) for rank in range(3)]
    taken = {0: [], 1: []}
    for step in range(one.last_step):
        chosen = one.chosen(step)
        assert lengths[chosen].sum() <= 500 and (ranks[2].chosen(step) == chosen).all()
        shares = [share for rank in ranks for share in rank.shares(chosen)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(chosen.tolist()) and len(shares) == 6
        taken[one.epoch(step)] += chosen.tolist()
    assert all(sorted(items) == list(range(300)) for items in taken.values()) and taken[0] != taken[1]
    assert one.ends_epoch(one.last_step) and one.last_step < 2 * lengths.sum() / (500 - 60) + 2
    later = Schedule(mixture, options(tokens_per_step=500, max_steps=3), 0, 1, lengths)
    assert later.last_step == 3 and (later.chosen(2) == one.chosen(2)).all()


def test_steps_of_items_are_those_of_the_mixture():
    mixture = Mixture.of([(list(range(10)), 1)])
    schedule = Schedule(mixture, options(batch_size=2), 1, 2)
    assert schedule.last_step == 6 and [schedule.epoch(step) for step in range(6)] == [0, 0, 0, 1, 1, 1]
    assert (schedule.chosen(4) == mixture.steps(4, 5, 1)[1]).all()
    assert [share.tolist() for share in schedule.shares(schedule.chosen(4))] == [schedule.chosen(4)[1::2].tolist()]


def test_parts_are_nearly_even():
    lengths = np.random.default_rng(1).integers(300, 800, 64)
    parts = even_parts(lengths, 8)
    assert sorted(number for part in parts for number in part) == list(range(64))
    sums = [lengths[part].sum() for part in parts]
    assert max(sums) < 1.05 * min(sums)


def test_steps_made_ahead_come_in_order_and_a_fault_in_one_is_raised():
    def make(step):
        if step == 7:
            raise ValueError("step 7")
        return step

    found = []
    with pytest.raises(ValueError, match="step 7"):
        for made in ahead(make, range(10)):
            found.append(made)
    assert found == list(range(7))


# ---- how fast


def test_operations_are_those_that_pytorch_counts(tmp_path):
    """Lost otherwise: a share of the peak that is off by a factor, and nobody would see it."""
    from torch.utils.flop_counter import FlopCounterMode

    for tuning in ("full", "lora"):
        model, _, vocabulary = build_model(make_llm("llama", tmp_path / tuning), 16, tuning, rank=2)
        llm = model.get_base_model() if tuning == "lora" else model
        llm.set_attn_implementation("eager")
        batch = collate(questions(vocabulary, ecgs=1, asked=1), vocabulary.pad, packed=False)
        with FlopCounterMode(display=False) as counter:
            loss_sum(model.train(), batch).backward()
        work, length = work_of(model), batch["input_ids"].shape[1]
        tokens, operations = batch_work(work, batch, vocabulary.pad)
        assert tokens == length
        more = work.pair * (length**2 - length * (length + 1) / 2)  # eager attention computes every pair
        if tuning == "lora":  # PEFT makes a gradient of the whole output matrix for the few rows of it that train
            more += 2 * supervised_tokens(batch) * llm.get_output_embeddings().weight.numel()
        assert counter.get_total_flops() == pytest.approx(operations + more, rel=0.001)
