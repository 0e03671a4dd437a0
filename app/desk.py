"""What the page and its tools for agents do with an ECG: read, draw, measure, ask, report; several users at a time."""

import threading
from dataclasses import dataclass

from app.ask import Reader, answer, write_report
from app.contradictions import against_report
from app.ecg import RATE, Ecg
from app.measurements import measure
from app.tell import against, nearest, with_probability
from app.uploads import Limits, read_bounded
from utils.plots import ecg_svg
from utils.tools import UserError

KNOWN_SHOWN = 200  # questions to choose from: more are a list that nobody reads
UNKNOWN = "This reader was not trained on questions like this."
_drawing = threading.Lock()  # matplotlib's fonts are not made for several threads
_model = threading.Lock()  # one at a time: several would only share the same processor


@dataclass(frozen=True)
class Desk:
    """A reader, what an upload to it may cost, and the folder below which uploads are read."""

    reader: Reader
    limits: Limits
    folder: str

    @property
    def questions(self):
        """Questions to choose from."""
        return list(self.reader.standard_questions)[:KNOWN_SHOWN]

    @property
    def reports(self):
        """Whether the reader, or the one beside it, has learned to write reports."""
        return "report" in (self.reader.tasks + (self.reader.report.tasks if self.reader.report else ()))

    def read(self, files, how=None) -> Ecg:
        """The ECG in uploaded files: name -> bytes; parameters and errors as of `app.uploads.read_bounded`."""
        how = {"lead_order": self.reader.policy.lead_order} | (how or {})
        return self.move(read_bounded(files, self.limits, how, self.folder), 0)

    def move(self, record, window):
        """The `Ecg` of another window of a record."""
        with _model:
            return self.reader.encode(record, window)

    def draw(self, ecg, layout="3x4", reconstruct=False):
        """The SVG picture of an ECG, what its codes keep of it on top if asked for."""
        recon = None
        if reconstruct:
            if not self.reader.tokenizer.n_scales:
                raise UserError("the codes of this ECG tokenizer hold no amplitudes: there is nothing in mV to draw")
            with _model:
                recon = self.reader.tokenizer.decode(ecg.codes) + ecg.signal.mean(axis=1, keepdims=True)
        with _drawing:
            return ecg_svg(ecg.signal, RATE, recon, ecg.name, layout)

    def measured(self, ecg):
        """Name and value, as texts, of what can be measured without any model."""
        return dict(measure(ecg.signal, RATE).lines())

    def ask(self, ecgs, questions):
        """The answers (`app.ask.Answer`) to questions about an ECG, or about two."""
        with _model:
            return answer(self.reader, ecgs, questions)

    def report(self, ecg):
        """The report that the reader writes, and a line for each thing in it that a measurement contradicts."""
        with _model:
            text = write_report(self.reader, ecg)
        if not text:
            raise UserError("this reader has not learned to write reports")
        return text, against(against_report(text, measure(ecg.signal, RATE)))

    def facts(self, ecg):
        """What is told of an ECG as JSON."""
        return {"file": ecg.name, "read": list(ecg.notes), "measured": self.measured(ecg)}


def told(said):
    """An `Answer` in words: the answer, and the lines to go beneath it."""
    if said.answer is None:
        return "No answer", [UNKNOWN, nearest(said.question, said.asked_as)]
    text = with_probability(said.answer, said.probability)
    lines = [f"likeliest: {text}"] if said.abstained else []
    lines += [UNKNOWN] if said.unknown else []
    if said.asked_as != said.question:
        lines.append(f"understood as: {said.asked_as}")
    if said.alternatives:
        lines.append("otherwise: " + "; ".join(with_probability(*other) for other in said.alternatives))
    lines += against([said.contradiction]) if said.contradiction else []
    return "Uncertain, better not answered" if said.abstained else text, lines
