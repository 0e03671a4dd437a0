"""Runs that know whether they are finished: by what they were made of, not by a file's mere presence."""

import shutil
import sys
from pathlib import Path

from utils.settings import unused_keys
from utils.tools import UserError, read_json, write_json

FINISHED, STARTED = "finished.json", "started.json"


def results_folder(results, stage, tasktype, dataset):
    """The published names: ``results/_ptbxl_pretrain``, ``results/qa_ptbxl_finetune``, ``results/qa_ptbxl_test``."""
    if stage == "pretrain":
        return Path(results) / f"_{dataset}_pretrain"
    return Path(results) / f"{tasktype}_{dataset}_{'test' if stage == 'eval' else stage}"


def is_finished(folder, fingerprint):
    """Whether the run in ``folder`` ended, and was made of the same settings and inputs."""
    path = Path(folder) / FINISHED
    return path.is_file() and read_json(path).get("fingerprint") == fingerprint


def plan_or_run(stage, arguments, make_plan, run):
    """What a launcher asks of a stage: with ``--plan`` among the arguments how many processes to start, else to run it.

    Parameters
    ----------
    arguments : list of str
        ``[--plan] [ENV FILE] [KEY=VALUE ...]``
    make_plan : callable
        From the other arguments to a plan with ``settings``, ``folder``, ``fingerprint`` and ``processes``.
    run : callable
        Runs a plan, unless it is finished.
    """
    settings_arguments = [word for word in arguments if word != "--plan"]
    plan = make_plan(settings_arguments)
    finished = plan.settings.resume != "false" and is_finished(plan.folder, plan.fingerprint)
    if "--plan" in arguments:
        for key in unused_keys(stage, settings_arguments):
            print(f"note: {key} has no effect in this stage", file=sys.stderr)
        if finished:
            print(f"{stage}: {plan.folder} is finished, made of these settings and inputs", file=sys.stderr)
        print("finished" if finished else plan.processes)
    elif not finished:
        run(plan)


def start_run(folder, fingerprint, resume, state):
    """Decide how a run starts; leaves the folder ready for it.

    Parameters
    ----------
    resume : {"false", "true", "auto"}
    state : str
        Name of the sub-folder with the state to go on from.

    Returns
    -------
    bool
        Whether to go on from the saved state.

    Raises
    ------
    UserError
        ``resume="true"`` and the state belongs to a run with other settings or inputs.
    """
    folder = Path(folder)
    started = folder / STARTED
    same = started.is_file() and read_json(started).get("fingerprint") == fingerprint
    if resume == "true" and started.is_file() and not same:
        raise UserError(
            f"{folder}: holds a run with other settings or inputs; RESUME=auto (or false) starts over, "
            "or choose another RESULTS"
        )
    (folder / FINISHED).unlink(missing_ok=True)
    if resume != "false" and same and (folder / state).is_dir():
        return True
    shutil.rmtree(folder / state, ignore_errors=True)
    write_json(started, {"fingerprint": fingerprint})
    return False


def finish_run(folder, fingerprint, **summary):
    """Mark the run as finished."""
    write_json(Path(folder) / FINISHED, {"fingerprint": fingerprint, **summary})
