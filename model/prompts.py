"""The words around the ECG: the only place that holds them.

A prompt is one string with one ECG block, ``<|start_ecg|>{codes}<|end_ecg|>``, which is repeated where a question is
about two ECGs; where the codes hold the leads' amplitudes, these stand right behind the start, before any words there.
QA prompts may use ``{question}`` and ``{background}``, report prompts ``{background}``. What follows the block is the
cue; the answer comes right after it. `PROMPTS` replaces them by a JSON file with the keys ``qa`` and ``report``, since
a tuned model wants the words that it was tuned on: one of the user's, or one in env/prompts/ by its name.
"""

import re

from data_provider.manifests import item_background
from model.packing import Example
from model.vocabulary import END, START, code_token, scale_token
from utils.setting_values import PROMPT_NAMES
from utils.tools import REPOSITORY, UserError, read_json

ECG = START + "{codes}" + END
PROMPTS = {
    "qa": "Read the 12-lead ECG and answer the question.\nQuestion: {question}\n" + ECG + "\nAnswer:",
    "report": "Read the 12-lead ECG and write its report.\n{background}\n" + ECG + "\nReport:",
}
BLOCK = re.compile(re.escape(START) + r"(.*?)\{codes\}(.*?)" + re.escape(END), re.DOTALL)


def read_prompts(path=""):
    """The prompts in force: ours, or those of a JSON file (or of env/prompts/, by a name), checked."""
    prompts = dict(PROMPTS)
    if path:
        path = REPOSITORY / f"env/prompts/{path}.json" if path in PROMPT_NAMES else path
        given = read_json(path)
        if not isinstance(given, dict) or not given or set(given) - set(PROMPTS):
            raise UserError(f"{path}: must be an object with the keys qa and report")
        prompts.update(given)
    for task, text in prompts.items():
        if not isinstance(text, str) or len(BLOCK.findall(text)) != 1 or text.count("{codes}") != 1:
            raise UserError(f"{path}: {task} must hold the block {START}{{codes}}{END} exactly once")
        if task == "qa" and "{question}" not in text:
            raise UserError(f"{path}: qa must hold {{question}}")
    return prompts


def answer_text(item, task):
    """What the LLM should write: the report, or the answer's items joined with "."."""
    return item["report"] if task == "report" else ".".join(item["answer"])


def prompt_ids(tokenizer, vocabulary, prompts, item, task, ecgs):
    """Token ids of an item's prompt, from the beginning of text to the cue.

    Parameters
    ----------
    ecgs : list of arrays of int, [row_length] each
        The codes of the item's one or two ECGs.
    """
    before, behind_amplitudes, behind_codes, after = prompt_texts(prompts, item, task)

    def text_ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    ids = [*vocabulary.bos, *text_ids(before)]
    for row in ecgs:
        amplitudes, waveform = vocabulary.ecg_ids(row)
        ids += [vocabulary.start, *amplitudes, *text_ids(behind_amplitudes), *waveform]
        ids += [*text_ids(behind_codes), vocabulary.end]
    return ids + text_ids(after)


def prompt_texts(prompts, item, task):
    """An item's words: before the ECG's block, behind its amplitudes, behind its codes, and after the block."""
    template = prompts[task]
    block = BLOCK.search(template)
    values = {"{question}": item.get("question", ""), "{background}": item_background(item)}

    def filled(text):
        # All at once, so that a question that itself holds "{background}" stays as it is.
        return re.sub(r"\{question\}|\{background\}", lambda found: values[found.group()], text)

    return tuple(map(filled, (template[: block.start()], *block.groups(), template[block.end() :])))


def prompt_string(prompts, item, task, ecgs, n_codes):
    """An item's prompt as text, for servers: what `prompt_ids` gives as ids, without what a tokenizer puts before it.

    Parameters
    ----------
    ecgs : list of arrays of int, [row_length] each
    n_codes : int
        Codes from this on are amplitudes.
    """
    before, behind_amplitudes, behind_codes, after = prompt_texts(prompts, item, task)
    text = before
    for row in ecgs:
        amplitudes = "".join(scale_token(int(code) - n_codes) for code in row if code >= n_codes)
        waveform = "".join(code_token(int(code)) for code in row if code < n_codes)
        text += START + amplitudes + behind_amplitudes + waveform + behind_codes + END
    return text + after


def shared_length(prompt, vocabulary):
    """How many of a prompt's tokens stand up to the (last) end of the ECG: what other questions on it may share."""
    return len(prompt) - prompt[::-1].index(vocabulary.end)


def training_example(tokenizer, vocabulary, prompts, item, task, ecgs, share=False):
    """Prompt and answer; only the answer and the end of text are supervised.

    With ``share``, what stands up to the (last) end of the ECG may be shared with other questions on it.
    """
    prompt = prompt_ids(tokenizer, vocabulary, prompts, item, task, ecgs)
    answer = [*tokenizer(answer_text(item, task), add_special_tokens=False)["input_ids"], vocabulary.eos]
    shared = shared_length(prompt, vocabulary) if share else 0
    return Example(prompt + answer, [-100] * len(prompt) + answer, shared)


def ecg_first(prompts, task):
    """Whether the ECG stands before the question and the background, so that questions can share it."""
    before = prompts[task][: BLOCK.search(prompts[task]).end()]
    return "{question}" not in before and "{background}" not in before


def check_ecg_first(prompts, task):
    """A `UserError` unless `ecg_first`."""
    if not ecg_first(prompts, task):
        raise UserError(
            "SHARE_ECG=true needs PROMPTS with the ECG before {question} and {background}, as PROMPTS=ecg_first"
        )
