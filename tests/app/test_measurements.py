"""What is measured is what the signal holds; a wrong rate beside a model's words would make both worthless."""

import dataclasses

import numpy as np
import pytest

from app.measurements import Measurements, measure
from data_provider.simulate.patients import draw_ecg, draw_patient, signal


def test_a_simulated_ecg_is_measured():
    ecg = draw_ecg(draw_patient(seed=1, number=3), which=0)
    found = measure(signal(ecg)[0] / 1000)
    assert found.rate == pytest.approx(ecg.rate, rel=0.1) and found.regular
    assert found.pr == pytest.approx(1000 * ecg.pr, abs=50) and found.qt == pytest.approx(1000 * ecg.qt, abs=80)
    assert 60 <= found.qrs <= 130
    assert found.lines()[0] == ("heart rate", f"{found.rate:.0f}/min")


def test_what_cannot_be_measured_is_said():
    found = measure(np.zeros((12, 5000)))
    assert found == Measurements()
    texts = dict(found.lines())
    assert set(texts.values()) == {"not measurable"} and len(texts) == len(dataclasses.fields(found))
