"""New rows must know their codec: alike codes alike rows, at the spread of the LLM's own rows, the same every time."""

import dataclasses

import numpy as np
import pytest
import torch

from ecg_tokenizer.code_features import code_features
from ecg_tokenizer.network import NetworkConfig
from model.checkpoints import build_model
from model.code_rows import freeze_rows, new_rows
from model.heartllm import loss_sum
from model.packing import collate
from model.vocabulary import EcgVocabulary
from run_main import make_plan
from tests.model.test_architectures import make_llm
from tests.model.test_training_step import questions
from tests.tokenizer_maker import small_tokenizer
from utils.tools import REPOSITORY, UserError

CONFIG = NetworkConfig(codes_per_ecg=50, width=16, encoder_depth=1, decoder_depth=1, amplitude=True)


def rows_of(features, old, seed=0):
    n_codes, n_scales = len(features[0]), len(features[1])
    vocabulary = EcgVocabulary(len(old), n_codes, (), 0, n_scales)
    rows = new_rows(old, vocabulary, features, torch.Generator().manual_seed(seed))
    assert len(rows) == len(vocabulary.new_ids)
    return rows[3 : 3 + n_codes], rows[len(rows) - n_scales :]


def test_codes_that_differ_by_a_level_start_nearer_than_those_that_differ_by_all():
    old = 3 + 0.5 * torch.randn(200, 32, generator=torch.Generator().manual_seed(1))
    codes, amplitudes = rows_of(code_features(small_tokenizer(config=CONFIG)), old)
    neighbour, opposite = (codes[0] - codes[1]).norm(), (codes[0] - codes[1295]).norm()
    assert neighbour < 0.5 * opposite
    assert (amplitudes[20] - amplitudes[21]).norm() < 0.5 * (amplitudes[20] - amplitudes[60]).norm()
    for rows in (codes, amplitudes):  # no louder and no fainter than what the LLM is used to
        assert rows.std(0, correction=0).square().mean().sqrt() == pytest.approx(0.5, rel=0.1)
        assert rows.mean() == pytest.approx(3, abs=0.1)
    assert len(np.unique(codes.numpy(), axis=0)) == 1296, "no two codes begin as one"


def test_the_same_seed_gives_the_same_rows():
    features, old = code_features(small_tokenizer(config=CONFIG)), torch.randn(100, 16)
    assert torch.equal(rows_of(features, old)[0], rows_of(features, old)[0])
    assert not torch.equal(rows_of(features, old)[0], rows_of(features, old, seed=1)[0])


def test_features_of_residual_codes_and_of_a_learned_book():
    residual, _ = code_features(small_tokenizer(config=dataclasses.replace(CONFIG, residual_depth=2)))
    assert residual.shape == (2592, 48) and not residual[:1296, 24:].any(), "stages have columns of their own"
    book, _ = code_features(small_tokenizer(config=dataclasses.replace(CONFIG, quantizer="vq", codebook_size=64)))
    assert book.shape == (64, 8) and np.isfinite(book).all()


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # an output layer of its own, and a tied one
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_frozen_rows_stay_while_the_rest_trains(tuning, name, tmp_path):
    """Lost otherwise: an ablation that says what training the codes' rows is worth, and trains them in both runs."""
    model, _, vocabulary = build_model(make_llm(name, tmp_path), 16, tuning, rank=2)
    free, _, _ = build_model(tmp_path, 16, tuning, rank=2)
    freeze_rows(model, vocabulary)
    examples = questions(vocabulary, shared=False)
    for example in examples:
        example.input_ids[0] = vocabulary.new_ids[3]
        example.labels[-1] = vocabulary.new_ids[4]
    for llm, moves in ((model, False), (free, True)):
        before = embedded(llm)
        optimizer = torch.optim.AdamW([p for p in llm.parameters() if p.requires_grad], lr=0.1, weight_decay=0)
        for _ in range(3):
            loss = loss_sum(llm.train(), collate(examples, vocabulary.pad))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        for old, new in zip(before, embedded(llm), strict=True):
            rows = slice(vocabulary.text_size, vocabulary.new_ids[-1] + 1)
            assert torch.equal(old[rows], new[rows]) != moves
            assert torch.equal(old[: rows.start], new[: rows.start]) == (tuning == "lora")


def test_weight_decay_that_would_move_frozen_rows_is_refused():
    words = ["TUNING=full", "WEIGHT_DECAY=0.1", f"TOKENIZER_PATH={REPOSITORY}/ecg_tokenizer/pretrained"]
    with pytest.raises(UserError, match="TRAIN_CODE_ROWS=false keeps"):
        make_plan("pretrain", [*words, "TRAIN_CODE_ROWS=false"])


def embedded(model):
    """What the model adds to its rows or has in them: the input's and the output's weights."""
    with torch.no_grad():
        layers = model.get_input_embeddings(), model.get_output_embeddings()
        merged = [getattr(layer, "get_merged_weights", lambda layer=layer: layer.weight)() for layer in layers]
        return [weight.clone() for weight in merged]
