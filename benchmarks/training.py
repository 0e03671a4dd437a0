"""How many questions a second stage 3 learns from, by four ways of laying out the same step; their losses agree.

    python benchmarks/training.py [--llm tiny] [--layers N] [--questions 16] [--ecgs 4] [--steps 3] [--out FILE]

Each step is a forward and backward pass over --ecgs ECGs with --questions questions each, then AdamW; the LLM has
random weights in the shape of a known one. "on the fly" encodes the question's ECG each time and pads batches of four
questions; "padded" takes stored codes; "packed" puts all questions into rows; "packed and shared" computes each ECG
once for its questions. Each way runs in a process of its own, for its peak memory.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in utils/launch.sh; read when torch is imported

import torch

from benchmarks.shapes import N_CODES, N_SCALES, SHAPES, shaped_llm
from model.packing import Example, collate, supervised_tokens
from utils.tools import entry_point

WAYS = ("on the fly", "padded", "packed", "packed and shared")
PADDED = 4  # questions a padded batch
PROMPT, QUESTION, ANSWER = 16, 24, 4  # tokens: words before the ECG, question and cue, answer with its end


def make_questions(vocabulary, rows, questions, shared, seed=0):
    """Per ECG (row of codes) a list of `Example`s; the words are random tokens of about the usual number."""
    rng, groups = random.Random(seed), []

    def text(count):
        return [rng.randrange(vocabulary.text_size) for _ in range(count)]

    prompt = text(PROMPT)
    for row in rows:
        amplitudes, codes = vocabulary.ecg_ids(row)
        ecg = [*vocabulary.bos, *prompt, vocabulary.start, *amplitudes, *codes, vocabulary.end]
        group = []
        for _ in range(questions):
            question, answer = text(QUESTION + rng.randrange(-8, 9)), text(ANSWER - 1 + rng.randrange(-1, 2))
            answer.append(vocabulary.eos)
            labels = [-100] * (len(ecg) + len(question)) + answer
            group.append(Example(ecg + question + answer, labels, len(ecg) if shared else 0))
        groups.append(group)
    return groups


class Step:
    """A training step by one of the `WAYS`: called, it learns from all questions and returns their mean loss."""

    def __init__(self, way, model, vocabulary, options, device, multiple=0):
        from model.heartllm import loss_sum
        from model.throughput import batch_work, work_of

        self.way, self.model, self.device, self.loss_sum = way, model.train(), device, loss_sum
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
        rows = make_codes(options.ecgs)
        groups = make_questions(vocabulary, rows, options.questions, way == "packed and shared")
        self.questions = options.ecgs * options.questions
        examples = [example for group in groups for example in group]
        if way in WAYS[:2]:
            parts = [examples[start : start + PADDED] for start in range(0, len(examples), PADDED)]
            self.batches = [collate(part, vocabulary.pad, packed=False) for part in parts]
        else:
            self.batches = [collate(examples, vocabulary.pad, multiple=multiple)]
        self.supervised = sum(map(supervised_tokens, self.batches))
        work = [batch_work(work_of(model), batch, vocabulary.pad) for batch in self.batches]
        self.tokens, self.operations = (sum(values) for values in zip(*work, strict=True))
        self.encode = _encoder(options, device) if way == "on the fly" else None

    def __call__(self):
        total = 0.0
        for batch in self.batches:
            if self.encode:
                self.encode(len(batch["input_ids"]))
            inputs = {k: v if k == "labels" else v.to(self.device) for k, v in batch.items()}
            half = next(self.model.parameters()).dtype == torch.bfloat16
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
                loss = self.loss_sum(self.model, inputs) / self.supervised
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.item()


def make_codes(ecgs):
    """Random codes of so many ECGs, amplitudes first, as the shipped tokenizer's rows are."""
    rng = random.Random(1)
    return [
        [N_CODES + rng.randrange(N_SCALES) for _ in range(12)] + [rng.randrange(N_CODES) for _ in range(313)]
        for _ in range(ecgs)
    ]


