"""Processes that are lost: named, by their machine, also where nothing tells that they are gone."""

import os
import signal
import subprocess
import sys

import pytest

from utils.processes import free_port
from utils.tools import REPOSITORY

WAITING = """
import datetime, os, sys, torch.distributed as dist
from utils import heartbeat
from utils.tools import UserError, entry_point
heartbeat.INTERVAL_S, heartbeat.SILENT_S = 0.2, float(sys.argv[1])
@entry_point
def main(argv):
    from utils.machine import join_processes
    from utils.runs import _run_here
    rank, _ = join_processes("gloo")
    print("here", flush=True)
    if rank == 1:
        sys.stdin.readline()  # until the test ends it
        _run_here(fail, None)
    else:
        _run_here(lambda plan: dist.barrier(), None)
def fail(plan):
    raise UserError("the disk is full")
main()
"""


@pytest.fixture
def pair(request):
    """Two processes of a run, of which the first waits for the second in a collective."""
    port, found = free_port(), []
    for rank in range(2):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | {key: str(value) for key, value in numbers.items()}
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", WAITING, str(request.param)]
        found.append(subprocess.Popen(command, env=environment, cwd=REPOSITORY, **how))
    assert [process.stdout.readline() for process in found] == ["here\n"] * 2, found[0].communicate()[1][-2000:]
    yield found
    for process in found:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("pair", [10], indirect=True)
def test_one_that_falls_silent_ends_the_others(pair):
    """Lost otherwise: a machine without power, and fifteen that wait for it until the job's time is over."""
    pair[1].send_signal(signal.SIGSTOP)
    text = pair[0].communicate(timeout=120)[1]
    assert pair[0].returncode == 2 and "process 1 of 2, on machine" in text
    assert "is lost" in text and "RESUME=true" in text


@pytest.mark.parametrize("pair", [1000], indirect=True)
@pytest.mark.parametrize("killed", [True, False])
def test_one_that_ends_is_named_with_its_reason(pair, killed):
    """Lost otherwise: the line that says why, among the tracebacks of those it took with it."""
    if killed:
        pair[1].kill()
    else:
        print(file=pair[1].stdin, flush=True)
    text = pair[0].communicate(timeout=120)[1]
    expected = "process 1 of 2, on machine" if killed else "ended: UserError: the disk is full"
    assert pair[0].returncode == 2 and expected in text and "Traceback" not in text
