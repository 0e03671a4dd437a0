"""The LLM that reads ECGs: a causal LM with rows for the ECG's tokens, LoRA on its linear layers, norms that train."""

from contextlib import contextmanager

import torch

from model.architecture import lora_coverage, lora_targets, norm_names, text_tower
from model.attention import packed_attention
from model.code_rows import new_rows
from model.vocabulary import START, add_ecg_tokens
from utils.tools import UserError


def load_llm(path, n_codes, dtype=torch.float32, seed=0, n_scales=0, code_features=None, four_bit=False):
    """A causal LM from a folder, grown by the ECG's tokens.

    The new rows are `model.code_rows.new_rows`: seeded, so that every process and every later load has the same. With
    ``four_bit`` the linear layers but the output layer are kept in NF4 (bitsandbytes), and computed in ``dtype``.

    Returns
    -------
    model, tokenizer, vocabulary : transformers model, transformers tokenizer, `EcgVocabulary`
    """
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = _causal_lm(path, dtype, four_bit)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{path}: not a causal LM that transformers can load ({str(error).splitlines()[0]})") from error
    grown = START in tokenizer.get_vocab()  # a model that a run here saved whole
    vocabulary = add_ecg_tokens(tokenizer, n_codes, n_scales)
    if not grown:
        _grow_rows(model, vocabulary, seed, code_features)
    # None of the LLM's own decoding hints (sampling, a penalty for repetition, ...): greedy is greedy.
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=tokenizer.bos_token_id, eos_token_id=vocabulary.eos, pad_token_id=vocabulary.pad
    )
    return model, tokenizer, vocabulary


def _causal_lm(path, dtype, four_bit):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    known = type(config) in AutoModelForCausalLM._model_mapping
    auto = AutoModelForCausalLM if known else AutoModelForImageTextToText
    how = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    if four_bit:
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return text_tower(auto.from_pretrained(path, **how))


def _grow_rows(model, vocabulary, seed, code_features):
    text_size, last = vocabulary.text_size, vocabulary.new_ids[-1]
    rows = model.get_input_embeddings().weight.shape[0]
    grown = max(rows, last + 1)  # some LLMs have more rows than tokens already
    if grown != rows:
        model.resize_token_embeddings(grown, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    output = model.get_output_embeddings()
    weights = {id(m.weight): m.weight for m in (model.get_input_embeddings(), output)}
    with torch.no_grad():
        if getattr(output, "bias", None) is not None:
            output.bias[text_size : last + 1] = output.bias[:text_size].float().mean()
        for weight in weights.values():
            rows = new_rows(weight[:text_size].float(), vocabulary, code_features, generator)
            weight[text_size : last + 1] = rows.to(weight.dtype)


def add_adapter(model, vocabulary, rank, alpha, dropout):
    """Wrap the LLM for PEFT: LoRA on all linear layers of it; norms and the new tokens' rows train whole.

    Everything else is frozen. Rows of an output layer that isn't tied to the embedding train too.
    """
    from peft import LoraConfig, get_peft_model

    rows = {_last_name(model, model.get_input_embeddings()): vocabulary.new_ids}
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        rows[_last_name(model, model.get_output_embeddings())] = vocabulary.new_ids
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=lora_targets(model),
        modules_to_save=norm_names(model) or None,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    try:
        return keep_output_bias(get_peft_model(model, config))
    except ValueError as error:  # recurrent layers that PEFT knows to go wrong (Mamba)
        kind = model.config.model_type
        raise UserError(f"LoRA does not go with this LLM ({kind}), TUNING=full does: {str(error)[:150]}") from error


def lora_text(model):
    """Which linear layers have LoRA and which matrices stay frozen, for a line of output; "" without LoRA."""
    if not hasattr(model, "peft_config"):
        return ""
    layers, frozen = lora_coverage(model)
    text = f"; LoRA (rank {model.peft_config['default'].r}) on {', '.join(layers)}"
    return text + (f"; frozen: {', '.join(frozen)}" if frozen else "")


def keep_output_bias(model):
    """Give an output layer whose rows train its bias back, which PEFT's layer for them leaves out; in place."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    def add_bias(layer, inputs, output):
        left_out = not (layer.merged or layer.disable_adapters)
        return output + layer.base_layer.bias if left_out else output

    for module in model.modules():
        if isinstance(module, TrainableTokensLayer) and getattr(module.base_layer, "bias", None) is not None:
            module.register_forward_hook(add_bias)
    return model


def _last_name(model, module):
    return next(name for name, m in model.named_modules() if m is module).rsplit(".", 1)[-1]


def loss_sum(model, batch):
    """Sum of the cross-entropies (nats) of a batch's supervised tokens.

    Logits are computed for supervised tokens only: the output layer is given the hidden states that predict them.

    Parameters
    ----------
    batch : dict
        What `model.packing.collate` makes, on the model's device; ``labels`` may stay on the CPU, which spares a GPU
        waiting for their number.
    """
    llm, ids = _bare(model), batch["input_ids"]
    targets = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100).flatten()
    places = torch.nonzero(targets != -100).squeeze(1)
    targets, places = (to_device(tensor, ids.device) for tensor in (targets[places], places))
    more = {}
    if "position_ids" in batch:
        more["position_ids"] = batch["position_ids"]
        more |= packed_attention(llm, batch)
    with _only_at(llm.get_output_embeddings(), places):
        logits = model(input_ids=ids, use_cache=False, **more).logits
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


@contextmanager
def _only_at(output_layer, places):
    """The output layer computes for these tokens of the rows only: [rows, length, width] -> [places, width]."""

    def select(_layer, inputs):
        return inputs[0].flatten(0, -2)[places], *inputs[1:]

    handle = output_layer.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def to_device(tensor, device):
    """A tensor on the device; to a GPU without waiting for what it computes."""
    return tensor.pin_memory().to(device, non_blocking=True) if _from_cpu(tensor, device) else tensor.to(device)


def _from_cpu(tensor, device):
    return device.type == "cuda" and tensor.device.type == "cpu"


def _bare(model):
    """The LLM inside an engine, inside an adapter."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable_parameters(model):
    """(number that train, number in all)."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
