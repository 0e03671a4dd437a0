"""The stages through their real entry points, small: what a user's cluster does to a run must not change its result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shared import SHARED, needs_shared
from utils.tools import REPOSITORY

pytestmark = pytest.mark.slow
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")},
    "PYTHONPATH": str(REPOSITORY),
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",  # the same everywhere
    "TOKENIZERS_PARALLELISM": "false",
}


def run(script, *words, check=True, **how):
    """Run an entry point in a process of its own; its result, with what it printed."""
    command = [sys.executable, *([str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, **how)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def torchrun(script, *words, processes=2):
    return run("torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0", "--rdzv_backend=c10d",
               "--rdzv_endpoint=127.0.0.1:0", str(REPOSITORY / script), *words)  # fmt: skip


def launch(script, *words):
    """A launcher, as users call it, in the environment of these tests."""
    environment = ENVIRONMENT | {"VIRTUAL_ENV": sys.prefix}
    command = ["bash", str(REPOSITORY / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def losses(folder, key="loss"):
    lines = map(json.loads, (Path(folder) / "log.jsonl").read_text().splitlines())
    return {line["step"]: line[key] for line in lines if key in line}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Simulated ECGs, manifests and a tokenizer after a few steps."""
    folder = tmp_path_factory.mktemp("world")
    run("data_provider.simulate", "--out", str(folder / "files"), "--patients", "60", "--seed", "3")
    run("data_provider.prepare", "ptbxl", "--root", str(folder / "files"), "--out", str(folder), "--name", "demo")
    run("ecg_tokenizer.tokenizer", f"ROOT_ECG={folder}/files", f"TRAIN_PATH={folder}/report/demo/train.json",
        f"VAL_PATH={folder}/report/demo/valid.json", f"LOG_ROOT={folder}/tokenizer", "EPOCHS=1", "BATCH=8",
        "SAVE_STEPS=1000", "VAL_EVERY=1000")  # fmt: skip
    return folder


def settings(world, results, **more):
    """Settings of a small run."""
    values = {
        "DATASET": "demo",
        "ROOT_PATH_ECG": world / "files",
        "ROOT_PATH_JSON": world / "ecgqa/demo",
        "ROOT_REPORT_JSON": world / "report/demo",
        "TOKENIZER_PATH": world / "tokenizer/best.pt",
        "CODES_ROOT": world / "codes",
        "RESULTS": results,
        "NUM_PROCESSES": 1,
        "THREADS": 1,
        "USE_AMP": "false",  # the losses of one process and of two agree to float32's digits
    }
    training = {"LORA_R": 4, "LORA_DROPOUT": 0, "BATCH_SIZE": 4, "VERBOSE_STEPS": 1, "VAL_ITEMS": 4, "SAVE_STEPS": 1000}
    if "CKP_PATH" not in more:
        values |= training
    return [f"{key}={value}" for key, value in (values | more).items()]


@pytest.fixture(scope="module")
def pretrained(world):
    """Twelve steps of stage 2 in one go, with LoRA and its dropout."""
    run("run_main.py", "pretrain", *settings(world, world / "one", MAX_STEPS=12, LORA_DROPOUT=0.05))
    return world / "one/_demo_pretrain"


def test_a_killed_run_goes_on_as_if_nothing_had_been(world, pretrained):
    words = settings(world, world / "killed", MAX_STEPS=12, LORA_DROPOUT=0.05, SAVE_STEPS=4)
    command = [sys.executable, str(REPOSITORY / "run_main.py"), "pretrain", *words]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = world / "killed/_demo_pretrain"
    deadline = time.monotonic() + 300
    while not (folder / "log.jsonl").exists() or max(losses(folder), default=0) < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "resume/latest").read_text() == "step4" or max(losses(folder)) >= 8
    done = run("run_main.py", "pretrain", *words, "RESUME=true")
    assert "going on from step" in done.stdout
    assert losses(folder) == losses(pretrained), "bit for bit"
    assert losses(folder, "val_loss") == losses(pretrained, "val_loss")
    again = run("run_main.py", "pretrain", "--plan", *words, "RESUME=true")
    assert again.stdout.strip() == "finished" and "memory a process (computed" in again.stderr
    other = run("run_main.py", "pretrain", *words, "RESUME=true", "LEARNING_RATE=1", check=False)
    assert other.returncode == 2 and "other settings" in other.stderr


