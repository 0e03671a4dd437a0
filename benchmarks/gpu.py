"""What a GPU does here, in one JSON: training steps, exam, encoding, and whether it computes what a CPU does.

    python benchmarks/gpu.py [--device cuda] [--small] [--out FOLDER]

``--small`` takes tiny shapes and runs on a CPU in a minute: so the script is tested where there is no GPU. Each part is
measured by itself; one that fails is written down as its error, and the command ends with exit code 1.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in utils/launch.sh; read when torch is imported

import torch

from benchmarks.shapes import NAMES, shaped_llm
from benchmarks.training import make_codes, make_questions
from utils.tools import REPOSITORY, entry_point

RESULTS = REPOSITORY / "benchmarks" / "results"
SIZES = {
    "small": {"llms": ("tiny",), "tokens": 512, "ecgs": 4},
    "whole": {"llms": ("1b", "3b"), "tokens": 2048, "ecgs": 256},
}


def machine(device):
    """Card or processor, versions and commit."""
    import deepspeed
    import transformers

    card = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, deepspeed)}
    return {"card": card, "device": device.type, "versions": versions, "commit": git.stdout.strip()}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def timed(work, device, seconds, least=2):
    """Median seconds of ``work()`` after a warm-up."""
    found, until = [], None
    while until is None or len(found) < least or time.monotonic() < until:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if until is None:
            until = time.monotonic() + seconds
        else:
            found.append(time.perf_counter() - begun)
    return sorted(found)[len(found) // 2]


def training(name, tokens, device, dtype, checkpointing=False):
    """A LoRA step on packed questions that share their ECG: speed, share of the peak, memory."""
    from model.heartllm import loss_sum
    from model.layouts import pick_layout
    from model.packing import collate, supervised_tokens
    from model.throughput import batch_work, measured_peak, work_of
    from model.training_step import on_device

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model, vocabulary = shaped_llm(name, 0, dtype, device)
    layout, lines = pick_layout(model, loss_sum, vocabulary, 400, device.type)
    if checkpointing:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    groups = make_questions(vocabulary, make_codes(max(1, round(tokens / 800))), 16, shared=True)
    batch = collate([e for group in groups for e in group], vocabulary.pad, multiple=layout.multiple)
    work, supervised = batch_work(work_of(model), batch, vocabulary.pad), supervised_tokens(batch)
    inputs = on_device(batch, device)
    trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    losses = []

    def step():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = loss_sum(model, inputs) / supervised
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

    seconds, peak = timed(step, device, 5 if device.type == "cuda" else 0), measured_peak(device, dtype)
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    return {
        "llm": NAMES[name],
        "what": "LoRA, rank 64, packed and shared" + (", checkpointing" if checkpointing else ""),
        "attention": lines[-1],
        "tokens": work[0],
        "questions_per_s": 16 * len(groups) / seconds,
        "tokens_per_s": work[0] / seconds,
        "share_of_peak": work[1] / seconds / peak,
        "peak_tflops": peak / 1e12,
        "memory_gb": memory,
        "losses": [losses[0].item(), losses[-1].item()],
    }


def exam(name, ecgs, device, dtype):
    """Questions a second that the exam answers, 16 questions an ECG, 8 tokens an answer."""
    from transformers import AutoTokenizer

    from model.answering import AnswerModel, Exam, answer_batches, plan_exam
    from model.generation import merge_adapter
    from model.prompts import read_prompts
    from model.tiny_llm import tiny_llm
    from model.vocabulary import add_ecg_tokens

    model, _ = shaped_llm(name, 0, dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(tiny_llm(folder))
    vocabulary = add_ecg_tokens(tokenizer, 1296, 64)
    prompts = read_prompts("ecg_first")
    items = {
        number: {"ecg_path": [f"{number // 16}"], "question": f"Is finding {number % 16} there?", "answer": ["yes"]}
        for number in range(16 * ecgs)
    }
    rows = make_codes(ecgs)
    asked = Exam(items, "qa", 16, 8)
    answering = AnswerModel(merge_adapter(model.eval().to(dtype)), tokenizer, vocabulary, prompts)
    plan = plan_exam(answering, asked, 325)

    def answer():
        codes = {str(number): row for number, row in enumerate(rows)}
        for _ in answer_batches(answering, asked, plan, plan.batches, codes.__getitem__):
            pass

    speed = len(items) / timed(answer, device, 0, 1)
    return {"llm": NAMES[name], "what": "exam, 16 questions an ECG, 8 tokens an answer", "questions_per_s": speed}


def encoding(ecgs, device):
    """ECG/s of the shipped tokenizer, and whether its codes are the CPU's."""
    from ecg_tokenizer.codec import EcgTokenizer

    signals = torch.randn(ecgs, 12, 5000, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    signals = ((signals - signals.mean(-1, keepdim=True)) / signals.std(-1, keepdim=True)).numpy()
    std = signals.std(-1)
    here, cpu = EcgTokenizer.from_pretrained(device=device), EcgTokenizer.from_pretrained(device="cpu")
    few = min(32, ecgs)
    different = int((here.encode_rows(signals[:few], std[:few]) != cpu.encode_rows(signals[:few], std[:few])).sum())
    seconds = timed(lambda: here.encode_rows(signals, std), device, 3 if device.type == "cuda" else 0, 1)
    return {"what": "encoding", "ecg_per_s": ecgs / seconds, "codes": few * 325, "codes_other_than_cpu": different}


def same_losses(device):
    """Mean losses of packed and shared questions in float32, by this device's attention and by the CPU's dense mask."""
    from model.heartllm import loss_sum
    from model.layouts import pick_layout
    from model.packing import collate, supervised_tokens

    found = {}
    for name in dict.fromkeys(("cpu", device.type)):
        model, vocabulary = shaped_llm("tiny", 0, torch.float32, "cpu")
        model = model.to(name).eval()
        layout, lines = pick_layout(model, loss_sum, vocabulary, 400, name)
        groups = make_questions(vocabulary, make_codes(2), 4, shared=True)
        batch = collate([e for group in groups for e in group], vocabulary.pad, multiple=layout.multiple)
        with torch.no_grad():
            loss = loss_sum(model, {key: value.to(name) for key, value in batch.items()})
        found[name] = loss.item() / supervised_tokens(batch)
    difference = max(found.values()) - min(found.values())
    return {"what": "losses", "attention": lines[-1], "loss": found, "difference": difference}


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    from utils.machine import pick_device, pick_dtype

    device = pick_device(options.device)
    dtype, sizes = pick_dtype(True, device), SIZES["small" if options.small else "whole"]
    os.environ["DS_ACCELERATOR"] = device.type
    parts = [("losses", same_losses, (device,)), ("encoding", encoding, (sizes["ecgs"], device))]
    for name in sizes["llms"]:
        parts.append((f"training {name}", training, (name, sizes["tokens"], device, dtype)))
    last = sizes["llms"][-1]
    parts.append((f"training {last}, checkpointing", training, (last, 4 * sizes["tokens"], device, dtype, True)))
    parts.append(("exam", exam, (sizes["llms"][0], max(2, sizes["ecgs"] // 16), device, dtype)))
    found, failed, begun = machine(device) | {"dtype": str(dtype), "parts": []}, False, time.time()
    for name, measure, arguments in parts:
        try:
            row = measure(*arguments)
        except Exception as error:  # the other parts are still worth having
            traceback.print_exc()
            row, failed = {"what": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}, True
        found["parts"].append(row)
        print(json.dumps(row), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    found["seconds"] = round(time.time() - begun)
    options.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", found["card"]).strip("-") + ("-small" if options.small else "")
    path = options.out / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
