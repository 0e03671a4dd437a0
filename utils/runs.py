"""Runs that know what they were made of: whether they are finished, can go on, or must make room for another one.

A run's folder has its published name. What an earlier run left there is gone on from, or moved to a folder of the same
name and a date; nothing is deleted. `started.json` keeps settings and inputs, so that differences can be named.
"""

import json
import os
import re
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from utils.heartbeat import end_heartbeat
from utils.nodes import Machines, launch
from utils.processes import lost_another, one_voice, run_processes, stop_at_once
from utils.setting_values import value_parts
from utils.settings import env_path, given_keys, pick, split_arguments, unused_keys
from utils.slurm import sbatch_script, submit_script, take_slurm_words, tasks_of
from utils.tools import UserError, read_json, sha256_json, write_json

FINISHED, STARTED, LOCK = "finished.json", "started.json", "lock"
# What runs write into their folder. Anything else there (the cache of signals, other runs, a user's notes) stays.
MADE = ("log.jsonl", "tensorboard", "best.pt", "config.json", "model.safetensors", "state", "resume", "checkpoint")
MADE += ("predictions*", "metrics*", "provenance*", "answers*", "*.html", FINISHED, STARTED)
ITEMS_A_STEP = "items a step (BATCH_SIZE x ACCUMULATION x processes)"


@dataclass(frozen=True)
class Identity:
    """What a run is made of, as dicts of what JSON can hold.

    Attributes
    ----------
    decides : dict
        Settings and inputs of which another value is another run.
    length : dict
        How far the run goes, and what it adds on its way: with other values it goes on, but is not finished.
    other : dict
        All other settings, to be read.
    """

    decides: dict
    length: dict
    other: dict

    @property
    def fingerprint(self):
        """Hash of what a finished run was made of."""
        return sha256_json([self.decides, self.length])


def results_folder(results, stage, tasktype, dataset):
    """The published names: ``results/_ptbxl_pretrain``, ``results/qa_ptbxl_finetune``, ``results/qa_ptbxl_test``.

    Several tasks or data sets (tuples of texts) are joined: ``results/qa+report_ptbxl+mimic_finetune``.
    """
    tasks, datasets = ("+".join(value_parts(value)) for value in (tasktype, dataset))
    if stage == "pretrain":
        return Path(results) / f"_{datasets}_pretrain"
    return Path(results) / f"{tasks}_{datasets}_{'test' if stage == 'eval' else stage}"


def is_finished(folder, fingerprint):
    """Whether the run in ``folder`` ended, and was made of the same settings and inputs."""
    path = Path(folder) / FINISHED
    return path.is_file() and read_json(path).get("fingerprint") == fingerprint


def plan_or_run(stage, arguments, make_plan, run, state, program=None):
    """What a stage's command does: check everything, then run it here, or start the processes that do.

    Parameters
    ----------
    arguments : list of str
        ``[--plan] [--slurm OPTIONS [--submit]] [ENV FILE] [KEY=VALUE ...]``; with ``--plan`` only print how many
        processes would start, or ``finished``; with ``--slurm`` print (or submit) an sbatch script.
    make_plan : callable
        From the other arguments to a plan with ``settings``, ``folder``, ``identity`` and ``processes``.
    run : callable
        Runs a plan; called once a process.
    state : str
        Name, below the plan's folder, of what a run goes on from.
    program : list of str, optional
        What is started as several processes: by default this script with ``stage``.
    """
    first = os.environ.get("RANK", "0") == "0"
    stop_at_once("what was written is kept; the same command with RESUME=true goes on from it" if first else "")
    with nullcontext() if first else one_voice():
        resources, submit, arguments = take_slurm_words(arguments)
        program = program or [os.path.abspath(sys.argv[0]), stage]
        if resources is None:
            _plan_or_run(stage, arguments, make_plan, run, state, first, program)
        else:
            _plan_for_slurm(stage, arguments, make_plan, state, program, resources, submit)


def _plan_for_slurm(stage, arguments, make_plan, state, program, resources, submit):
    nodes, tasks = tasks_of(resources)
    os.environ["WORLD_SIZE"] = str(nodes * tasks)  # what decides the items a step
    if "RESUME" not in given_keys(arguments):
        arguments = [*arguments, "RESUME=auto"]  # SLURM may start the job again by itself
    plan = make_plan(arguments)
    check_start(plan.folder, plan.identity, plan.settings.resume, state)
    files, pairs = split_arguments(arguments)
    script = sbatch_script(stage, resources, [*program, *map(os.path.abspath, map(env_path, files)), *pairs])
    submit_script(script) if submit else print(script, end="")


