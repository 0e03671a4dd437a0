"""The page's server for tests, in a process of its own, with a parser that hangs for files of one name.

``python -m tests.app.page_maker PORT`` starts it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from utils.tools import REPOSITORY

HANGING = """
import runpy, sys, time
sys.argv = ["read_upload", *sys.argv[1:]]
if "hangs" in sys.argv[2]:
    time.sleep(1000)
runpy.run_module("app.read_upload", run_name="__main__")
"""
SCRIPT = "<img src=x onerror=window.taken=1><script>window.taken=1</script>"
CLOCK = 12  # seconds that reading may take: enough on a busy machine


@contextlib.contextmanager
def page_server(folder):
    """The page's address; its temporary files, Gradio's too, go below ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.app.page_maker", str(port)]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "server.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


def main(port):
    """The page with a reader that was never trained, and that writes a script into its reports."""
    from app import desk, uploads

    write_report = desk.write_report
    desk.write_report = lambda *of: write_report(*of) + SCRIPT
    uploads.READER = (sys.executable, "-P", "-c", HANGING)
    from app.__main__ import open_reader
    from app.page import serve
    from tests.app.reader_maker import make_reader

    with tempfile.TemporaryDirectory() as folder:
        words, _ = make_reader(Path(folder), tasks=["qa", "report"])
        reader, _ = open_reader(words)
    serve(reader, port=int(port), limits=uploads.Limits(clock=CLOCK))


if __name__ == "__main__":
    main(sys.argv[1])
