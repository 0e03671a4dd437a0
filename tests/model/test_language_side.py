"""The LLM's side of an ECG: ids, layouts and weights must be the published ones, or their checkpoints mean nothing."""

import json
import random

import numpy as np
import pytest
import torch

from model.answering import generate
from model.checkpoint_files import check_fits, llm_hash, resolve_checkpoint
from model.checkpoints import build_model, load_model, load_weights, save_checkpoint
from model.forecasting import PUBLISHED_WINDOWS, causal_examples, forecast_examples, windows_for
from model.heartllm import loss_sum, trainable_parameters
from model.packing import Example, collate, pack
from model.prompts import prompt_ids, read_prompts, training_example
from model.tiny_llm import tiny_llm
from model.vocabulary import add_ecg_tokens
from tests.shared import SHARED, needs_shared
from utils.tools import UserError

REFERENCE = SHARED / "reference" / "llm_checkpoint"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm"))


ROW = np.r_[1296 + np.arange(12), np.arange(313)]  # of a tokenizer with amplitudes


def tokenizer_of(path, n_scales=0):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return tokenizer, add_ecg_tokens(tokenizer, 1296, n_scales)


# ---- vocabulary


@needs_shared
@pytest.mark.parametrize("folder, bos", [("base_llm", (598,)), ("tokenizer_no_bos", ())])
def test_ids_are_the_published_ones(folder, bos):
    ids = json.loads((REFERENCE / "ids.json").read_text())["ids"]
    _, vocabulary = tokenizer_of(REFERENCE / folder)
    assert (vocabulary.pad, vocabulary.start, vocabulary.end) == (ids["pad"], ids["start_ecg"], ids["end_ecg"])
    assert vocabulary.code_ids([0, 1295]) == [ids["first_ecg_code"], ids["last_ecg_code"]]
    assert vocabulary.new_ids[-1] + 1 == ids["embed_rows"] and vocabulary.eos == ids["eos"]
    assert vocabulary.bos == bos


def test_a_saved_tokenizer_knows_the_codes_and_keeps_its_ids(tiny, tmp_path):
    tokenizer, vocabulary = tokenizer_of(tiny)
    tokenizer.save_pretrained(tmp_path)
    again, same = tokenizer_of(tmp_path)
    assert same == vocabulary and again("<|ecg_7|>", add_special_tokens=False)["input_ids"] == vocabulary.code_ids([7])
    with pytest.raises(UserError, match="another number of codes"):
        add_ecg_tokens(again, 512)


def test_amplitudes_come_behind_all_published_tokens(tiny, tmp_path):
    _, published = tokenizer_of(tiny)
    tokenizer, vocabulary = tokenizer_of(tiny, n_scales=64)
    assert vocabulary.new_ids[:-64] == published.new_ids
    assert vocabulary.code_ids([0, 1295, 1296, 1359]) == [*published.code_ids([0, 1295]), *vocabulary.new_ids[-64::63]]
    assert tokenizer.convert_ids_to_tokens(vocabulary.new_ids[-65:-63]) == ["<|ecg_infill|>", "<|ecg_scale_0|>"]
    assert vocabulary.ecg_ids(ROW) == (vocabulary.code_ids(ROW[:12]), vocabulary.code_ids(ROW[12:]))
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_of(tmp_path, n_scales=64)[1] == vocabulary
    with pytest.raises(UserError, match="another number of codes"):
        tokenizer_of(tmp_path)


# ---- prompts


def published_prompts(tmp_path, tokenizer, expected):
    """The published words, got back from the expected ids (they are data here, not ours)."""
    prompts = {}
    for task in ("qa", "report"):
        ids = expected[f"{task}_train"]["input_ids"][0]
        text = tokenizer.decode(ids[: ids.index(601)]).removeprefix("<|begin_of_text|>")
        item = EXPECTED["items"][task]
        known = item["question"] if task == "qa" else item["background"].split("Recording Details")[0]
        assert known in text
        text = text.replace(known, "{question}" if task == "qa" else "{background}")
        space = " " if task == "qa" else ""
        cue = "Answer:" if task == "qa" else " Report:"
        prompts[task] = f"{text}<|start_ecg|>{space}{{codes}}<|end_ecg|>{cue}"
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(prompts))
    return read_prompts(path)


