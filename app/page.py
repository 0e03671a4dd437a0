"""The page: drop an ECG, see it on paper, ask about it. ``bash ask.sh --page``."""

import functools
import os
import signal
import sys
import tempfile
from functools import partial
from types import SimpleNamespace

from app import page_html
from app.desk import Desk, told
from app.drop_zone import STYLE, drop_zone
from app.page_guard import Guard
from app.page_tools import agent_tools, given
from app.uploads import Limits, Waiting
from utils.tools import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
SESSION_S = 3600  # an ECG whose page is left alone for so long is forgotten
UNSAID = "What the file does not say"
UNSAID_HINT = f"; on this page: under “{UNSAID}”, then choose the file again"
ABOUT = ("the ECG", "the second ECG", "both")
EXAMPLE = "Does this ECG show atrial fibrillation?"
ZOOM = "(percent) => document.querySelectorAll('.paper img').forEach(image => image.style.width = percent + '%')"


def serve(reader, host="127.0.0.1", port=7860, limits=None):
    """Show the page until it is stopped.

    Parameters
    ----------
    reader : app.ask.Reader
    host, port : str, int
        Where to listen. Other addresses than the loopback ones let others on the network in: nothing asks who they are.
    limits : app.uploads.Limits, optional
    """
    limits = limits or Limits()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaves by the way that clears up
    with tempfile.TemporaryDirectory(prefix="heartllm-page-", ignore_cleanup_errors=True) as folder:
        # Before Gradio is imported: it reads them then. Nothing is reported to anyone, no model hub is asked.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": folder}
        try:
            import gradio as gr
            import mcp  # noqa: F401  Gradio goes on without it, and without the tools
        except ImportError as error:
            raise UserError(f"the page needs {error.name}: pip install -r requirements-page.txt") from error
        waiting = Waiting(limits)
        page = layout(gr, Desk(reader, limits, folder), waiting)
        page.queue(default_concurrency_limit=4, max_size=64)
        print(f"page      http://{host}:{port}/ (Ctrl+C ends it)", flush=True)
        try:
            page.launch(server_name=host, server_port=port, **_launch_options(gr, waiting, host))
        except OSError as error:
            if "empty port" not in str(error):
                raise
            raise UserError(f"port {port} of {host} is taken; --port names another") from error


def _launch_options(gr, waiting, host):
    """Gradio's: loopback names only where only they are listened to, fonts of the system, nothing shared or stored."""
    from starlette.middleware import Middleware

    hosts = LOOPBACK if host in LOOPBACK else ()
    return {
        "app_kwargs": {"middleware": [Middleware(Guard, waiting=waiting, hosts=hosts)]},
        "mcp_server": True,
        "theme": gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"), primary_hue="blue"),
        "css": page_html.STYLE + STYLE,
        "footer_links": [],
        "max_file_size": 1,  # Gradio's own uploads lie on disk; `Guard` refuses them before this does
        "share": False,
        "ssr_mode": False,
        "quiet": True,
    }


def layout(gr, desk, waiting):
    """The page: its components, what each event does, and the tools for agents."""
    with gr.Blocks(title="Ask about an ECG", analytics_enabled=False) as page:
        gr.HTML(page_html.notice())
        gr.Markdown("# Ask about an ECG", elem_id="title")
        first, second, said = (gr.State(None, time_to_live=SESSION_S) for _ in range(3))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                asking = asking_column(gr, desk, waiting.limits)
            with gr.Column(scale=5, min_width=300):
                seeing = seeing_column(gr)
        connect(gr, desk, waiting, SimpleNamespace(first=first, second=second, said=said, **asking, **seeing))
        for tool in agent_tools(gr, desk):
            gr.api(tool, api_name=tool.__name__)
    return page


