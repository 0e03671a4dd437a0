"""The quality report as one HTML page, its pictures inside."""

import base64
import html
import io
import os
import tempfile
from pathlib import Path

import numpy as np

from ecg_tokenizer.quality.measures import RATE
from utils.plots import plot_ecg
from utils.tools import write_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1.5rem 0 } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums }
th { vertical-align: bottom } td:first-child, th:first-child { text-align: left; padding-left: 0 }
img { max-width: 100%; height: auto } caption { text-align: left; font-weight: 600 } p { max-width: 45rem }
figure { margin: 1rem 0 2rem } figcaption { color: #444 }
"""
MEASURES = (  # title, unit, where in the figures
    ("PRDN, mean over ECGs", "%", ("signal", "prdn")),
    ("PRDN, pooled", "%", ("signal", "prdn_pooled")),
    ("PRDN of the ECG band (0.67-40 Hz)", "%", ("signal", "prdn_band")),
    ("share of the error below 0.67 Hz", "", ("signal", "error_below")),
    ("share of the error above 40 Hz", "", ("signal", "error_above")),
    ("PRD in mV", "%", ("signal", "prd")),
    ("SNR", "dB", ("signal", "snr_db")),
    ("MSE", "mV²", ("signal", "mse_mv2")),
    ("MSE, standardised", "", ("signal", "mse_standardised")),
    ("correlation", "", ("signal", "correlation")),
    ("heart rate error, mean", "bpm", ("beats", "heart_rate_bpm", "mean")),
    ("R-peak timing error, median", "ms", ("beats", "r_peak_ms", "median")),
    ("share of beats kept", "", ("beats", "beats_kept")),
    ("share of beats added", "", ("beats", "beats_added")),
    ("QRS amplitude error, mean", "mV", ("beats", "qrs_amplitude_mv", "mean")),
    ("QRS amplitude error, mean", "%", ("beats", "qrs_amplitude_percent", "mean")),
    ("QRS duration error, median", "ms", ("beats", "qrs_duration_ms", "median")),
    ("ST level error, mean", "mV", ("beats", "st_level_mv", "mean")),
    ("codes", "", ("codes", "n_codes")),
    ("codes used", "", ("codes", "codes_used")),
    ("usage over all codes", "", ("codes", "usage")),
    ("dead codes", "", ("codes", "dead_codes")),
    ("perplexity", "", ("codes", "perplexity")),
    ("entropy", "bit/code", ("codes", "entropy_bits")),
    ("rate, nominal", "bit/s", ("codes", "bits_per_second")),
    ("rate, entropy-coded", "bit/s", ("codes", "entropy_bits_per_second")),
    ("compression against 16 bit, nominal", ": 1", ("codes", "compression")),
    ("compression against 16 bit, entropy-coded", ": 1", ("codes", "entropy_compression")),
)
SOURCE_MEASURES = (
    ("ECGs", "ecgs"),
    ("PRDN (%)", "prdn"),
    ("worst PRDN (%)", "prdn_worst"),
    ("PRDN 0.67-40 Hz (%)", "prdn_band"),
    ("error below 0.67 Hz (share)", "error_below"),
    ("error above 40 Hz (share)", "error_above"),
    ("heart rate error (bpm)", "heart_rate_bpm"),
    ("R-peak error (ms)", "r_peak_ms"),
    ("beats kept (share)", "beats_kept"),
    ("codes used", "codes_used"),
    ("perplexity", "perplexity"),
)
LEAD_MEASURES = (
    ("PRDN (%)", "prdn"),
    ("PRD in mV (%)", "prd"),
    ("SNR (dB)", "snr_db"),
    ("MSE (mV²)", "mse_mv2"),
    ("MSE, standardised", "mse_standardised"),
    ("correlation", "correlation"),
    ("QRS amplitude error (mV)", "qrs_amplitude_mv"),
    ("ST level error (mV)", "st_level_mv"),
)
DIFFERENCES = {
    "prdn_band": "PRDN of the ECG band (%)",
    **{key: title for title, key in LEAD_MEASURES},
    "heart_rate_bpm": "heart rate error (bpm)",
    "r_peak_ms": "R-peak timing error (ms)",
    "beats_kept": "beats kept, of an ECG",
    "qrs_duration_ms": "QRS duration error (ms)",
}
PROBED = (("raw", "raw signal"), ("latents", "latents of the codes"), ("histogram", "histogram of the codes"))


def write_page(path, report, names, millivolts, evaluated):
    """Write the page.

    Parameters
    ----------
    report : dict
        As in quality.json.
    names : list of str
        Of the records.
    millivolts : float array [N, 12, 5000]
    evaluated : list of (figures, figures of each record, reconstructions in mV, codes)
    """
    tokenizers, titles = report["tokenizers"], short_names([f["tokenizer"] for f in report["tokenizers"]])
    parts = [f"<h1>ECG tokenizer quality</h1><p>{report['records']} ECGs of {html.escape(report['manifest'])}"]
    parts.append(f"; {len(report['bad'])} more could not be read.</p>" if report["bad"] else ".</p>")
    for title, figures in zip(titles, tokenizers, strict=True):
        about = f"{figures['tokenizer']}, {figures['parameters']:,} parameters; amplitude: {figures['amplitude']}"
        parts.append(f"<p><b>{html.escape(title)}</b>: {html.escape(about)}</p>")
    parts += [_figures_table(tokenizers, titles), *map(_sources_table, tokenizers, titles)]
    parts.append(_probe_table(tokenizers, titles))
    for other, differences in zip(titles[1:], report["differences"], strict=True):
        parts.append(_differences_table(differences, titles[0], other))
    caption = "Distortion against rate, all 12 leads together."
    parts.append("<h2>Rate and distortion</h2>" + _image(_rate_distortion(tokenizers, titles), caption))
    parts.append("<h2>Lead by lead</h2>" + "".join(map(_leads_table, tokenizers, titles)))
    parts.append("<h2>The best, the median and the worst ECG</h2>")
    if len(evaluated) > 1:
        parts.append(f"<p>Best, median and worst for {html.escape(titles[0])}; the others show the same ECGs.</p>")
    order = np.argsort([record["prdn"] for record in evaluated[0][1]])
    for which, index in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
        for title, (_, records, recons, _) in zip(titles, evaluated, strict=True):
            text = f"{which}: {names[index]}, PRDN {records[index]['prdn']:.1f} %"
            parts.append(_image(_ecg(millivolts[index], recons[index], text), f"{title}, {text}"))
    use = _code_use(tokenizers, titles, [codes for *_, codes in evaluated])
    parts.append("<h2>How often each code is used</h2>" + _image(use, "The codes of the waveform."))
    text = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    text += f"<title>ECG tokenizer quality</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def short_names(paths):
    """What tells these paths apart: their ends behind the folder that all are in."""
    if len(set(paths)) < len(paths) or len(paths) == 1:
        return ["/".join(Path(path).parts[-2:]) for path in paths]
    whole = [os.path.abspath(path) for path in paths]
    return [os.path.relpath(path, os.path.commonpath([os.path.dirname(p) for p in whole])) for path in whole]


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


def _figures_table(tokenizers, titles):
    rows = []
    for title, unit, place in MEASURES:
        values = [_number(_value(figures, place)) for figures in tokenizers]
        rows.append([f"{title} ({unit})" if unit else title, *values])
    return _table("Figures", ["", *titles], rows)


def _probe_table(tokenizers, titles):
    rows, classes = [], next((f["probe"]["classes"] for f in tokenizers if "classes" in f["probe"]), None)
    if classes is None:
        return f"<p>No probe of the superclasses: {html.escape(tokenizers[0]['probe']['skipped'])}.</p>"
    for title, figures in zip(titles, tokenizers, strict=True):
        found = figures["probe"]
        for key, name in PROBED:
            less = found["minus_raw"].get(key)
            of_classes = [_number(found["by_class"][key][c]) for c in classes]
            rows.append([f"{title}: {name}", _number(found[key]), _with_interval(less) if less else "", *of_classes])
    caption = (
        f"Linear probe of the diagnostic superclasses: AUROC, {found['folds']}-fold cross-validation over "
        f"{found['records']} ECGs of {found['patients']} patients"
    )
    return _table(caption, ["", "macro", "minus raw (95 % interval)", *classes], rows)


def _differences_table(differences, first, other):
    rows = [[DIFFERENCES[key], _with_interval(d), d["records"]] for key, d in differences.items()]
    return _table(f"{other} minus {first}, ECG by ECG", ["", "mean (95 % interval)", "ECGs"], rows)


def _with_interval(difference):
    return "{} ({} to {})".format(*(_number(difference[key]) for key in ("mean", "low", "high")))


def _sources_table(figures, title):
    """What is noise and what is loss, source by source."""
    rows = [
        [source, *[_number(values.get(key)) for _, key in SOURCE_MEASURES]]
        for source, values in figures["by_source"].items()
    ]
    return _table(f"{title}, by source", ["source", *[name for name, _ in SOURCE_MEASURES]], rows)


def _leads_table(figures, title):
    rows = [
        [lead, *[_number(values.get(key)) for _, key in LEAD_MEASURES]] for lead, values in figures["leads"].items()
    ]
    return _table(title, ["lead", *[name for name, _ in LEAD_MEASURES]], rows)


def _image(png, text):
    data, text = base64.b64encode(png).decode(), html.escape(text)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


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


def _rate_distortion(tokenizers, titles):
    figure, axes = _figure()
    for number, (figures, title) in enumerate(zip(tokenizers, titles, strict=True)):
        nominal, coded = figures["codes"]["bits_per_second"], figures["codes"]["entropy_bits_per_second"]
        prdn, colour = figures["signal"]["prdn"], f"C{number}"
        axes.plot([coded, nominal], [prdn, prdn], color=colour, lw=1)
        axes.plot(nominal, prdn, "o", color=colour, label=f"{title}: {prdn:.1f} %")
        axes.plot(coded, prdn, "o", color=colour, markerfacecolor="white")
    axes.set(xlabel="bit/s (filled: nominal; open: entropy-coded)", ylabel="PRDN (%), mean over ECGs")
    axes.set_xlim(0, 1.15 * max(figures["codes"]["bits_per_second"] for figures in tokenizers))
    axes.set_ylim(0, 1.15 * max(figures["signal"]["prdn"] for figures in tokenizers))
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _code_use(tokenizers, titles, codes):
    figure, axes = _figure()
    for number, title in enumerate(titles):
        figures = tokenizers[number]["codes"]
        counts = np.sort(np.bincount(codes[number].ravel(), minlength=figures["n_codes"]))[::-1]
        said = f"{figures['codes_used']} of {figures['n_codes']} used, perplexity {figures['perplexity']:.0f}"
        used = counts[: figures["codes_used"] + 1]
        axes.fill_between(np.arange(len(used)), used, step="mid", alpha=0.2, color=f"C{number}", lw=0)
        axes.step(np.arange(len(used)), used, where="mid", color=f"C{number}", lw=1.2, label=f"{title}: {said}")
        axes.axhline(counts.mean(), color=f"C{number}", lw=1, ls="--")
    axes.plot([], [], color="grey", ls="--", lw=1, label="if all were alike")
    axes.set(xlabel="codes, the most frequent first", ylabel="times used", yscale="symlog")
    axes.set_xlim(0, max(figures["codes"]["n_codes"] for figures in tokenizers))
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _ecg(signal, recon, title):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ecg.png"
        plot_ecg(path, signal, RATE, recon, title)
        return path.read_bytes()
