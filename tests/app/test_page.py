"""If these fail, the page shows a user nothing or another's ECG, keeps an upload, or lets a file take it over."""

import asyncio
import base64
import json
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_provider.simulate.patients import draw_ecg, draw_patient, signal
from tests.app.page_maker import CLOCK, SCRIPT, page_server
from tests.wfdb_maker import write_record

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
WAIT = 90_000  # ms, for a machine that has other work

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="needs requirements-optional.txt")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-dev.txt)")


def left_within(seconds, folder):
    """What lies in a folder once nothing has for a moment, or after ``seconds``."""
    until = time.monotonic() + seconds
    while left := [path for path in folder.rglob("*") if path.is_file() or "upload" in path.name]:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return left


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with page_server(folder) as address:
        yield address, folder


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs a browser: chromium or google-chrome")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Open the page as another user each time; afterwards: nothing was asked of other hosts, and nothing was run."""
    address, folder = server
    contexts, elsewhere, faults = [], [], []

    def opened(**named):
        contexts.append(browser.new_context(**named))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda one: one.url.startswith((address, "data:", "blob:")) or elsewhere.append(one.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: "Content Security Policy" in one.text and faults.append(one.text))
        page.goto(address)
        page.wait_for_selector(".drop")
        return page

    yield opened
    taken = [page.evaluate("window.taken") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert not elsewhere and not faults and not any(taken)
    assert not left_within(10, folder / "temporary")  # a reading process that is just ending clears up first


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory):
    """Two simulated ECGs as WFDB files: the paths of each one's files."""
    folder = tmp_path_factory.mktemp("ecgs")
    paths = [write_record(folder / f"ecg{n}", signal(draw_ecg(draw_patient(0, n), 0))[0]) for n in (1, 2)]
    return [[path.with_suffix(".hea"), path.with_suffix(".dat")] for path in paths]


def drop(page, files, which=0):
    page.locator(".drop input").nth(which).set_input_files([str(file) for file in files])


def alert(page):
    return page.locator("#alert .alert").inner_text()


