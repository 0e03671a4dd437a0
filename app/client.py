"""Ask a server about an ECG file: ``python -m app.client FILE "question" --model DIR [--url http://127.0.0.1:8000]``.

The file is read, made into codes by the ECG tokenizer in the exported folder and put into its prompt; only that text
goes to the server, whose answer is greedy, as the exam's.
"""

import argparse
import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from app.export import ECG_TOKENIZER
from app.serve import read_export
from data_provider.read import SignalPolicy, load_signal
from model.prompts import prompt_ids, prompt_string
from utils.tools import UserError, entry_point

URL = "http://127.0.0.1:8000"


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m app.client", description="Ask a server about an ECG file.")
    add = parser.add_argument
    add("file", nargs="+", metavar="FILE [FILE] [QUESTION]", help="one ECG, or two to compare; no question: its report")
    add("--model", metavar="DIR", required=True, help="the exported folder that the server serves")
    add("--url", default=URL, help=f"of the server (default: {URL})")
    add("--name", default="", help="the model's name, for servers that have several")
    add("--background", default="", help="what is known of the patient, for prompts that hold it")
    add("--report", action="store_true", help="ask for the report: all arguments are files")
    add("--timeout", type=float, default=300, metavar="S", help="seconds to wait for an answer (default: 300)")
    return parser


@entry_point
def main(argv):
    """Ask, and print the answer."""
    options = build_parser().parse_args(argv)
    prompter = load_prompter(options.model)
    *files, question = [*options.file, ""] if options.report or len(options.file) == 1 else options.file
    ecgs = [prompter.encode_file(path) for path in files]
    task = "qa" if question else "report"
    prompt = prompter.prompt({"question": question, "background": options.background}, task, ecgs)
    print(complete(options.url, prompt, prompter.card["max_new_tokens"][task], options.name, options.timeout).strip())


@dataclass(frozen=True)
class Prompter:
    """What makes prompts of ECGs: the ECG tokenizer, the card and (where ids must be sent) the text tokenizer."""

    card: dict
    tokenizer: object
    policy: SignalPolicy
    text: tuple = ()

    def encode_file(self, path):
        """The codes of an ECG file, uint16 [row_length]."""
        x, _, std = load_signal(path, self.policy)
        return self.tokenizer.encode_rows(x[None], std[None])[0]

    def prompt(self, item, task, ecgs):
        """The prompt of an item ("question", "background") for the task: text, or token ids where text won't do."""
        if task not in self.card["settings"]["TASKTYPE"]:
            learned = {"qa": "answers questions only: ask one", "report": "writes reports only: ask nothing"}
            raise UserError(f"this model {learned[self.card['settings']['TASKTYPE'][0]]}")
        prompts = self.card["inputs"]["prompts"]
        if self.text:
            return prompt_ids(*self.text, prompts, item, task, ecgs)
        return prompt_string(prompts, item, task, ecgs, self.card["n_codes"])


def load_prompter(folder):
    """The `Prompter` of an exported folder."""
    from ecg_tokenizer.codec import EcgTokenizer

    folder, card = read_export(folder)
    settings = card["settings"]
    names = {"crop": "CROP", "short": "SHORT_RECORDS", "max_gap_s": "MAX_GAP_S", "lead_order": "LEAD_ORDER"}
    policy = SignalPolicy(**{name: settings[key] for name, key in names.items() if key in settings})
    tokenizer = EcgTokenizer.from_pretrained(folder / ECG_TOKENIZER)
    if tokenizer.fingerprint != card["tokenizer_fingerprint"]:
        raise UserError(f"{folder}: its ECG tokenizer is another one than the model was trained with")
    return Prompter(card, tokenizer, policy, () if card["text_prompts"] else _text_tokenizer(folder, card))


def _text_tokenizer(folder, card):
    from transformers import AutoTokenizer

    from model.vocabulary import add_ecg_tokens

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, add_ecg_tokens(tokenizer, card["n_codes"], card["n_scales"])


def complete(url, prompt, max_tokens, name="", timeout=300.0):
    """What an OpenAI-compatible server goes on with, greedily; a `UserError` where it doesn't answer."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0} | ({"model": name} if name else {})
    return _post(f"{url.rstrip('/')}/v1/completions", body, timeout)["choices"][0]["text"]


def _post(url, body, timeout):
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: not the address of a server (http://...)")
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    # Never through a proxy that the environment names: an ECG goes to the server that was asked for only.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace")
        raise UserError(f"{url}: the server refused ({error.code}: {said})") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: no answer ({getattr(error, 'reason', error)}); is the server running?") from error


if __name__ == "__main__":
    main()