if (REFERENCE / "expected_prompts.json").is_file():
    EXPECTED = json.loads((REFERENCE / "expected_prompts.json").read_text())
ITEM_OF = {
    "qa_train": "qa",
    "report_train": "report",
    "report_train_mimic_style": "report_mimic_style",
}


@needs_shared
@pytest.mark.parametrize("kind", ["with_bos", "no_bos"])
@pytest.mark.parametrize("name", ITEM_OF)
def test_fine_tuning_layout(kind, name, tmp_path):
    """With a BOS: ids and labels as published. Without: the published layout, with nothing lost."""
    tokenizer, vocabulary = tokenizer_of(REFERENCE / ("base_llm" if kind == "with_bos" else "tokenizer_no_bos"))
    prompts = published_prompts(tmp_path, tokenizer, EXPECTED["with_bos"])
    item = dict(EXPECTED["items"][ITEM_OF[name]])
    task = "qa" if "question" in item else "report"
    codes = np.array(EXPECTED["with_bos"]["pretrain"]["codes_record3"])
    example = training_example(tokenizer, vocabulary, prompts, item | {"ecg_path": "x"}, task, [codes])
    ids, labels = EXPECTED["with_bos"][name]["input_ids"][0], EXPECTED["with_bos"][name]["labels"][0]
    cut = 0 if kind == "with_bos" else 1
    assert example.input_ids == ids[cut:] and example.labels == labels[cut:]
    assert example.input_ids[-1] == vocabulary.eos and example.labels[-1] == vocabulary.eos
    assert prompt_ids(tokenizer, vocabulary, prompts, item, task, [codes]) == [
        i for i, label in zip(ids[cut:], labels[cut:], strict=True) if label == -100
    ]


@needs_shared
@pytest.mark.parametrize("kind", ["with_bos", "no_bos"])
def test_pretraining_windows(kind):
    _, vocabulary = tokenizer_of(REFERENCE / ("base_llm" if kind == "with_bos" else "tokenizer_no_bos"))
    expected = EXPECTED["with_bos"]["pretrain"]
    codes = np.array(expected["codes_record3"])
    rng = random.Random(expected["python_random_seed"])
    cut = 0 if kind == "with_bos" else 1
    examples = forecast_examples(vocabulary, codes, rng)
    for example, ids, labels in zip(examples, expected["input_ids"], expected["labels"], strict=True):
        padding = ids.count(vocabulary.pad)
        assert example.input_ids == ids[padding + cut :]
        assert example.labels == labels[padding + cut :]
    assert examples[0].input_ids[-2:] == [vocabulary.end, vocabulary.eos]


def test_windows_follow_the_number_of_codes():
    assert windows_for(313) == PUBLISHED_WINDOWS
    for codes in (8, 157, 626):
        windows = windows_for(codes)
        assert sum(windows[0]) == codes and all(w > 0 and s > 0 and w + s <= codes for w, s in windows)


def test_causal_objective_supervises_every_code_but_the_first(tiny):
    _, vocabulary = tokenizer_of(tiny)
    (example,) = causal_examples(vocabulary, np.arange(313), random.Random(0))
    assert sum(label != -100 for label in example.labels) == 312


def test_amplitudes_stand_before_every_window_and_are_never_predicted(tiny):
    _, published = tokenizer_of(tiny)
    _, vocabulary = tokenizer_of(tiny, n_scales=64)
    before = [*vocabulary.bos, vocabulary.start]
    plain = forecast_examples(published, ROW[12:], random.Random(0))
    for example, without in zip(forecast_examples(vocabulary, ROW, random.Random(0)), plain, strict=True):
        ids, labels = without.input_ids, without.labels
        assert example.input_ids == [*before, *vocabulary.code_ids(ROW[:12]), *ids[len(before) :]]
        assert example.labels == [-100] * 12 + labels
    (example,) = causal_examples(vocabulary, ROW, random.Random(0))
    assert example.input_ids == [*before, *vocabulary.code_ids(ROW), vocabulary.end, vocabulary.eos]
    assert [label for label in example.labels if label != -100] == vocabulary.code_ids(ROW[12:])


