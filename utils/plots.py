"""Plots: a 12-lead ECG on millimetre paper, and the loss curves of training runs."""

import io
import math
from pathlib import Path

import numpy as np

from utils.log import read_log
from utils.tools import write_atomically

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LAYOUTS = {  # name -> how many leads stand in a column, and whether lead II runs below them all
    "3x4": (3, True),
    "6x2": (6, False),
    "12x1": (12, False),
}
RHYTHM_LEAD = "II"
PAPER_SPEED, GAIN = 25.0, 10.0  # mm/s and mm/mV: the standard settings, on which every reading by eye relies
SECONDS = 10.0
LEFT, RIGHT, TOP, BOTTOM = 15.0, 10.0, 15.0, 10.0  # mm around the traces; the calibration pulses stand in the left one
ROW_ABOVE, ROW_BELOW, ROW_MOST = 15.0, 8.0, 45.0  # mm a row reserves beside its baseline: at least, and at most
NAME_ABOVE, NAME_WIDTH, NAME_HEIGHT = 10.0, 10.0, 4.5  # mm: a lead's name over the baseline, and the room it takes
PAPER, FINE, COARSE, INK, OVERLAY = "#fffafa", "#f8d3d3", "#eda6a6", "#111111", "#0a58d6"


def plot_ecg(path_png, signal_mV, sample_rate, reconstruction=None, title="", layout="3x4"):
    """Draw a 12-lead ECG on millimetre paper, 25 mm/s and 10 mm/mV, as a PNG.

    The columns follow one another in time, as on a cardiograph. Every lead is shown about its own median (a
    cardiograph removes constant voltages); a reconstruction is shifted by the original's median, so that its
    offset stays visible. Printed at its nominal size the picture is to scale.

    Parameters
    ----------
    path_png : path
    signal_mV : array [12, T]
        mV, leads in the standard order; the first 10 s are drawn. NaN leaves a gap.
    sample_rate : float
        Hz
    reconstruction : array [12, T], optional
        mV; drawn over the signal in another colour.
    title : str
    layout : {"3x4", "6x2", "12x1"}
        Four columns of 2.5 s each and lead II below, two columns of 5 s, or every lead over 10 s.
    """
    _save(_ecg_figure(signal_mV, sample_rate, reconstruction, title, layout), path_png)


def ecg_svg(signal_mV, sample_rate, reconstruction=None, title="", layout="3x4"):
    """What `plot_ecg` draws, as the text of an SVG picture: for pages, where it can be magnified."""
    text = io.StringIO()
    figure = _ecg_figure(signal_mV, sample_rate, reconstruction, title, layout)
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _ecg_figure(signal, sample_rate, reconstruction, title, layout):
    traces, rows = _traces(signal, reconstruction), _layout_rows(layout)
    baselines, height = _row_baselines(traces, sample_rate, rows)
    width = LEFT + SECONDS * PAPER_SPEED + RIGHT
    figure, axes = _paper(width, height)
    for row, baseline in zip(rows, baselines, strict=True):
        _calibration_pulse(axes, LEFT - 11, baseline)
        for lead, start, end in row:
            _draw_lead(axes, [trace[LEADS.index(lead)] for trace in traces], lead, baseline, sample_rate, start, end)
    axes.text(5, height - 7.5, title, fontsize=11, color=INK, va="center", parse_math=False)
    settings = f"25 mm/s    10 mm/mV    {sample_rate:g} Hz"
    axes.text(5, 4.5, settings, fontsize=8, color=INK, va="center")
    if reconstruction is not None:
        handles, labels = axes.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        place = {"loc": "center right", "bbox_to_anchor": (1 - 4 / width, 1 - 7.5 / height), "ncols": 2}
        legend = axes.legend(named.values(), named.keys(), fontsize=9, facecolor=PAPER, framealpha=1, **place)
        for line in legend.get_lines():
            line.set_linewidth(1.8)
    return figure


def _traces(signal, reconstruction):
    """The signal and, if there is one, the reconstruction, in mm about the signal's median: list of [12, T]."""
    traces = [np.asarray(values, dtype=float) for values in (signal, reconstruction) if values is not None]
    if any(trace.ndim != 2 or trace.shape[0] != 12 for trace in traces):
        raise ValueError(f"an ECG to draw has the shape [12, T], not {[trace.shape for trace in traces]}")
    medians = [np.median(known) if (known := lead[np.isfinite(lead)]).size else 0.0 for lead in traces[0]]
    return [(trace - np.array(medians)[:, None]) * GAIN for trace in traces]


def _layout_rows(layout):
    """The rows from above, each as (lead, start, end) from left to right, in seconds."""
    tall, rhythm = LAYOUTS[layout]
    wide = SECONDS * tall / len(LEADS)
    rows = [[(lead, n * wide, (n + 1) * wide) for n, lead in enumerate(LEADS[row::tall])] for row in range(tall)]
    return [*rows, [(RHYTHM_LEAD, 0.0, SECONDS)]] if rhythm else rows


def _row_baselines(traces, sample_rate, rows):
    """Heights in mm of the rows' baselines above the lower edge, and of the page, so that no row runs into another.

    Baselines lie on the paper's thick lines, where an amplitude can be counted off.
    """
    above, below = [], []
    for row in rows:
        shown = np.concatenate([_part(t[LEADS.index(lead)], sample_rate, a, b) for t in traces for lead, a, b in row])
        shown = shown[np.isfinite(shown)]
        high, low = (shown.max(), -shown.min()) if shown.size else (0.0, 0.0)
        above.append(min(max(high + NAME_HEIGHT + 1.5, ROW_ABOVE), ROW_MOST))
        below.append(min(max(low + 1, ROW_BELOW), ROW_MOST))
    drops, last = [], -TOP
    for up, previous_down in zip(above, [0.0, *below], strict=False):
        last = 5 * math.floor((last - previous_down - up) / 5)
        drops.append(last)
    height = 5 * math.ceil((below[-1] + BOTTOM - last) / 5)
    return [height + drop for drop in drops], height


