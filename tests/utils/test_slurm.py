"""The sbatch script: read by people, taken by bash, and by a stand-in for srun that starts what it says."""

import os
import subprocess
import sys

import pytest

from tests.model.test_stages import ENVIRONMENT
from utils.slurm import sbatch_script, take_slurm_words, tasks_of
from utils.tools import REPOSITORY, UserError

SRUN = """#!/bin/bash
# The tasks of two nodes, here; 32 is what srun returns for a bad option.
while [[ "$1" == --* ]]; do
    case "$1" in --kill-on-bad-exit=1) ;; --ntasks-per-node=*) each="${1#*=}" ;; *) exit 32 ;; esac
    shift
done
for ((rank = 0; rank < 2 * each; rank++)); do
    SLURM_PROCID=$rank SLURM_LOCALID=$((rank % each)) SLURM_NTASKS=$((2 * each)) "$@" &
    tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || exit $?; done
"""
SHOW = """import os
names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"
os.write(1, " ".join(os.environ[name] for name in names).encode() + bytes([10]))  # in one go
"""


@pytest.fixture
def cluster(tmp_path):
    """An environment with stand-ins for SLURM's commands."""
    stand_ins = {"srun": SRUN, "scontrol": "#!/bin/bash\necho localhost\necho other\n", "sbatch": "#!/bin/bash\nbash\n"}
    (tmp_path / "bin").mkdir()
    for name, text in stand_ins.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return ENVIRONMENT | {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[0-1]", "VIRTUAL_ENV": sys.prefix}


def test_the_script_starts_a_task_a_gpu(cluster):
    """Lost otherwise: a job that waits a day in the queue and dies of a typing error."""
    resources = "--nodes=2 --gpus-per-node a100:2 -t 1:00:00 --comment 'two words'"
    script = sbatch_script("pretrain", resources, ["-c", SHOW, "it's"])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    wanted = "#SBATCH --nodes=2", "#SBATCH --gpus-per-node a100:2", "#SBATCH -t 1:00:00", "#SBATCH --ntasks-per-node=2"
    assert set(wanted) < set(script.splitlines()) and "#SBATCH --comment 'two words'" in script
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=cluster, check=True)
    assert sorted(done.stdout.splitlines()) == [f"{rank} {rank % 2} 4 localhost" for rank in range(4)]
    failed = sbatch_script("pretrain", resources, ["-c", "raise SystemExit(3)"])
    assert subprocess.run(["bash"], input=failed, text=True, env=cluster).returncode == 3


@pytest.mark.parametrize(
    "resources, expected",
    [
        ("--nodes 3 --gpus-per-node=4", (3, 4)),
        ("-N 2 --gres=gpu:h100:8", (2, 8)),
        ("--gres=gpu:1", (1, 1)),
        ("--nodes=2 --gpus-per-node=8 --ntasks-per-node=2", (2, 2)),
        ("--time 1:00:00", (1, 1)),
    ],
)
def test_tasks_are_counted_from_sbatchs_options(resources, expected):
    assert tasks_of(resources) == expected


def test_what_cannot_be_started_is_said():
    for resources in ("--gpus-per-task 1 --ntasks 4", "--comment 'open"):
        with pytest.raises(UserError):
            tasks_of(resources)
    for words in (["--submit"], ["a.env", "--slurm"]):
        with pytest.raises(UserError, match="--slurm"):
            take_slurm_words(words)
    assert take_slurm_words(["A=1", "--slurm", "-N 2", "--submit", "B=2"]) == ("-N 2", True, ["A=1", "B=2"])


@pytest.mark.slow
def test_a_launcher_submits_stage_one(cluster, tmp_path):
    """The whole way: bash launcher, script, sbatch, srun, two processes that train together."""
    from tests.tokenizer_maker import write_data_set

    words = write_data_set(tmp_path, train=4, valid=2)
    words += "CODES_PER_ECG=40 BATCH=4 EPOCHS=2 THREADS=1 USE_AMP=false DEVICE=cpu".split()
    words.append(f"LOG_ROOT={tmp_path}/log")
    (tmp_path / "run.env").write_text("PATIENCE=0\n")
    launcher = ["bash", str(REPOSITORY / "ecg_tokenizer/run_tokenizer.sh"), "run.env", *words, "--slurm", "--nodes 2"]
    printed = subprocess.run(launcher, capture_output=True, text=True, env=cluster, cwd=tmp_path, check=True).stdout
    assert f"{tmp_path}/run.env" in printed and "RESUME=auto" in printed and not (tmp_path / "log").exists()
    done = subprocess.run([*launcher, "--submit"], capture_output=True, text=True, env=cluster, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es)" in done.stdout and (tmp_path / "log" / "best.pt").is_file()