def test_prompts_put_the_amplitudes_right_behind_the_start(tiny, tmp_path):
    tokenizer, vocabulary = tokenizer_of(tiny, n_scales=64)
    text = "{question}<|start_ecg|> the ECG: {codes}<|end_ecg|>"
    (tmp_path / "p.json").write_text(json.dumps({"qa": text}))
    item = {"question": "Is it?", "ecg_path": ["a", "b"]}
    ids = prompt_ids(tokenizer, vocabulary, read_prompts(tmp_path / "p.json"), item, "qa", [ROW, ROW])
    words = tokenizer(" the ECG: ", add_special_tokens=False)["input_ids"]
    amplitudes, waveform = vocabulary.ecg_ids(ROW)
    ecg = [vocabulary.start, *amplitudes, *words, *waveform, vocabulary.end]
    assert ids[-2 * len(ecg) :] == ecg + ecg


def test_prompts_put_both_ecgs_of_a_comparison_between_their_own_tokens(tiny):
    tokenizer, vocabulary = tokenizer_of(tiny)
    item = {"question": "Is {background} there?", "ecg_path": ["a", "b"], "background": "Patient"}
    ids = prompt_ids(tokenizer, vocabulary, read_prompts(), item, "qa", [[1, 2], [3]])
    first, second = (i for i, token in enumerate(ids) if token == vocabulary.start)
    assert ids[first + 1 : first + 4] == [*vocabulary.code_ids([1, 2]), vocabulary.end]
    assert ids[second + 1 : second + 3] == [*vocabulary.code_ids([3]), vocabulary.end]
    assert "{background}" in tokenizer.decode(ids), "a question's own words stay as they are"


@pytest.mark.parametrize(
    "text", ['{"qa": "no block {question}"}', '{"other": "x"}', "[]", '{"qa": "<|start_ecg|>{codes}<|end_ecg|>"}']
)
def test_wrong_prompt_files_are_refused(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UserError, match="p.json"):
        read_prompts(tmp_path / "p.json")


# ---- packing


def test_packed_and_separate_sequences_have_the_same_loss(tiny):
    """Packing that lets sequences see each other changes the loss: this would lose the model, quietly."""
    model, _, vocabulary = build_model(tiny, 64, "full")
    rng = random.Random(0)
    examples = []
    for length in (40, 25, 11, 7, 30):
        ids = [rng.randrange(vocabulary.text_size) for _ in range(length)]
        examples.append(Example(ids, [-100] * 3 + ids[3:]))
    packed = collate(examples, vocabulary.pad)
    assert packed["input_ids"].shape == (3, 40)
    with torch.no_grad():
        together = loss_sum(model, packed).item()
        separate = sum(loss_sum(model, collate([example], vocabulary.pad)).item() for example in examples)
        plain = 0.0
        for example in examples:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            plain += model(input_ids=ids, labels=labels).loss.item() * int((labels[:, 1:] != -100).sum())
    assert together == pytest.approx(separate, rel=1e-5) and together == pytest.approx(plain, rel=1e-5)


def test_questions_that_share_an_ecg_have_the_losses_of_separate_ones(tiny):
    """The shared ECG saves most of the work; a branch that saw another's answer would be a leak."""
    model, _, vocabulary = build_model(tiny, 64, "full")
    rng = random.Random(1)
    examples = []
    for ecg_length, questions in ((30, 3), (20, 2), (12, 1)):
        ecg = [rng.randrange(vocabulary.text_size) for _ in range(ecg_length)]
        for _ in range(questions):
            rest = [rng.randrange(vocabulary.text_size) for _ in range(rng.randrange(4, 9))]
            examples.append(Example(ecg + rest, [-100] * (ecg_length + 2) + rest[2:], shared=ecg_length))
    shared = collate(examples, vocabulary.pad)
    assert shared["input_ids"].numel() < 0.7 * sum(len(e.input_ids) for e in examples) + 30
    with torch.no_grad():
        separate = sum(loss_sum(model, collate([Example(e.input_ids, e.labels)], vocabulary.pad)) for e in examples)
        assert loss_sum(model, shared).item() == pytest.approx(separate.item(), rel=1e-5)


def test_pack_places_every_sequence_once():
    lengths = [random.Random(i).randrange(1, 50) for i in range(200)]
    rows = pack(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(200))
    assert all(sum(lengths[i] for i in row) <= 50 for row in rows)