def _encoder(options, device):
    """What encoding a batch of ECGs costs; its codes are not used, so that all ways learn from the same."""
    from ecg_tokenizer.codec import EcgTokenizer

    tokenizer = EcgTokenizer.from_pretrained(device=device)
    signals = torch.randn(PADDED, 12, 5000, generator=torch.Generator().manual_seed(0)).numpy()
    return lambda count: tokenizer.encode_rows(signals[:count], signals[:count].std(-1))


def measure(way, options):
    """A way's figures, as a dict, measured in this process."""
    from model.layouts import pick_layout
    from model.throughput import measured_peak
    from utils.machine import pick_device, pick_dtype

    device = pick_device(options.device)
    dtype = pick_dtype(device.type == "cuda", device)  # float32 on a CPU, so that losses can be compared
    torch.set_num_threads(options.threads or torch.get_num_threads())
    model, vocabulary = shaped_llm(options.llm, options.layers, dtype, device, options.tuning)
    multiple = 0
    if way.startswith("packed"):
        from model.heartllm import loss_sum

        layout, lines = pick_layout(model, loss_sum, vocabulary, 400, device.type)
        print(*lines, sep="\n", file=sys.stderr)
        multiple = layout.multiple
    step = Step(way, model, vocabulary, options, device, multiple)
    loss = step()  # of the weights as they are; it warms up as well
    peak = measured_peak(device, dtype)
    walls, processor = [], time.process_time()
    for _ in range(options.steps):
        begun = time.perf_counter()
        step()
        walls.append(time.perf_counter() - begun)
    processor = (time.process_time() - processor) / options.steps
    seconds = sorted(walls)[len(walls) // 2]
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "way": way,
        "loss": loss,
        "seconds": seconds,
        "processor_seconds": processor,
        "questions_per_s": step.questions / seconds,
        "questions_per_processor_s": step.questions / processor,
        "tokens_per_s": step.tokens / seconds,
        "peak_share": step.operations / seconds / peak,
        "memory_gb": memory / 1e9,
    }


def measure_all(options, words):
    """Every way in a process of its own: a list of dicts, and the ratios to the padded one."""
    found = []
    for way in WAYS:
        command = [sys.executable, __file__, *words, "--way", way]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            "{way:18} {questions_per_s:8.2f} questions/s {questions_per_processor_s:8.2f} a processor second "
            "{tokens_per_s:9.0f} tokens/s {peak_share:6.1%} of peak {memory_gb:6.2f} GB, loss {loss:.6f}".format(
                **found[-1]
            ),
            flush=True,
        )
    return found


@entry_point
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--llm", choices=SHAPES, default="tiny")
    add("--layers", type=int, default=0, help="fewer layers than the shape has")
    add("--tuning", choices=("lora", "full"), default="lora")
    add("--ecgs", type=int, default=4, help="ECGs a step")
    add("--questions", type=int, default=16, help="questions an ECG")
    add("--steps", type=int, default=3)
    add("--threads", type=int, default=0)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--way", choices=WAYS, help="only this one, in this process; prints JSON")
    add("--out", type=Path, help="write the figures there as JSON")
    options = parser.parse_args(argv)
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return
    found = measure_all(options, argv)
    by_way = {row["way"]: row for row in found}
    spread = max(row["loss"] for row in found) - min(row["loss"] for row in found)
    ratio = {key: by_way["packed and shared"][key] / by_way["padded"][key] for key in found[0] if "questions" in key}
    text = ", ".join(f"{value:.1f} times the {key}" for key, value in ratio.items())
    print(f"packed and shared against padded: {text}; losses differ by {spread:.1e} at most")
    if options.out:
        options.out.write_text(json.dumps({"ways": found, "ratio": ratio, "loss_spread": spread}, indent=1))


if __name__ == "__main__":
    main()
