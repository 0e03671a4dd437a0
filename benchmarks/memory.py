"""The memory plan beside measured peaks: five configurations, each in a process of its own that trains two steps.

    python benchmarks/memory.py [NAME ...]

The peak is the process's largest resident size. malloc is told to give back what is freed (MALLOC_MMAP_THRESHOLD_):
left alone, glibc kept 1.3 to 2.2 times as much. The LLMs have random weights in known shapes
(`benchmarks.shapes`), with fewer layers.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from model.memory_plan import LlmShape, Load, memory_parts
from model.sequence_attention import BRANCH_ROW
from utils.tools import entry_point

SHARED = 68  # tokens of a beginning from which two branches of a row each go off
SEQUENCE, KEYS = SHARED + 2 * BRANCH_ROW, 2 * (SHARED + BRANCH_ROW)
LORA = Load("lora", 64, 0.05, 1365, 4, tokens=1040, targets=32, branch_keys=4 * KEYS, device="cpu")
# name -> shape, layers, what is trained
CONFIGURATIONS = {
    "LoRA": ("smollm2", 12, LORA),
    "LoRA, more tokens": ("smollm2", 6, replace(LORA, tokens=4160, targets=128, branch_keys=16 * KEYS)),
    "LoRA, checkpointing": ("smollm2", 12, replace(LORA, tokens=4160, branch_keys=16 * KEYS, checkpointing=True)),
    "full": ("smollm2", 6, replace(LORA, tuning="full", tokens=520, branch_keys=2 * KEYS)),
    "4-bit": ("smollm2", 12, replace(LORA, four_bit=True, rank=16, tokens=520, branch_keys=2 * KEYS)),
}


def measure(name):
    """(bytes planned, bytes measured, the plan's parts, the process's size before) of a configuration, here."""
    import deepspeed  # noqa: F401  what an engine is made of, before the process's own size is taken
    import peft  # noqa: F401
    import torch
    from transformers import LlamaForCausalLM  # noqa: F401

    from benchmarks.shapes import shape_config, shaped_llm
    from model.engine import deepspeed_engine
    from model.heartllm import loss_sum
    from model.packing import Example, collate
    from model.sequence_attention import use_sequences
    from model.training import ProcessContext
    from model.training_step import on_device
    from utils.machine import join_processes

    shape, layers, load = CONFIGURATIONS[name]
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"
    join_processes("cpu")
    parts = memory_parts(LlmShape.of(shape_config(shape, layers).to_dict()), load)
    base = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    dropout, device = load.dropout, torch.device("cpu")
    more = {"tuning": load.tuning, "rank": load.rank, "dropout": dropout, "four_bit": load.four_bit}
    model, vocabulary = shaped_llm(shape, layers, torch.float32, device, **more)
    assert use_sequences(model.get_base_model() if hasattr(model, "get_base_model") else model)
    options = _options(load)
    process = ProcessContext(None, None, 0, 1, device, torch.float32, writes=True)
    engine = deepspeed_engine(model, options, process)
    ids, supervised = [7] * (SHARED + BRANCH_ROW), load.targets * SEQUENCE // load.tokens // 2
    labels = [-100] * (len(ids) - supervised) + ids[-supervised:]
    examples = [
        Example([7 + number, *ids[1:]], labels, SHARED) for number in range(load.tokens // SEQUENCE) for _ in range(2)
    ]
    batch = collate(examples, vocabulary.pad)
    assert batch["input_ids"].numel() == load.tokens, batch["input_ids"].shape
    for _ in range(2):
        engine.backward(loss_sum(engine, on_device(batch, device)) / load.targets)
        engine.step()
    return sum(parts.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, parts, base


def _options(load):
    from model.training import TrainingOptions

    values = dict.fromkeys(TrainingOptions.__dataclass_fields__, 0)
    values |= {"batch_size": 1, "accumulation": 1, "learning_rate": 1e-5, "gradient_checkpointing": load.checkpointing}
    return TrainingOptions(**values)


@entry_point
def main(argv):
    if argv[:1] == ["--here"]:
        planned, measured, parts, base = measure(argv[1])
        print(json.dumps({"planned": planned, "measured": measured, "parts": parts, "base": base}))
        return
    for name in argv or CONFIGURATIONS:
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        command = [sys.executable, __file__, "--here", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        row = json.loads(done.stdout.splitlines()[-1])
        shape, layers, load = CONFIGURATIONS[name]
        text = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in row["parts"].items())
        print(
            f"{name:20} {shape}, {layers} layers, {load.tokens} tokens: planned {row['planned'] / 1e9:.2f} GB, "
            f"measured {row['measured'] / 1e9:.2f} GB ({row['planned'] / row['measured'] - 1:+.1%}); {text}; "
            f"the process itself {row['base'] / 1e9:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
