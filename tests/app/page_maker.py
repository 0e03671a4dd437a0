"""The page's server for tests, in a process of its own, with a parser that hangs for files of one name.

``python -m tests.app.page_maker PORT`` starts it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

from utils.tools import REPOSITORY

HANGING = """
import runpy, sys, time
sys.argv = ["read_upload", *sys.argv[1:]]
if "hangs" in sys.argv[2]:
    time.sleep(1000)
runpy.run_module("app.read_upload", run_name="__main__")
"""
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
    from app import uploads

    uploads.READER = (sys.executable, "-P", "-c", HANGING)
    from app.ask import load_reader
    from app.page import serve

    serve(load_reader(), port=int(port), limits=uploads.Limits(clock=CLOCK))


if __name__ == "__main__":
    main(sys.argv[1])
