"""The sbatch script of a run: a task a process, so that SLURM starts and stops them and names a node that fails."""

import os
import re
import shlex
import subprocess
import sys

from utils.tools import REPOSITORY, UserError

TEMPLATE = """\
#!/bin/bash
# HeartLLM, stage {stage}. Printed for these resources: {resources}
#SBATCH --job-name={stage}
{lines}
#SBATCH --output={stage}-%j.log
#SBATCH --open-mode=append
# Five minutes before the time limit each process is told to stop: it ends its step and saves.
#SBATCH --signal=TERM@300

set -euo pipefail
cd {folder}
export PYTHONPATH={repository} TOKENIZERS_PARALLELISM=false TRANSFORMERS_VERBOSITY=error GOMP_SPINCOUNT=1000
# The processes meet on the job's first node.
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# One task a process. When one fails or its node is lost, SLURM says which and ends the others; submitted again, the job
# goes on from its last save (RESUME), also on fewer nodes if BATCH_SIZE or ACCUMULATION make up for them.
srun --kill-on-bad-exit=1 --ntasks-per-node={tasks} bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE={tasks}
    exec "$@"' process \\
    {program}
"""


def take_slurm_words(words):
    """(resources, whether to submit, the other words) of a command line; resources is None without ``--slurm``."""
    words, submit = [word for word in words if word != "--submit"], "--submit" in words
    if "--slurm" not in words:
        if submit:
            raise UserError('--submit goes with --slurm "--nodes 2 --gpus-per-node 4"')
        return None, False, words
    at = words.index("--slurm")
    if at + 1 == len(words):
        raise UserError('--slurm needs sbatch\'s options as one word: --slurm "--nodes 2 --gpus-per-node 4"')
    return words[at + 1], submit, words[:at] + words[at + 2 :]


def tasks_of(resources):
    """(nodes, tasks a node) that sbatch's options ask for: a task a GPU, or ``--ntasks-per-node``."""
    try:
        options = shlex.split(resources)
    except ValueError as error:
        raise UserError(f"--slurm {resources!r}: {error}") from error
    text = " ".join(options).replace("=", " ") + " "
    for per_task in ("--gpus-per-task", "--gpu-bind"):
        if per_task in text:
            raise UserError(f"{per_task}: each process must see all GPUs of its node; say --gpus-per-node")

    def number(pattern, default):
        found = re.findall(rf"(?:^| ){pattern}(?:\S*:)?(\d+) ", text)
        return int(found[-1]) if found else default

    nodes = number("(?:--nodes|-N) ", 1)
    gpus = number("--gpus-per-node ", number("--gres gpu:", 1))
    return nodes, number("--ntasks-per-node ", gpus)


def sbatch_script(stage, resources, program):
    """The script's text.

    Parameters
    ----------
    stage : str
    resources : str
        sbatch's options, as on its command line.
    program : list of str
        What each process runs: a script, or ``-m`` and a module, and its arguments.
    """
    _, tasks = tasks_of(resources)
    lines = re.sub(r"\s+(?=-)", "\n", " ".join(map(shlex.quote, shlex.split(resources)))).split("\n")
    if "--ntasks-per-node" not in resources:
        lines.append(f"--ntasks-per-node={tasks}")
    return TEMPLATE.format(
        stage=stage,
        resources=" ".join(resources.split()),
        lines="\n".join(f"#SBATCH {line}" for line in lines),
        repository=shlex.quote(str(REPOSITORY)),
        folder=shlex.quote(os.getcwd()),  # paths on a command line start where one stands
        tasks=tasks,
        program=" \\\n    ".join(map(shlex.quote, [sys.executable, *program])),
    )


def submit_script(script):
    """Hand a script to sbatch, which says the job's number."""
    try:
        subprocess.run(["sbatch"], input=script, text=True, check=True)
    except FileNotFoundError:
        raise UserError("there is no sbatch here; without --submit the script is printed") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch refused the script (exit code {error.returncode})") from error
