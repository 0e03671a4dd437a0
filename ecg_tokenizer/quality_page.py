"""The quality report as one HTML page, its pictures inside."""

import base64
import html
import io
import tempfile
from pathlib import Path

import numpy as np

from ecg_tokenizer.quality_measures import RATE
from utils.plots import plot_ecg
from utils.tools import write_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } caption { text-align: left; font-weight: 600 } p { max-width: 45rem }
"""
MEASURES = (  # title, unit, where in the figures
    ("PRDN, mean over ECGs", "%", ("signal", "prdn")),
    ("PRDN, pooled", "%", ("signal", "prdn_pooled")),
    ("PRD in mV", "%", ("signal", "prd")),
    ("SNR", "dB", ("signal", "snr_db")),
    ("MSE", "mV²", ("signal", "mse_mv2")),
    ("MSE, standardised", "", ("signal", "mse_standardised")),
    ("correlation", "", ("signal", "correlation")),
    ("heart rate error, mean", "bpm", ("beats", "heart_rate_bpm", "mean")),
    ("R-peak timing error, median", "ms", ("beats", "r_peak_ms", "median")),
    ("beats kept", "", ("beats", "beats_kept")),
    ("beats added", "", ("beats", "beats_added")),
    ("QRS amplitude error, mean", "mV", ("beats", "qrs_amplitude_mv", "mean")),
    ("QRS duration error, median", "ms", ("beats", "qrs_duration_ms", "median")),
    ("ST level error, mean", "mV", ("beats", "st_level_mv", "mean")),
    ("codes used", "", ("codes", "codes_used")),
    ("dead codes", "", ("codes", "dead_codes")),
    ("perplexity", "", ("codes", "perplexity")),
    ("entropy", "bit/code", ("codes", "entropy_bits")),
    ("rate", "bit/s", ("codes", "bits_per_second")),
    ("rate, entropy-coded", "bit/s", ("codes", "entropy_bits_per_second")),
    ("compression against 16 bit", ": 1", ("codes", "compression")),
    ("probe AUROC, raw signal", "", ("probe", "raw")),
    ("probe AUROC, latents of the codes", "", ("probe", "latents")),
    ("probe AUROC, histogram of the codes", "", ("probe", "histogram")),
)


def write_page(path, report, names, millivolts, judged):
    """Write the page.

    Parameters
    ----------
    report : dict
        As in quality.json.
    names : list of str
        Of the records.
    millivolts : float array [N, 12, 5000]
    judged : list of (figures, figures of each record, reconstructions in mV, codes)
    """
    parts = [f"<h1>ECG tokenizer quality</h1><p>{report['records']} ECGs of {html.escape(report['manifest'])}.</p>"]
    parts.append(_figures_table(report["tokenizers"]))
    if report["differences"]:
        parts += [_differences_table(report, number) for number in range(len(report["differences"]))]
    parts.append("<h2>Rate and distortion</h2>" + _image(_rate_distortion(report["tokenizers"]), "rate and distortion"))
    parts.append(_leads_table(report["tokenizers"]))
    figures, records, recons, codes = judged[-1]
    order = np.argsort([record["prdn"] for record in records])
    parts.append(f"<h2>The best, the median and the worst ECG</h2><p>{html.escape(figures['tokenizer'])}</p>")
    for title, index in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
        text = f"{title}: {names[index]}, PRDN {records[index]['prdn']:.1f} %"
        parts.append(_image(_ecg(millivolts[index], recons[index], text), text))
    parts.append("<h2>How often each code is used</h2>" + _image(_histogram(codes, figures["codes"]), "code use"))
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>ECG tokenizer quality</title><style>{STYLE}</style>"
    )
    text += "".join(parts) + "</html>\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _value(figures, place):
    for key in place:
        figures = figures.get(key, {}) if isinstance(figures, dict) else {}
    return figures if isinstance(figures, (int, float)) else None


def _number(value):
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _table(caption, head, rows):
    lines = [f"<table><caption>{html.escape(caption)}</caption><tr>"]
    lines += [f"<th>{html.escape(str(cell))}</th>" for cell in head]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row))
    return "".join(lines) + "</table>"


def _figures_table(tokenizers):
    rows = []
    for title, unit, place in MEASURES:
        values = [_number(_value(figures, place)) for figures in tokenizers]
        rows.append([f"{title} ({unit})" if unit else title, *values])
    return _table("Figures", ["", *[figures["tokenizer"] for figures in tokenizers]], rows)


def _differences_table(report, number):
    first, other = report["tokenizers"][0]["tokenizer"], report["tokenizers"][number + 1]["tokenizer"]
    rows = [
        [key, _number(d["mean"]), f"{_number(d['low'])} .. {_number(d['high'])}", d["records"]]
        for key, d in report["differences"][number].items()
    ]
    return _table(f"{other} minus {first}, on the same ECGs", ["", "mean", "95 % interval", "ECGs"], rows)


def _leads_table(tokenizers):
    head = ["lead", *[f"PRDN (%), {figures['tokenizer']}" for figures in tokenizers]]
    leads = tokenizers[0]["leads"]
    return _table(
        "By lead", head, [[lead, *[_number(_value(f, ("leads", lead, "prdn"))) for f in tokenizers]] for lead in leads]
    )


def _image(png, text):
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{html.escape(text)}" src="data:image/png;base64,{data}"></p>'


def _figure(width=8, height=4):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _rate_distortion(tokenizers):
    figure, axes = _figure()
    for number, figures in enumerate(tokenizers):
        nominal, coded = figures["codes"]["bits_per_second"], figures["codes"]["entropy_bits_per_second"]
        prdn, colour = figures["signal"]["prdn"], f"C{number}"
        axes.plot([coded, nominal], [prdn, prdn], color=colour, lw=1)
        axes.plot(nominal, prdn, "o", color=colour, label=figures["tokenizer"])
        axes.plot(coded, prdn, "o", color=colour, fillstyle="none")
    axes.set(xlabel="bit/s for 12 leads (filled: nominal, open: entropy-coded)", ylabel="PRDN (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _histogram(codes, figures):
    figure, axes = _figure()
    counts = np.sort(np.bincount(codes.ravel(), minlength=figures["n_codes"]))[::-1]
    axes.fill_between(np.arange(len(counts)), counts, step="mid", alpha=0.5)
    axes.axhline(counts.mean(), color="C1", lw=1, label="all alike")
    axes.set(xlabel="codes, the most frequent first", ylabel="times used", yscale="symlog")
    axes.set_title(f"{figures['codes_used']} of {figures['n_codes']} used, perplexity {figures['perplexity']:.0f}")
    axes.legend()
    return _png(figure)


def _ecg(signal, recon, title):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ecg.png"
        plot_ecg(path, signal, RATE, recon, title)
        return path.read_bytes()
