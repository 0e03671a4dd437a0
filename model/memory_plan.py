"""What a training run will need in memory: arithmetic from the LLM's config, before anything is loaded.

Checked against measured peaks on a CPU (`benchmarks/memory.py`). Of LLMs with Llama's kind of layers: attention with or
without grouped heads, a gated inner layer, two norms; of others it is a first guess.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from model.sequence_attention import BRANCH_ROW
from utils.tools import UserError, read_json

NF4 = 0.516  # bytes a weight: 4 bits, and an 8-bit scale for each 64 of them, itself scaled by 256
PROCESS = {"cpu": 0.5e9, "cuda": 0.6e9}  # Python with PyTorch, transformers and DeepSpeed; a CUDA context
BUCKET = 50_000_000  # as in model/engine.py


@dataclass(frozen=True)
class LlmShape:
    """The sizes of an LLM: widths of its stream, inner layer and heads; numbers of layers, heads, rows."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    rows: int
    tied: bool

    @classmethod
    def of(cls, config):
        """From config.json as a dict, or a transformers config's; None where it has no such sizes."""
        config = config.get("text_config") or config
        keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if not all(isinstance(config.get(key), int) for key in keys):
            return None
        width, inner, layers, heads, rows = (config[key] for key in keys)
        head = config.get("head_dim") or width // heads
        kv_heads = config.get("num_key_value_heads") or heads
        return cls(width, inner, layers, heads, kv_heads, head, rows, bool(config.get("tie_word_embeddings", True)))

    @property
    def linear(self):
        """(in, out) of a layer's seven matrices."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        d, inner = self.width, self.inner
        return ((d, q), (d, kv), (d, kv), (q, d), (d, inner), (d, inner), (inner, d))


@dataclass(frozen=True)
class Load:
    """What is trained, and on how much at once.

    Attributes
    ----------
    tuning : {"lora", "full"}
    rank : int
    dropout : float
    new_rows : int
        Tokens of the ECG.
    number : int
        Bytes of a number where it is computed: 2 in bf16, 4 in float32.
    tokens, targets : int
        Of a process's batch, padding included: all, and supervised ones.
    branch_keys : int
        Keys of what branches off shared beginnings (`model.sequence_attention`): each row of branches has a copy of its
        beginning's. 0 with flex attention, and where nothing is shared.
    four_bit, checkpointing : bool
    processes : int
    device : {"cpu", "cuda"}
    """

    tuning: str
    rank: int
    dropout: float
    new_rows: int
    number: int
    tokens: int
    targets: int
    branch_keys: int = 0
    four_bit: bool = False
    checkpointing: bool = False
    processes: int = 1
    device: str = "cuda"


def memory_parts(shape, load):
    """Name -> bytes of what a process holds at its peak; their sum is the peak.

    Gradients and optimizer are at their largest in the optimizer's step, activations and logits at the start of the
    backward pass: the parts are those of the larger of the two moments.
    """
    frozen, trained = _parameters(shape, load)
    linear = shape.layers * sum(i * o for i, o in shape.linear)
    weights = frozen * load.number - (linear * (load.number - NF4) if load.four_bit else 0)
    held = {
        "process": PROCESS[load.device],
        "weights": weights + trained * load.number,
        # ZeRO-2: float32 masters and AdamW's two moments divided, the gradients of the own part, their buckets
        "optimizer": 12 * trained / load.processes,
    }
    gradients = trained * load.number
    step = {"gradients": gradients + 4 * trained / load.processes}
    if load.device == "cuda":  # two, so that one is filled while the other is sent; a CPU's are never touched
        step["buckets"] = 2 * min(BUCKET, trained) * load.number
    backward = {"activations": _activations(shape, load)}
    logits, again = _logits(shape, load), load.tokens * _layer(shape, load) if load.checkpointing else 0
    backward |= {"logits": logits} if logits > again else {"a layer again": again}  # the first is over when that begins
    return held | (backward if sum(backward.values()) > sum(step.values()) else step)


def _parameters(shape, load):
    """(frozen, trained) parameters."""
    rows = shape.rows * shape.width * (1 if shape.tied else 2)
    base = rows + shape.layers * (sum(i * o for i, o in shape.linear) + 2 * shape.width) + shape.width
    if load.tuning == "full":
        return 0, base
    lora = shape.layers * load.rank * sum(i + o for i, o in shape.linear)
    norms = (2 * shape.layers + 1) * shape.width
    new = load.new_rows * shape.width * (1 if shape.tied else 2)
    return base, lora + norms + new


def _activations(shape, load):
    """What the forward pass keeps for the backward pass, and the masks; with checkpointing each layer's input only."""
    kept = shape.layers * (load.number * shape.width if load.checkpointing else _layer(shape, load))
    masks = load.branch_keys * BRANCH_ROW * load.number
    return load.tokens * (kept + 2 * (4 + load.number) * shape.width) + masks


