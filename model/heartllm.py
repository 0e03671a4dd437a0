"""The LLM that reads ECGs: a causal LM with rows for the ECG's tokens, LoRA on its projections, norms that train."""

import torch

from model.code_rows import new_rows
from model.vocabulary import START, add_ecg_tokens
from utils.tools import UserError

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load_llm(path, n_codes, dtype=torch.float32, seed=0, n_scales=0, code_features=None):
    """A causal LM from a folder, grown by the ECG's tokens.

    The new rows are `model.code_rows.new_rows`: seeded, so that every process and every later load has the same.

    Returns
    -------
    model, tokenizer, vocabulary : transformers model, transformers tokenizer, `EcgVocabulary`
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{path}: not a causal LM that transformers can load ({str(error).splitlines()[0]})") from error
    grown = START in tokenizer.get_vocab()  # a model that a run here saved whole
    vocabulary = add_ecg_tokens(tokenizer, n_codes, n_scales)
    if not grown:
        _grow_rows(model, vocabulary, seed, code_features)
    # None of the LLM's own decoding hints (sampling, temperature, ...): `generate` states the decoding whole.
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    model.generation_config.pad_token_id = vocabulary.pad
    return model, tokenizer, vocabulary


def _grow_rows(model, vocabulary, seed, code_features):
    text_size, last = vocabulary.text_size, vocabulary.new_ids[-1]
    rows = model.get_input_embeddings().weight.shape[0]
    grown = max(rows, last + 1)  # some LLMs have more rows than tokens already
    if grown != rows:
        model.resize_token_embeddings(grown, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    weights = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for weight in weights.values():
            rows = new_rows(weight[:text_size].float(), vocabulary, code_features, generator)
            weight[text_size : last + 1] = rows.to(weight.dtype)


def add_adapter(model, vocabulary, rank, alpha, dropout):
    """Wrap the LLM for PEFT: LoRA on the seven projections; norms and the new tokens' rows train whole.

    Everything else is frozen. Rows of an output layer that isn't tied to the embedding train too.
    """
    from peft import LoraConfig, get_peft_model

    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    targets = [name for name in LORA_TARGETS if name in names]
    if not targets:
        raise UserError(f"the LLM ({model.config.model_type}) has none of the projections {', '.join(LORA_TARGETS)}")
    rows = {_last_name(model, model.get_input_embeddings()): vocabulary.new_ids}
    if not model.config.tie_word_embeddings:
        rows[_last_name(model, model.get_output_embeddings())] = vocabulary.new_ids
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        modules_to_save=norm_names(model),
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def norm_names(model):
    """Last names of the LLM's normalisation modules (input_layernorm, ..., norm)."""
    return sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if type(m).__name__.endswith("Norm")})


def _last_name(model, module):
    return next(name for name, m in model.named_modules() if m is module).rsplit(".", 1)[-1]


def loss_sum(model, batch):
    """Sum of the cross-entropies (nats) of a batch's supervised tokens.

    Logits are computed only at the positions that some row supervises: a prompt's need none.

    Parameters
    ----------
    batch : dict
        What `model.packing.collate` makes, on the model's device.
    """
    targets = batch["labels"][:, 1:]
    kept = torch.nonzero((targets != -100).any(0)).squeeze(1)
    mask = None
    if "allowed" in batch:  # as what is added to the attention's logits, which every implementation takes
        dtype = next(model.parameters()).dtype
        mask = torch.zeros_like(batch["allowed"], dtype=dtype).masked_fill_(~batch["allowed"], torch.finfo(dtype).min)
    output = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=mask,
        logits_to_keep=kept,
        use_cache=False,
    )
    logits = output.logits.float()
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets[:, kept].reshape(-1), ignore_index=-100, reduction="sum"
    )


def trainable_parameters(model):
    """(number that train, number in all)."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
