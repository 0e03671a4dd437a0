"""What a scheduler, an impatient user or a full memory does to a run, through the launchers themselves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.model.test_stages import ENVIRONMENT, losses, run
from utils.tools import REPOSITORY

LAUNCHED = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"} | {"VIRTUAL_ENV": sys.prefix}
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A few simulated ECGs with manifests; the tokenizer is the shipped one."""
    folder = tmp_path_factory.mktemp("world")
    run("data_provider.simulate", "--out", str(folder / "files"), "--patients", "30", "--seed", "3")
    run("data_provider.prepare", "ptbxl", "--root", str(folder / "files"), "--out", str(folder), "--name", "demo")
    (folder / "run.env").write_text("# all settings are on the command line\n")
    return folder


def words(world, stage, results, **more):
    """A launcher and the settings of a small run."""
    if stage == "tokenizer":
        values = {"ROOT_ECG": world / "files", "TRAIN_PATH": world / "report/demo/train.json"}
        values |= {"VAL_PATH": world / "report/demo/valid.json", "LOG_ROOT": results, "EPOCHS": 3, "BATCH": 8}
        values |= {"CODES_PER_ECG": 20, "VAL_EVERY": 1000, "PATIENCE": 0}
    else:
        values = {"DATASET": "demo", "ROOT_PATH_ECG": world / "files", "ROOT_REPORT_JSON": world / "report/demo"}
        values |= {"TOKENIZER_PATH": REPOSITORY / "ecg_tokenizer/pretrained", "CODES_ROOT": world / "codes"}
        values |= {"RESULTS": results, "NUM_PROCESSES": 1, "LORA_R": 2, "BATCH_SIZE": 1, "VERBOSE_STEPS": 1}
        values |= {"VAL_ITEMS": 1, "TRAIN_EPOCHS": 9, "MAX_STEPS": 60}
        values |= {"PRETRAIN_OBJECTIVE": "causal"} if stage == "pretrain" else {"TASKTYPE": "report"}
    values |= {"THREADS": 1, "USE_AMP": "false", "SAVE_STEPS": 1000} | more
    script = "ecg_tokenizer/run_tokenizer.sh" if stage == "tokenizer" else f"{stage}.sh"
    given = [f"{key}={value}" for key, value in values.items()]
    return ["bash", str(REPOSITORY / script), str(world / "run.env"), *given]


def folder_of(stage, results):
    return Path(results) / {"tokenizer": "", "pretrain": "_demo_pretrain", "finetune": "report_demo_finetune"}[stage]


def start(command):
    return subprocess.Popen(command, env=LAUNCHED, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 300
    while not (folder / "log.jsonl").exists() or max(losses(folder), default=0) < step:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-3000:]
        time.sleep(0.02)