def _layer(shape, load):
    """What a layer keeps of a token.

    Each norm's input, normalised and scaled (the first two in float32); queries, keys and values as attention takes
    them, its output as it is and as the next matrix takes it; the gate, its activation, the other half and their
    product. LoRA with dropout keeps its own copy of each matrix's input (not those inputs themselves), and what was
    dropped.
    """
    d, inner, number = shape.width, shape.inner, load.number
    attention, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    copies = 2 * kv * load.branch_keys / load.tokens
    layer = 2 * (4 + 2 * number) * d + number * (3 * attention + 2 * kv + copies + 4 * inner) + 4 * shape.heads
    if load.tuning == "lora":
        layer += number * 7 * load.rank
        if load.dropout:
            mask = 1 if load.device == "cuda" else number
            inputs = sum(i for i, _ in shape.linear)
            layer += inputs * (number + mask) - number * (2 * d + inner + attention)
    return layer


def _logits(shape, load):
    """The supervised tokens' logits with their gradients; the copies of the rows that PEFT makes where some train."""
    logits = load.targets * shape.rows * (16 if load.number == 4 else 20)
    copies = 0 if load.tuning == "full" else 2 * shape.rows * shape.width * load.number
    return logits + copies


# Of an item, about: tokens, and how many of them are supervised (one ECG of 325 codes; 16 questions where it is shared)
ITEMS = {"forecast": (630, 58), "causal": (330, 313), "qa": (385, 4), "report": (500, 120), "shared": (980, 64)}


def plan_lines(settings, stage, llm_path, processes, device, available):
    """The lines that ``--plan`` says of memory.

    Parameters
    ----------
    settings : the settings of the stage
    device : {"cpu", "cuda"}
    available : float
        Bytes that a process may take.
    """
    config = Path(llm_path) / "config.json"
    shape = LlmShape.of(read_json(config)) if config.is_file() else None
    if shape is None:
        return [f"memory: not computed for this kind of LLM ({llm_path})"]
    kind = settings.pretrain_objective if stage == "pretrain" else settings.tasktype[0]
    if stage == "finetune" and settings.share_ecg:
        kind = "shared"
    item_tokens, item_targets = ITEMS[kind]
    items = settings.batch_size
    if settings.tokens_per_step:
        items = settings.tokens_per_step / (processes * settings.accumulation * item_tokens)
    new_rows = 1365
    tokens = int(items * item_tokens)
    beginning = 330  # an ECG, and what stands before it
    rows = -(-(item_tokens - beginning) // BRANCH_ROW) if kind == "shared" and device == "cpu" else 0
    load = Load(
        settings.tuning,
        settings.lora_r,
        settings.lora_dropout,
        new_rows,
        2 if device == "cuda" and settings.use_amp else 4,
        tokens,
        int(items * item_targets),
        int(items * rows * (beginning + BRANCH_ROW)),
        settings.load_in_4bit,
        settings.gradient_checkpointing,
        processes,
        device,
    )
    return describe(memory_parts(shape, load), tokens, available)


def describe(parts, tokens, available):
    """The parts as lines of output."""
    total = sum(parts.values())
    text = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    verdict = "fits" if total < available else "does NOT fit: lower BATCH_SIZE or TOKENS_PER_STEP, or"
    if total >= available:
        verdict += " GRADIENT_CHECKPOINTING=true, LOAD_IN_4BIT=true"
    return [
        f"memory a process (computed, about {tokens} tokens a batch): {text}; in all {total / 1e9:.2f} GB of "
        f"{available / 1e9:.1f} GB: {verdict}"
    ]


def check_four_bit(tuning):
    """A `UserError` where LOAD_IN_4BIT=true cannot go."""
    if tuning == "full":
        raise UserError("LOAD_IN_4BIT=true keeps the LLM's weights frozen: it goes with TUNING=lora, not with full")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "LOAD_IN_4BIT=true needs bitsandbytes: pip install -r requirements-optional.txt -c constraints.txt"
        )
