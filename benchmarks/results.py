"""The tables of docs/llms-and-hardware.md: what benchmarks/results/*.json measured, and what the memory plan computes.

python -m benchmarks.results
"""

import json
from dataclasses import replace

from benchmarks.shapes import NAMES, SHAPES
from model.memory_plan import LlmShape, Load, memory_parts
from utils.tools import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
PLANNED = Load("lora", 64, 0.05, 1365, 2, tokens=8192, targets=512)
COLUMNS = {
    "LoRA": PLANNED,
    "LoRA, checkpointing": replace(PLANNED, checkpointing=True),
    "4 bits, checkpointing": replace(PLANNED, checkpointing=True, four_bit=True),
    "full, checkpointing": replace(PLANNED, checkpointing=True, tuning="full"),
    "full, 8 GPUs": replace(PLANNED, checkpointing=True, tuning="full", processes=8),
}


def memory_table():
    """GB a GPU, computed, of LLMs from 135 M to 8 B parameters."""
    yield "| | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name, label in NAMES.items():
        if name == "tiny":
            continue
        width, inner, layers, heads, kv_heads, head, text, tied = SHAPES[name]
        shape = LlmShape(width, inner, layers, heads, kv_heads, head, text + 1365, tied)
        sizes = (sum(memory_parts(shape, load).values()) / 1e9 for load in COLUMNS.values())
        yield f"| {label} | " + " | ".join(f"{size:.1f}" for size in sizes) + " |"


def results_table():
    """A line a measurement of every file."""
    yield "| card | LLM | what | result |"
    yield "|---|---|---|---|"
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for part in found["parts"]:
            yield f"| {found['card']} | {part.get('llm', '')} | {part['what']} | {_text(part)} |"


def _text(part):
    if "error" in part:
        return "failed"
    if "ecg_per_s" in part:
        other = f"{part['codes_other_than_cpu']} of {part['codes']} codes other than the CPU's"
        return f"{part['ecg_per_s']:.0f} ECG/s, {other}"
    if "difference" in part:
        return f"{part['difference']:.1e} nats a token from the CPU's"
    if "tokens_per_s" not in part:
        return f"{part['questions_per_s']:.1f} questions/s"
    memory = f", {part['memory_gb']:.1f} GB" if part["memory_gb"] else ""
    speed = f"{part['tokens_per_s']:.0f} tokens/s, {part['questions_per_s']:.1f} questions/s"
    return f"{speed}, {part['share_of_peak']:.0%} of {part['peak_tflops']:.3g} TFLOP/s{memory}"


if __name__ == "__main__":
    print(*memory_table(), "", *results_table(), sep="\n")
