"""Files from outside: bounded in size, number and kind, in memory until read, read in a process that can be ended.

Nothing of them is left on disk: the reading process gets a folder of its own, which goes with it.
"""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from data_provider.read import Record
from utils.tools import REPOSITORY, UserError

KINDS = (".hea", ".dat", ".mat", ".csv", ".tsv", ".txt", ".npy", ".npz", ".dcm", ".xml")
KINDS += (".scp", ".ecg", ".edf", ".bdf", ".xyz")
READER = (sys.executable, "-P", "-m", "app.read_upload")  # the process; it is given the folder and a request
TOGETHER = threading.BoundedSemaphore(2)  # processes that read at a time; further uploads wait


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an upload may cost.

    Attributes
    ----------
    upload : int
        Bytes of all files of an ECG.
    files : int
        Files of an ECG (WFDB has several).
    waiting : int
        Bytes of uploads that wait in memory for being read, of all users.
    seconds, clock : int
        Seconds of the processor, and by the clock, that reading may take.
    memory, file_bytes : int
        Bytes of address space of the reading process, and of any file that it writes.
    samples : int
        Samples a lead.
    """

    upload: int = 50_000_000
    files: int = 4
    waiting: int = 500_000_000
    seconds: int = 20
    clock: int = 30
    memory: int = 3_000_000_000
    file_bytes: int = 256_000_000
    samples: int = 5_000_000


class Waiting:
    """Uploads between their arrival and their reading: in memory, each under a number that only its sender knows."""

    KEPT_S = 120

    def __init__(self, limits):
        self.limits = limits
        self._files = {}  # number -> (time, name, bytes)
        self._lock = threading.Lock()

    def put(self, name, content):
        """Keep a file until `take`, or `KEPT_S` at most; its number. A `UserError` where there is no room."""
        check_kind(name)
        with self._lock:
            self._forget_old()
            if sum(len(one[2]) for one in self._files.values()) + len(content) > self.limits.waiting:
                raise UserError("too many uploads at a time; try again in a minute")
            number = secrets.token_urlsafe(16)
            self._files[number] = (time.monotonic(), name, content)
        return number

    def take(self, numbers):
        """Name -> bytes of uploads, which are forgotten here."""
        with self._lock:
            self._forget_old()
            found = [self._files.pop(number, None) for number in numbers]
        if None in found:
            raise UserError("the upload is no longer here; choose the file again")
        return {name: content for _, name, content in found}

    def _forget_old(self):
        old = time.monotonic() - self.KEPT_S
        self._files = {number: one for number, one in self._files.items() if one[0] > old}


def check_kind(name):
    """A `UserError` where the name's ending is no ECG format's."""
    if Path(name).suffix.lower() not in KINDS:
        raise UserError(f"{name}: not a kind of file that is read here ({' '.join(KINDS)})")


def read_bounded(files, limits, how=None, below=None):
    """An ECG from the bytes of its files, read in a process of its own.

    Parameters
    ----------
    files : dict
        Name -> bytes. Several where one is a WFDB header and the others its signals.
    limits : Limits
    how : dict, optional
        ``lead_order``, ``sample_rate``, ``units``, ``leads`` for `data_provider.read.read_record`.
    below : path, optional
        Where the reading process gets its folder; by default where the system has its temporary ones.

    Returns
    -------
    Record
        Its path is the file's name.

    Raises
    ------
    UserError
        What is wrong with the files, or which limit ended the reading.
    """
    main = _main_file(files, limits)
    with TOGETHER, tempfile.TemporaryDirectory(prefix="heartllm-upload-", dir=below) as folder:
        for name, content in files.items():
            (Path(folder) / safe_name(name)).write_bytes(content)
        request = {"file": safe_name(main), "limits": dataclasses.asdict(limits), "how": how or {}}
        ended = _run([*READER, folder, json.dumps(request)], folder, limits.clock)
        if ended:
            raise UserError(f"{main}: {ended}")
        return _answer(Path(folder), main)


def _main_file(files, limits):
    """Which of the files is the ECG's; a `UserError` where there are too many, too large or none."""
    if not files:
        raise UserError("no file was chosen")
    if len(files) > limits.files:
        raise UserError(f"{len(files)} files; an ECG has at most {limits.files}")
    for name in files:
        check_kind(name)
    if sum(map(len, files.values())) > limits.upload:
        raise UserError(f"larger than the {limits.upload // 1_000_000} MB that this page takes")
    headers = [name for name in files if name.lower().endswith(".hea")]
    if len(files) == 1 or len(headers) == 1:
        return headers[0] if headers else next(iter(files))
    raise UserError("several files are one ECG only where one of them is a WFDB header (.hea); choose one")


def safe_name(name):
    """A file's name without folders or anything that a shell or a file system reads as more than a name."""
    return re.sub(r"[^\w.+-]", "_", Path(name.replace("\\", "/")).name).lstrip(".-")[-100:] or "ecg"


def _run(command, folder, seconds):
    """Run the reading process and end it when its time is over; "" or why it gave no answer."""
    environment = {"PATH": os.environ.get("PATH", ""), "TMPDIR": folder, "HOME": folder, "MPLCONFIGDIR": folder}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = subprocess.DEVNULL
    streams = {"stdin": quiet, "stdout": quiet, "stderr": quiet}
    process = subprocess.Popen(command, cwd=folder, env=environment, **streams, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"reading it took longer than {seconds} s and was ended"
    finally:
        _end(process)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "reading it took too much time or memory and was ended"
    return "could not be read: the reading process broke off" if code else ""


def _end(process):
    """End the process and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(folder, name):
    """The reading process's answer, of which nothing is believed that isn't checked."""
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    if "error" in answer:
        raise UserError(f"{name}: {answer['error']}".replace(str(folder) + "/", ""))
    signal_mV = np.load(folder / "signal.npy", allow_pickle=False)
    if signal_mV.ndim != 2 or signal_mV.shape[0] != 12 or signal_mV.dtype != np.float32:
        raise UserError(f"{name}: could not be read: the reading process answered wrongly")
    return Record(signal_mV, float(answer["sample_rate"]), tuple(map(str, answer["notes"])), name)
