"""Ask about an ECG file: what was read, what is measured, what the reader says, and how sure it is.

bash ask.sh FILE [FILE] ["question" ...] [--report] [KEY=VALUE ...]     (or python -m app, or heartllm ask)
bash ask.sh --page [--host ADDRESS] [--port N] [KEY=VALUE ...]          (see app.page)
"""

import argparse
import csv
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path

from utils.settings import given_keys, load_settings
from utils.tools import UserError, entry_point, write_atomically

SETTINGS = ("CKP_PATH", "LOCAL_LLM_PATH", "TOKENIZER_PATH", "ANSWERS", "MAX_NEW_TOKENS", "PROMPTS", "LEAD_ORDER")
SETTINGS += ("SHORT_RECORDS", "CROP", "MAX_GAP_S", "USE_AMP", "DEVICE", "THREADS", "RESULTS")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Ask a reader about an ECG file, about two, or about every file of a folder.",
        epilog=f"For research. Not a medical device. Settings, as KEY=VALUE: {', '.join(SETTINGS)}.",
    )
    add = parser.add_argument
    words = "a file (two for questions that compare them; or a folder), then questions"
    add("words", nargs="+", metavar="FILE|question|KEY=VALUE", help=words)
    add("--report", action="store_true", help="write the report too")
    add("--json", action="store_true", help="print everything as JSON")
    add("--plot", metavar="F.png", help="draw the ten seconds on ECG paper")
    add("--csv", metavar="F.csv", help="of a folder: the table's file (default: it is printed)")
    add("--free", action="store_true", help="answer questions unlike those of the reader's training too")
    add("--page", action="store_true", help="ask on a page in the browser instead (--page --help says more)")
    add("--window", type=int, default=1, metavar="N", help="which ten seconds of a longer record")
    add("--sample-rate", type=float, metavar="HZ", help="for files that don't say")
    add("--units", choices=("mV", "uV", "V"), help="for files that don't say")
    add("--leads", type=lambda text: text.split(","), metavar="I,II,...", help="in the file's order, likewise")
    return parser


@entry_point
def main(argv):
    """Ask, and print what was said."""
    if "--page" in argv:
        return open_page([word for word in argv if word != "--page"])
    options = build_parser().parse_intermixed_args(argv)
    files, questions, pairs = split_words(options.words)
    reader, settings = open_reader(pairs)
    reading = {"window": options.window - 1, "units": options.units, "leads": options.leads}
    reading["sample_rate"] = options.sample_rate
    likelihood = settings.answers == "likelihood" or "ANSWERS" not in given_keys(pairs)
    asking = {"free": options.free, "likelihood": likelihood}
    if os.path.isdir(files[0]):
        ask_folder(reader, files, questions, reading, asking, options)
        return
    if options.csv:
        raise UserError("--csv is for a folder; --json prints what is said of one file")
    told = ask_files(reader, files, questions, reading, asking, options)
    if options.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        from app.tell import tell

        print(tell(told))


def open_page(argv):
    """The command: ``[--host ADDRESS] [--port N] [KEY=VALUE ...]``."""
    from app.page import serve

    parser = argparse.ArgumentParser(prog="bash ask.sh --page", description="Ask about ECGs on a page in the browser.")
    parser.epilog = f"For research. Not a medical device. Settings, as KEY=VALUE: {', '.join(SETTINGS)}."
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: only this machine's)")
    parser.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(argv)
    serve(open_reader(options.settings)[0], options.host, options.port)


def split_words(words):
    """Files, questions and KEY=VALUE words of a command line."""
    pairs = [word for word in words if re.match(r"[A-Z_0-9]+=", word)]
    rest = [word for word in words if word not in pairs]
    if not rest:
        raise UserError('which file? bash ask.sh FILE ["question" ...]')
    if " " in rest[0] and not looks_like_file(rest[0]):
        raise UserError(f'{rest[0]}: no such file; it is named before the questions: bash ask.sh FILE ["question" ...]')
    files = rest[:1] + [word for word in rest[1:2] if looks_like_file(word)]
    unused = sorted(given_keys(pairs) - set(SETTINGS))
    if unused:
        raise UserError(f"{unused[0]} is no setting of this command; it takes {', '.join(SETTINGS)}")
    return files, rest[len(files) :], pairs


def looks_like_file(word):
    """Whether a word names a file (a WFDB record goes without its extension), not a question."""
    return os.path.exists(word) or os.path.exists(f"{word}.hea")


