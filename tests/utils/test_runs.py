"""What becomes of an earlier run: gone on from, moved aside, refused by name; never deleted."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.stage import SAVED, Plan
from utils.processes import visible_gpus
from utils.runs import check_start, differences, finish_run, is_aside, is_finished, run_lock, start_run
from utils.settings import Settings
from utils.tools import UserError

SETTINGS = Settings(batch_size=2, resume="auto")
INPUTS = {"llm": "a" * 64, "deepspeed": {"gradient_clipping": 1.0}}


def identity(settings=SETTINGS, processes=1, inputs=INPUTS):
    return Plan("pretrain", settings, None, None, {}, inputs, processes).identity


@pytest.fixture
def folder(tmp_path):
    """What a run left that was stopped after a save."""
    folder = tmp_path / "_demo_pretrain"
    folder.mkdir()
    assert not start_run(folder, identity(), "auto", SAVED)
    (folder / "resume/step4").mkdir(parents=True)
    (folder / SAVED).write_text("step4")
    (folder / "log.jsonl").write_text("{}\n")
    return folder


GOES_ON = {  # each of these threw the run away
    "nothing": {},
    "NUM_PROCESSES, same batch": {"processes": 2, "batch_size": 1},
    "ACCUMULATION, same batch": {"accumulation": 2, "batch_size": 1},
    "EVAL_STEPS": {"eval_steps": 7},
    "VAL_ITEMS": {"val_items": 7},
    "LLM": {"llm": "another label"},
    "MAX_STEPS": {"max_steps": 900},
    "TRAIN_EPOCHS": {"train_epochs": 9},
    "WORKERS": {"workers": 3},
}


@pytest.mark.parametrize("name", GOES_ON)
@pytest.mark.parametrize("resume", ["true", "auto"])
def test_what_does_not_decide_goes_on_and_is_said(name, resume, folder, capsys):
    changed = dict(GOES_ON[name])
    processes = changed.pop("processes", 1)
    assert start_run(folder, identity(replace(SETTINGS, **changed), processes), resume, SAVED)
    assert (folder / SAVED).is_file() and not list(folder.parent.glob("*pretrain.*"))
    said = capsys.readouterr().out
    assert all(f"{key.upper()} " in said for key in changed) and bool(said) == bool(changed)


OTHER = {
    "LEARNING_RATE 0.0001 -> 0.1": {"learning_rate": 0.1},
    "LORA_R 64 -> 8": {"lora_r": 8},
    "SEED 0 -> 1": {"seed": 1},
    "inputs.deepspeed.gradient_clipping 1.0 -> 0.5": {"inputs": {**INPUTS, "deepspeed": {"gradient_clipping": 0.5}}},
    "inputs.llm aaaaaaaaaaaa... -> bbbbbbbbbbbb...": {"inputs": {**INPUTS, "llm": "b" * 64}},
}


@pytest.mark.parametrize("difference", OTHER)
def test_another_run_is_named_and_moved_aside_or_refused(difference, folder, capsys):
    changed = dict(OTHER[difference])
    other = identity(inputs=changed.pop("inputs", INPUTS), settings=replace(SETTINGS, **changed))
    with pytest.raises(UserError) as caught:
        check_start(folder, other, "true", SAVED)
    assert difference in str(caught.value) and "\n" not in str(caught.value)
    capsys.readouterr()
    assert not start_run(folder, other, "auto", SAVED)
    (aside,) = folder.parent.glob("_demo_pretrain.*")
    assert is_aside(aside) and not is_aside(folder)
    assert (aside / SAVED).read_text() == "step4" and (aside / "log.jsonl").is_file()
    said = capsys.readouterr().out
    assert difference in said and str(aside) in said
    assert sorted(entry.name for entry in folder.iterdir()) == ["started.json"]


def test_other_items_a_step_are_refused_with_the_way_out(folder):
    """Another number of GPUs with NUM_PROCESSES=0: a new start of a week's run is not what was wanted."""
    with pytest.raises(UserError, match=r"processes\) 2 -> 4; BATCH_SIZE or ACCUMULATION can make up"):
        check_start(folder, identity(processes=2), "auto", SAVED)


def test_resume_false_moves_the_run_aside_and_says_what_would_have_gone_on(folder, capsys):
    assert not start_run(folder, identity(), "false", SAVED)
    assert "RESUME=true or auto would have gone on" in capsys.readouterr().out
    assert len(list(folder.parent.glob("_demo_pretrain.*/resume/latest"))) == 1


def test_a_run_of_an_earlier_version_is_moved_aside_too(folder):
    (folder / "started.json").write_text(json.dumps({"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="does not say what it was made of"):
        check_start(folder, identity(), "true", SAVED)
    assert not start_run(folder, identity(), "auto", SAVED)
    assert list(folder.parent.glob("_demo_pretrain.*/log.jsonl"))


def test_a_longer_run_is_not_finished(folder):
    finish_run(folder, identity().fingerprint)
    assert is_finished(folder, identity(replace(SETTINGS, llm="x", eval_steps=1)).fingerprint)
    assert not is_finished(folder, identity(replace(SETTINGS, max_steps=900)).fingerprint)


def test_two_runs_in_a_folder_are_refused(tmp_path):
    with run_lock(tmp_path / "run"), pytest.raises(UserError, match="another run is writing there"), run_lock(
        tmp_path / "run"
    ):
        pass
    with run_lock(tmp_path / "run"):  # the lock went with its holder
        pass


def test_a_disk_without_locks_is_said(tmp_path, monkeypatch, capsys):
    """Lustre and some network disks are mounted without: that is no reason not to train, but one to know."""
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(tmp_path):
        assert capsys.readouterr().out.count("cannot be locked") == 1
    assert not [path for path in Path(tmp_path).iterdir() if path.name != "lock"]


def test_differences_name_the_value_within():
    old, new = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": (1,), "e": "x"}
    assert differences(old, new) == ["a.c 2 -> 3", "e nothing -> x"]


@pytest.mark.parametrize(
    "value, names",
    [("2,3", ["2", "3"]), ("", []), ("-1", []), ("0,-1,1", ["0"]), (" GPU-a , MIG-b", ["GPU-a", "MIG-b"])],
)
def test_visible_gpus_are_those_that_cuda_takes(value, names, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == names
