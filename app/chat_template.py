"""The chat template of an exported model: a message that holds an ECG's code tokens and a question becomes the prompt.

A user message is the ECG's block (two for a comparison) and the question, in any order. A message without a block asks
about the last one's. Without a question the model writes its report.
"""

import json

from model.prompts import BLOCK
from model.vocabulary import END, START

TEMPLATE = """{%- set ns = namespace(ecg='', question='') -%}
{%- for message in messages if message['role'] == 'user' -%}
{%- set text = message['content'] -%}
{%- if START in text and END in text -%}
{%- set first = text.find(START) -%}
{%- set last = text.rfind(END) + END_LENGTH -%}
{%- set ns.ecg = text[first:last] -%}
{%- set ns.question = (text[:first] ~ text[last:]) | trim -%}
{%- else -%}
{%- set ns.question = text | trim -%}
{%- endif -%}
{%- endfor -%}
{%- if not ns.ecg -%}
{{ raise_exception('no message holds an ECG (START ... END)') }}
{%- endif -%}
"""


def chat_template(prompts, tasks, bos):
    """The template, in Jinja, as transformers and vLLM fill it.

    Parameters
    ----------
    prompts : dict
        Task -> prompt, see `model.prompts`.
    tasks : list of {"qa", "report"}
        What the model has learned.
    bos : str
        What stands before every prompt, may be "".
    """
    text = TEMPLATE.replace("END_LENGTH", str(len(END)))
    text = text.replace("START in text and END in text", f"{_quoted(START)} in text and {_quoted(END)} in text")
    text = text.replace("(START)", f"({_quoted(START)})").replace("(END)", f"({_quoted(END)})")
    text = text.replace("(START ... END)", f"({START} ... {END})")
    refusals = {"qa": "this model answers questions only: ask one", "report": "this model writes reports only"}
    text += "{%- if ns.question -%}\n"
    text += _filled(prompts["qa"], bos) if "qa" in tasks else _refused(refusals["report"])
    text += "{%- else -%}\n"
    text += _filled(prompts["report"], bos) if "report" in tasks else _refused(refusals["qa"])
    return text + "{%- endif -%}"


def _filled(prompt, bos):
    """The expression that gives a prompt; nothing is known of the patient in a chat."""
    block, parts = BLOCK.search(prompt), []
    before, after = (part.replace("{background}", "") for part in (prompt[: block.start()], prompt[block.end() :]))
    for part in (bos + before, after):
        words = [_quoted(piece) for piece in part.split("{question}")]
        parts.append(" ~ ns.question ~ ".join(words))
    return "{{ " + " ~ ns.ecg ~ ".join(parts) + " }}\n"


def _refused(text):
    return "{{ raise_exception(" + _quoted(text) + ") }}\n"


def _quoted(text):
    """A text as Jinja's string literal."""
    return json.dumps(text, ensure_ascii=False)
