"""If these fail, an ECG picture is not to scale (so no one can read it), or curves hide what a log holds."""

import itertools
import json

import numpy as np
import pytest

from run_summary import logs_in_order
from utils import plots
from utils.plots import PAPER_SPEED, plot_curves, plot_ecg

PNG = b"\x89PNG\r\n"


def some_ecg(seconds=10, rate=500, amplitude=1.0):
    t = np.arange(int(seconds * rate)) / rate
    return amplitude * np.array([np.exp(-(((t % 0.8) - 0.3) ** 2) / 2e-4) * (lead - 5) / 5 for lead in range(12)])


def drawn_lines(monkeypatch, *arguments, **named):
    """The axes of a picture instead of its file."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plot_ecg("unused.png", *arguments, **named)
    return figures[0].axes[0]


def test_the_paper_is_to_scale(monkeypatch):
    axes = drawn_lines(monkeypatch, some_ecg(), 500)
    width, height = axes.figure.get_size_inches() * 25.4
    assert (width, height) == pytest.approx((axes.get_xlim()[1], axes.get_ylim()[1]))  # one unit is one millimetre
    recorded = [line.get_xydata() for line in axes.lines if line.get_label() == "recorded"]
    assert len(recorded) == 13  # twelve leads and the rhythm strip
    assert np.ptp(recorded[0][:, 0]) == pytest.approx(2.5 * PAPER_SPEED)
    assert np.ptp(recorded[-1][:, 0]) == pytest.approx(10 * PAPER_SPEED, abs=0.1)
    v6 = next(data for data, name in zip(recorded, [t.get_text() for t in axes.texts], strict=False) if name == "V6")
    assert np.ptp(v6[:, 1]) == pytest.approx(12.0, abs=0.05)  # 1.2 mV at 10 mm/mV
    pulses = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 6]
    assert len(pulses) == 4 and all(np.ptp(pulse[:, 1]) == 10 for pulse in pulses)


def test_columns_follow_one_another_in_time(monkeypatch):
    ramp = np.tile(np.arange(5000) / 5000.0, (12, 1))
    axes = drawn_lines(monkeypatch, ramp, 500)
    lines = {}
    for line, text in zip([ln for ln in axes.lines if ln.get_label() == "recorded"], axes.texts, strict=False):
        lines.setdefault(text.get_text(), line.get_xydata())
    assert lines["aVR"][0] == pytest.approx(lines["I"][-1])
    assert lines["V4"][0] == pytest.approx(lines["V1"][-1])


def test_rows_do_not_run_into_one_another(monkeypatch):
    axes = drawn_lines(monkeypatch, some_ecg(amplitude=2.5), 500)
    recorded = [line.get_xydata()[:, 1] for line in axes.lines if line.get_label() == "recorded"]
    rows = [np.concatenate(recorded[start:end]) for start, end in ((0, 4), (4, 8), (8, 12), (12, 13))]
    for upper, lower in itertools.pairwise(rows):
        assert upper.min() > lower.max()


def test_a_reconstruction_keeps_its_offset_and_is_named(monkeypatch):
    ecg = some_ecg()
    axes = drawn_lines(monkeypatch, ecg, 500, reconstruction=ecg + 0.2)
    first, over = axes.lines[1].get_ydata(), axes.lines[2].get_ydata()
    assert over - first == pytest.approx(2.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["recorded", "from its codes"]


@pytest.mark.parametrize("seconds", [2, 10, 13])
def test_any_length_gaps_and_flat_leads_are_drawn(tmp_path, seconds):
    ecg = some_ecg(seconds, rate=100)
    ecg[3, 20:60], ecg[4], ecg[5] = np.nan, np.nan, 0.0
    plot_ecg(tmp_path / "ecg.png", ecg, 100, title="a title")
    assert (tmp_path / "ecg.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("layout", "rows", "seconds"), [("3x4", 4, 2.5), ("6x2", 6, 5), ("12x1", 12, 10)])
def test_a_layout_shows_every_lead_where_it_belongs(monkeypatch, layout, rows, seconds):
    ecg = np.arange(12)[:, None] / 50 + np.arange(5000) / 5000  # a lead is told by its height, a time by its slope
    axes = drawn_lines(monkeypatch, ecg - np.median(ecg, axis=1)[:, None], 500, layout=layout)
    recorded = [line.get_xydata() for line in axes.lines if line.get_label() == "recorded"]
    names = [text.get_text() for text in axes.texts if text.get_text() in plots.LEADS]
    assert sorted(names[:12], key=plots.LEADS.index) == list(plots.LEADS) and len(names) == 12 + (layout == "3x4")
    assert sum(len(line.get_xydata()) == 6 for line in axes.lines) == rows  # a calibration pulse each
    for name, line in zip(names[:12], recorded, strict=False):
        column = plots.LEADS.index(name) * 10 // (12 * seconds) if layout != "12x1" else 0
        assert line[0, 0] == pytest.approx(plots.LEFT + column * seconds * PAPER_SPEED), name
        assert np.ptp(line[:, 0]) == pytest.approx(seconds * PAPER_SPEED, abs=0.1)


def test_an_svg_shows_a_title_as_it_is():
    svg = plots.ecg_svg(some_ecg(rate=100), 100, title="$a_{ <script>--><b>")
    assert "<script" not in svg and "<b>" not in svg and svg.rstrip().endswith("</svg>")


def test_a_wrong_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\[12, T\]"):
        plot_ecg(tmp_path / "ecg.png", np.zeros((5000, 12)), 500)


def test_curves_show_losses_validation_and_gaps(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    lines = [{"stage": "pretrain", "step": n, "loss": None if n == 7 else 100.0 / n} for n in range(1, 51)]
    lines += [{"stage": "pretrain", "step": 50, "val_loss": 3.25}, {"stage": "finetune", "step": 1, "loss": 1.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "empty.jsonl").write_text("")
    plot_curves("unused.png", {"run": tmp_path / "log.jsonl", "new": tmp_path / "empty.jsonl"})
    pretrain, finetune, new = figures[0].axes
    assert [axes.get_title() for axes in (pretrain, finetune, new)] == ["run (pretrain)", "run (finetune)", "new"]
    raw, smooth, validation = pretrain.lines
    assert np.isnan(raw.get_ydata()[6]) and np.isfinite(smooth.get_ydata()).all()
    assert validation.get_label() == "validation (last 3.25)" and pretrain.get_yscale() == "log"


def test_pictures_of_curves_are_written_also_without_logs(tmp_path):
    plot_curves(tmp_path / "curves.png", {})
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_a_logarithmic_axis_has_numbers_that_can_be_read(tmp_path, monkeypatch):
    """Matplotlib's own labels, 2 x 10^-1 beside 10^0, stood in each other's way, or there was only one."""
    log = tmp_path / "log.jsonl"
    lines = [{"stage": "pretrain", "step": step, "loss": 5.0 / step} for step in range(1, 41)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plot_curves("unused.png", {"a run": log})
    axes = figures[0].axes[0]
    figures[0].draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [text.get_text() for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert axes.get_yscale() == "log" and {"0.2", "0.5", "1", "2", "5"} <= set(shown)


def test_the_curves_come_in_the_order_of_the_stages(tmp_path):
    for name in ("qa_demo_finetune", "_demo_pretrain", "tokenizer", "report_demo_finetune"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").touch()
    assert list(logs_in_order(tmp_path)) == ["tokenizer", "demo pretrain", "qa demo finetune", "report demo finetune"]
