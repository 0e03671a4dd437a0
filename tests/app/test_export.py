"""An exported model is read by programs that know nothing of this project: they must get the very same answers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from app.client import load_prompter
from app.client import main as client_main
from app.export import export
from app.export import main as export_main
from model.answering import AnswerModel, Exam, answer_batches, plan_exam
from model.checkpoint_files import checkpoint_hash, llm_hash
from model.checkpoints import build_model, load_model, save_checkpoint
from model.prompts import prompt_ids, read_prompts
from model.tiny_llm import tiny_llm
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer
from tests.wfdb_maker import write_record
from utils.processes import free_port
from utils.tools import REPOSITORY, UserError, write_json

pytestmark = pytest.mark.slow
QUESTIONS = ["Is the rhythm regular?", 'A "{background}" in <|end_ecg|>?', "Which axis?", "ST?", "Paced?"]
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}
PLAIN = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, asked = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
texts, logits = [], []
for prompt in json.load(open(asked)):
    ids = tokenizer(prompt, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=24)[0, ids["input_ids"].shape[1]:]
    texts.append(tokenizer.decode(answer, skip_special_tokens=True))
    logits.append(model(**ids).logits[0, -1].tolist())
ours = {"app", "model", "ecg_tokenizer", "data_provider", "utils", "peft"} & set(sys.modules)
assert not ours, ours
print(json.dumps([texts, logits]))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An adapter whose every part differs from the start, its tokenizer, an ECG file and what the exam says of it."""
    folder = tmp_path_factory.mktemp("export")
    tokenizer, llm = small_tokenizer(config=WITH_AMPLITUDE), tiny_llm(folder)
    tokenizer.save(folder / "tokenizer")
    alphabets = {"n_codes": tokenizer.n_codes, "n_scales": tokenizer.n_scales}
    model, text, _ = build_model(llm, tuning="lora", rank=4, **alphabets)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens" in name:
                parameter.mul_(0.1)  # so that it writes words, not codes
            elif parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    prompts = read_prompts("ecg_first")
    card = {"stage": "finetune", "llm": "", "llm_path": str(llm), "llm_hash": llm_hash(llm)}
    card |= {"tokenizer_path": str(folder / "tokenizer"), "tokenizer_fingerprint": tokenizer.fingerprint}
    settings = {"TASKTYPE": ["qa", "report"], "LEAD_ORDER": "name", "CROP": "first", "DATASET": "demo"}
    save_checkpoint(folder / "ckp", model, text, card | {"settings": settings, "inputs": {"prompts": prompts}})
    write_record(folder / "ecg", beats())
    export(folder / "ckp", folder / "out")
    return folder, alphabets


@pytest.fixture(scope="module")
def asked(world):
    """The prompts as text, and the answers of the exam's own code with the unmerged adapter."""
    folder, alphabets = world
    prompter = load_prompter(folder / "out")
    codes = prompter.encode_file(folder / "ecg")
    model, text, vocabulary = load_model(folder / "ckp", tiny_llm(folder), **alphabets)
    answer_model = AnswerModel(model.eval(), text, vocabulary, prompter.card["inputs"]["prompts"])
    items = {n: {"question": question, "ecg_path": "ecg"} for n, question in enumerate(QUESTIONS)}
    exam = Exam(items, "qa", 4, 24)
    plan = plan_exam(answer_model, exam, len(codes))
    answers = dict(
        pair for part in answer_batches(answer_model, exam, plan, plan.batches, lambda _: codes) for pair in part
    )
    prompts = [prompter.prompt(item, "qa", [codes]) for item in items.values()]
    ids = [prompt_ids(text, vocabulary, answer_model.prompts, item, "qa", [codes]) for item in items.values()]
    with torch.no_grad():
        logits = np.array([model(torch.tensor([of_one])).logits[0, -1].tolist() for of_one in ids])
    return prompts, [answers[n] for n in items], logits


