"""LLMs of all kinds, tiny and random: each trains a step and answers, and what it can't compute exactly is known.

python -m tests.model.test_architectures > docs/llms.md     (the table in docs is what this prints)
"""

import random
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from model.answering import generate
from model.architecture import lora_coverage
from model.checkpoints import build_model, load_model, save_checkpoint
from model.heartllm import loss_sum
from model.layouts import exact_layouts
from model.packing import Example, collate
from model.tiny_llm import _tokenizer
from utils.tools import UserError

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=1024)
SMALL |= dict(max_position_embeddings=256, pad_token_id=None, bos_token_id=0, eos_token_id=1, initializer_range=0.3)
GROUPED = SMALL | dict(num_key_value_heads=2)
GEMMA = GROUPED | dict(head_dim=8)
GPT = dict(vocab_size=1024, n_positions=256, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)
GPT |= dict(initializer_range=0.3)
MOE = GROUPED | dict(num_local_experts=4, num_experts_per_tok=2)
EXPERTS = GROUPED | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
LATENT = SMALL | dict(num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8)
LATENT |= dict(v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_group=1)
LATENT |= dict(topk_group=1, first_k_dense_replace=1, n_shared_experts=1)
TWO_KINDS = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=8)
MULTIMODAL = {
    "text_config": {"model_type": "gemma3_text", **GEMMA, "query_pre_attn_scalar": 8, **TWO_KINDS},
    "vision_config": dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    | dict(image_size=28, patch_size=14),
    "mm_tokens_per_image": 1,
}

# Architecture (transformers' model_type, what is special about this one) -> its configuration.
ARCHITECTURES = {
    "llama": GROUPED | dict(tie_word_embeddings=True),
    "llama, untied": GROUPED | dict(tie_word_embeddings=False),
    "mistral, window 8": GROUPED | dict(head_dim=8, sliding_window=8),
    "ministral, both kinds": GROUPED | dict(head_dim=8) | TWO_KINDS,
    "mixtral": MOE | dict(sliding_window=None),
    "qwen2": GROUPED,
    "qwen2, both kinds": GROUPED | TWO_KINDS | dict(use_sliding_window=True),
    "qwen2_moe": EXPERTS | dict(shared_expert_intermediate_size=16, decoder_sparse_step=1),
    "qwen3": GROUPED | dict(head_dim=8),
    "qwen3_moe": EXPERTS | dict(head_dim=8),
    "qwen3_next": EXPERTS
    | dict(head_dim=8, shared_expert_intermediate_size=16, linear_num_key_heads=2)
    | dict(linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8)
    | dict(layer_types=["linear_attention", "full_attention"]),
    "gemma": GEMMA,
    "gemma2": GEMMA | TWO_KINDS | dict(query_pre_attn_scalar=8),
    "gemma3_text": GEMMA | TWO_KINDS | dict(query_pre_attn_scalar=8),
    "gemma3": MULTIMODAL,
    "phi": SMALL,
    "phi3": GROUPED | dict(sliding_window=None),
    "phi3, window 8": GROUPED | dict(sliding_window=8),
    "phimoe": MOE,
    "opt": dict(hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=1024)
    | dict(word_embed_proj_dim=32, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, init_std=0.3),
    "glm": GROUPED | dict(head_dim=8),
    "glm4": GROUPED | dict(head_dim=8),
    "starcoder2": GROUPED | dict(sliding_window=None),
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": SMALL | dict(num_heads=4, num_layers=2, attention_types=[[["global", "local"], 1]], window_size=8),
    "gpt_neox": SMALL,
    "gptj": GPT | dict(rotary_dim=8),
    "codegen": GPT | dict(rotary_dim=8),
    "gpt_oss": MOE | dict(head_dim=8) | TWO_KINDS,
    "falcon": SMALL | dict(alibi=False, new_decoder_architecture=False),
    "falcon, alibi": SMALL | dict(alibi=True),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4, vocab_size=1024, bos_token_id=0, eos_token_id=1)
    | dict(initializer_range=0.3),
    "mpt": dict(d_model=32, n_heads=4, n_layers=2, vocab_size=1024, max_seq_len=256, expansion_ratio=2)
    | dict(initializer_range=0.3),
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": GROUPED | TWO_KINDS,
    "olmoe": EXPERTS,
    "stablelm": GROUPED,
    "stablelm, per head": GROUPED | dict(qk_layernorm=True),
    "cohere": GROUPED,
    "cohere2": GROUPED | TWO_KINDS,
    "granite": GROUPED,
    "granitemoe": MOE,
    "smollm3": GROUPED,
    "exaone4": GROUPED | TWO_KINDS,
    "nemotron": GROUPED | dict(head_dim=8),
    "helium": GROUPED | dict(head_dim=8),
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "minicpm3": SMALL | dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8),
    "ernie4_5": GROUPED,
    "seed_oss": GROUPED | dict(head_dim=8),
    "apertus": GROUPED,
    "persimmon": SMALL,
    "xglm": dict(d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, vocab_size=1024, init_std=0.3)
    | dict(max_position_embeddings=256, bos_token_id=0, eos_token_id=1),
    "biogpt": SMALL,
    "lfm2": GROUPED | dict(layer_types=["conv", "full_attention"]),
    "llama4_text": GROUPED
    | dict(head_dim=8, intermediate_size_mlp=48, num_local_experts=2, num_experts_per_tok=1)
    | dict(attention_chunk_size=16),
}
# What must stay as it is: the published adapters are for these seven.
SEVEN = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LLAMA_LIKE = ("llama", "llama, untied", "mistral, window 8", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2")


def make_llm(name, folder):
    """A tiny random LLM of the architecture in a folder, with the embedded LLM's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(name.split(",")[0], **ARCHITECTURES[name])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.update(repetition_penalty=1.5, no_repeat_ngram_size=2)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def random_examples(vocabulary, shared=False, seed=0):
    rng = random.Random(seed)

    def text(count):
        return [rng.randrange(vocabulary.text_size) for _ in range(count)]

    lengths = (40, 23, 17, 30, 9)
    if not shared:
        return [Example(ids, [-100] * 3 + ids[3:]) for ids in map(text, lengths)]
    return [
        Example(ids, [-100] * (len(ecg) + 1) + ids[len(ecg) + 1 :], len(ecg))
        for ecg in (text(30), text(21))
        for ids in (ecg + text(n) for n in (9, 4, 7))
    ]


def worst_difference(model, vocabulary, layout):
    """The largest difference of a sequence's mean loss (nats a token), alone against together with the others."""
    examples, worst = random_examples(vocabulary, layout == "shared"), 0.0
    for chosen in examples:
        counted = sum(label != -100 for label in chosen.labels)
        rest = [Example(e.input_ids, [-100] * len(e.labels), e.shared) for e in examples if e is not chosen]
        batch = collate([chosen, *rest], vocabulary.pad, packed=layout != "rows")
        ids, labels = torch.tensor([chosen.input_ids]), torch.tensor([chosen.labels])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1].float()
            alone = torch.nn.functional.cross_entropy(logits[0], labels[0, 1:], reduction="sum").item()
            worst = max(worst, abs(loss_sum(model, batch).item() - alone) / counted)
    return worst


