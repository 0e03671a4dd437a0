"""How long stages 2 and the exam take before their first step on a large data set, and what memory they need for it.

    python benchmarks/startup.py pretrain|eval [--records 800000] [--stat-ms 1] [--questions 0]

The records need not exist: a stub of `os.stat` answers for their files, after a millisecond as a network disk does.
Their codes are in the store already. What is measured is everything up to the loading of the LLM: the check before the
processes start, and then the start of one process.
"""

import argparse
import json
import os
import resource
import stat
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class Loading(Exception):
    """The start is over: the LLM would be loaded now."""


def stop(*_, **__):
    raise Loading


def stub_stat(root, milliseconds):
    """Let `os.stat` answer for .hea and .dat files below ``root``, late; returns the list that counts its calls."""
    real, root, calls = os.stat, str(root), []
    answer = SimpleNamespace(st_mode=stat.S_IFREG | 0o644, st_size=120_000, st_mtime_ns=0)

    def slow(path, *how, **more):
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(root + "/"):
            return real(path, *how, **more)
        calls.append(1)
        time.sleep(milliseconds / 1000)
        if os.fspath(path).endswith((".hea", ".dat")):
            return answer
        raise FileNotFoundError(2, "no such file", path)

    os.stat = slow
    return calls


def make_world(folder, records, questions):
    """Manifests of so many records, and a store with their codes; returns the settings of both stages."""
    import numpy as np

    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.store import CODES, INDEX, StoreWriter, store_folder
    from ecg_tokenizer.weights import SHIPPED
    from model.checkpoint_files import llm_hash
    from model.stage import signal_policy
    from model.tiny_llm import tiny_llm
    from utils.settings import Settings

    paths = [f"files/p{n // 1000:04d}/s{n:08d}/{n:08d}" for n in range(records)]
    words = "Sinus rhythm. Left axis deviation. Nonspecific ST-T wave changes. Borderline ECG."
    background = "The patient is a 61 year old man. Recording Details: none"
    (folder / "root").mkdir()
    for split, part in {"train": paths[records // 20 :], "valid": paths[: records // 20]}.items():
        items = [{"filepath": path, "report": words, "background": background} for path in part]
        (folder / f"{split}.json").write_text(json.dumps(items))
    asked = [
        {"ecg_path": path, "question": "Does this ECG show sinus rhythm?", "answer": ["yes"], "background": background,
         "question_type": "single-verify", "attribute_type": "scp_code", "template_id": 1}
        for path in paths[: questions or records]
    ]  # fmt: skip
    for split in ("train", "test"):
        (folder / f"template_{split}_background.json").write_text(json.dumps(asked))
    tokenizer, policy = EcgTokenizer.from_pretrained(SHIPPED), signal_policy(Settings())
    store = store_folder(folder / "codes", tokenizer.fingerprint, policy, folder / "root")
    store.mkdir(parents=True)
    writer = StoreWriter(store, tokenizer.fingerprint, policy, tokenizer.row_length)
    writer.append(paths[:1], np.zeros((1, tokenizer.row_length), np.uint16), {paths[0]: "0:0+0:0"}, {})
    os.truncate(store / CODES, 128 + records * tokenizer.row_length * 2)
    with open(store / INDEX, "w", encoding="utf-8") as file:
        for row, path in enumerate(paths):
            file.write(json.dumps({"record": path, "row": row, "file": "120000:0+120000:0"}) + "\n")
    adapter, llm = folder / "adapter", tiny_llm(folder)
    adapter.mkdir()
    card = {"stage": "finetune", "tokenizer_fingerprint": tokenizer.fingerprint, "llm_hash": llm_hash(llm)}
    (adapter / "heartllm.json").write_text(json.dumps(card | {"settings": {"TASKTYPE": "qa"}, "inputs": {}}))
    return [f"ROOT_PATH_ECG={folder}/root", f"TOKENIZER_PATH={SHIPPED}", f"CODES_ROOT={folder}/codes", "DATASET=big",
            f"LOCAL_LLM_PATH={llm}", f"RESULTS={folder}/results", "THREADS=1"]  # fmt: skip


def measure(stage, folder, words, milliseconds):
    """Print seconds, looks at files and peak memory of a start."""
    import model.checkpoints
    import run_eval
    import run_main

    calls = stub_stat(folder / "root", milliseconds)
    began = time.monotonic()
    if stage == "eval":
        plan = run_eval.make_plan([*words, f"CKP_PATH={folder}/adapter", f"ROOT_PATH_JSON={folder}"])
        model.checkpoints.load_model, run = stop, run_eval.main_process
    else:
        plan = run_main.make_plan("pretrain", [*words, f"ROOT_REPORT_JSON={folder}"])
        run_main.model_to_train, run = stop, run_main.main_process
    checked = time.monotonic()
    plan.folder.mkdir(parents=True)
    peak = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]
    try:
        run(plan)
    except Loading:
        peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
    print(
        f"{stage}: check {checked - began:.0f} s, {peak[0]:.1f} GB; start of the process "
        f"{time.monotonic() - checked:.0f} s, {peak[1]:.1f} GB; {len(calls):,} looks at files"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("pretrain", "eval"))
    parser.add_argument("--records", type=int, default=800_000)
    parser.add_argument("--stat-ms", type=float, default=1.0, help="how long a look at a file takes")
    parser.add_argument("--questions", type=int, default=0, help="items of the exam; 0 is one a record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if os.fork() == 0:  # what making it all takes is not to be counted
            words = make_world(Path(place), options.records, options.questions)
            (Path(place) / "words.json").write_text(json.dumps(words))
            os._exit(0)
        if os.wait()[1]:
            sys.exit("the data could not be made")
        measure(options.stage, Path(place), json.loads((Path(place) / "words.json").read_text()), options.stat_ms)
