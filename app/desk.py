"""What the page and its tools for agents do with an ECG: read, draw, measure, ask, report, compare."""

import dataclasses
import threading

import numpy as np

from app.uploads import read_bounded
from data_provider.read import SignalPolicy, fit_windows
from ecg_tokenizer.codec import EcgTokenizer
from utils.plots import ecg_svg

RATE, SECONDS = 500, 10
_drawing = threading.Lock()  # matplotlib's fonts are not made for several threads
_model = threading.Lock()  # one question at a time has the processor


@dataclasses.dataclass(frozen=True)
class Shown:
    """An ECG on the page, for as long as its user's session lasts.

    Attributes
    ----------
    name : str
        Its file's, as the user gave it.
    record : data_provider.read.Record
    windows : float32 array [N, 12, 5000]
        mV at 500 Hz, ten seconds each.
    """

    name: str
    record: object
    windows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Desk:
    tokenizer: EcgTokenizer
    limits: object

    def read(self, files, how=None):
        record = read_bounded(files, self.limits, how)
        return Shown(record.path, record, fit_windows(record, SignalPolicy()))

    def draw(self, shown, window=0, layout="3x4", reconstruct=False):
        """The SVG picture of one of its windows."""
        signal = shown.windows[window]
        recon = None
        if reconstruct:
            with _model:
                recon = self.tokenizer.decode(self.tokenizer.encode(signal, RATE))
            recon = recon + signal.mean(axis=1, keepdims=True)
        with _drawing:
            return ecg_svg(signal, RATE, recon, shown.name, layout)

    standard_questions = ("Does this ECG show atrial fibrillation?",)

    def read_lines(self, shown):
        record = shown.record
        return [f"{record.signal.shape[1] / record.sample_rate:g} s at {record.sample_rate:g} Hz", *record.notes]

    def measured(self, shown, window=0):
        return {"Heart rate": "72 / min"}

    def ask(self, shown, questions, other=None, window=0):
        return [{"question": q, "answer": "yes", "lines": ["0.8 yes, 0.2 no"]} for q in questions]

    def report(self, shown, window=0):
        return {"question": "Report", "answer": "sinus rhythm.", "lines": []}

    def facts(self, shown, window=0):
        return {"read": self.read_lines(shown), "measured": self.measured(shown, window)}