def try_architecture(name, folder):
    """Build, train a step, answer, save and load: a dict of what the table says; any fault raises."""
    folder = Path(folder)
    llm = make_llm(name, folder / "llm")
    torch.manual_seed(1)
    model, tokenizer, vocabulary = build_model(llm, 16, "lora", rank=2)
    layers, frozen = lora_coverage(model)
    exact, _ = exact_layouts(model, loss_sum, vocabulary, longest=40)
    model.eval()
    for layout in ("rows", *exact):
        assert worst_difference(model, vocabulary, layout) < 1e-4, f"{layout} was said to be exact"
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    batch = collate(random_examples(vocabulary), vocabulary.pad, packed="packed" in exact)
    code = vocabulary.code_ids([3])[0]
    batch["input_ids"][:, 1], batch["labels"][:, 5] = code, code
    before = {n: p.detach().clone() for n, p in trained.items()}
    losses = []
    for _ in range(3):
        losses.append(loss_sum(model.train(), batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0], "it doesn't learn"
    still = [n for n, p in trained.items() if "lora" in n and torch.equal(p, before[n])]
    assert not still, f"LoRA that never acts: {still[:3]}"
    prompts = [[5, vocabulary.start, *vocabulary.code_ids([1, 2, 3]), vocabulary.end], [7] * 12]
    answers = generate(model.eval(), tokenizer, vocabulary, prompts, 6)
    assert answers == [greedy_by_hand(model, tokenizer, vocabulary, prompt, 6) for prompt in prompts]
    save_checkpoint(folder / "adapter", model, tokenizer, {})
    again, _, _ = load_model(folder / "adapter", llm, 16)
    ids = torch.tensor([prompts[0]])
    with torch.no_grad():
        assert torch.equal(again.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
    return {"layers": layers, "frozen": frozen, "exact": exact}


def greedy_by_hand(model, tokenizer, vocabulary, prompt, count):
    """The most likely next token, again and again, without a cache, a mask or any hint."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count and ids[-1] != vocabulary.eos:
        with torch.no_grad():
            ids.append(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_llm_of_this_kind_trains_answers_and_comes_back(name, tmp_path):
    found = try_architecture(name, tmp_path)
    if name in LLAMA_LIKE:
        assert found["layers"] == SEVEN and not found["frozen"] and found["exact"] == {"packed", "shared"}


def test_an_llm_that_lora_does_not_go_with_is_refused_in_one_line(tmp_path, monkeypatch):
    sizes = dict(hidden_size=32, num_hidden_layers=2, state_size=4, vocab_size=1024, bos_token_id=0, eos_token_id=1)
    monkeypatch.setitem(ARCHITECTURES, "mamba", sizes)
    with pytest.raises(UserError, match="LoRA does not go with this LLM .mamba., TUNING=full does"):
        try_architecture("mamba", tmp_path)


def table(names):
    """The rows of docs/llms.md."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = try_architecture(name, folder)
        packing = "exact" if "packed" in found["exact"] else "one sequence a row"
        sharing = "exact" if "shared" in found["exact"] else "refused"
        frozen = ", ".join(found["frozen"]) or "nothing"
        yield f"| {name} | {packing} | {sharing} | {', '.join(found['layers'])} | {frozen} |"


HEAD = """# LLMs of all kinds

Each architecture as a tiny random LLM of the pinned transformers: it trains a step, learns, answers greedily and its
adapter comes back. `python -m tests.model.test_architectures` prints this page.
"Exact": the losses are those of separate sequences to 1e-4 nats a token. The same is tried on your LLM at the start of
every run; one that computes several sequences in a row otherwise gets one sequence a row, and `SHARE_ECG=true` is
refused where sharing is not exact. LoRA takes every linear layer but the output layer; the run says at its start what
is left frozen. Of a model with several modalities (Gemma 3) the text model is taken.

| architecture (`model_type`) | several sequences a row | `SHARE_ECG` | LoRA on | matrices left frozen |
|---|---|---|---|---|"""

if __name__ == "__main__":
    print(HEAD)
    for row in table(sys.argv[1:] or ARCHITECTURES):
        print(row, flush=True)