def test_an_ecg_is_seen_asked_about_reported_and_compared(visit, ecgs):
    page = visit()
    drop(page, ecgs[0])
    page.wait_for_selector(".paper img")
    page.wait_for_selector("section.facts:has-text('10 s, 12 leads at 500 Hz')")
    assert re.search(r"heart rate\s+\d+", page.locator("#facts").inner_text())
    first = page.locator(".paper img").get_attribute("src")
    page.get_by_label("12 x 1").check()
    page.wait_for_function("src => document.querySelector('.paper img').src != src", arg=first)
    second = page.locator(".paper img").get_attribute("src")
    page.get_by_label("Draw what its codes keep").check()
    page.wait_for_function("src => document.querySelector('.paper img').src != src", arg=second)
    drawn = base64.b64decode(page.locator(".paper img").get_attribute("src").split(",")[1]).decode()
    assert "from its codes" in drawn
    width = page.locator(".paper img").bounding_box()["width"]
    page.get_by_label("Zoom").last.fill("200")
    page.wait_for_function(
        "w => document.querySelector('.paper img').getBoundingClientRect().width > 1.9 * w", arg=width
    )
    page.get_by_label("Question", exact=True).fill("Does this ECG show atrial fibrillation?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector(".answers dd >> nth=0")
    assert re.search(r"yes|no|uncertain", page.locator(".answers dd").first.inner_text(), re.IGNORECASE)
    page.get_by_role("button", name="Report").click()
    page.wait_for_selector(".answers dt:has-text('Report')")
    page.get_by_role("button", name="Compare with a second ECG").click()
    drop(page, ecgs[1], which=1)
    page.wait_for_selector("#paper .paper >> nth=1")
    page.wait_for_selector("#facts caption:has-text('compared')")
    page.get_by_label("both").check()
    page.get_by_role("button", name="Report").click()
    page.wait_for_selector("#alert .alert:has-text('say which')")
    notice = page.get_by_text("For research. Not a medical device.")
    page.mouse.wheel(0, 10_000)
    assert notice.bounding_box()["y"] >= 0 and notice.is_visible()


def test_what_is_no_ecg_gets_a_line_and_the_page_goes_on(visit, server, ecgs, tmp_path):
    page = visit()
    (tmp_path / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "code.csv").write_text("import os\n")
    np.save(tmp_path / "bare.npy", np.zeros((12, 5000)))
    (tmp_path / "program.py").write_text("import os\n")
    with open(tmp_path / "large.dcm", "wb") as file:
        file.truncate(200_000_000)
    bomb = zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with bomb, bomb.open("ecg.npy", "w", force_zip64=True) as part:
        head = {"descr": "<f8", "fortran_order": False, "shape": (12, 2**24)}
        np.lib.format.write_array_header_1_0(part, head)
        for _ in range(12 * 2**24 * 8 // 2**24):  # 1.6 GB
            part.write(bytes(2**24))
    assert (tmp_path / "bomb.npz").stat().st_size < 50_000_000
    for name, said in (
        ("noise.dcm", "noise.dcm: "),
        ("code.csv", "code.csv: "),
        ("bare.npy", "under “What the file does not say”"),
        ("bomb.npz", "unpacks to"),
    ):
        drop(page, [tmp_path / name])
        page.wait_for_selector(f"#alert .alert:has-text('{said}')")
    for name, said in (("program.py", "not a kind of file"), ("large.dcm", "larger than the 50 MB")):
        drop(page, [tmp_path / name])
        page.wait_for_selector(f".said:has-text('{said}')")
    drop(page, ecgs[0])
    page.wait_for_selector(".paper img")
    assert not page.locator("#alert .alert").count()


def test_a_large_body_is_refused_by_the_server_too(server):
    def chunks():
        for _ in range(200):
            yield bytes(1_000_000)

    for data in (chunks(), b"".join(chunks())):  # of unknown length, and of a declared one
        request = urllib.request.Request(f"{server[0]}ecg-upload?name=large.dcm", data=data, method="POST")
        try:
            urllib.request.urlopen(request, timeout=60)
            pytest.fail("was taken")
        except urllib.error.HTTPError as error:
            assert error.code == 413 and "50 MB" in json.load(error)["error"]
        except urllib.error.URLError as error:  # refused while it was still being sent
            assert isinstance(error.reason, (BrokenPipeError, ConnectionResetError))
    for path, headers in (("gradio_api/upload", {}), ("ecg-upload?name=a.dcm", {"Origin": "http://other.example"})):
        request = urllib.request.Request(server[0] + path, data=b"x", method="POST", headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=60)
    request = urllib.request.Request(server[0], headers={"Host": "other.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=60)


def test_a_script_in_a_files_words_is_only_shown(visit, tmp_path):
    page = visit()
    leads = [f"I {SCRIPT}", *("II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")]
    values = signal(draw_ecg(draw_patient(0, 3), 0))[0].T / 1000
    for name, names in ((f"ecg {SCRIPT.replace('/', '')}.csv", leads[1:]), ("lead.csv", leads)):
        rows = [",".join(names), *(",".join(map(str, row[-len(names) :])) for row in values)]
        (tmp_path / name).write_text("\n".join(rows))
    page.get_by_role("button", name="What the file does not say").click()
    page.get_by_label("Sampling rate").fill("500")
    page.get_by_label("mV", exact=True).check()
    drop(page, [tmp_path / "lead.csv"])
    page.wait_for_selector("#alert .alert, .paper img")
    drop(page, [tmp_path / f"ecg {SCRIPT.replace('/', '')}.csv"])
    page.wait_for_selector("section.facts h3:has-text('<script>')")  # of this file, not of the one before
    page.get_by_label("Question", exact=True).fill(SCRIPT)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector(".answers dt:has-text('<script>')")
    page.get_by_role("button", name="Report").click()
    page.wait_for_selector(".answers dd:has-text('<script>')")


def test_two_users_see_their_own_while_a_parser_hangs(visit, ecgs, tmp_path):
    users = [visit(), visit()]
    third = visit()
    hanging = tmp_path / "hangs.dcm"
    hanging.write_bytes(b"x" * 500)
    drop(third, [hanging])
    for page, files in zip(users, ecgs, strict=True):
        drop(page, files)
    for page, files in zip(users, ecgs, strict=True):
        page.wait_for_selector(f"section.facts:has-text('{files[0].name}')")
    texts = [page.locator("#facts").inner_text() for page in users]
    assert "ecg1" in texts[0] and "ecg2" not in texts[0] and "ecg1" not in texts[1]
    third.wait_for_selector(f"#alert .alert:has-text('longer than {CLOCK} s and was ended')")
    drop(third, ecgs[0])
    third.wait_for_selector(".paper img")


def test_every_control_has_a_name_and_a_phone_scrolls_one_way_only(visit, ecgs):
    page = visit(viewport={"width": 375, "height": 800})
    drop(page, ecgs[0])
    page.wait_for_selector(".paper img")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, button, textarea, select, [role=region], img')].filter(one =>
        one.offsetParent && !(one.labels?.length || one.getAttribute('aria-label') || one.innerText?.trim() ||
        one.getAttribute('aria-labelledby') || one.title || one.alt)).map(one => one.outerHTML.slice(0, 200))"""
    )
    assert not nameless
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator(".drop input").first.focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''"))
    assert any("12 leads on ECG paper" in text for text in reached) and "Ask" in reached and "Report" in reached


def test_an_agent_lists_the_tools_and_asks(server, ecgs):
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    files = {file.name: base64.b64encode(file.read_bytes()).decode() for file in ecgs[0]}

    async def talk():
        address = server[0] + "gradio_api/mcp/"
        async with streamable_http_client(address) as (read, write, _), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert set(tools) == {"read_ecg", "ask_ecg", "report_ecg", "compare_ecgs"}
            assert all("research" in tool.description.lower() for tool in tools.values())
            question = "Does this ECG show atrial fibrillation?"
            answered = await session.call_tool("ask_ecg", {"files": files, "questions": [question]})
            refused = await session.call_tool("read_ecg", {"files": {"a.dcm": base64.b64encode(b"x").decode()}})
            return answered, refused

    with ThreadPoolExecutor(1) as other:  # playwright's loop runs in this one
        answered, refused = other.submit(asyncio.run, talk()).result()
    assert not answered.isError
    answer = json.loads(answered.content[0].text)
    assert answer["answers"][0]["question"].startswith("Does this ECG")
    assert refused.isError and "a.dcm" in refused.content[0].text
