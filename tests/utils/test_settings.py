"""Settings: what users type must arrive, or be refused in one line that names it."""

import subprocess
import sys

import pytest

from utils.settings import FIELDS, Settings, load_settings, table, unused_keys
from utils.tools import REPOSITORY, UserError

PUBLISHED_KEYS = (
    "TRAIN_EPOCHS LEARNING_RATE USE_AMP TASKTYPE BATCH_SIZE DATASET LLM STAGE VERBOSE_STEPS EVAL_STEPS TOKENIZER_PATH "
    "LOCAL_LLM_PATH PRETRAIN_PATH CKP_PATH ROOT_PATH_ECG ROOT_PATH_JSON ROOT_REPORT_JSON "
    "ROOT_ECG TRAIN_PATH VAL_PATH BATCH WORKERS LOG_ROOT EPOCHS LR VAL_EVERY PATIENCE"
).split()


def test_published_keys_are_known():
    assert not [key for key in PUBLISHED_KEYS if key not in FIELDS]


def test_command_line_wins_over_env_file_over_default(tmp_path):
    env = tmp_path / "run.env"
    env.write_text("# a comment\nBATCH_SIZE=7\nLEARNING_RATE = 3e-4\nexport SEED='5'\n")
    settings = load_settings("pretrain", [str(env), "BATCH_SIZE=9"])
    assert (settings.batch_size, settings.learning_rate, settings.seed) == (9, 3e-4, 5)
    assert settings.train_epochs == Settings().train_epochs


def test_paths_start_at_the_repository_in_files_and_here_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = tmp_path / "run.env"
    env.write_text("RESULTS=results/x\n")
    assert load_settings("pretrain", [str(env)]).results == str(REPOSITORY / "results/x")
    assert load_settings("pretrain", ["RESULTS=results/x"]).results == str(tmp_path / "results/x")


def test_env_files_of_the_repository_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "STAGE" not in unused_keys("pretrain", ["env/pretrain.env"])


@pytest.mark.parametrize(
    "argument, words",
    [
        ("BATCHSIZE=4", "unknown setting BATCHSIZE; did you mean BATCH_SIZE"),
        ("BATCH_SIZE=four", "must be a whole number"),
        ("BATCH_SIZE=0", "at least 1"),
        ("LEARNING_RATE=nan", "at least 0"),
        ("USE_AMP=perhaps", "true or false"),
        ("TUNING=half", "lora or full"),
        ("LORA_DROPOUT=2", "at most 0.9"),
        ("STAGE=test", "does not fit this launcher"),
        ("LOCAL_LLM_PATH=/not/there", "no such file or folder"),
        ("no.env", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(argument, words):
    with pytest.raises(UserError, match=words) as caught:
        load_settings("pretrain", [argument])
    assert argument.split("=")[0] in str(caught.value) and "\n" not in str(caught.value)


def test_a_line_that_is_no_setting_is_refused_with_its_number(tmp_path):
    env = tmp_path / "run.env"
    env.write_text("SEED=1\nthis is no setting\n")
    with pytest.raises(UserError, match="line 2"):
        load_settings("pretrain", [str(env)])


def test_settings_without_effect_are_named():
    assert unused_keys("eval", ["LEARNING_RATE=1", "CKP_PATH=x"]) == ["LEARNING_RATE"]


def test_every_shipped_env_file_holds_known_settings_with_right_values():
    """A user's first run must not fail on a file that we ship (that its data aren't here is another matter)."""
    files = sorted((REPOSITORY / "env").rglob("*.env")) + [REPOSITORY / "ecg_tokenizer" / "config.env"]
    assert len([f for f in files if f.parent.name == "env"]) == 10
    for file in files:
        text = file.read_text()
        stage = {"STAGE=pretrain": "pretrain", "STAGE=finetune": "finetune", "STAGE=test": "eval"}
        stage = next((name for line, name in stage.items() if line in text), "tokenizer")
        try:
            load_settings(stage, [str(file)])
        except UserError as error:
            assert "no such file or folder" in str(error)
        assert unused_keys(stage, [str(file)]) == [], file


def test_the_fingerprint_follows_what_decides_the_result_only():
    base = Settings()
    assert Settings(seed=1).fingerprint("pretrain") != base.fingerprint("pretrain")
    assert Settings(threads=1, results="/elsewhere").fingerprint("pretrain") == base.fingerprint("pretrain")
    assert Settings(epochs=9).fingerprint("pretrain") == base.fingerprint("pretrain"), "a setting of another stage"


def test_the_docs_hold_the_table():
    assert table() in (REPOSITORY / "docs/settings.md").read_text()


def test_entry_point_prints_one_line_and_exits_with_2():
    command = [sys.executable, "-m", "utils.settings", "pretrain", "NOPE=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "NOPE" in done.stderr
