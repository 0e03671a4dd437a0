"""The processes of a run on this machine: started together, told to stop together, none left behind.

DeepSpeed's launcher takes CUDA_VISIBLE_DEVICES away and kills what has not ended 30 s after a signal; torchrun ends
with code 1 whatever its processes said. A run over several machines is started by torchrun or srun: whoever sets RANK,
LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT is the launcher, and nothing here is used.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

from utils.tools import Stopped, UserError

GRACE_S = 60  # for the others to finish what they are writing, once one of them is dead
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


def on_stop(handler):
    """Have ``handler(number, frame)`` called by the signals that ask a run to stop; nohup's SIGHUP stays ignored."""
    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def stop_at_once(text):
    """Until there is something to save, a signal ends the process with this text."""

    def stop(number, frame):
        raise Stopped(number, text)

    on_stop(stop)


def remember_stop():
    """From now on a signal is only remembered, in the list returned; the work looks at it when it can save."""
    signals = []
    on_stop(lambda number, frame: signals.append(number))
    return signals


class Lost(UserError):
    """Another process of this run cannot be reached any more."""


CLOSED = "Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError", "Timed out waiting"


@contextmanager
def lost_another():
    """A process that cannot reach another one any more ends with a line, not with the traceback of a collective."""
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in CLOSED):
            raise Lost("another process of this run has ended; its own lines, or the launcher's, say why") from error
        raise


@contextmanager
def one_voice():
    """Most faults are found by every process of a run: all but the first give it time to say so, and end with it."""
    try:
        yield
    except UserError:
        on_stop(lambda *_: os._exit(2))
        time.sleep(5)
        raise


def visible_gpus():
    """The names in CUDA_VISIBLE_DEVICES (numbers, UUIDs, MIG instances), up to the first that CUDA refuses; or None."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = [name.strip() for name in visible.split(",")]
    end = next((number for number, name in enumerate(names) if not name or name.startswith("-")), len(names))
    return names[:end]


def free_port():
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_environment(rank, count, port):
    """The environment of process ``rank`` of ``count``: CUDA_VISIBLE_DEVICES is the caller's.

    CUDA shows a process one MIG instance at most, so each process is shown its own.
    """
    names = visible_gpus() or []
    own = rank < len(names) and names[rank].startswith("MIG")
    mine = {"CUDA_VISIBLE_DEVICES": names[rank], "LOCAL_RANK": "0"} if own else {}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    numbers = {key: str(value) for key, value in numbers.items()}
    return {**os.environ, **numbers, "MASTER_ADDR": "127.0.0.1", **mine}


def run_processes(count, command):
    """Run ``command`` in ``count`` processes that can find each other; returns the exit code for all of them.

    A signal goes on to all, and they have as long as they need (a save may take minutes). When one dies, the others get
    SIGTERM, and SIGKILL after `GRACE_S` seconds: they may be waiting for the dead one for ever.
    """
    processes, signals = [], []

    def forward(number, frame):
        if not signals:
            print("stopping: the processes end their step and save", file=sys.stderr, flush=True)
        signals.append(number)
        _signal_all(processes, number)

    on_stop(forward)
    port = free_port()
    for rank in range(count):
        processes.append(subprocess.Popen(command, env=rank_environment(rank, count, port)))
    if signals:  # one that came between two starts
        _signal_all(processes, signals[-1])
    dead, deadline = None, None
    while any(process.poll() is None for process in processes):
        time.sleep(0.1)
        if dead is None:
            dead = next((rank for rank, process in enumerate(processes) if process.poll()), None)
            if dead is not None:
                deadline = time.monotonic() + GRACE_S
                _signal_all(processes, signal.SIGTERM)
        elif time.monotonic() > deadline:
            _signal_all(processes, signal.SIGKILL)
    codes = [process.returncode for process in processes]
    if not any(codes):
        return 0
    if signals:
        return 128 + signals[0]
    code = codes[dead] if dead is not None else next(filter(None, codes))
    if code < 0:
        name = signal.Signals(-code).name
        often = ", often by the system when memory runs out" if name == "SIGKILL" else ""
        print(
            f"error: process {dead} of {count} was ended by {name}{often}; the others ended too. "
            "RESUME=true goes on from the last save",
            file=sys.stderr,
            flush=True,
        )
    return code if code > 0 else 128 - code


def _signal_all(processes, number):
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
