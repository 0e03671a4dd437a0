"""The exam's answers: faster ways must give the plain way's answers, and no answer may be lost or given twice."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from model.answer_files import PARTIAL, read_answers, write_answers
from model.answering import AnswerModel, Exam, answer_batches, generate, open_batches, plan_exam, prediction_row
from model.candidates import candidate_rule
from model.checkpoints import build_model
from model.generation import Prompt, greedy, log_likelihoods, merge_adapter, why_unshared
from model.prompts import prompt_ids, read_prompts
from model.tiny_llm import tiny_llm
from utils.tools import REPOSITORY, UserError

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A random LLM that says different things of different prompts, and a word that ends some answers early."""
    path = tiny_llm(tmp_path_factory.mktemp("llm"))
    model, tokenizer, vocabulary = build_model(path, 1296, "full", n_scales=64)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval(), tokenizer, vocabulary


def answer_model(llm, file="", **vocabulary):
    model, tokenizer, known = llm
    return AnswerModel(model, tokenizer, dataclasses.replace(known, **vocabulary), read_prompts(file))


ECG_FIRST = REPOSITORY / "env/prompts/ecg_first.json"
WORDS = ("Does this ECG show atrial fibrillation?", "What is the rhythm?", "Noise in lead V1 or in lead V2?", "Q?")


def exam(items=23, ecgs=5, task="qa", **more):
    rng = random.Random(0)
    made = {}
    for index in range(items):
        path = f"records/{rng.randrange(ecgs)}"
        kind = {"question_type": "single-verify", "attribute_type": "scp_code", "template_id": index % 3}
        item = {"question": rng.choice(WORDS) + " a" * rng.randrange(6), "answer": ["yes"], "ecg_path": path, **kind}
        if index % 7 == 3:
            item["ecg_path"] = [path, "records/0"]
        made[2 * index] = item if task == "qa" else {"report": "sinus rhythm", "filepath": path}
    return Exam(made, task, **{"batch_size": 3, "max_new_tokens": NEW_TOKENS} | more)


def codes(path):
    rng = random.Random(path)
    return [1296 + rng.randrange(64) for _ in range(12)] + [rng.randrange(1296) for _ in range(40)]


def answers_of(answering, asked, plan=None, batches=None):
    plan = plan or plan_exam(answering, asked, 52)
    return [pair for part in answer_batches(answering, asked, plan, batches or plan.batches, codes) for pair in part]


def plain_answers(answering, asked):
    """One by one, by transformers' own loop."""
    texts = {}
    for index, item in asked.items.items():
        paths = item["ecg_path"] if asked.task == "qa" else item["filepath"]
        ecgs = list(map(codes, paths if isinstance(paths, list) else [paths]))
        ids = prompt_ids(answering.tokenizer, answering.vocabulary, answering.prompts, item, asked.task, ecgs)
        texts[index] = generate(answering.model, answering.tokenizer, answering.vocabulary, [ids], NEW_TOKENS)[0]
    return texts


@pytest.fixture(scope="module")
def ending(llm):
    """An id that ends some of the answers early and others not at all."""
    answering = answer_model(llm)
    texts = plain_answers(answering, exam()).values()
    ids = answering.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    said = {word: sum(word in answer[1:] for answer in ids) for answer in ids for word in answer[1:]}
    return max(said, key=lambda word: (-abs(said[word] - len(ids) / 2), word))


# ---- answers


@pytest.mark.parametrize("file", ["", ECG_FIRST], ids=["question first", "ECG first"])
@pytest.mark.parametrize("task", ["qa", "report"])
def test_answers_are_those_of_the_plain_way(llm, ending, file, task):
    """An ECG that is read once for all its questions, and batches whose finished rows leave, change no answer."""
    answering, asked = answer_model(llm, file, eos=ending), exam(task=task)
    plan = plan_exam(answering, asked, 52)
    assert plan.shares_ecg == bool(file) and not plan.plain
    found = answers_of(answering, asked, plan)
    assert dict(found) == plain_answers(answering, asked) and len(found) == len(asked.items)
    lengths = {len(answering.tokenizer(text)["input_ids"]) for _, text in found}
    assert len(lengths) > 2, "the answers end at different times"