def _plan_or_run(stage, arguments, make_plan, run, state, first, program):
    settings_arguments = [word for word in arguments if word != "--plan"]
    started = "RANK" in os.environ  # as one of several processes
    plan = make_plan(settings_arguments)
    resume = plan.settings.resume
    finished = resume != "false" and is_finished(plan.folder, plan.identity.fingerprint)
    if not started:
        for key in unused_keys(stage, settings_arguments):
            print(f"note: {key} has no effect in this stage", file=sys.stderr)
        if finished:
            print(f"{stage}: {plan.folder} is finished, made of these settings and inputs", file=sys.stderr)
    if not finished:
        check_start(plan.folder, plan.identity, resume, state)
    if "--plan" in arguments:
        for line in getattr(plan, "lines", ()):
            print(line, file=sys.stderr)
        print("finished" if finished else plan.processes)
    elif finished:
        return
    elif started or plan.processes == 1:
        with run_lock(plan.folder) if first else nullcontext():
            _run_here(run, plan)
    else:
        with run_lock(plan.folder):
            pass  # refused now rather than by the first process
        machines = pick(plan.settings, Machines)
        if machines.starter:
            launch(machines, plan.processes // machines.nodes, plan.settings.device, [*program, *arguments])
        sys.exit(run_processes(plan.processes, [sys.executable, *program, *arguments]))


def _run_here(run, plan):
    """Run the plan as one of the run's processes; what ends another one is said where this one notices it."""
    try:
        with lost_another():
            run(plan)
    except BaseException as error:
        if text := end_heartbeat(error):
            raise UserError(text) from error
        raise
    end_heartbeat()


@contextmanager
def run_lock(folder):
    """Hold a run's folder; a `UserError` if another run does. Where no file can be locked, say so and go on."""
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: another run is writing there; wait for it, or choose another folder") from None
    except PermissionError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    except (OSError, NotImplementedError) as error:
        if not folder.is_dir():
            raise UserError(f"{folder}: cannot be made ({error}); choose another folder") from error
        print(f"note: {folder}: files cannot be locked there ({error}); don't start a second run in it", flush=True)
    try:
        yield
    finally:
        lock.release()


def differences(old, new):
    """One text a value that differs, ``KEY old -> new``; values in values are named with dots."""
    old, new = _leaves(old), _leaves(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys]


def _leaves(value, name=""):
    if not isinstance(value, dict):
        return {name: json.loads(json.dumps(value))}  # tuples as lists, as they come back from a file
    leaves = {}
    for key, part in value.items():
        leaves |= _leaves(part, f"{name}.{key}" if name else key)
    return leaves


def _short(value):
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:12] + "..."


def check_start(folder, identity, resume, state):
    """How a run would start; changes nothing.

    Parameters
    ----------
    folder : Path
    identity : Identity
    resume : {"false", "true", "auto"}
    state : str
        Name, below ``folder``, of what a run goes on from.

    Returns
    -------
    goes_on : bool
    lines : list of str
        What to say about it.

    Raises
    ------
    UserError
        ``RESUME=true`` and what decides differs; ``RESUME=auto`` and nothing but the items a step does.
    """
    if not _made(folder):
        return False, []
    started = read_json(folder / STARTED) if (folder / STARTED).is_file() else {}
    saved = (folder / state).exists()
    other = ["it does not say what it was made of"]
    if "decides" in started:
        other = differences(started["decides"], identity.decides)
        if any(line.startswith("inputs.") for line in other):  # of what has only a hash here, the path tells more
            paths = differences(started["other"], identity.other)
            other += [line for line in paths if "PATH" in line.split()[0] or line.startswith(("ROOT", "PROMPTS"))]
    if resume == "false":
        same = saved and not other
        return False, ["RESUME=true or auto would have gone on from its save"] if same else []
    text = "; ".join(other)
    if other and resume == "true":
        raise UserError(
            f"{folder}: holds a run with other settings or inputs: {text}; RESUME=auto (or false) moves it aside and "
            "starts over"
        )
    if saved and len(other) == 1 and other[0].startswith(ITEMS_A_STEP):
        raise UserError(
            f"{folder}: holds a run with other {text}; BATCH_SIZE or ACCUMULATION can make up for other processes, "
            "RESUME=false moves it aside and starts over"
        )
    if other or not saved:
        return False, [f"{f'it differs: {text}' if other else 'it has no save to go on from'}: starting over"]
    changed = differences(started["length"] | started["other"], identity.length | identity.other)
    changed = [line for line in changed if not line.startswith("RESUME ")]
    return True, [f"going on with {'; '.join(changed)}"] if changed else []


def start_run(folder, identity, resume, state):
    """Make the folder ready for a run, as `check_start` says. Returns whether to go on from the saved ``state``."""
    folder = Path(folder)
    goes_on, lines = check_start(folder, identity, resume, state)
    if not goes_on:
        aside = move_aside(folder)
        lines = [f"the earlier run in {folder} is now in {aside}", *lines] if aside else []
    if lines:
        print("; ".join(lines), flush=True)
    (folder / FINISHED).unlink(missing_ok=True)
    parts = {"decides": identity.decides, "length": identity.length, "other": identity.other}
    write_json(folder / STARTED, {"started": time.strftime("%Y-%m-%dT%H:%M:%S"), **parts})
    return goes_on


def move_aside(folder):
    """Move what an earlier run left in ``folder`` to a new one beside it, named after the date; returns that or None.

    A run that had only begun (nothing but `started.json`) is not kept. That file goes last: a move that was cut off
    is then ended by the next run.
    """
    earlier = _made(folder)
    if all(entry.name == STARTED for entry in earlier):
        return None
    aside = folder.with_name(f"{folder.name}.{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    try:
        aside.mkdir()
        for entry in earlier:
            os.rename(entry, aside / entry.name)
    except OSError as error:
        fault = f"cannot be moved to {aside} ({error.strerror})"
        raise UserError(f"{folder}: the earlier run there {fault}; choose another folder") from error
    return aside


def _made(folder):
    return [path for pattern in MADE for path in sorted(folder.glob(pattern))]


def is_aside(folder):
    """Whether a folder holds a run that was moved aside."""
    return re.search(r"\.\d{4}(-\d\d){2}_\d\d(-\d\d){2}$", Path(folder).name) is not None


def finish_run(folder, fingerprint, **summary):
    """Mark the run as finished."""
    write_json(Path(folder) / FINISHED, {"fingerprint": fingerprint, **summary})