def test_a_mixed_run_goes_on_bit_for_bit_and_two_processes_take_the_same_items(world):
    """Two data sets with equal record paths, two tasks, views, uneven passes; from what simulated ECGs alone taught."""
    run("data_provider.simulate", "--out", str(world / "more"), "--patients", "20", "--seed", "4")
    run("data_provider.prepare", "ptbxl", "--root", str(world / "more"), "--out", str(world), "--name", "more")
    chain = settings(world, world / "mixed", TASKTYPE="qa", MAX_STEPS=2, TUNING="full", PROMPTS="ecg_first")
    run("run_main.py", "finetune", *chain)
    mixed = {
        "DATASET": "demo,more", "ROOT_PATH_ECG": f"{world}/files,{world}/more", "ROOT_PATH_JSON": world / "ecgqa",
        "ROOT_REPORT_JSON": world / "report", "TASKTYPE": "qa,report", "MIX": "0.3,1,1,1.5", "CODE_VIEWS": 2,
        "PROMPTS": "ecg_first", "SHARE_ECG": "true", "TUNING": "full", "MAX_STEPS": 6, "EVAL_STEPS": 3,
        "PRETRAIN_PATH": world / "mixed/qa_demo_finetune/checkpoint/checkpoint_epoch0", "OVERRIDE": "tasktype",
    }  # fmt: skip
    folder = "qa+report_demo+more_finetune"
    run("run_main.py", "finetune", *settings(world, world / "mixed", **mixed))
    straight = world / "mixed" / folder
    assert len(losses(straight, "val_loss_by_part")[6]) == 4

    words = settings(world, world / "mixed_killed", **mixed, SAVE_STEPS=3)
    command = [sys.executable, str(REPOSITORY / "run_main.py"), "finetune", *words]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed, deadline = world / "mixed_killed" / folder, time.monotonic() + 300
    while not (killed / "log.jsonl").exists() or max(losses(killed), default=0) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "going on from step" in run("run_main.py", "finetune", *words, "RESUME=true").stdout
    for key in ("loss", "val_loss_by_part"):
        assert losses(killed, key) == losses(straight, key), "bit for bit"

    words = settings(world, world / "mixed_two", **mixed | {"BATCH_SIZE": 2, "NUM_PROCESSES": 2})
    run("run_main.py", "finetune", *words)
    one, two = losses(straight), losses(world / "mixed_two" / folder)
    assert sorted(one) == list(range(1, 7)) and max(abs(one[step] - two[step]) for step in one) < 1e-4
    plan = settings(world, world / "mixed", TASKTYPE="report", CKP_PATH=straight / "checkpoint/checkpoint_epoch0")
    assert run("run_eval.py", "eval", "--plan", *plan).stdout.strip() == "1"


def test_sigterm_saves_and_says_how_to_go_on(world):
    words = settings(world, world / "stopped", MAX_STEPS=400)
    command = [sys.executable, str(REPOSITORY / "run_main.py"), "pretrain", *words]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = world / "stopped/_demo_pretrain"
    deadline = time.monotonic() + 300
    while not (folder / "log.jsonl").exists() or max(losses(folder), default=0) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert "RESUME=true goes on from here" in process.communicate(timeout=120)[1]
    assert (folder / "resume/latest").is_file()


