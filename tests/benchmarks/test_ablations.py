"""An evening of ablations must end in a table that says what each row was worth."""

import pytest

from benchmarks import ablations
from tests.utils.scores.test_evaluation import qa_row
from utils.scores import score_file, write_predictions
from utils.settings import FIELDS, load_settings
from utils.tools import REPOSITORY, UserError, read_json, write_json

GRID = """
[settings]
DATASET = "x"
[pretrain]
TRAIN_EPOCHS = 1
[[row]]
name = "all of it"
seeds = [0, 1]
[[row]]
name = "no stage 2"
pretrain = false
settings = { DATASET = "y", THREADS = 1 }
eval = { THREADS = 2 }
[[row]]
name = "one pass less"
finetune = { TRAIN_EPOCHS = 1 }
"""
KINDS = ("verify", "choose", "query")


def ended(stage, settings, results, wrong="no_stage_2"):
    """Stands in for a launcher: what a stage leaves; the row without stage 2 answers nothing right."""
    if stage == "eval":
        right = wrong not in str(results)
        rows = [qa_row(i, [str(i) if right else "no"], [str(i)], f"single-{KINDS[i % 3]}") for i in range(30)]
        folder = results / "qa_x_test"
        folder.mkdir(parents=True)
        write_predictions(folder / "predictions.jsonl", rows)
        write_json(folder / "metrics.json", score_file(folder / "predictions.jsonl", "qa") | {"paired": {}})
        return True
    folder = results / f"x_{stage}"
    (folder / "checkpoint/checkpoint_epoch0").mkdir(parents=True)
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 1}\n{"step": 1, "val_loss": 0.6931471805599453}\n')
    write_json(results / f"{stage}_processor_seconds.json", 60)
    return True


def test_each_row_is_run_with_what_it_changes_and_compared_with_the_first(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(ablations, "launch", lambda *what: calls.append(what) or ended(*what))
    (tmp_path / "grid.toml").write_text(GRID)
    ablations.main([str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out"), "--jobs", "2"])
    first, again, none, less = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:])
    assert [row[0] for row in (first, again, none, less)] == ["| all of it"] * 2 + ["| no stage 2", "| one pass less"]
    assert first[2] == "1.00" and none[2] == "-"  # bits a code
    assert first[3].startswith("100.0 [") and none[3].startswith("0.0 [") and none[9].startswith("-100.0 [")
    assert first[-1].startswith("2 ") and none[-1].startswith("1 ")  # minutes of both stages
    stages = [stage for stage, *_ in calls]
    assert stages.count("pretrain") == 2, "rows with the same stage 2 share it"
    tuned = {what["SEED"]: what for stage, what, _ in calls if stage == "finetune" and "TRAIN_EPOCHS" not in what}
    alone = [what for _, what, folder in calls if folder.parent.name == "no_stage_2"]
    assert [(what["DATASET"], what["THREADS"]) for what in alone] == [("y", 1), ("y", 2)], "a stage's word is last"
    assert "PRETRAIN_PATH" in tuned[1] and any("PRETRAIN_PATH" not in w for s, w, _ in calls if s == "finetune")


def test_a_row_is_compared_with_the_first_one_of_its_seed(tmp_path, monkeypatch, capsys):
    """Lost otherwise: the worth of a part in which the luck of a seed is counted too."""
    monkeypatch.setattr(ablations, "launch", lambda *what: ended(*what, wrong="seed1"))
    (tmp_path / "grid.toml").write_text(GRID + "seeds = [0, 1]\n")
    ablations.main([str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out")])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[9].split(" ")[0] for row in rows] == ["", "-100.0", "+0.0", "+0.0", "+0.0"]


def test_a_row_that_fails_is_named_and_the_others_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablations, "launch", lambda *what: "no_stage_2" not in str(what[2]) and ended(*what))
    (tmp_path / "grid.toml").write_text(GRID)
    with pytest.raises(SystemExit) as stopped:
        ablations.main([str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "no stage 2 (seed 0): failed" in said.err and "one pass less" in said.out


def test_a_launcher_ends_with_its_processor_seconds_beside_it(tmp_path):
    """Lost otherwise: recipes are compared at equal seconds of a machine that was busy with something else."""
    assert not ablations.launch("eval", {"CKP_PATH": "nowhere"}, tmp_path)
    once = read_json(tmp_path / "eval_processor_seconds.json")
    assert not ablations.launch("eval", {"CKP_PATH": "nowhere"}, tmp_path)
    assert 0 < once < read_json(tmp_path / "eval_processor_seconds.json")
    assert "nowhere" in (tmp_path / "eval.log").read_text()


def test_a_row_without_a_name_is_refused(tmp_path):
    (tmp_path / "grid.toml").write_text("[[row]]\nseeds = [0]\n")
    with pytest.raises(UserError, match="rows need names"):
        ablations.read_grid(tmp_path / "grid.toml", tmp_path)


@pytest.mark.parametrize("grid", ["ablations", "learning_curve", "published"])
def test_the_grids_name_settings_that_the_stages_know(grid, tmp_path):
    """Lost otherwise: a setting is renamed, and the evening ends in a line of failed rows."""
    for run in ablations.read_grid(REPOSITORY / f"benchmarks/{grid}.toml", tmp_path):
        for stage, settings in run.settings.items():
            there = [key for key in settings if not FIELDS[key].metadata["must_exist"]]
            assert load_settings(stage, [f"{key}={settings[key]}" for key in there])
