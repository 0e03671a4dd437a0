"""What other systems lack (macOS: sched_getaffinity, sha256sum; a GPU machine: nvidia-smi on PATH) must stop nobody."""

import hashlib
import os
import shutil
import subprocess
import sys

import torch

from utils import machine
from utils.tools import REPOSITORY


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.count_cores() == os.cpu_count()
    assert machine.set_threads(0) >= 1


def test_gpus_are_those_that_torch_sees(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert machine.processes_wanted(0, "auto") == 3
    assert machine.processes_wanted(0, "cpu") == 1


def test_deepspeed_computes_where_the_batches_are(monkeypatch):
    """On a GPU machine DEVICE=cpu would otherwise put the engine on the GPU and the batches on the processor."""
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "join_processes", lambda kind: (1, 2))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert machine.start_process("pretrain", "cpu", 1, False)[2].type == "cpu"
    assert os.environ["DS_ACCELERATOR"] == "cpu"


def test_a_store_is_locked_without_fcntl(tmp_path):
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from ecg_tokenizer.store import locked\n"
        "for _ in range(2):\n"
        "    with locked(sys.argv[1]): print('held')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.stdout == "held\nheld\n", done.stderr


def test_the_launchers_find_their_environment_without_sha256sum(tmp_path):
    """The environment has no pip: a hash that came out otherwise would show as a failed installation."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    files = [(REPOSITORY / name).read_bytes() for name in ("requirements.txt", "constraints.txt")]
    (tmp_path / "venv/.heartllm-requirements").write_text(hashlib.sha256(b"".join(files)).hexdigest())
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "cat", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": str(tmp_path / "bin"), "VIRTUAL_ENV": str(tmp_path / "venv")}
    command = ["bash", "-c", f"source '{REPOSITORY}/utils/launch.sh' && prepare_environment && echo ready"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("ready\n", "")