def test_two_processes_train_and_answer_as_one(world, pretrained):
    """Same global batch, same losses; same answers, none lost and none twice."""
    common = {"TASKTYPE": "qa", "MAX_STEPS": 20, "PRETRAIN_PATH": pretrained / "checkpoint/checkpoint_epoch0"}
    run("run_main.py", "finetune", *settings(world, world / "one", **common))
    env = world / "two.env"
    env.write_text("\n".join(settings(world, world / "two", **common | {"BATCH_SIZE": 2})))
    launch("finetune.sh", str(env), "NUM_PROCESSES=2")
    one, two = (losses(world / name / "qa_demo_finetune") for name in ("one", "two"))
    assert sorted(one) == list(range(1, 21)) and max(abs(one[step] - two[step]) for step in one) < 1e-4

    folder = world / "one/qa_demo_finetune/checkpoint/checkpoint_epoch0"
    common = {"TASKTYPE": "qa", "CKP_PATH": folder, "BATCH_SIZE": 8, "MAX_NEW_TOKENS": 12, "CONTROLS": "shuffled,blank"}
    run("run_eval.py", "eval", *settings(world, world / "one", **common))
    torchrun("run_eval.py", "eval", *settings(world, world / "two", **common | {"NUM_PROCESSES": 2}))
    for name in ("predictions.jsonl", "predictions_shuffled.jsonl"):
        first, second = ((world / w / "qa_demo_test" / name).read_text() for w in ("one", "two"))
        assert first == second
        manifest = json.loads((world / "ecgqa/demo/template_test_background.json").read_text())
        assert [json.loads(line)["index"] for line in first.splitlines()] == list(range(len(manifest)))
    metrics = json.loads((world / "one/qa_demo_test/metrics.json").read_text())
    assert set(metrics["controls"]) == {"shuffled", "blank"} and metrics["count"] == len(manifest)
    recomputed = world / "again.json"
    run("utils.evaluation", str(world / "one/qa_demo_test/predictions.jsonl"), "--task", "qa", "--out", str(recomputed))
    assert json.loads(recomputed.read_text()) == metrics


def test_reports_are_trained_and_scored(world, pretrained):
    stage_two = pretrained / "checkpoint/checkpoint_epoch0"
    words = settings(world, world / "one", TASKTYPE="report", MAX_STEPS=3, PRETRAIN_PATH=stage_two)
    run("run_main.py", "finetune", *words)
    folder = world / "one/report_demo_finetune/checkpoint/checkpoint_epoch0"
    run("run_eval.py", "eval", *settings(world, world / "one", TASKTYPE="report", CKP_PATH=folder, MAX_NEW_TOKENS=8))
    metrics = json.loads((world / "one/report_demo_test/metrics.json").read_text())
    assert metrics["count"] and set(metrics["floor"]) == {"nltk", "rouge", "coco", "labels", "labels_scp"}


