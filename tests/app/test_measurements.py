"""What is measured is what the signal holds; a wrong rate beside a model's words would make both worthless."""

import numpy as np
import pytest

from app.measurements import measure
from data_provider.read import SignalPolicy, fit_signal, read_record
from data_provider.simulate.patients import draw_ecg, draw_patient, signal
from tests.shared import SHARED, needs_shared


def test_a_simulated_ecg_is_measured():
    ecg = draw_ecg(draw_patient(seed=1, number=3), which=0)
    found = measure(signal(ecg)[0] / 1000)
    assert found.heart_rate == pytest.approx(ecg.rate, rel=0.1) and found.rhythm == "regular"
    assert found.pr_ms == pytest.approx(1000 * ecg.pr, abs=50) and found.qt_ms == pytest.approx(1000 * ecg.qt, abs=60)
    assert 60 <= found.qrs_ms <= 130
    assert found.lines()[0] == ("heart rate", f"{found.heart_rate:.0f} /min")


@pytest.mark.parametrize("values", ["flat", "noise"])
def test_what_cannot_be_measured_is_said(values):
    """Noise has peaks too; but not the same number in every lead, and no waves at the same distances."""
    nothing = {"flat": np.zeros((12, 5000)), "noise": np.random.default_rng(0).normal(0, 0.2, (12, 5000))}[values]
    found = measure(nothing)
    assert found.pr_ms is found.qrs_ms is found.qt_ms is found.qtc_ms is None
    texts = dict(found.lines())
    assert texts["QT interval"] == "not measurable"
    if values == "flat":
        assert set(texts.values()) == {"not measurable"}


@needs_shared
@pytest.mark.parametrize(
    ("file", "rate", "pr", "qrs", "qt"),
    [
        ("muse/MUSE_20200923_093504_79000_example.xml", 56, 330, 94, 434),
        ("philips/129DYPRG.XML", 41, 151, None, 476),  # the file holds two QRS durations, 96 and 135 ms
    ],
)
def test_it_agrees_with_what_the_cardiograph_measured(file, rate, pr, qrs, qt):
    pytest.importorskip("ecgdatakit", reason="needs requirements-optional.txt")
    found = measure(fit_signal(read_record(SHARED / "data/other" / file), SignalPolicy()))
    assert found.heart_rate == pytest.approx(rate, abs=1)
    assert found.pr_ms == pytest.approx(pr, abs=30) and found.qt_ms == pytest.approx(qt, abs=20)
    assert qrs is None or found.qrs_ms == pytest.approx(qrs, abs=20)
