"""A bundle is to convince somebody who was not there: what does not follow from what is in it must be found."""

import json
import random

import pytest

from app.archive import Archive, write_archive
from app.bundle import bundle
from app.bundle import main as bundle_main
from app.verify import main as verify_main
from app.verify import verify
from tests.tokenizer_maker import small_tokenizer
from utils.scores import attach_floor, score_file, write_predictions
from utils.tools import UserError, sha256_bytes, sha256_file, write_json


def make_run(folder):
    """A finished exam of 40 questions, as run_eval.py leaves it, but for the answers, which are drawn."""
    rng, data, exam = random.Random(0), folder / "data", folder / "results/qa_demo_test"
    about = {"question_type": "single-verify", "attribute_type": "scp_code", "template_id": 1}
    items = [
        {
            "question": f"Is it {n % 3}?",
            "answer": [rng.choice(["yes", "no"])],
            "ecg_path": f"r{n}",
            "patient_id": n // 2,
        }
        | about
        for n in range(50)
    ]
    manifest = data / "demo/template_test_background.json"
    write_json(manifest, items)
    write_json(data / "demo/template_train_background.json", items)
    card = data / "demo/dataset_card.json"
    write_json(card, {"name": "demo", "files": {"ecgqa/demo/test.json": {"sha256": sha256_file(manifest)}}})
    tokenizer = small_tokenizer()
    tokenizer.save(folder / "tokenizer")
    checkpoint = folder / "results/qa_demo_finetune/checkpoint/checkpoint_epoch0"
    write_json(checkpoint / "heartllm.json", {"stage": "finetune"})
    (checkpoint / "adapter_model.safetensors").write_bytes(b"weights")
    (checkpoint.parent.parent / "log.jsonl").write_text('{"step": 1}\n')
    from data_provider.data_factory import sample

    rows = [
        {"index": n, "prediction": [rng.choice(["yes", "no"])], "reference": items[n]["answer"], "text": "yes"}
        | {key: items[n][key] for key in ("question", "ecg_path", *about)}
        | {"patient": str(items[n]["patient_id"])}
        for n in sample(list(range(50)), 40, 0)
    ]
    attach_floor(rows, items, items, "qa")
    write_predictions(exam / "predictions.jsonl", rows)
    settings = {"TASKTYPE": "qa", "DATASET": "demo", "ROOT_PATH_JSON": str(data), "ROOT_REPORT_JSON": ""}
    settings |= {"TOKENIZER_PATH": str(folder / "tokenizer"), "CKP_PATH": str(checkpoint), "TEST_ITEMS": 40, "SEED": 0}
    inputs = {"tokenizer": tokenizer.fingerprint, "adapter": sha256_bytes(sha256_bytes(b"weights").encode())}
    inputs |= {"test_manifest": sha256_file(manifest), "dataset_card.json": sha256_file(card)}
    provenance = {"llm": "tiny", "inputs": inputs, "settings": settings, "items_left_out": 0}
    write_json(exam / "provenance.json", provenance)
    write_json(exam / "metrics.json", score_file(exam / "predictions.jsonl", "qa"))
    for name in ("started", "finished"):
        write_json(exam / f"{name}.json", {})
    return exam


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def packed(exam, tmp_path_factory):
    path, lines = bundle(exam.parent, tmp_path_factory.mktemp("packed") / "run.tar")
    return path, lines


def changed(path, to, **members):
    """The same archive with other members and hashes that fit: what a careful forger would make."""
    archive = Archive(path)
    content = {name: archive.read(name) for name in archive.sums}
    for name, change in members.items():
        (full,) = [member for member in content if member.endswith(name.replace("__", "."))]
        content[full] = change(content[full])
    with open(to, "wb") as file:
        write_archive(file, content)
    return to


def test_a_bundle_holds_the_run_and_says_what_it_proves(exam, packed, tmp_path, capsys):
    path, lines = packed
    names = Archive(path).sums
    for wanted in (
        "bundle.json",
        "README.md",
        "exams/qa_demo_test/predictions.jsonl",
        "exams/qa_demo_test/metrics.json",
    ):
        assert wanted in names
    for end in ("run/log.jsonl", "/heartllm.json", "/adapter_model.safetensors", "/config.json", "/dataset_card.json"):
        assert sum(name.endswith(end) for name in names) == 1, end
    assert any("40 predictions scored again" in line for line in lines)
    assert any("items proved by demo's card" in line for line in lines)
    bundle_main([str(exam), "--to", str(tmp_path / "again.tar")])  # the exam's own folder, not its results folder
    assert (tmp_path / "again.tar").read_bytes() == path.read_bytes(), "the same run gives the same bytes"
    verify_main([str(path)])
    assert sha256_file(path) in capsys.readouterr().out


def test_one_byte_changed_in_any_member_is_found(packed, tmp_path):
    whole, target = packed[0].read_bytes(), tmp_path / "run.tar"
    archive = Archive(packed[0])
    rng = random.Random(1)
    for name in archive.sums:
        data, info = bytearray(whole), archive._members[name]
        data[info.offset_data + rng.randrange(info.size)] ^= 4
        target.write_bytes(data)
        with pytest.raises(UserError, match=name):
            verify(target)


def replaced(old, new):
    return lambda data: data.replace(old, new, 1)


def other_figure(data):
    metrics = json.loads(data)
    metrics["exact_match"]["overall"] += 0.01
    return json.dumps(metrics).encode()


def one_more_right(data):
    rows = [json.loads(line) for line in data.splitlines()]
    wrong = next(row for row in rows if row["prediction"] != row["reference"])
    wrong["prediction"] = wrong["reference"]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    "members, said",
    [
        ({"metrics__json": other_figure}, "exact_match.overall"),
        ({"predictions__jsonl": one_more_right}, "does not follow"),
        ({"predictions__jsonl": replaced(b"Is it 1?", b"Is it 2?")}, "its question is not that of the item list"),
        ({"predictions__jsonl": lambda data: data[data.index(b"\n") + 1 :]}, "40 items were drawn, 39 answered"),
        ({"adapter_model__safetensors": lambda data: b"others"}, "its adapter is not the one"),
        ({"template_test_background__json": replaced(b"yes", b"Yes")}, "its test_manifest is not the one"),
        ({"dataset_card__json": replaced(b"demo", b"Demo")}, "its dataset_card.json is not the one"),
        ({"bundle__json": replaced(b'"format": 1', b'"format": 9')}, "another version"),
        ({"bundle__json": lambda data: b"[]"}, "cannot be read"),
    ],
)
def test_a_forgery_whose_hashes_fit_is_found(packed, tmp_path, members, said):
    with pytest.raises(UserError, match=said):
        verify(changed(packed[0], tmp_path / "forged.tar", **members))


def test_what_is_missing_or_there_already_is_one_line(exam, packed, tmp_path, capsys):
    for words, said in (
        ([str(tmp_path)], "no finished exam"),
        ([str(exam), "--to", str(packed[0])], "is there already"),
        ([str(exam), "--to", str(tmp_path / "a.zip")], "ends in .tar"),
    ):
        with pytest.raises(SystemExit) as stop:
            bundle_main(words)
        assert stop.value.code == 2 and said in capsys.readouterr().err
    other = make_run(tmp_path / "other")
    (other / "predictions.jsonl").write_bytes(one_more_right((other / "predictions.jsonl").read_bytes()))
    with pytest.raises(UserError, match="does not follow"):
        bundle(other, tmp_path / "other.tar")
    assert not list(tmp_path.glob("*.tar*")), "what doesn't verify is not left under its name"
