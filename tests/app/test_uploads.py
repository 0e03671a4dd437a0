"""If these fail, an uploaded file can stop the page, fill the machine, or stay on it."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app import uploads
from app.uploads import Limits, Waiting, read_bounded, safe_name
from data_provider.read import read_record
from tests.wfdb_maker import ecg, write_record
from utils.tools import UserError

GREEDY = """
import json, sys, time
from pathlib import Path
from app.read_upload import bound
folder, request = sys.argv[1:]
bound(json.loads(request)["limits"])
"""
KINDS = {
    "memory": GREEDY + "bytearray(2 * json.loads(request)['limits']['memory'])",
    "processor": GREEDY + "while True: pass",
    "disk": GREEDY + "Path(folder, 'large').write_bytes(bytes(2 * json.loads(request)['limits']['file_bytes']))",
    "waiting": "import time; time.sleep(1000)",
    "waiting without the page": GREEDY + "time.sleep(1000)",
}


@pytest.fixture
def files(tmp_path):
    path = write_record(tmp_path / "one", ecg())
    return {path.name: path.read_bytes() for path in (path.with_suffix(".hea"), path.with_suffix(".dat"))}


def test_an_upload_is_read_as_the_file_is_and_leaves_nothing(files, tmp_path):
    (tmp_path / "below").mkdir()
    record = read_bounded(files, Limits(), below=tmp_path / "below")
    expected = read_record(tmp_path / "one")
    np.testing.assert_array_equal(record.signal, expected.signal)
    assert (record.sample_rate, record.notes, record.path) == (500, expected.notes, "one.hea")
    assert not list((tmp_path / "below").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_takes_too_much_is_ended(files, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(uploads, "READER", (sys.executable, "-P", "-c", KINDS[kind]))
    limits = Limits(seconds=1, clock=4, memory=1_000_000_000, file_bytes=1_000_000)
    if kind == "waiting without the page":
        monkeypatch.setattr(
            uploads.subprocess.Popen, "wait", lambda *_, wait=uploads.subprocess.Popen.wait: wait(_[0], 60)
        )
    with pytest.raises(UserError, match="was ended|broke off"):
        read_bounded(files, limits, below=tmp_path)
    assert not list(tmp_path.glob("heartllm-upload-*"))


def test_what_a_reader_started_is_ended_with_it(files, tmp_path, monkeypatch):
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '1000']).pid, file=open(PID, 'w')); sys.exit(3)"
    monkeypatch.setattr(uploads, "READER", (sys.executable, "-c", script.replace("PID", repr(str(tmp_path / "pid")))))
    with pytest.raises(UserError, match="broke off"):
        read_bounded(files, Limits(), below=tmp_path)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.1)
    os.kill(pid, 9)
    pytest.fail("it goes on")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no file"),
        ({"a.py": b"x"}, "not a kind of file"),
        ({f"{n}.dat": b"x" for n in range(5)}, "at most 4"),
        ({"a.dat": b"x", "b.dat": b"x"}, "choose one"),
        ({"a.csv": b"x" * 2000}, "larger than"),
        ({"a.csv": b"hello\n"}, "a.csv: "),
    ],
)
def test_what_is_no_ecg_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        read_bounded(given, dataclasses.replace(Limits(), upload=1000))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.csv", "a\\b.csv", "/x.csv", "-rf.csv", ".csv", "x" * 300 + ".csv", "a\0.csv"]
)
def test_a_name_stays_a_name(name):
    assert "/" not in safe_name(name) and "\0" not in safe_name(name) and 0 < len(safe_name(name)) <= 100
    assert safe_name(name)[0] not in ".-"


def test_uploads_wait_in_bounds_and_only_once(monkeypatch):
    waiting = Waiting(Limits(waiting=100))
    number = waiting.put("a.csv", b"x" * 60)
    with pytest.raises(UserError, match="too many"):
        waiting.put("b.csv", b"x" * 60)
    assert waiting.take([number]) == {"a.csv": b"x" * 60}
    with pytest.raises(UserError, match="no longer here"):
        waiting.take([number])
    waiting.put("a.csv", b"x" * 60)
    now = time.monotonic()
    monkeypatch.setattr(uploads.time, "monotonic", lambda: now + waiting.KEPT_S + 1)
    waiting.put("b.csv", b"x" * 60)