def asking_column(gr, desk, limits):
    """Where ECGs are dropped and asked about: name -> component."""
    drop_first = drop_zone(gr, "ECG", limits)
    with gr.Accordion(UNSAID, open=False):
        rate = gr.Number(None, label="Sampling rate (Hz)", info="Of tables and arrays.")
        units = gr.Radio(["mV", "uV", "V"], label="Unit")
        leads = gr.Textbox(label="Leads in the file's order", placeholder="I, II, V1, ...")
    with gr.Accordion("Compare with a second ECG", open=False):
        drop_second = drop_zone(gr, "Second ECG", limits)
    alert = gr.HTML(elem_id="alert")
    about = gr.Radio(ABOUT, value=ABOUT[0], label="About", visible=False)
    question = gr.Textbox(label="Question", lines=1, max_lines=3, max_length=500, placeholder=EXAMPLE)
    standard = gr.Dropdown(desk.questions, label="Questions that the reader knows", value=None)
    with gr.Row():
        ask = gr.Button("Ask", variant="primary", min_width=100)
        report = gr.Button("Report", min_width=100, visible=desk.reports)
    answers = gr.HTML(elem_id="answers")
    unsaid = {"rate": rate, "units": units, "leads": leads}
    asked = {"about": about, "question": question, "standard": standard, "ask": ask, "report": report}
    return {"drop_first": drop_first, "drop_second": drop_second, "alert": alert, "answers": answers} | unsaid | asked


def seeing_column(gr):
    """The ECG on paper and how it is drawn, and what is known of it: name -> component."""
    with gr.Row():
        names = [("3 x 4 and lead II", "3x4"), ("6 x 2", "6x2"), ("12 x 1", "12x1")]
        arrangement = gr.Radio(names, value="3x4", label="Leads")
        zoom = gr.Slider(100, 400, value=100, step=25, label="Zoom (%)", buttons=[])
        window = gr.Slider(1, 2, value=1, step=1, label="Ten seconds, number", visible=False, buttons=[])
    codes = gr.Checkbox(label="Draw what its codes keep of it on top")
    paper = gr.HTML(page_html.EMPTY, elem_id="paper")
    facts = gr.HTML(elem_id="facts")
    drawn = {"arrangement": arrangement, "zoom": zoom, "window": window, "codes": codes}
    return drawn | {"paper": paper, "facts": facts}


def connect(gr, desk, waiting, page):
    """What each event does; ``page`` has the components."""
    ecgs = [page.first, page.second]

    def on(event, function, inputs, outputs, **named):
        private = {"api_visibility": "private"} | named
        return event(guarded(gr, function, outputs), inputs, [*outputs, page.alert], **private)

    def then(event, function, inputs, outputs):  # what an event leads to leaves the alert that it may have set
        later = guarded(gr, function, outputs, gr.skip())
        return event.success(later, inputs, [*outputs, page.alert], api_visibility="private")

    def read(rate, units, leads, event: gr.EventData):
        try:
            return desk.read(waiting.take(event.ids), given(rate, units, leads)), None, ""
        except UserError as error:
            asks = any(option in str(error) for option in ("--sample-rate", "--units", "--leads"))
            raise UserError(f"{error}{UNSAID_HINT if asks else ''}") from error

    def controls(*ecgs):
        most = max((len(ecg.windows) for ecg in ecgs if ecg), default=1)
        return gr.Slider(1, max(2, most), visible=most > 1), gr.Radio(visible=all(ecgs))

    def show(event):
        drawn = then(event, partial(draw, desk), [*ecgs, page.arrangement, page.codes], [page.paper])
        then(drawn, partial(tell, desk), ecgs, [page.facts])

    unsaid, told_so_far = [page.rate, page.units, page.leads], [page.said, page.answers]
    for drop, state in ((page.drop_first, page.first), (page.drop_second, page.second)):
        # Any number may begin at a time: `read_bounded` says how many are read. What was said of the earlier ECG goes
        # in the same event: a later one could wipe what was already asked of the new one.
        done = on(drop.upload, read, unsaid, [state, *told_so_far], concurrency_limit=None)
        show(done)
        then(done, controls, ecgs, [page.window, page.about])
    for control in (page.arrangement, page.codes):
        on(control.change, partial(draw, desk), [*ecgs, page.arrangement, page.codes], [page.paper])
    show(on(page.window.release, partial(move, desk), [*ecgs, page.window], [*ecgs, *told_so_far]))
    for asked in (page.ask.click, page.question.submit):
        on(asked, partial(ask_one, desk), [*ecgs, page.about, page.question, page.said], told_so_far)
    on(page.report.click, partial(report_on, desk), [*ecgs, page.about, page.said], told_so_far)
    on(page.standard.input, str, [page.standard], [page.question])
    for component in (page.zoom, page.paper):
        component.change(None, page.zoom, None, js=ZOOM)


