"""Stage 1: what it leaves, that it goes on bit for bit, and that it knows when it is finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data_provider.read.signal import SignalPolicy, load_signal
from ecg_tokenizer.codec import EcgTokenizer, tokenizer_fingerprint
from ecg_tokenizer.tokenizer import main, make_plan
from ecg_tokenizer.weights import read_tokenizer, write_folder
from tests.tokenizer_maker import write_data_set
from utils.log import read_log
from utils.tools import REPOSITORY, UserError, read_json

TINY = (
    "CODES_PER_ECG=40 BATCH=2 EPOCHS=2 VAL_EVERY=3 SAVE_STEPS=2 THREADS=1 USE_AMP=false DEVICE=cpu PATIENCE=0".split()
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data")) + TINY


@pytest.fixture(scope="module")
def trained(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    main([*words, f"LOG_ROOT={folder}"])
    return folder


def test_several_data_sets_are_trained_on_as_one(words, tmp_path):
    first = dict(word.split("=", 1) for word in words)
    second = dict(word.split("=", 1) for word in write_data_set(tmp_path / "generated", train=3, valid=1))
    joined = {key: f"{first[key]},{second[key]}" for key in ("ROOT_ECG", "TRAIN_PATH")}
    joined["VAL_PATH"] = first["VAL_PATH"]
    plan = make_plan([f"{key}={value}" for key, value in joined.items()])
    assert len(plan.paths["train"]) == 9 and len(plan.paths["valid"]) == 2
    assert all((Path(plan.root) / f"{path}.hea").is_file() for part in plan.paths.values() for path in part)
    with pytest.raises(UserError, match="2 folder.s., TRAIN_PATH 1 manifest"):
        make_plan([f"{key}={value}" for key, value in (joined | {"TRAIN_PATH": first["TRAIN_PATH"]}).items()])


def test_a_data_set_named_twice_counts_double(words, tmp_path, capsys):
    first = dict(word.split("=", 1) for word in words)
    twice = [f"{key}={first[key]},{first[key]}" for key in ("ROOT_ECG", "TRAIN_PATH")]
    main([*words, *twice, f"LOG_ROOT={tmp_path}", "EPOCHS=1"])
    assert "12 ECGs to train on" in capsys.readouterr().out
    assert read_json(tmp_path / "finished.json")["steps"] == 6


def test_what_a_run_leaves(trained, words):
    tokenizer = EcgTokenizer.from_pretrained(trained)
    assert tokenizer.fingerprint == tokenizer_fingerprint(trained / "best.pt") == tokenizer_fingerprint(trained)
    checkpoint = torch.load(trained / "best.pt", weights_only=True)
    assert set(checkpoint) == {"model", "step", "config"} and checkpoint["step"] in (3, 6)
    lines = read_log(trained / "log.jsonl")
    validations = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in validations] == [3, 6]
    assert all(
        line["codes_used"] <= 1296 and 0 < line["usage"] <= 1 and line["perplexity"] >= 1 for line in validations
    )
    done = read_json(trained / "finished.json")
    best = min(validations, key=lambda line: line["prdn"])
    assert done["prdn"] == best["prdn"] and done["step"] == best["step"] == checkpoint["step"]
    assert any((trained / "tensorboard").rglob("events*"))


def test_the_figures_are_those_of_the_saved_tokenizer(trained, words):
    root = dict(word.split("=", 1) for word in words)["ROOT_ECG"]
    x = np.stack([load_signal(f"{root}/r{n}", SignalPolicy())[0] for n in (100, 101)])
    tokenizer = EcgTokenizer.from_pretrained(trained)
    codes = tokenizer.encode_standardised(x)
    recon = tokenizer.decode_standardised(codes).numpy()
    prdn = 100 * np.sqrt(((recon - x) ** 2).sum((1, 2)) / (x**2).sum((1, 2))).mean()
    done = read_json(trained / "finished.json")
    assert done["prdn"] == pytest.approx(prdn, rel=1e-4)
    assert done["codes_used"] == len(codes.unique())


def test_a_killed_run_goes_on_bit_for_bit(trained, words, tmp_path):
    command = [sys.executable, "-m", "ecg_tokenizer.tokenizer", *words, f"LOG_ROOT={tmp_path}"]
    process = subprocess.Popen(
        [*command, "EPOCHS=200"], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "state" / "training.pt", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The killed run had other EPOCHS: not to be gone on from.
    refused = subprocess.run([*command, "RESUME=true"], cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1

    # The same settings: stopped after the save at step 4, then on.
    script = (
        "import sys, os; from ecg_tokenizer import training; save = training._save_state\n"
        "def kill(run, network, optimizers, progress, figures):\n"
        "    save(run, network, optimizers, progress, figures)\n"
        "    if progress.step == 4: os.kill(os.getpid(), 9)\n"
        "training._save_state = kill\n"
        "from ecg_tokenizer.tokenizer import main; main(sys.argv[1:])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, *words, f"LOG_ROOT={tmp_path}"], cwd=REPOSITORY, capture_output=True
    )
    assert killed.returncode == -9
    resumed = subprocess.run([*command, "RESUME=true"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "going on from step 4" in resumed.stdout
    weights = [torch.load(folder / "best.pt", weights_only=True)["model"] for folder in (trained, tmp_path)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    told = [[line for line in read_log(folder / "log.jsonl")] for folder in (trained, tmp_path)]
    assert [without_time(line) for line in told[0]] == [without_time(line) for line in told[1]]


@pytest.mark.slow
def test_several_processes_learn_what_one_does(tmp_path):
    """Lost otherwise: a tokenizer that depends on the number of GPUs. 21 ECGs: the last step has one, for two."""
    words = [*write_data_set(tmp_path, train=21, valid=3), *TINY, "BATCH=4", "EPOCHS=4", "VAL_EVERY=1"]
    for count in (1, 2):
        more = [f"LOG_ROOT={tmp_path / str(count)}", f"NUM_PROCESSES={count}", "SAVE_STEPS=1000"]
        command = [sys.executable, "-m", "ecg_tokenizer.tokenizer", *words, *more]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_log(tmp_path / str(count) / "log.jsonl") for count in (1, 2))
    for key in ("loss", "val_loss"):
        told = [{line["step"]: line[key] for line in lines if key in line} for lines in (one, two)]
        assert told[0] == pytest.approx(told[1], abs=1e-4) and max(told[0]) >= 20
    assert tokenizer_fingerprint(tmp_path / "2" / "best.pt") == tokenizer_fingerprint(tmp_path / "2")


def test_a_finished_run_is_known_without_torch(trained, words, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "ecg_tokenizer.tokenizer", *words, f"LOG_ROOT={trained}"]
    begun = time.monotonic()
    again = subprocess.run([*command, "RESUME=auto"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "is finished" in again.stderr and "torch" not in again.stderr
    assert time.monotonic() - begun < 5


def test_resume_auto_starts_over_where_settings_differ(words, tmp_path, capsys):
    short = [*words, f"LOG_ROOT={tmp_path}", "EPOCHS=1", "RESUME=auto"]
    main([*short, "LR=1e-3"])
    capsys.readouterr()
    main([*short, "LR=5e-4"])
    assert "starting over" in capsys.readouterr().out
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl") if "val_loss" in line] == [3]


@pytest.mark.parametrize("choice", [["QUANTIZER=vq", "CODEBOOK_SIZE=64"], ["LEVELS=4,4", "CODES_PER_ECG=80"]])
def test_other_quantisers_train(words, tmp_path, choice):
    main([*words, f"LOG_ROOT={tmp_path}", "EPOCHS=1", *choice])
    tokenizer = EcgTokenizer.from_pretrained(tmp_path)
    assert tokenizer.n_codes == (64 if "vq" in choice[0] else 16)


def test_training_starts_from_given_weights(trained, words, tmp_path, capsys):
    """Lost otherwise: a group adapts the shipped tokenizer to its ECGs, and in truth trains one from nothing."""
    start = [*words, f"START_FROM={trained}"]
    main([*start, f"LOG_ROOT={tmp_path}", "EPOCHS=1", "LR=1e-12"])
    before, after = (EcgTokenizer.from_pretrained(path).network.state_dict() for path in (trained, tmp_path))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert code_of([*start, f"LOG_ROOT={tmp_path}", "CODES_PER_ECG=80"]) == 2
    assert "its codes_per_ecg is 40, in the settings 80" in capsys.readouterr().err
    assert (tmp_path / "finished.json").is_file(), "the earlier run is still whole"
    assert code_of([*start, f"LOG_ROOT={trained}"]) == 2 and "write over it" in capsys.readouterr().err
    assert make_plan(start).identity != make_plan(words).identity


def test_a_decoder_trained_on_keeps_the_codes(trained, words, tmp_path, capsys):
    """Lost otherwise: the codes on disk and the adapter of hours, for a better picture of the ECG."""
    kept = [*words, f"START_FROM={trained}", "KEEP_CODES=true"]
    main([*kept, f"LOG_ROOT={tmp_path / 'a'}", "EPOCHS=1", "LR=1e-12", "DECODER_DEPTH=6"])
    main([*kept, f"LOG_ROOT={tmp_path / 'b'}", "EPOCHS=3", "LR=1e-2"])
    before, deeper, after = (EcgTokenizer.from_pretrained(path) for path in (trained, tmp_path / "a", tmp_path / "b"))
    assert len({tokenizer.fingerprint for tokenizer in (before, deeper, after)}) == 1
    assert tokenizer_fingerprint(tmp_path / "b/best.pt") == tokenizer_fingerprint(trained)
    x = torch.randn(3, 12, 5000)
    codes = before.encode_standardised(x)
    assert torch.equal(codes, deeper.encode_standardised(x)) and torch.equal(codes, after.encode_standardised(x))
    drawn = before.decode_standardised(codes)
    assert torch.allclose(drawn, deeper.decode_standardised(codes), atol=1e-4), "added blocks start as nothing"
    assert not torch.allclose(drawn, after.decode_standardised(codes), atol=1e-2)
    again = [*words, f"START_FROM={tmp_path / 'b'}"]
    assert make_plan(again).identity != make_plan([*words, f"START_FROM={trained}"]).identity
    main([*again, f"LOG_ROOT={tmp_path / 'c'}", "EPOCHS=1"])
    assert EcgTokenizer.from_pretrained(tmp_path / "c").fingerprint != before.fingerprint, "now it has codes of its own"
    assert code_of([*again, "DECODER_DEPTH=3", f"LOG_ROOT={tmp_path / 'd'}"]) == 2
    assert "its decoder_depth is 4, in the settings 3" in capsys.readouterr().err
    assert code_of([*words, "KEEP_CODES=true"]) == 2 and "KEEP_CODES needs START_FROM" in capsys.readouterr().err


def test_added_blocks_of_the_encoder_start_as_nothing(trained, words, tmp_path, capsys):
    """Lost otherwise: the hours behind a trained tokenizer, each time that a larger one is tried."""
    deeper = [*words, f"START_FROM={trained}", "EPOCHS=1", "ENCODER_DEPTH=6"]
    main([*deeper, "DECODER_DEPTH=5", "LR=1e-12", f"LOG_ROOT={tmp_path / 'a'}"])
    before, after = (EcgTokenizer.from_pretrained(path) for path in (trained, tmp_path / "a"))
    assert (after.config.encoder_depth, after.config.decoder_depth) == (6, 5)
    x = torch.randn(3, 12, 5000)
    codes = before.encode_standardised(x)
    assert (codes == after.encode_standardised(x)).float().mean() > 0.99, "but for rounding"
    assert torch.allclose(before.decode_standardised(codes), after.decode_standardised(codes), atol=1e-4)
    assert code_of([*deeper, "KEEP_CODES=true", f"LOG_ROOT={tmp_path / 'b'}"]) == 2
    assert "its encoder_depth is 4, in the settings 6" in capsys.readouterr().err


def test_a_coder_that_is_not_the_one_named_is_refused(trained, words, tmp_path):
    """Lost otherwise: codes on disk are read with a tokenizer that never made them."""
    main([*words, f"START_FROM={trained}", "KEEP_CODES=true", f"LOG_ROOT={tmp_path}", "EPOCHS=1"])
    config, state = read_tokenizer(tmp_path)
    state["to_code.weight"][0, 0] += 1
    write_folder(tmp_path, config, state)
    with pytest.raises(UserError, match="no longer the same"):
        tokenizer_fingerprint(tmp_path)


def test_bad_records_are_left_out_and_listed(tmp_path, capsys):
    words = write_data_set(tmp_path) + TINY
    (tmp_path / "files" / "r1.dat").write_bytes(b"no")
    os.unlink(tmp_path / "files" / "r2.hea")
    main([*words, f"LOG_ROOT={tmp_path / 'log'}", "EPOCHS=1"])
    out = capsys.readouterr().out
    assert "4 ECGs to train on" in out and "2 records left out" in out and "r1: " in out and "r2: " in out


def test_a_loss_that_is_no_number_names_the_records(words, tmp_path, capsys):
    assert code_of([*words, f"LOG_ROOT={tmp_path}", "LR=1e30"]) == 2
    assert "its records: r" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "TRAIN_PATH=nowhere.json",
        "ROOT_ECG=nowhere",
        "LEVELS=60,60,60",
        "QUANTIZER=rvq",
        "ARCHITECTURE=published",  # with CODES_PER_ECG=40
        "EPOCHS=0",
        "COLOUR=1",
    ],
)
def test_wrong_settings_end_in_one_line(words, tmp_path, capsys, wrong):
    assert code_of([*words, f"LOG_ROOT={tmp_path}", wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_root_without_the_records_ends_in_one_line(words, tmp_path, capsys):
    assert code_of([*words, f"LOG_ROOT={tmp_path}", f"ROOT_ECG={tmp_path}"]) == 2
    assert "none of the" in capsys.readouterr().err


def code_of(argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code


def without_time(line):
    return {key: value for key, value in line.items() if key != "seconds"}


def wait_for(path, process):
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")
