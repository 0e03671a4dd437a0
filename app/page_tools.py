"""What the page does, as tools for agents (MCP): the same functions, with files as base64 and answers as JSON."""

import base64
import binascii
import dataclasses
import functools
import json

from app.ask import DISCLAIMER
from utils.tools import UserError


def agent_tools(gr, desk):
    """The functions to offer. Their docstrings are what an agent is told of them.

    Parameters
    ----------
    gr : module
        Gradio: errors that the caller can mend are its ``Error``.
    desk : app.desk.Desk
    """

    def read(files, *unsaid):
        return desk.read(decoded(files), given(*unsaid))

    def read_ecg(files: dict[str, str], sample_rate: float = 0, units: str = "", leads: str = "") -> str:
        """Read a 12-lead ECG and measure it: rate, intervals, what was noticed in reading. For research, no diagnosis.

        Args:
            files: file name to its content in base64; a WFDB record is its .hea and its .dat or .mat together
            sample_rate: Hz, for tables and arrays that do not say; 0 otherwise
            units: mV, uV or V, likewise; empty otherwise
            leads: the leads' names in the file's order, with commas, likewise; empty otherwise
        """
        return json.dumps({**desk.facts(read(files, sample_rate, units, leads)), "notice": DISCLAIMER})

    def ask_ecg(
        files: dict[str, str], questions: list[str], sample_rate: float = 0, units: str = "", leads: str = ""
    ) -> str:
        """Ask a small language model that reads ECGs about one. For research, no diagnosis: check what it says.

        Args:
            files: file name to its content in base64; a WFDB record is its .hea and its .dat or .mat together
            questions: one or more questions in English; none asks the standard ones
            sample_rate: Hz, for tables and arrays that do not say; 0 otherwise
            units: mV, uV or V, likewise; empty otherwise
            leads: the leads' names in the file's order, with commas, likewise; empty otherwise
        """
        ecg = read(files, sample_rate, units, leads)
        return json.dumps(
            {**desk.facts(ecg), "answers": answers(desk, [ecg], questions or desk.questions), "notice": DISCLAIMER}
        )

    def report_ecg(files: dict[str, str], sample_rate: float = 0, units: str = "", leads: str = "") -> str:
        """Have a small language model that reads ECGs report on one. For research, no diagnosis: check what it says.

        Args:
            files: file name to its content in base64; a WFDB record is its .hea and its .dat or .mat together
            sample_rate: Hz, for tables and arrays that do not say; 0 otherwise
            units: mV, uV or V, likewise; empty otherwise
            leads: the leads' names in the file's order, with commas, likewise; empty otherwise
        """
        ecg = read(files, sample_rate, units, leads)
        text, against = desk.report(ecg)
        return json.dumps({**desk.facts(ecg), "report": text, "contradictions": against, "notice": DISCLAIMER})

    def compare_ecgs(first: dict[str, str], second: dict[str, str], questions: list[str]) -> str:
        """Measure two ECGs and answer questions on both. For research, no diagnosis: check what it says.

        Args:
            first: file name to its content in base64, as in read_ecg
            second: the same of the second ECG
            questions: questions in English that compare the first ECG with the second; may be empty
        """
        ecgs = [read(files, 0, "", "") for files in (first, second)]
        facts = dict(zip(("first", "second"), map(desk.facts, ecgs), strict=True))
        return json.dumps({**facts, "answers": answers(desk, ecgs, questions), "notice": DISCLAIMER})

    return [offered(gr, function) for function in (read_ecg, ask_ecg, report_ecg, compare_ecgs)]


def offered(gr, function):
    """The function with a `UserError` as the error that an agent is told of."""

    @functools.wraps(function)
    def called(*values, **named):
        try:
            return function(*values, **named)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return called


def answers(desk, ecgs, questions):
    """The answers as dicts."""
    return [dataclasses.asdict(one) for one in desk.ask(ecgs, questions)] if questions else []


def given(sample_rate, units, leads):
    """What the user says of a file, for `data_provider.read.read_record`."""
    names = [name.strip() for name in (leads or "").split(",") if name.strip()]
    return {"sample_rate": sample_rate or None, "units": units or None, "leads": names or None}


def decoded(files):
    """Name -> bytes of name -> base64; a `UserError` where a content is none."""
    if not isinstance(files, dict) or not all(isinstance(content, str) for content in files.values()):
        raise UserError("files: an object of file names and their contents in base64")
    try:
        return {name: base64.b64decode(content, validate=True) for name, content in files.items()}
    except (binascii.Error, ValueError) as error:
        raise UserError(f"a file's content is not base64 ({error})") from error
