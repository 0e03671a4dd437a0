"""The model card of an exported model: what it is, what it was tried on and with what result, whose licence holds."""

import re
from pathlib import Path

from utils.scores import summary

MADE_HERE = {"tiny": "mit", "smollm2": "apache-2.0"}  # folders that this project writes
UNKNOWN = "other"


def licence_files(llm_path):
    """The licence files in an LLM's folder."""
    names = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")
    if not Path(llm_path).is_dir():
        return []
    return sorted(path for path in Path(llm_path).iterdir() if path.is_file() and path.name.upper().startswith(names))


def base_licence(llm_path):
    """The licence that an LLM's folder states (its README's header), or "other" where it states none."""
    path = Path(llm_path)
    for name, licence in MADE_HERE.items():
        if path.name.startswith(name):
            return licence
    readme = path / "README.md"
    if path.name and readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"\A---\n(?:.*\n)*?license: *([\w.\-]+)", text)
        return found.group(1) if found else UNKNOWN
    return UNKNOWN


def model_card(facts, exams):
    """The text of README.md, with the header that model hubs read.

    Parameters
    ----------
    facts : dict
        What heartllm.json holds.
    exams : list of dict
        metrics.json of exams of this very checkpoint.
    """
    licence = facts["base_licence"]
    prompts, tasks = facts["inputs"]["prompts"], facts["settings"]["TASKTYPE"]
    lines = ["---", f"license: {licence}", "library_name: transformers", "pipeline_tag: text-generation"]
    lines += ["tags: [ecg, heartllm]", "---", "# An ECG reader", ""]
    lines += [
        f"{facts['llm']} with ECG code tokens, tuned on {_joined(facts['settings'].get('DATASET', 'ECGs'))} for: "
    ]
    lines[-1] += ", ".join({"qa": "answers to questions", "report": "reports"}[task] for task in tasks) + "."
    lines += ["**For research. Not a medical device.**", "", "## Asking it"]
    lines += [
        "The code tokens of an ECG come from the tokenizer in `ecg_tokenizer/`, by the HeartLLM code: `heartllm client "
        'FILE "question" --model THIS_FOLDER` asks a server (`heartllm serve THIS_FOLDER`, or `vllm serve '
        "THIS_FOLDER`). Anything that loads causal LMs loads this folder; decoding is greedy. The prompt is one of:",
        "",
    ]
    for task in tasks:
        lines += ["```", prompts[task], "```"]
    example = [f"<|ecg_scale_{n}|>" for n in range(2 * bool(facts["n_scales"]))] + ["<|ecg_0|>"]
    count = facts["codes_per_ecg"] + 12 * bool(facts["n_scales"])
    lines += [f"`{{codes}}` are {count} tokens ({', '.join(example)} ...)" + _leads(facts) + ".", ""]
    if not facts["text_prompts"]:
        lines += ["Its tokenizer cuts a prompt's text into other tokens than it was trained with: send token ids.", ""]
    lines += ["## Scores", *_scores(exams), "", "## What it is made of", "", "| part | SHA-256 |", "|---|---|"]
    lines += [f"| checkpoint | {facts['checkpoint_sha256']} |", f"| base LLM (sampled) | {facts['llm_hash']} |"]
    lines += [f"| ECG tokenizer | {facts['tokenizer_fingerprint']} |", ""]
    lines += ["`sha256sum -c SHA256SUMS` checks the files. " + _licence_text(licence), ""]
    return "\n".join(lines)


def _joined(names):
    return names if isinstance(names, str) else ", ".join(names)


def _leads(facts):
    return ", first the amplitudes of the twelve leads" if facts["n_scales"] else ""


def _scores(exams):
    if not exams:
        return ["No exam was given when this was exported (`--metrics`)."]
    lines = []
    for metrics in exams:
        settings = metrics["provenance"]["settings"]
        about = f"{_joined(settings['TASKTYPE'])}, {_joined(settings['DATASET'])}"
        lines += [f"Exam: {about}; 95 % intervals by resampling patients.", ""]
        lines += [f"- {line}" for line in summary(metrics)] + [""]
    return lines[:-1]


def _licence_text(licence):
    if licence == UNKNOWN:
        return "The base LLM's folder states no licence: look where it came from before you pass this on."
    return f"The base LLM's licence ({licence}) goes on to hold for these weights."
