"""The page: drop an ECG, see it on paper, ask about it. ``bash ask.sh --page``, or ``python -m app.page``."""

import argparse
import functools
import os

from app import page_html
from app.drop_zone import STYLE, drop_zone
from app.page_guard import Guard
from app.uploads import Limits, Waiting
from utils.plots import LAYOUTS
from utils.tools import UserError, entry_point

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
ZOOM = "(percent) => document.querySelectorAll('.paper img').forEach(image => image.style.width = percent + '%')"


def build_parser():
    parser = argparse.ArgumentParser(prog="bash ask.sh --page", description="A page to ask about ECGs.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860)
    return parser


def serve(desk, host="127.0.0.1", port=7860, limits=None):
    """Show the page until it is stopped.

    Parameters
    ----------
    desk : app.desk.Desk
        Reads ECGs and answers.
    host, port : str, int
        Where to listen. Other addresses than the loopback ones let others on the network in: nothing asks who they are.
    limits : app.uploads.Limits, optional
    """
    # Before Gradio is imported: it reads them then. Nothing is reported to anyone, no model hub is asked.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_SSR_MODE": "False"}
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the page needs Gradio: pip install -r requirements-optional.txt -c constraints.txt") from error
    from starlette.middleware import Middleware

    waiting = Waiting(limits or Limits())
    hosts = LOOPBACK if host in LOOPBACK else ()
    page = layout(gr, desk, waiting)
    page.queue(default_concurrency_limit=4, max_size=64)
    mono = ("ui-monospace", "Consolas", "monospace")
    page.launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Soft(font=FONTS, font_mono=mono, primary_hue="blue"),
        css=page_html.STYLE + STYLE,
        app_kwargs={"middleware": [Middleware(Guard, waiting=waiting, hosts=hosts)]},
        mcp_server=True,
        footer_links=[],
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=1,  # Gradio's own uploads lie on disk; `Guard` refuses them before this does
    )


def layout(gr, desk, waiting):
    """Components and events."""
    with gr.Blocks(title="Ask about an ECG", analytics_enabled=False) as page:
        gr.HTML(page_html.notice(), elem_id="notice")
        gr.Markdown("# Ask about an ECG")
        first, second, said = (gr.State(None, time_to_live=3600) for _ in range(3))
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                drop_first = drop_zone(gr, "ECG", waiting.limits)
                with gr.Accordion("What the file does not say", open=False):
                    rate = gr.Number(label="Sampling rate (Hz)", info="of tables and arrays", precision=3)
                    units = gr.Dropdown(["", "mV", "uV", "V"], label="Unit", value="")
                    leads = gr.Textbox(label="Leads in the file's order", placeholder="I, II, V1, ...")
                with gr.Accordion("Compare with a second ECG", open=False):
                    drop_second = drop_zone(gr, "Second ECG", waiting.limits)
                alert = gr.HTML(elem_id="alert")
                facts = gr.HTML(elem_id="facts")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    names = [("3 x 4 and lead II", "3x4"), ("6 x 2", "6x2"), ("12 x 1", "12x1")]
                    arrangement = gr.Radio(names, value="3x4", label="Leads")
                    zoom = gr.Slider(100, 400, value=100, step=25, label="Zoom (%)")
                with gr.Row():
                    codes = gr.Checkbox(label="Draw what its codes keep of it on top")
                    window = gr.Slider(1, 2, value=1, step=1, label="Ten seconds, number", visible=False)
                paper = gr.HTML(elem_id="paper")
                question = gr.Textbox(label="Question", lines=1, max_lines=3, max_length=500)
                standard = gr.Dropdown(desk.standard_questions, label="A question the reader knows", value=None)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary")
                    report = gr.Button("Report")
                answers = gr.HTML(elem_id="answers")

        def private(event, function, inputs, outputs, **named):
            return event(guarded(gr, function, outputs), inputs, [*outputs, alert], api_visibility="private", **named)

        def read(event: gr.EventData, rate, units, leads):
            how = given(rate, units, leads)
            shown = desk.read(waiting.take(event.ids), how)
            many = len(shown.windows)
            slider = gr.Slider(1, max(2, many), value=1, visible=many > 1)
            return shown, None, "", slider

        drawing = [first, second, arrangement, window, codes], [paper]
        for drop, state in ((drop_first, first), (drop_second, second)):
            done = private(drop.upload, read, [rate, units, leads], [state, said, answers, window], concurrency_limit=None)
            done = private(done.success, functools.partial(draw, desk), *drawing)
            private(done.then, functools.partial(tell, desk), [first, second], [facts])
        for control in (arrangement, window, codes):
            private(control.change, functools.partial(draw, desk), *drawing)
        zoom.change(None, zoom, None, js=ZOOM)
        paper.change(None, zoom, None, js=ZOOM)
        standard.input(lambda text: text, standard, question, api_visibility="private")
    return page


def guarded(gr, function, outputs):
    """``function`` with one output more, the alert: empty, or what a `UserError` says while the others stay."""

    @functools.wraps(function)
    def wrapped(*values):
        try:
            found = function(*values)
        except UserError as error:
            return (*(gr.skip() for _ in outputs), page_html.alert(error))
        return (*(found if isinstance(found, tuple) else (found,)), "")

    return wrapped


def given(rate, units, leads):
    """What the user says of a file, for `data_provider.read.read_record`."""
    names = [name.strip() for name in (leads or "").split(",") if name.strip()]
    return {"sample_rate": rate or None, "units": units or None, "leads": names or None}


def draw(desk, first, second, arrangement, window, codes):
    """The ECGs on paper, as HTML."""
    parts = []
    for shown in filter(None, (first, second)):
        number = min(int(window), len(shown.windows)) - 1
        svg = desk.draw(shown, number, arrangement, codes)
        parts.append(page_html.picture(svg, f"{shown.name}: 12 leads on ECG paper"))
    return "".join(parts)


def tell(desk, first, second):
    """What was read of the ECGs, and what was measured, as HTML."""
    return "".join(page_html.read_section(shown.name, desk.read_lines(shown)) for shown in (first, second) if shown)