def guarded(gr, function, outputs, otherwise=""):
    """``function`` and, as the last output, the alert: a `UserError`'s text, the others staying, else ``otherwise``."""

    @functools.wraps(function)
    def wrapped(*values):
        try:
            found = function(*values)
        except UserError as error:
            return (*(gr.skip() for _ in outputs), page_html.alert(error))
        return (*(found if isinstance(found, tuple) else (found,)), otherwise)

    return wrapped


def draw(desk, first, second, arrangement, codes):
    """The ECGs on paper, as HTML."""
    parts = []
    for ecg in filter(None, (first, second)):
        words = f"{ecg.name}: 12 leads on ECG paper{', what its codes keep of it on top' if codes else ''}"
        parts.append(page_html.picture(desk.draw(ecg, arrangement, codes), words))
    return "".join(parts) or page_html.EMPTY


def tell(desk, first, second):
    """What was read of the ECGs, and what was measured, as HTML."""
    ecgs = [ecg for ecg in (first, second) if ecg]
    if not ecgs:
        return ""
    measured = [desk.measured(ecg) for ecg in ecgs]
    rows = [(name, *(one[name] for one in measured)) for name in measured[0]]
    title, names = "Measured", ["value"]
    if len(ecgs) == 2:
        title, names = "Measured, compared", [f"{number}. {ecg.name}" for number, ecg in enumerate(ecgs, 1)]
    sections = [page_html.read_section(ecg.name, ecg.notes) for ecg in ecgs]
    return page_html.table(title, ["", *names], rows) + "".join(sections)


def move(desk, first, second, window):
    """Both ECGs at another ten seconds, a shorter one at its last; what was said of the earlier ones goes."""
    moved = [ecg and desk.move(ecg.record, min(int(window), len(ecg.windows)) - 1) for ecg in (first, second)]
    return *moved, None, ""


def ask_one(desk, first, second, about, question, said):
    """The answers so far with one more, newest first: as a list and as HTML."""
    if not question or not question.strip():
        raise UserError("write a question, or choose one")
    ecgs = chosen(first, second, about)
    new = [(one.question, *told(one)) for one in desk.ask(ecgs, [question.strip()])]
    return _with(new, ecgs, said)


def report_on(desk, first, second, about, said):
    """The answers so far with a report, newest first: as a list and as HTML."""
    ecgs = chosen(first, second, about)
    if len(ecgs) > 1:
        raise UserError("a report is on one ECG: say which")
    return _with([("Report", *desk.report(*ecgs))], ecgs, said)


def _with(new, ecgs, said):
    names = " and ".join(ecg.name for ecg in ecgs)
    said = [(f"{question} ({names})", *rest) for question, *rest in new] + (said or [])
    return said, page_html.answers(said)


def chosen(first, second, about):
    """The ECGs that a question is about."""
    ecgs = {ABOUT[0]: [first], ABOUT[1]: [second], ABOUT[2]: [first, second]}[about if second else ABOUT[0]]
    if None in ecgs:
        raise UserError("choose an ECG first")
    return ecgs
