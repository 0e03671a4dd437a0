"""The page's words as HTML; whatever comes from a file, a question or a model is escaped."""

import base64
from html import escape

from app.ask import DISCLAIMER

EMPTY = '<p class="empty">No ECG yet: choose one, or drop its file.</p>'
STYLE = """
.gradio-container {max-width: 1500px !important}
.notice {position: fixed; top: 0; left: 0; right: 0; z-index: 1000; padding: 6px 14px; text-align: center;
  background: #8a1c1c; color: #fff; font-weight: 600}
#title {margin-top: 26px}
#alert:not(:has(.alert)) {display: none}
.alert {background: #b3261e; color: #fff; padding: 8px 12px; border-radius: 6px; overflow-wrap: anywhere}
.paper {overflow: auto; max-height: 78vh; background: #fffafa;
  border: 1px solid var(--border-color-primary); border-radius: 6px}
.paper:focus-visible {outline: 3px solid var(--color-accent)}
.paper img {display: block; width: 100%; max-width: none; height: auto}
.paper + .paper {margin-top: 10px}
section.facts h3, .answers dt {margin: 10px 0 4px; font-weight: 600; overflow-wrap: anywhere}
section.facts li, .answers li {overflow-wrap: anywhere; color: var(--body-text-color)}
section.facts ul, .answers ul {padding-left: 1.2em; list-style: disc}
table.facts {width: 100%; border: 0 !important; border-collapse: collapse; margin-top: 10px;
  font-variant-numeric: tabular-nums}
table.facts tr, table.facts thead, table.facts tbody {border: 0 !important}
table.facts caption {text-align: left; font-weight: 600; padding: 4px 0}
table.facts th, table.facts td {text-align: left; padding: 4px 12px 4px 0 !important; overflow-wrap: anywhere;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important}
table.facts th {font-weight: 500}
table.facts th[scope=row] {overflow-wrap: normal !important; word-break: normal !important}
.answers dd {margin: 0 0 8px; overflow-wrap: anywhere}
.answers dd b {font-size: 1.1em}
.answers ul {font-size: .92em}
@media (max-width: 640px) {.paper img {min-width: 680px} .paper {max-height: 60vh}}
"""


def notice():
    return f'<div class="notice" role="note">{DISCLAIMER}</div>'


def alert(text):
    """A line that screen readers say at once; "" clears it."""
    return f'<p class="alert" role="alert">{escape(str(text))}</p>' if text else ""


def picture(svg, description):
    """An SVG picture as an image of its own: no style or script in it can reach the page."""
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(description)}">'
    return f'<div class="paper" tabindex="0" role="region" aria-label="{escape(description)}">{image}</div>'


def read_section(title, lines):
    """What was read of a file: a heading and a list."""
    items = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
    return f'<section class="facts"><h3>{escape(title)}</h3><ul>{items}</ul></section>'


def table(caption, head, rows):
    """A table whose first column names the rows."""
    columns = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>{"".join(f"<td>{escape(str(cell))}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    caption = f"<caption>{escape(caption)}</caption>"
    return f'<table class="facts">{caption}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'


def answers(items):
    """Questions with their answers: a list of (question, answer, lines beneath it)."""
    parts = []
    for question, answer, lines in items:
        small = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
        parts.append(f"<dt>{escape(question)}</dt><dd><b>{escape(answer)}</b><ul>{small}</ul></dd>")
    return f'<dl class="answers">{"".join(parts)}</dl>'