def _part(lead, sample_rate, start, end):
    """The samples of a lead from ``start`` to ``end`` seconds; one more than fall in, so that columns meet."""
    return lead[round(start * sample_rate) : round(end * sample_rate) + 1]


def _paper(width, height):
    """A page of millimetre paper with 1 mm as its unit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=200, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    for step, colour, line in ((1, FINE, 0.35), (5, COARSE, 0.6)):
        lines = [[(x, 0), (x, height)] for x in np.arange(0, width + 1, step)]
        lines += [[(0, y), (width, y)] for y in np.arange(0, height + 1, step)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=line, zorder=0))
    return figure, axes


def _calibration_pulse(axes, x, baseline):
    """1 mV for 0.2 s, in front of each row."""
    steps = [(x, 0), (x + 1, 0), (x + 1, GAIN), (x + 1 + 0.2 * PAPER_SPEED, GAIN)]
    steps += [(x + 1 + 0.2 * PAPER_SPEED, 0), (x + 2 + 0.2 * PAPER_SPEED, 0)]
    xs, ys = np.array(steps).T
    axes.plot(xs, ys + baseline, color=INK, linewidth=0.8, solid_joinstyle="miter")


def _draw_lead(axes, traces, lead, baseline, sample_rate, start, end):
    """One lead from ``start`` to ``end`` seconds, its name, and the mark where it begins."""
    styles = (("recorded", INK, 0.8), ("from its codes", OVERLAY, 0.7))
    for trace, (name, colour, line) in zip(traces, styles, strict=False):
        part = _part(trace, sample_rate, start, end)
        x = LEFT + (start + np.arange(part.size) / sample_rate) * PAPER_SPEED
        axes.plot(x, part + baseline, color=colour, linewidth=line, label=name, solid_joinstyle="round")
    x = LEFT + start * PAPER_SPEED
    if start > 0:
        axes.plot([x, x], [baseline - 2.5, baseline + 2.5], color=INK, linewidth=0.8)
    beside = np.concatenate([_part(t, sample_rate, start, start + NAME_WIDTH / PAPER_SPEED) for t in traces])
    highest = max([NAME_ABOVE - 1, *beside[np.isfinite(beside)]])  # over an R wave that stands where the name would
    y = baseline + min(highest + 1, ROW_MOST - NAME_HEIGHT)
    axes.text(x + 1.5, y, lead, fontsize=10, fontweight="bold", color=INK, va="bottom")


def plot_curves(path_png, log_jsonl_paths):
    """Draw the training and validation losses of runs against their steps, one panel a run and stage.

    Parameters
    ----------
    path_png : path
    log_jsonl_paths : dict
        Name of the run -> its log.jsonl (see `utils.log`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(log_jsonl_paths)
    columns = min(3, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[max(1, len(panels)) :]:
        axes.set_axis_off()
    if not panels:
        grid[0].text(0.5, 0.5, "no training log", ha="center", transform=grid[0].transAxes)
        grid[0].set_axis_off()
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        _draw_losses(axes, title, lines)
    _save(figure, path_png)


def _panels(paths):
    """Title -> lines of one stage of one run."""
    panels = {}
    for name, path in paths.items():
        lines = read_log(path)
        stages = list(dict.fromkeys(line.get("stage", "") for line in lines))
        for stage in stages or [""]:
            title = f"{name} ({stage})" if len(stages) > 1 else str(name)
            panels[title] = [line for line in lines if line.get("stage", "") == stage]
    return panels


def _draw_losses(axes, title, lines):
    train, validation = (_curve(lines, key) for key in ("loss", "val_loss"))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("loss", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    if train.size:
        axes.plot(*train.T, color="#9db8d9", linewidth=0.8, label="training" if len(train) < 20 else None)
    if len(train) >= 20:
        axes.plot(*_smoothed(train).T, color="#1f5fa8", linewidth=1.6, label="training (moving average)")
    if validation.size:
        last = f"validation (last {validation[-1, 1]:.3g})"
        axes.plot(*validation.T, color="#c8500a", linewidth=1.4, marker="o", markersize=3.5, label=last)
    known = np.concatenate([train, validation])[:, 1]
    known = known[np.isfinite(known)]
    if known.size and known.min() > 0 and known.max() > 20 * known.min():
        axes.set_yscale("log")
        _label_log_axis(axes, known)
    if known.size:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing logged yet", ha="center", transform=axes.transAxes, fontsize=9)


def _label_log_axis(axes, values):
    """Plain numbers, three to a decade where few decades are shown: 0.2 reads better than 2 x 10^-1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(values.max() / values.min())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _curve(lines, key):
    """[N, 2] of step and value; a value that was not finite (null) is NaN, a gap."""
    points = [(line["step"], np.nan if line[key] is None else line[key]) for line in lines if key in line]
    return np.array(points, dtype=float).reshape(-1, 2)


def _smoothed(points):
    """Centred moving average over a twentieth of the points; gaps are left out of it."""
    window = max(3, len(points) // 20) | 1
    ones, known = np.ones(window), np.isfinite(points[:, 1])
    total = np.convolve(np.where(known, points[:, 1], 0.0), ones, mode="same")
    count = np.convolve(known, ones, mode="same")
    return np.column_stack([points[:, 0], np.divide(total, count, out=np.full(len(points), np.nan), where=count > 0)])


def _save(figure, path_png):
    write_atomically(Path(path_png), lambda temporary: figure.savefig(temporary, format="png"))