# ---- weights


@needs_shared
@pytest.mark.parametrize("name", ["checkpoint_epoch0.pth", "checkpoint_epoch0_4bit.pth"])
def test_the_authors_checkpoints_give_their_logits(name):
    expected = np.load(REFERENCE / "expected.npz")
    inputs = {key: torch.tensor(expected[key]) for key in ("input_ids", "attention_mask")}
    seen = expected["attention_mask"].astype(bool)
    for text_rows, key in ((True, "logits"), (False, "logits_after_finetune_load")):
        model, _, vocabulary = load_model(REFERENCE / name, REFERENCE / "base_llm", 1296, text_rows=text_rows)
        if not text_rows:  # the reference took the LLM's rows through float16; ours keep their precision
            weight = model.get_base_model().get_input_embeddings().original_module.weight.data
            weight[: vocabulary.text_size] = weight[: vocabulary.text_size].half().float()
        with torch.no_grad():
            logits = model.eval()(**inputs).logits.numpy()
        assert np.abs(logits - expected[key])[seen].max() < 1e-4


@needs_shared
def test_a_checkpoint_of_another_llm_is_refused(tiny):
    with pytest.raises(UserError, match="belongs to another LLM"):
        load_model(REFERENCE / "checkpoint_epoch0.pth", tiny, 1296)


@needs_shared
def test_the_authors_checkpoint_does_not_go_with_amplitudes():
    with pytest.raises(UserError, match="64 of them for amplitudes.*another ECG tokenizer"):
        load_model(REFERENCE / "checkpoint_epoch0.pth", REFERENCE / "base_llm", 1296, n_scales=64)


class Evil:
    def __reduce__(self):
        return print, ("code that a checkpoint ran",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="more than weights"):
        load_weights(tmp_path / "evil.pth")
    assert "code that" not in capsys.readouterr().out


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_checkpoint_comes_back_bit_for_bit_and_holds_only_what_trained(tiny, tmp_path, tuning):
    torch.manual_seed(0)
    model, tokenizer, vocabulary = build_model(tiny, 32, tuning, rank=4, n_scales=64)
    trained, total = trainable_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    card = {"tokenizer_fingerprint": "abc", "llm_hash": llm_hash(tiny), "llm_path": str(tiny)}
    save_checkpoint(tmp_path / "checkpoint_epoch0", model, tokenizer, card)
    assert resolve_checkpoint(tmp_path / "checkpoint_epoch0.pth") == tmp_path / "checkpoint_epoch0"
    check_fits(tmp_path / "checkpoint_epoch0", "abc", tiny)
    with pytest.raises(UserError, match="another ECG tokenizer"):
        check_fits(tmp_path / "checkpoint_epoch0", "abd", tiny)
    again, _, _ = load_model(tmp_path / "checkpoint_epoch0", tiny, 32, n_scales=64)
    ids = torch.tensor([[5, vocabulary.start, *vocabulary.code_ids([32, 95, 1, 2, 31]), vocabulary.end]])
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, again.eval()(input_ids=ids).logits)
    if tuning == "lora":
        assert trained < total / 2
        weights = tmp_path / "checkpoint_epoch0" / "adapter_model.safetensors"
        assert weights.stat().st_size < 4 * trained + 50_000


def test_an_adapter_loads_with_peft_alone(tiny, tmp_path):
    """The adapter must be of use in the transformers world, without this repository."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer, _ = build_model(tiny, 32, "lora", rank=4)
    save_checkpoint(tmp_path, model, tokenizer, {})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny)
    base.resize_token_embeddings(len(tokenizer))
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    ids = torch.tensor([tokenizer("<|start_ecg|><|ecg_3|><|end_ecg|>")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-6)


def test_generation_of_a_batch_equals_one_by_one(tiny):
    model, tokenizer, vocabulary = build_model(tiny, 32, "full")
    prompts = [[5, 6, 7], [8] * 11, [9, 10]]
    batched = generate(model.eval(), tokenizer, vocabulary, prompts, 8)
    assert batched == [generate(model, tokenizer, vocabulary, [prompt], 8)[0] for prompt in prompts]