def test_plain_transformers_elsewhere_gives_the_same_logits_and_texts(world, asked, tmp_path):
    """In another folder, isolated from this one; the largest logits are some ten."""
    prompts, answers, logits = asked
    (tmp_path / "asked.json").write_text(json.dumps(prompts))
    (tmp_path / "plain.py").write_text(PLAIN)
    words = [sys.executable, "-I", "plain.py", str(world[0] / "out"), "asked.json"]
    done = subprocess.run(words, cwd=tmp_path, env=OFFLINE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts, plain = json.loads(done.stdout.splitlines()[-1])
    assert texts == answers and len(set(texts)) > 1
    assert np.abs(np.array(plain) - logits).max() < 1e-5


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["choices"][0]


def test_a_server_answers_as_the_exam_by_completions_and_by_chat(world, asked, capsys):
    folder, port = world[0], free_port()
    words = [sys.executable, "-m", "app.serve", str(folder / "out"), "--port", str(port)]
    server = subprocess.Popen(words, cwd=REPOSITORY, env=OFFLINE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, prompts, answers = f"http://127.0.0.1:{port}", asked[0], asked[1]
    try:
        deadline = time.monotonic() + 300
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            time.sleep(0.5)
        more = {"max_tokens": 24, "temperature": 0}
        for prompt, answer, question in zip(prompts, answers, QUESTIONS, strict=True):
            assert post(f"{url}/v1/completions", {"prompt": prompt, **more})["text"] == answer
            if "<|" not in question:
                block = prompt[: prompt.rindex("<|end_ecg|>")] + "<|end_ecg|>"
                messages = [{"role": "user", "content": f"{question} {block}"}]
                chat = post(f"{url}/v1/chat/completions", {"messages": messages, **more})
                assert chat["message"]["content"] == answer
        client_main([str(folder / "ecg"), QUESTIONS[0], "--model", str(folder / "out"), "--url", url])
        assert capsys.readouterr().out.startswith(answers[0].strip()[:20])
        with pytest.raises(urllib.error.HTTPError):  # it serves this folder and no other
            post(f"{url}/v1/completions", {"prompt": "x", "model": str(folder / "ckp"), **more})
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def test_an_export_is_a_checkpoint_too_and_says_what_it_is(world):
    folder, alphabets = world
    out = folder / "out"
    first = {name: t for name, t in load_model(out, "", **alphabets)[0].named_parameters()}
    export(out, folder / "twice", metrics=())
    second = {name: t for name, t in load_model(folder / "twice", "", **alphabets)[0].named_parameters()}
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    listed = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    readme = (out / "README.md").read_text()
    assert "license: mit" in readme and "not a medical device" in readme.lower() and "No exam was given" in readme


def test_scores_stand_in_the_card_with_floor_and_controls_and_only_of_this_checkpoint(world, tmp_path):
    folder = world[0]
    share = {"overall": 0.6, "interval": {"overall": [0.5, 0.7]}}
    provenance = {
        "inputs": {"adapter": checkpoint_hash(folder / "ckp")},
        "settings": {"TASKTYPE": "qa", "DATASET": "d"},
    }
    metrics = {"count": 9, "exact_match": share, "floor": share, "controls": {"shuffled": {"exact_match": share}}}
    write_json(tmp_path / "metrics.json", metrics | {"provenance": provenance})
    readme = (export(folder / "ckp", tmp_path / "out", metrics=[tmp_path]) / "README.md").read_text()
    assert readme.count("60.0 % [50.0, 70.0]") == 3 and "constant answer" in readme and "shuffled" in readme
    provenance["inputs"]["adapter"] = "other"
    write_json(tmp_path / "metrics.json", metrics | {"provenance": provenance})
    with pytest.raises(UserError, match="another checkpoint"):
        export(folder / "ckp", tmp_path / "other", metrics=[tmp_path])


def test_faults_are_one_line_and_leave_nothing(world, tmp_path, capsys):
    folder = world[0]
    write_json(tmp_path / "stage2/heartllm.json", {"stage": "pretrain", "settings": {}})
    small_tokenizer(seed=1).save(tmp_path / "tokenizer")
    for words, said in (
        ([tmp_path / "nothing"], "no checkpoint"),
        ([folder / "ckp", "--llm", tmp_path / "gone"], "name it with --llm"),
        ([folder / "ckp", "--tokenizer", tmp_path / "tokenizer"], "another ECG tokenizer"),
        ([tmp_path / "stage2"], "no task yet"),
        ([folder / "ckp", "--to", folder / "out"], "is there already"),
    ):
        with pytest.raises(SystemExit) as stop:
            export_main([str(word) for word in ["--to", tmp_path / "out", *words[1:], words[0]]])
        assert stop.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        client_main(
            [str(folder / "ecg"), "x", "--model", str(folder / "out"), "--url", f"http://127.0.0.1:{free_port()}"]
        )
    assert "is the server running" in capsys.readouterr().err