def open_reader(pairs):
    """The reader that the settings name, and the settings."""
    from transformers.utils.logging import disable_progress_bar

    from app.ask import SHIPPED, load_reader
    from data_provider.read import SignalPolicy
    from model.agreement import adapter_facts
    from model.checkpoint_files import is_whole
    from model.prompts import read_prompts
    from model.stage import find_llm
    from utils.machine import set_threads

    disable_progress_bar()  # loading takes a moment; the bar would stand amid what is printed
    settings, given = load_settings("eval", pairs), given_keys(pairs)
    checkpoint = settings.ckp_path or SHIPPED
    if not settings.ckp_path and not SHIPPED.is_dir():
        raise UserError(f"{SHIPPED}: no reader came with this copy; CKP_PATH names another one")
    set_threads(settings.threads)
    order = settings.lead_order if "LEAD_ORDER" in given else adapter_facts(checkpoint).get("LEAD_ORDER", "name")
    policy = SignalPolicy(
        crop=settings.crop, short=settings.short_records, max_gap_s=settings.max_gap_s, lead_order=order
    )
    reader = load_reader(
        checkpoint,
        settings.tokenizer_path,
        "" if is_whole(checkpoint) else find_llm(settings),
        settings.device,
        settings.use_amp if "USE_AMP" in given else None,
        policy,
        max_new_tokens=settings.max_new_tokens,
        prompts=read_prompts(settings.prompts) if settings.prompts else None,
    )
    return reader, settings


def ask_files(reader, files, questions, reading, asking, options):
    """Everything that is said of a file, or of two that are compared: JSON-able."""
    from app.ask import DISCLAIMER, answer, write_report
    from app.contradictions import against_report
    from app.measurements import measure

    ecgs = [reader.read(path, **reading) for path in files]
    measured = [measure(ecg.signal) for ecg in ecgs]
    if options.plot:
        from utils.plots import plot_ecg

        plot_ecg(options.plot, ecgs[0].signal, 500, title=Path(files[0]).name)
    told = {"note": DISCLAIMER, "reader": reader.name, "ecgs": []}
    for ecg, facts in zip(ecgs, measured, strict=True):
        entry = {"file": ecg.name, "read": ecg.notes, "familiar": ecg.familiar, "measured": asdict(facts)}
        told["ecgs"].append(entry | {"measured_as_text": facts.lines()})
    if len(ecgs) == 1 and (options.report or not questions):
        text = write_report(reader, ecgs[0])
        if text or options.report:
            told["report"] = {"text": text, "contradictions": against_report(text, measured[0])}
    asked = questions or (reader.standard_questions if len(ecgs) == 1 else [])
    if asked:
        facts = measured[0] if len(ecgs) == 1 else None
        told["answers"] = [asdict(said) for said in answer(reader, ecgs, asked, measured=facts, **asking)]
    if reader.threshold is not None:
        told["threshold"] = reader.threshold
    return told


def ask_folder(reader, files, questions, reading, asking, options):
    """A table of a folder's files, a row each: what was measured and answered, or why the file was not read."""
    from data_provider.prepare import ecg_files

    if len(files) > 1:
        raise UserError("a folder's files are asked about one by one; name two files to compare them")
    if options.json or options.plot:
        raise UserError("--json and --plot are for files; a folder's answers are a table (--csv F.csv)")
    names = list(ecg_files(files[0]))
    if not names:
        raise UserError(f"{files[0]}: holds no files")
    questions, rows = questions or reader.standard_questions, []
    for name in names:
        row = {"file": name}
        try:
            told = ask_files(reader, [os.path.join(files[0], name)], questions, reading, asking, options)
        except UserError as error:
            row["error"] = " ".join(str(error).split())
        else:
            row |= told["ecgs"][0]["measured"] | {"familiar": told["ecgs"][0]["familiar"]}
            if "report" in told:
                row["report"] = told["report"]["text"]
            for said in told["answers"] if questions else ():
                row[said["question"]] = ".".join(said["answer"] or []) or "(not trained on questions like this)"
                row[f"{said['question']} p"] = said["probability"]
                row[f"{said['question']} remark"] = remark(said)
        rows.append(row)
        print(f"{name}: {row.get('error', 'read')}", file=sys.stderr, flush=True)
    write_table(rows, options.csv)
    if all("error" in row for row in rows):
        raise UserError(f"{files[0]}: none of its {len(rows)} files could be read")


def remark(said):
    """What stands against believing an answer, in one cell."""
    return "; ".join(filter(None, ["uncertain" if said["abstained"] else "", said["contradiction"]]))


def write_table(rows, path):
    """Write the rows as CSV, to a file or to standard output."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()} for row in rows]

    def write(file):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)

    if not path:
        write(sys.stdout)
        return

    def save(temporary):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            write(file)

    write_atomically(path, save)
    print(f"{len(rows)} files, {sum('error' in row for row in rows)} of them not readable -> {path}")


if __name__ == "__main__":
    main()