def end(process, family):
    """What a process printed to stderr; it ends, and so do those that it started."""
    text = process.communicate(timeout=120)[1]
    assert not psutil.wait_procs(family, timeout=20)[1], "a process is left behind"
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, number", [("tokenizer", signal.SIGTERM), ("pretrain", signal.SIGINT), ("finetune", signal.SIGTERM)]
)
def test_a_signal_to_the_shell_saves_and_the_run_goes_on(stage, number, world, tmp_path):
    """A job that is stopped at its time limit must not lose what it computed, nor go on behind the scheduler's back."""
    command = words(world, stage, tmp_path)
    process = start(command)
    wait_for_step(process, folder_of(stage, tmp_path), 1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    text = end(process, family)
    said = re.search(r"stopped: at step (\d+), saved; the same command with RESUME=true goes on from here", text)
    assert process.returncode == SIGNALS[number] and said, text[-3000:]
    step = int(said[1])
    more = [f"MAX_STEPS={step + 3}"] if stage != "tokenizer" else []
    done = subprocess.run([*command, *more, "RESUME=true"], env=LAUNCHED, capture_output=True, text=True)
    assert done.returncode == 0 and f"going on from step {step}\n" in done.stdout, done.stderr[-2000:]
    straight = words(world, stage, tmp_path / "straight")
    subprocess.run([*straight, *more], env=LAUNCHED, capture_output=True, check=True)
    assert losses(folder_of(stage, tmp_path)) == losses(folder_of(stage, tmp_path / "straight")), "bit for bit"


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(world, tmp_path):
    """Tomorrow's node may have fewer GPUs; and of two runs in a folder the second would write over the first."""
    command = words(world, "pretrain", tmp_path, NUM_PROCESSES=2)
    folder = folder_of("pretrain", tmp_path)
    process = start(command)
    wait_for_step(process, folder, 3)
    second = subprocess.run(command, env=LAUNCHED, capture_output=True, text=True)
    assert second.returncode == 2 and "another run is writing there" in second.stderr
    assert second.stderr.count("error:") == 1
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 2
    process.send_signal(signal.SIGTERM)
    text = end(process, family)
    assert process.returncode == 143 and "RESUME=true goes on from here" in text, text[-3000:]
    last = max(losses(folder)) + 2
    one = words(world, "pretrain", tmp_path, BATCH_SIZE=2, MAX_STEPS=last, RESUME="auto", EVAL_STEPS=7, LLM="x")
    done = subprocess.run(one, env=LAUNCHED, capture_output=True, text=True)
    assert done.returncode == 0 and "processes 2 -> 1" in done.stdout and max(losses(folder)) == last, done.stderr
    assert "going on from step" in done.stdout and not list(tmp_path.glob("_demo_pretrain.*"))


@pytest.mark.slow
def test_a_killed_process_takes_the_others_with_it_and_the_reason_is_said(world, tmp_path):
    process = start(words(world, "pretrain", tmp_path, NUM_PROCESSES=2))
    wait_for_step(process, folder_of("pretrain", tmp_path), 2)
    family = psutil.Process(process.pid).children(recursive=True)
    family[1].send_signal(signal.SIGKILL)
    text = end(process, family)
    assert process.returncode == 137 and "process 1 of 2 was ended by SIGKILL" in text
    assert "Traceback" not in text


SLOW_SAVE = """
import os, pathlib, signal, sys, time
def save(number, frame):
    time.sleep(40)
    pathlib.Path(sys.argv[1] + os.environ["RANK"]).write_text("whole")
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1] + os.environ["RANK"] + "up").touch()
while True:
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill_one", [False, True], ids=["all are told to stop", "one is killed"])
def test_a_save_that_takes_40_seconds_is_waited_for(kill_one, tmp_path):
    """A large model on a network disk; DeepSpeed's and torch's launchers kill after 30 s."""
    code = "import sys; from utils.processes import run_processes; sys.exit(run_processes(2, sys.argv[1:]))"
    command = [sys.executable, "-c", code, sys.executable, "-c", SLOW_SAVE, f"{tmp_path}/"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while not all((tmp_path / f"{rank}up").exists() for rank in (0, 1)):
        time.sleep(0.05)
    family = psutil.Process(process.pid).children()
    family[1].send_signal(signal.SIGKILL) if kill_one else process.send_signal(signal.SIGTERM)
    text = end(process, family)
    assert process.returncode == (137 if kill_one else 143) and (tmp_path / "0").read_text() == "whole"
    assert kill_one or (tmp_path / "1").exists()
    assert ("process 1 of 2 was ended by SIGKILL" in text) == kill_one


SEEN = """
import os, types
if "RANK" in os.environ:
    names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES"
    line = " ".join(["seen", *(os.environ[name] for name in names)])
    os.write(1, (line + chr(10)).encode())  # in one go: two processes write here
    os._exit(0)
import torch  # the process that starts them: as on a machine whose GPUs PyTorch sees
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(total_memory=2**36)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "visible, processes, seen",
    [
        ("2,3", 0, ["0 0 2 2,3", "1 1 2 2,3"]),
        ("GPU-aa,GPU-bb", 2, ["0 0 2 GPU-aa,GPU-bb", "1 1 2 GPU-aa,GPU-bb"]),
        ("MIG-aa,MIG-bb", 2, ["0 0 2 MIG-aa", "1 0 2 MIG-bb"]),
    ],
)
def test_other_peoples_gpus_are_left_alone(visible, processes, seen, world, tmp_path):
    """What each process would see, by a stand-in that says so in place of running (and of the GPUs)."""
    (tmp_path / "sitecustomize.py").write_text(SEEN)
    environment = LAUNCHED | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": visible}
    command = words(world, "pretrain", tmp_path / "results", NUM_PROCESSES=processes)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("seen")) == [f"seen {s}" for s in seen]
    many = subprocess.run([*command, "NUM_PROCESSES=5"], env=environment, capture_output=True, text=True)
    assert many.returncode == 2 and "NUM_PROCESSES=5" in many.stderr


@pytest.mark.slow
def test_the_same_command_twice_loses_nothing(world, tmp_path):
    """RESUME=false is the default: yesterday's run must be there still, under a name that says when."""
    command = words(world, "pretrain", tmp_path, MAX_STEPS=2)
    for _ in range(2):
        done = subprocess.run(command, env=LAUNCHED, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    (aside,) = tmp_path.glob("_demo_pretrain.*")
    assert str(aside) in done.stdout and "RESUME=true or auto would have gone on" in done.stdout
    assert {"resume", "checkpoint", "log.jsonl", "finished.json", "started.json"} <= set(os.listdir(aside))
    # Killed between its last save and its end: nothing is left to train, but it must end.
    (folder_of("pretrain", tmp_path) / "finished.json").unlink()
    again = subprocess.run([*command, "RESUME=true"], env=LAUNCHED, capture_output=True, text=True)
    assert again.returncode == 0 and "pretrain: 2 steps" in again.stdout, again.stderr[-2000:]
    finished = json.loads((folder_of("pretrain", tmp_path) / "finished.json").read_text())
    assert finished["steps"] == 2
