"""The exam through its entry point: stopped at any moment, it goes on and ends as if nothing had been."""

import json
import random
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from tests.model.test_stages import ENVIRONMENT, run, settings, torchrun, world  # noqa: F401
from utils.tools import REPOSITORY

pytestmark = pytest.mark.slow
EXAM = {"TASKTYPE": "qa", "BATCH_SIZE": 2, "MAX_NEW_TOKENS": 24, "PROMPTS": REPOSITORY / "env/prompts/ecg_first.json"}
EXAM["OVERRIDE"] = "prompts"  # the exam reads an ECG once, however it was trained
LAUNCHER = ["torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d"]


@pytest.fixture(scope="module")
def undisturbed(world):  # noqa: F811
    """An exam of a few steps' model that nobody stops."""
    run("run_main.py", "finetune", *settings(world, world / "exam", TASKTYPE="qa", MAX_STEPS=3, TUNING="full"))
    checkpoint = world / "exam/qa_demo_finetune/checkpoint/checkpoint_epoch0"
    run("run_eval.py", "eval", *settings(world, world / "exam", CKP_PATH=checkpoint, **EXAM))
    return world / "exam/qa_demo_test", checkpoint


def answered(folder):
    """The index of every answer on disk, once for each time that it was answered."""
    found = []
    for path in sorted((folder / "predictions.partial").glob("rank*.jsonl")):
        for line in path.read_text().rpartition("\n")[0].splitlines():
            found += [index for index, _ in json.loads(line)[1]]
    return found


def start(words, processes):
    """Start an exam on one process or two."""
    script = [str(REPOSITORY / "run_eval.py"), "eval", *words, "RESUME=auto"]
    module = ["-m", *LAUNCHER, "--rdzv_endpoint=127.0.0.1:0"] if processes == 2 else []
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *module, *script], env=ENVIRONMENT, **how)


def killed_exam(world, undisturbed, processes, seed, kills=2):  # noqa: F811
    """An exam that is killed some times, each time after some more answers, and then goes on to its end."""
    whole, checkpoint = undisturbed
    rng, results = random.Random(seed), world / f"killed{processes}_{seed}"
    words = settings(world, results, CKP_PATH=checkpoint, **EXAM | {"NUM_PROCESSES": processes})
    folder = results / "qa_demo_test"
    items = len((whole / "predictions.jsonl").read_text().splitlines())
    for _ in range(kills):
        process, before = start(words, processes), len(answered(folder))
        wanted, deadline = before + rng.randrange(1 + (items - before) // 2), time.monotonic() + 600
        while process.poll() is None and len(answered(folder)) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        for one in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
            one.kill()
        process.wait()
    open_items = items - len(answered(folder))
    last = run("run_eval.py", "eval", *words, "RESUME=auto", "NUM_PROCESSES=1")
    assert (folder / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    assert sorted(answered(folder)) == list(range(items)), "every item was answered once"
    return open_items, last


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_exam_goes_on_as_if_nothing_had_been(world, undisturbed, processes):  # noqa: F811
    """SIGKILL, twice in a row: the same bytes in the end, and no answer on disk given twice."""
    killed_exam(world, undisturbed, processes, seed=0)


def test_an_exam_that_dies_in_scoring_scores_what_it_has_answered(world, undisturbed, tmp_path):  # noqa: F811
    """No other exam's scores stay beside its predictions, and scoring it later takes no answering."""
    whole, checkpoint = undisturbed
    words = settings(world, tmp_path, CKP_PATH=checkpoint, **EXAM)
    shutil.copytree(whole, tmp_path / "qa_demo_test")
    (tmp_path / "qa_demo_test/finished.json").unlink()
    (tmp_path / "qa_demo_test/metrics.json").unlink()
    (tmp_path / "qa_demo_test/metrics.json").mkdir()  # neither to be removed nor written: a stand-in for a full disk
    done = run("run_eval.py", "eval", *words, "RESUME=auto", check=False)
    assert done.returncode != 0 and not (tmp_path / "qa_demo_test/finished.json").exists()
    (tmp_path / "qa_demo_test/metrics.json").rmdir()
    before = answered(tmp_path / "qa_demo_test")
    done = run("run_eval.py", "eval", *words, "RESUME=true")
    assert f"{len(before)} of {len(before)} items are answered" in done.stdout
    assert answered(tmp_path / "qa_demo_test") == before
    for name in ("predictions.jsonl", "metrics.json"):
        assert (tmp_path / "qa_demo_test" / name).is_file()
    assert json.loads((tmp_path / "qa_demo_test/finished.json").read_text())
    assert run("run_eval.py", "eval", "--plan", *words, "RESUME=true").stdout.strip() == "finished"


def test_likelihoods_answer_every_question(world, undisturbed, tmp_path):  # noqa: F811
    """Two processes, controls too: rows hold the candidates with their likelihoods, the likeliest is the answer."""
    more = EXAM | {"ANSWERS": "likelihood", "CONTROLS": "shuffled", "NUM_PROCESSES": 2, "TEST_ITEMS": 24}
    more |= {"CODE_VIEWS": 2}
    words = settings(world, tmp_path, CKP_PATH=undisturbed[1], **more)
    torchrun("run_eval.py", "eval", *words)
    rows = [json.loads(line) for line in (tmp_path / "qa_demo_test/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        values = row["log_likelihoods"]
        assert len(values) == len(row["candidates"]) > 1 and max(values) < 0
        assert row["prediction"] == row["candidates"][values.index(max(values))]
    refused = run("run_eval.py", "eval", "--plan", *words, "TASKTYPE=report", "OVERRIDE=tasktype,prompts", check=False)
    assert refused.returncode == 2 and "ANSWERS=likelihood" in refused.stderr
    refused = run("run_eval.py", "eval", "--plan", *words, "ANSWERS=generate", check=False)
    assert refused.returncode == 2 and "CODE_VIEWS: the exam averages likelihoods" in refused.stderr
    assert list((world / "codes").glob("*/view1/codes.npy")), "the second way has codes of its own"
