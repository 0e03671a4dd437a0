"""Several data sets and tasks in one run: which are meant, and that no item is read from another's ECG or words."""

import json
import random

import pytest

from model.parts import exam_settings, training_parts
from model.prompts import read_prompts
from model.training_data import Item, Source, StageThree, mixture, share_ecgs
from tests.tokenizer_maker import beats
from tests.wfdb_maker import write_record
from utils.runs import results_folder
from utils.settings import load_settings
from utils.tools import UserError

QA = {"question": "Q?", "question_type": "single-verify", "attribute_type": "scp_code", "answer": ["yes"],
      "ecg_path": "r0"}  # fmt: skip
REPORT = {"report": "beats", "filepath": "r0"}


@pytest.fixture
def data(tmp_path):
    """Two data sets whose records have the same path."""
    for name in ("a", "b"):
        write_record(tmp_path / "files" / name / "r0", beats())
        for task, item in (("qa", QA), ("report", REPORT)):
            folder = tmp_path / task / name
            folder.mkdir(parents=True)
            for split in ("train", "valid"):
                file = f"template_{split}_background.json" if task == "qa" else f"{split}.json"
                (folder / file).write_text(json.dumps([item]))
    return tmp_path


def settings(data, stage="finetune", **more):
    values = {"DATASET": "a,b", "ROOT_PATH_ECG": f"{data}/files/a,{data}/files/b", "ROOT_PATH_JSON": data / "qa"}
    values |= {"ROOT_REPORT_JSON": f"{data}/report/a,{data}/report/b"} | more
    return load_settings(stage, [f"{key}={value}" for key, value in values.items()])


def test_parts_go_data_set_by_data_set_with_their_roots_and_manifests(data):
    parts = training_parts("finetune", settings(data, TASKTYPE="qa,report", MIX="2,0,1,0.5"))
    assert [(part.name, part.passes) for part in parts] == [("qa a", 2), ("qa b", 1), ("report b", 0.5)]
    assert parts[2].root == f"{data}/files/b"
    assert parts[1].manifests["train"] == [data / "qa/b/template_train_background.json"]
    both = training_parts("pretrain", settings(data, "pretrain"))
    assert [part.name for part in both] == ["a", "b"] and len(both[0].manifests["valid"]) == 2
    one_root = training_parts("finetune", settings(data, ROOT_PATH_ECG=data / "files/a"))
    assert {part.root for part in one_root} == {f"{data}/files/a"}


def test_what_cannot_be_mixed_is_one_line(data):
    for more, says in (
        ({"MIX": "1,1,1"}, "MIX=1,1,1: one number for each of qa a, qa b; not all 0"),
        ({"MIX": "0,0"}, "not all 0"),
        ({"DATASET": "a,a"}, "named twice"),
        ({"DATASET": "a,b,c"}, "ROOT_PATH_ECG names 2 folders, DATASET 3 data sets"),
        ({"ROOT_PATH_JSON": data / "qa/a"}, "no manifest .*qa/a/a/template_train_background.json"),
        ({"ROOT_PATH_ECG": ""}, "ROOT_PATH_ECG is not set"),
    ):
        with pytest.raises(UserError, match=says):
            training_parts("finetune", settings(data, **more))
    with pytest.raises(UserError, match="DATASET=a,b: an exam is of one"):
        exam_settings(settings(data, "eval"))
    one = {"DATASET": "a", "ROOT_PATH_ECG": data / "files/a", "ROOT_REPORT_JSON": data / "report/a"}
    assert exam_settings(settings(data, "eval", **one)).tasktype == "qa"


def test_results_folders_keep_their_published_names():
    assert str(results_folder("r", "finetune", ("qa",), ("ptbxl",))) == "r/qa_ptbxl_finetune"
    assert str(results_folder("r", "pretrain", ("qa",), ("ptbxl",))) == "r/_ptbxl_pretrain"
    assert str(results_folder("r", "eval", "qa", "ptbxl")) == "r/qa_ptbxl_test"
    several = results_folder("r", "finetune", ("qa", "report"), ("ptbxl", "mimic"))
    assert str(several) == "r/qa+report_ptbxl+mimic_finetune"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from transformers import AutoTokenizer

    from model.tiny_llm import tiny_llm
    from model.vocabulary import add_ecg_tokens

    tokenizer = AutoTokenizer.from_pretrained(tiny_llm(tmp_path_factory.mktemp("llm")))
    return add_ecg_tokens(tokenizer, 1296), tokenizer


def test_each_item_has_its_own_ecg_words_and_view(words):
    """Records of two data sets may have equal paths, and what shares an ECG must share its view too."""
    vocabulary, tokenizer = words
    a, b = {"r0": [1, 2, 3]}, {"r0": [4, 5, 6]}
    views = ({"r0": [7, 8, 9]}, {"r0": [10, 11, 12]})
    qa, report, other = Source("qa a", "qa", a, views), Source("report a", "report", a, views), Source("qa b", "qa", b)
    items = [Item(qa, QA), Item(report, REPORT), Item(other, QA)]
    data = StageThree(vocabulary, tokenizer, read_prompts("ecg_first"))

    def ecg(example):
        start = example.input_ids.index(vocabulary.start)
        return [token - vocabulary.code_ids([0])[0] for token in example.input_ids[start + 1 : start + 4]]

    assert [len(group) for group in share_ecgs(items)] == [2, 1]
    seen = set()
    for seed in range(20):
        question, text = data.examples(share_ecgs(items)[0], random.Random(seed))
        assert question.input_ids[: question.shared] == text.input_ids[: text.shared] and question.shared >= 5
        seen.add(tuple(ecg(question)))
    assert seen == {(1, 2, 3), (7, 8, 9), (10, 11, 12)}
    (single,) = data.examples(items[2], random.Random(0))
    assert ecg(single) == [4, 5, 6] and "Question: Q?" in tokenizer.decode(single.input_ids)
    (single,) = data.examples(items[1], random.Random(0))
    assert "\nReport:beats" in tokenizer.decode(single.input_ids)

    groups = mixture([(items[:1], 1), (items[1:2], 1), (items[2:], 1)], share=True).items
    assert [len(group) for group in groups] == [2, 1]
    groups = mixture([(items[:1], 1), (items[1:2], 2), (items[2:], 1)], share=True).items
    assert [group[0].source.name for group in groups] == ["qa a", "report a", "report a", "qa b"]