def test_a_prompt_that_ends_with_the_ecg_can_be_answered(llm, tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text('{"report": "<|start_ecg|>{codes}<|end_ecg|>"}')
    answering, asked = answer_model(llm, file), exam(task="report", items=6)
    assert dict(answers_of(answering, asked)) == plain_answers(answering, asked)


@pytest.mark.parametrize("tied", [True, False])
def test_a_merged_adapter_computes_what_the_adapter_did(tmp_path, tied):
    """LoRA, norms and the rows of the ECG's tokens, also where the output layer has rows of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tiny_llm(tmp_path)
    if not tied:
        config = AutoModelForCausalLM.from_pretrained(path).config
        config.tie_word_embeddings = False
        tokenizer, path = AutoTokenizer.from_pretrained(path), tmp_path / "untied"
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
    model, _, vocabulary = build_model(path, 1296, "lora", rank=8, n_scales=64)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    ids = torch.tensor([[5, 6, *vocabulary.new_ids[::97], 7, 8]])
    with torch.no_grad():
        before = model.eval()(ids).logits
        merged = merge_adapter(model)
        after = merged(ids).logits
    assert not hasattr(merged, "peft_config")
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


def test_batches_hold_every_item_once_and_the_longest_first(llm):
    answering, asked = answer_model(llm, ECG_FIRST), exam(items=200, ecgs=2)
    plan = plan_exam(answering, asked, 52)
    groups = [group for batch in plan.batches for group in batch]
    assert sorted(index for group in groups for index in group) == sorted(asked.items)
    assert max(map(len, groups)) <= 64 and all(len(batch) <= 3 for batch in plan.batches)
    assert len(groups[-1]) == min(map(len, groups))
    alone = plan_exam(answer_model(llm), asked, 52)
    real = []
    for ((index,),) in (batch[:1] for batch in alone.batches):
        item = asked.items[index]
        paths = item["ecg_path"] if isinstance(item["ecg_path"], list) else [item["ecg_path"]]
        real.append(len(prompt_ids(*llm[1:], read_prompts(), item, "qa", list(map(codes, paths)))))
    assert real == sorted(real, reverse=True), "the lengths told without making a prompt are the true ones"


def test_only_unfinished_batches_are_answered_again(llm):
    plan = plan_exam(answer_model(llm, ECG_FIRST), exam(), 52)
    done = {index for group in plan.batches[0] for index in group} | {plan.batches[1][0][0]}
    still_open = open_batches(plan, done)
    assert still_open[1:] == plan.batches[2:] and len(still_open) == len(plan.batches) - 1
    assert open_batches(plan, set(exam().items)) == []


class OutOfMemory:
    """Stands in for a GPU on which a batch of more than ``most`` rows doesn't fit."""

    def __init__(self, model, most):
        self.forward, self.most, self.model = model.forward, most, model

    def __enter__(self):
        def forward(input_ids=None, **more):
            if len(input_ids) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.forward(input_ids=input_ids, **more)

        self.model.forward = forward

    def __exit__(self, *error):
        del self.model.forward


@pytest.mark.parametrize("file", ["", ECG_FIRST], ids=["question first", "ECG first"])
def test_out_of_memory_halves_the_batch_and_says_so(llm, file, capsys):
    answering, asked = answer_model(llm, file), exam(batch_size=5)
    expected, plan = dict(answers_of(answering, asked)), plan_exam(answering, asked, 52)
    with OutOfMemory(answering.model, 1):
        found = answers_of(answering, asked, plan)
    assert dict(found) == expected and len(found) == len(asked.items)
    said = capsys.readouterr().out
    assert said.count("out of memory with a batch of") == 2, "5 to 2, 2 to 1, and no batch after that tries more"
    with OutOfMemory(answering.model, 0), pytest.raises(UserError, match=r"item \d+: doesn't fit"):
        answers_of(answering, asked, plan)


# ---- likelihoods


def test_likelihoods_are_those_of_the_whole_text(llm, monkeypatch):
    model, _, vocabulary = llm
    rng = random.Random(1)

    def ids(most):
        return [rng.randrange(5, 1000) for _ in range(rng.randrange(1, most))]

    prompts = [Prompt(ids(60), [ids(9) for _ in range(rng.randrange(1, 5))]) for _ in range(4)]
    candidates = [[[[*ids(5), vocabulary.eos] for _ in range(rng.randrange(1, 6))] for _ in p.rests] for p in prompts]
    candidates[0][0][0] = [vocabulary.eos]  # an empty answer
    found = log_likelihoods(model, prompts, candidates, vocabulary.pad)
    monkeypatch.setattr("model.generation.PORTION", 2**17)  # few at a time
    portioned = log_likelihoods(model, prompts, candidates, vocabulary.pad)
    for row, prompt in enumerate(prompts):
        for rest, of_rest in enumerate(candidates[row]):
            for place, candidate in enumerate(of_rest):
                before = prompt.beginning + prompt.rests[rest]
                whole = torch.tensor([before + candidate])
                with torch.no_grad():
                    logs = model(whole).logits[0, len(before) - 1 : -1].log_softmax(-1)
                expected = logs.gather(1, torch.tensor(candidate)[:, None]).sum().item()
                assert found[row][rest][place] == pytest.approx(expected, abs=1e-3)
                assert portioned[row][rest][place] == pytest.approx(expected, abs=1e-3)


def test_the_likeliest_candidate_is_the_prediction(llm):
    asked = exam(candidates=lambda item: [["yes"], ["no"], ["left", "right"]])
    answering = answer_model(llm, ECG_FIRST)
    found = dict(answers_of(answering, asked))
    assert set(found) == set(asked.items) and all(len(values) == 3 for values in found.values())
    row = prediction_row(asked, 0, [-3.0, -2.0, -1.0])
    assert row["prediction"] == ["left", "right"] and row["log_likelihoods"] == [-3.0, -2.0, -1.0]
    assert row["candidates"] == [["yes"], ["no"], ["left", "right"]] and row["patient"] is None
    asked.items[0]["background"] = "Patient Information: - Patient ID: 18; - Age: 58"
    assert prediction_row(asked, 0, [-3.0, -2.0, -1.0])["patient"] == "18"


def test_views_of_an_ecg_are_averaged(llm):
    """Lost otherwise: an exam that says that it read each ECG in several ways, and read one of them."""
    answering = answer_model(llm, ECG_FIRST)
    asked = exam(candidates=lambda item: [["yes"], ["no"], ["left", "right"]])
    plan = plan_exam(answering, asked, 52)

    def others(path):
        return codes(f"{path} begun elsewhere")

    def answers(*ways):
        return dict(pair for part in answer_batches(answering, asked, plan, plan.batches, *ways) for pair in part)

    plain, turned, both = answers(codes), answers(others), answers(codes, others)
    for index, values in both.items():
        assert values == pytest.approx(np.mean([plain[index], turned[index]], axis=0), abs=2e-4)
        assert plain[index] != turned[index]


def test_candidates_are_what_a_question_is_open_to():
    def item(kind, template, answer, **more):
        return {"question_type": f"single-{kind}", "template_id": template, "answer": answer, **more}

    rule = candidate_rule(
        [
            *(item("query", 1, ["b", "a"]) for _ in range(2)),
            item("query", 1, ["a", "b"]),
            item("query", 1, ["none"]),
            item("query", 2, ["left"]),
            item("verify", 3, ["not sure"]),
        ]
    )
    assert rule(item("query", 1, ["x"])) == [["b", "a"], ["none"]], "as sets, written as most often"
    assert rule(item("query", 9, ["x"])) == [["b", "a"], ["left"], ["none"]], "an unseen template: its type's"
    assert rule(item("verify", 3, ["x"])) == [["yes"], ["no"], ["not sure"]]
    assert rule(item("verify", 4, ["x"])) == [["yes"], ["no"], ["not sure"]]
    assert rule(item("choose", 5, ["x"], attribute=["p", "q"])) == [["p"], ["q"], ["p", "q"], ["none"]]


# ---- LLMs of other builds


def small(kind, **more):
    import transformers

    sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                 num_key_value_heads=1, head_dim=16, pad_token_id=0, eos_token_id=1, bos_token_id=2)  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.replace('Gemma3', 'Gemma3Text')}Config")(**sizes, **more)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma2", "Gemma3", "Phi3", "Olmo2"])
