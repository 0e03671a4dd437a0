"""Two hosts with files of their own: the run is that of one process, a host that dies is named, the other goes on."""

import subprocess
import sys
import time

import pytest

from tests.model.test_launchers import words
from tests.model.test_stages import ENVIRONMENT, losses, run
from tests.two_hosts import can_make_hosts, two_hosts
from utils.tools import REPOSITORY, UserError

pytestmark = pytest.mark.slow


def command(folder, results, **more):
    """A short run of stage 2 over the files of a host."""
    _, _, env, *pairs = words(folder, "pretrain", results, LORA_DROPOUT=0, DEVICE="cpu", SAVE_STEPS=2, EVAL_STEPS=1000)
    values = dict(pair.split("=", 1) for pair in pairs) | {key: str(value) for key, value in more.items()}
    return [sys.executable, str(REPOSITORY / "run_main.py"), "pretrain", env, *(f"{k}={v}" for k, v in values.items())]


@pytest.mark.skipif(not can_make_hosts(), reason="needs root and network namespaces")
def test_the_host_of_the_first_process_dies_and_the_other_goes_on_alone(tmp_path):
    """Lost otherwise: days of training, with the node that happened to hold the saves."""
    here = tmp_path / "here"
    with two_hosts(tmp_path) as hosts:
        run("data_provider.simulate", "--out", str(tmp_path / "made/files"), "--patients", "30", "--seed", "3")
        run("data_provider.prepare", "ptbxl", "--root", str(tmp_path / "made/files"), "--out", str(tmp_path / "made"),
            "--name", "demo")  # fmt: skip
        (tmp_path / "made/run.env").write_text("# all settings are on the command line\n")
        for host in hosts:
            subprocess.run(["cp", "-r", str(tmp_path / "made"), str(host.files / "made")], check=True)
            (host.files / "hostfile").write_text("node-a slots=1\nnode-b slots=1\n")
        both, alone = {"HOSTFILE": here / "hostfile", "NUM_PROCESSES": 0, "MAX_STEPS": 500}, {"BATCH_SIZE": 2}
        started = [
            host.start(command(here / "made", here / "results", **both, NODE_RANK=number), env=ENVIRONMENT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for number, host in enumerate(hosts)
        ]  # fmt: skip
        first, second = hosts[0].files / "results/_demo_pretrain", hosts[1].files / "results/_demo_pretrain"
        while not all((folder / "resume/latest").exists() for folder in (first, second)):
            assert all(process.poll() is None for process in started), started[0].communicate()[1][-3000:]
            time.sleep(0.1)
        hosts[0].kill()
        text = started[1].communicate(timeout=300)[1]
        assert started[1].returncode != 0 and "machine node-a is lost" in text and "RESUME=true" in text, text[-3000:]
        last = int((second / "resume/latest").read_text().removeprefix("step")) + 1
        on = command(here / "made", here / "results", **alone, MAX_STEPS=last, RESUME="true")
        went_on = hosts[1].start(on, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert "going on from step" in went_on.communicate(timeout=300)[0] and went_on.returncode == 0
        straight = command(tmp_path / "made", tmp_path / "straight", **alone, MAX_STEPS=last)
        subprocess.run(straight, env=ENVIRONMENT, capture_output=True, check=True)
        expected = losses(tmp_path / "straight/_demo_pretrain")
        assert losses(second) == pytest.approx(expected, abs=1e-4) and len(expected) == last


def test_what_is_said_of_machines_must_fit(tmp_path):
    """Lost otherwise: a job on sixteen GPUs that ends in a traceback of a launcher."""
    from utils.nodes import Machines, check_machines, launch_command, slots

    hosts = tmp_path / "hosts"
    hosts.write_text("a slots=4\nb slots=4\n")
    picked = Machines(hostfile=str(hosts), include="a:0,1@b:2,3")
    assert slots(picked) == {"a": [0, 1], "b": [2, 3]}
    told = launch_command(picked, 2, ["run_main.py", "pretrain"])
    assert told[told.index("--master_addr") + 1] == "a" and "--no_ssh" not in told
    for wrong in (
        {"launcher": "deepspeed"}, {"nodes": 2}, {"nodes": 2, "rendezvous": "a"},
        {"hostfile": "h", "launcher": "torchrun"}, {"nodes": 2, "rendezvous": "a:1", "node_rank": 2},
    ):  # fmt: skip
        with pytest.raises(UserError):
            check_machines(Machines(**wrong))
    for include in ("c", "a:7"):
        with pytest.raises(UserError, match="INCLUDE"):
            slots(Machines(hostfile=str(hosts), include=include))
    with pytest.raises(UserError, match="names 2 machines"):
        slots(Machines(hostfile=str(hosts), node_rank=2))
