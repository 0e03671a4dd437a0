"""The benchmarks of the training step run, and the docs say what they found."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.results import memory_table, results_table
from utils.tools import REPOSITORY


def test_the_docs_tables_are_those_of_the_results():
    """Lost otherwise: figures that nobody measured."""
    docs = (REPOSITORY / "docs/llms-and-hardware.md").read_text(encoding="utf-8")
    assert "\n".join(memory_table()) in docs and "\n".join(results_table()) in docs


@pytest.mark.slow
def test_all_that_needs_a_gpu_runs_on_a_cpu_too(tmp_path):
    """Lost otherwise: the day there is a GPU, spent on the script that should measure it."""
    from benchmarks.gpu import main

    main(["--device", "cpu", "--small", "--out", str(tmp_path)])
    (file,) = tmp_path.glob("*-small.json")
    found = json.loads(file.read_text())
    assert found["card"] and found["commit"] and found["versions"]["torch"]
    assert [part["what"].split(",")[0] for part in found["parts"]] == ["losses", "encoding", "LoRA", "LoRA", "exam"]
    assert not any("error" in part for part in found["parts"]) and found["parts"][1]["codes_other_than_cpu"] == 0
    assert all(part["losses"][1] < part["losses"][0] for part in found["parts"][2:4])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LoRA", "full"])
def test_the_plan_is_within_ten_percent_of_the_measured_peak(name):
    """Two of the five configurations; `python benchmarks/memory.py` measures all."""
    command = [sys.executable, str(REPOSITORY / "benchmarks/memory.py"), "--here", name]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    environment = {key: value for key, value in environment.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["planned"] == pytest.approx(row["measured"], rel=0.1)