def test_the_cache_branches_for_common_llms(kind):
    more = {"sliding_window": 64} if kind in ("Mistral", "Gemma2", "Gemma3") else {}
    model = small(kind, **more)
    assert why_unshared(model, 50) == ""
    if more:
        assert "sliding window (64 tokens)" in why_unshared(model, 65)
    rng = random.Random(0)
    prompts = [Prompt([rng.randrange(3, 64) for _ in range(20 + n)], [[5, 6 + n], [7], [8, 9, 10]]) for n in range(3)]
    answers = greedy(model, prompts, 8, 1, 0)
    for prompt, of_prompt in zip(prompts, answers, strict=True):
        for rest, answer in zip(prompt.rests, of_prompt, strict=True):
            ids = torch.tensor([prompt.beginning + rest])
            expected = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=1)[0, ids.shape[1] :]
            assert answer == expected.tolist()[: len(answer)] and (len(answer) == 8 or expected[len(answer)] == 1)


def test_an_llm_without_keys_is_answered_the_plain_way(llm, monkeypatch):
    model = small("Lfm2", layer_types=["conv", "full_attention"])
    assert "layers that keep no keys" in why_unshared(model, 10)
    answering, asked = answer_model(llm, ECG_FIRST), exam()
    expected = dict(answers_of(answering, asked))
    monkeypatch.setattr("model.answering.why_unshared", lambda *_: "a reason")
    plan = plan_exam(answering, asked, 52)
    assert plan.plain and plan.text.endswith("a reason") and dict(answers_of(answering, asked, plan)) == expected
    with pytest.raises(UserError, match="ANSWERS=likelihood: a reason"):
        plan_exam(answering, exam(candidates=lambda item: [["yes"]]), 52)


def test_an_item_longer_than_the_llm_reads_is_refused(llm):
    with pytest.raises(UserError, match="the LLM reads 2048 at most"):
        plan_exam(answer_model(llm), exam(max_new_tokens=2000), 52)


# ---- files


def test_half_a_line_is_no_answer_and_does_not_spoil_the_next(tmp_path):
    """A process is killed in the middle of a line; the run that goes on must neither trust nor trip over it."""
    write_answers(tmp_path, 0, "", [(1, "yes"), (2, "nö\n")])
    write_answers(tmp_path, 1, "blank", [(1, [-1.5, -2.0])])
    path = tmp_path / PARTIAL / "rank0.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert read_answers(tmp_path) == {"": {1: "yes", 2: "nö\n"}, "blank": {1: [-1.5, -2.0]}}
    write_answers(tmp_path, 0, "", [(3, "no")])
    assert read_answers(tmp_path)[""] == {1: "yes", 2: "nö\n", 3: "no"}
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(UserError, match=r"rank0.jsonl: line 1"):
        read_answers(tmp_path)