BAD = {
    "an unknown key": (["BATCHSIZE=3"], "BATCHSIZE"),
    "a wrong value": (["LEARNING_RATE=fast"], "LEARNING_RATE"),
    "a path that isn't there": (["TOKENIZER_PATH=/not/there"], "TOKENIZER_PATH"),
    "a root without records": (["ROOT_PATH_ECG={empty}"], "none of the"),
    "an empty manifest": (["ROOT_REPORT_JSON={empty_manifest}"], "is empty"),
    "a malformed item": (["ROOT_REPORT_JSON={bad_manifest}"], "item 1"),
    "no JSON": (["ROOT_REPORT_JSON={no_json}"], "not valid JSON"),
    "a pickle with code": (["TOKENIZER_PATH={evil}"], "evil.pt"),
    "not an LLM": (["LOCAL_LLM_PATH={empty}"], "not an LLM folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(name, world, tmp_path):
    import torch

    good = json.loads((world / "report/demo/train.json").read_text())[0]
    for folder, text in {
        "empty": None,
        "empty_manifest": "[]",
        "bad_manifest": json.dumps([good, {"report": "x"}]),
        "no_json": "{",
    }.items():
        (tmp_path / folder).mkdir()
        for split in ("train", "valid") if text else ():
            (tmp_path / folder / f"{split}.json").write_text(text)

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "code_ran",)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    words, expected = BAD[name]
    here = {child.stem: child for child in tmp_path.iterdir()}
    words = settings(world, tmp_path / "results") + ["ROOT_PATH_JSON="] + [word.format(**here) for word in words]
    done = run("run_main.py", "pretrain", "--plan", *words, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(lines) == 1 and expected in lines[0], done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "code_ran").exists()


def test_a_checkpoint_of_another_tokenizer_is_refused_before_anything_long(world, pretrained, tmp_path):
    run("ecg_tokenizer.tokenizer", f"ROOT_ECG={world}/files", f"TRAIN_PATH={world}/report/demo/valid.json",
        f"VAL_PATH={world}/report/demo/valid.json", f"LOG_ROOT={tmp_path}/other", "EPOCHS=1", "SEED=9")  # fmt: skip
    words = settings(world, world / "one", TASKTYPE="qa", PRETRAIN_PATH=pretrained / "checkpoint/checkpoint_epoch0")
    done = run("run_main.py", "finetune", "--plan", *words, f"TOKENIZER_PATH={tmp_path}/other/best.pt", check=False)
    assert done.returncode == 2 and "another ECG tokenizer" in done.stderr


def test_an_item_longer_than_the_llm_reads_is_refused_before_training(world, pretrained, tmp_path):
    """Two ECGs in one prompt need twice the room: better said at once than found by a crash."""
    import shutil

    short = tmp_path / "llm"
    shutil.copytree(next((world / "one").glob("tiny_llm_v*")), short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    words = settings(world, tmp_path / "results", TASKTYPE="qa", LOCAL_LLM_PATH=short)
    done = run("run_main.py", "finetune", *words, check=False)
    assert done.returncode == 2 and "reads 256 at most" in done.stderr
    assert not (tmp_path / "results/qa_demo_finetune/log.jsonl").exists()


def test_the_stages_read_the_amplitudes(world, pretrained):
    """What stage 2 encoded and learned has them: 12 codes before the 313, 64 tokens behind the published ones."""
    import numpy as np

    codes = np.concatenate([np.load(path) for path in (world / "codes").glob("*/codes.npy")])
    assert codes.shape[1] == 12 + 313 and codes[:, 12:].max() < 1296
    assert 1296 <= codes[:, :12].min() < codes[:, :12].max() < 1296 + 64
    card = json.loads((pretrained / "checkpoint/checkpoint_epoch0/heartllm.json").read_text())
    assert (card["n_codes"], card["n_scales"], card["codes_per_ecg"]) == (1296, 64, 313)


@needs_shared
def test_the_authors_checkpoint_does_not_go_with_our_tokenizer(world, tmp_path):
    reference = SHARED / "reference/llm_checkpoint"
    words = settings(world, tmp_path, TASKTYPE="qa", CKP_PATH=reference / "checkpoint_epoch0.pth")
    done = run("run_eval.py", "eval", *words, f"LOCAL_LLM_PATH={reference}/base_llm", check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(lines) == 1 and "another ECG tokenizer" in lines[0], done.stderr


@needs_shared
def test_the_authors_checkpoints_run_from_settings_to_scores(world, tmp_path):
    """Their tokenizer, LLM adapter and words go through eval as they are."""
    reference = SHARED / "reference"
    words = [
        "TASKTYPE=qa", "DATASET=demo", f"ROOT_PATH_ECG={world}/files", f"ROOT_PATH_JSON={world}/ecgqa/demo",
        f"TOKENIZER_PATH={reference}/tokenizer/best.pt", f"LOCAL_LLM_PATH={reference}/llm_checkpoint/base_llm",
        f"CKP_PATH={reference}/llm_checkpoint/checkpoint_epoch0_4bit.pth", "LEAD_ORDER=file", "TEST_ITEMS=4",
        "MAX_NEW_TOKENS=4", f"RESULTS={tmp_path}", f"CODES_ROOT={tmp_path}/codes", "NUM_PROCESSES=1",
    ]  # fmt: skip
    run("run_eval.py", "eval", *words)
    assert json.loads((tmp_path / "qa_demo_test/metrics.json").read_text())["count"] == 4


def test_steps_of_tokens_go_on_and_are_the_same_for_two_processes(world):
    """Lost otherwise: a run by TOKENS_PER_STEP that takes other items after a stop, or on another cluster."""
    common = {"MAX_STEPS": 8, "SHARE_ECG": "true", "PROMPTS": "ecg_first", "TOKENS_PER_STEP": 3000, "SAVE_STEPS": 5}
    run("run_main.py", "finetune", *settings(world, world / "tokens", **common | {"MAX_STEPS": 5}))
    done = run("run_main.py", "finetune", *settings(world, world / "tokens", **common, RESUME="true"))
    assert "going on from step 5" in done.stdout and "attention: by sequences" in done.stdout
    two = settings(world, world / "tokens2", **common | {"NUM_PROCESSES": 2, "GRADIENT_CHECKPOINTING": "true"})
    torchrun("run_main.py", "finetune", *two)
    one, both = (losses(world / folder / "qa_demo_finetune") for folder in ("tokens", "tokens2"))
    assert len(one) == 8 and one == pytest.approx(both, abs=1e-4)
    line = json.loads((world / "tokens/qa_demo_finetune/log.jsonl").read_text().splitlines()[0])
    assert line["tokens_per_s"] > 0 and 0 < line["peak_share"] < 1
