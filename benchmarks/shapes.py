"""LLMs in the shapes of known ones, with random weights, for measuring: built in memory, nothing is read or fetched."""

import torch

# width, inner width, layers, heads, key-value heads, width of a head, text tokens, output layer tied to the input
SHAPES = {
    "tiny": (128, 384, 4, 4, 4, 32, 1024, True),
    "smollm2": (576, 1536, 30, 9, 3, 64, 49152, True),
    "1b": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3b": (3072, 8192, 28, 24, 8, 128, 128256, True),
    "8b": (4096, 14336, 32, 32, 8, 128, 128256, False),
}
NAMES = {"tiny": "tiny", "smollm2": "SmolLM2-135M", "1b": "Llama-3.2-1B", "3b": "Llama-3.2-3B", "8b": "Llama-3.1-8B"}
N_CODES, N_SCALES = 1296, 64


def shape_config(name, layers=0):
    """The transformers config of a shape, with rows for the ECG's tokens; ``layers``: other than its own number."""
    from transformers import LlamaConfig

    width, inner, own_layers, heads, kv_heads, head, _, tied = SHAPES[name]
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers or own_layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head,
        vocab_size=shape_vocabulary(name).new_ids[-1] + 1,
        max_position_embeddings=8192,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )


def shape_vocabulary(name):
    """The ids of the ECG's tokens behind the shape's text tokens."""
    from model.vocabulary import EcgVocabulary

    return EcgVocabulary(SHAPES[name][6], N_CODES, (0,), 1, N_SCALES)


def shaped_llm(
    name, layers=0, dtype=torch.float32, device="cpu", tuning="lora", rank=64, dropout=0.0, four_bit=False, seed=0
):
    """An LLM of the shape, with an adapter unless ``tuning`` is "full": (model, vocabulary)."""
    from transformers import LlamaForCausalLM

    from model.heartllm import add_adapter

    torch.manual_seed(seed)
    vocabulary, config = shape_vocabulary(name), shape_config(name, layers)
    config.dtype = dtype
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if four_bit:
        in_four_bit(model, dtype)
    if tuning == "lora":
        model = add_adapter(model, vocabulary, rank, 16, dropout)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model.to(device), vocabulary


def in_four_bit(model, dtype):
    """Put the linear layers of a model but the output layer into NF4, in place, as loading with LOAD_IN_4BIT does."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    output, device = model.get_output_embeddings(), next(model.parameters()).device
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and linear is not output:
            small = Linear4bit(linear.in_features, linear.out_features, False, dtype, quant_type="nf4", device="meta")
            small.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4").to(device)
            model.set_submodule(name, small)
    model.is_loaded_in_4bit = True
