"""If these fail, somebody else's predictions get a wrong score, or none."""

import csv
import json
import re

import pytest

from utils.evaluation import main
from utils.scores import compare_files, join_manifest, prove_items, score_file, write_page, write_predictions
from utils.tools import UserError, sha256_file, write_json

ANSWERS = (["yes"], ["no"], ["left axis deviation", "noise"], ["none"])


def manifest_of(tmp_path):
    items = [
        {
            "template_id": 1 + number // 2,
            "question_id": number // 2,
            "sample_id": number % 2,
            "question_type": "single-verify",
            "attribute_type": "noise",
            "question": f"question {number // 2}?",
            "answer": answer,
            "ecg_id": [100 + number],
            "ecg_path": f"records500/{100 + number}_hr",
            "background": f"Patient Information: - Patient ID: {number}; - Age: 5;",
        }
        for number, answer in enumerate(ANSWERS)
    ]
    path = tmp_path / "test.json"
    write_json(path, items)
    return path, items


def ids(item):
    return {key: item[key] for key in ("question_id", "sample_id", "ecg_id")}


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_each_format_and_each_way_to_name_an_item_gives_the_same_rows(tmp_path):
    manifest, items = manifest_of(tmp_path)
    texts = ["yes", "yes", "noise.left axis deviation", "none"]
    named = [{**ids(item), "prediction": text} for item, text in zip(items, texts, strict=True)][::-1]
    write_predictions(tmp_path / "a.jsonl", named)
    write_json(tmp_path / "b.json", [{"index": i, "prediction": text} for i, text in enumerate(texts)])
    write_csv(tmp_path / "c.csv", named)
    write_json(tmp_path / "d.json", [{"prediction": text.split(".")} for text in texts])
    write_csv(
        tmp_path / "e.csv",
        [{"ecg_id": i["ecg_id"][0], "prediction": str(t.split("."))} for i, t in zip(items, texts, strict=True)],
    )
    found = {
        name: join_manifest(tmp_path / name, "qa", manifest)
        for name in ("a.jsonl", "b.json", "c.csv", "d.json", "e.csv")
    }
    rows = found["a.jsonl"][0]
    assert [row["prediction"] for row in rows] == [["yes"], ["yes"], ["noise", "left axis deviation"], ["none"]]
    assert all(other == rows for other, _ in found.values())
    assert rows[1]["reference"] == ["no"] and rows[1]["patient"] == "1"
    ways = [joined["by"] for _, joined in found.values()]
    assert ways == ["question_id, sample_id, ecg_id", "index", "question_id, sample_id, ecg_id", "order", "ecg_id"]


def test_missing_and_doubled_items_are_said_and_counted(tmp_path, capsys):
    manifest, items = manifest_of(tmp_path)
    path = tmp_path / "p.jsonl"
    write_predictions(path, [{**ids(item), "prediction": "yes"} for item in (items[0], items[0], items[1])])
    main([str(path), "--task", "qa", "--manifest", str(manifest)])
    said = capsys.readouterr().out
    assert (
        "2 items without a prediction, counted as wrong: 2, 3" in said
        and "1 items predicted twice, the same: 0" in said
    )
    assert "items not proved" in said and "4 items: exact match 25.0 %" in said and "by template" in said
    main([str(path), "--task", "qa", "--manifest", str(manifest), "--missing", "skip"])
    assert "2 items: exact match 50.0 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["items"]["missing"] == [2, 3]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"question_id": 0, "prediction": "yes"}], "names 2 items"),
        ([{"ecg_id": 5, "prediction": "yes"}], "which is not in"),
        ([{"prediction": "yes"}], "don't name their items"),
        ([{"ecg_id": 100, "prediction": "yes"}, {"ecg_id": "100", "prediction": "no"}], "two different predictions"),
        ([{"ecg_id": 100, "answer": "yes"}], "has no `prediction`"),
        ([{"ecg_id": 100, "prediction": 7}], "not a list of texts"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, rows, fault):
    manifest, _ = manifest_of(tmp_path)
    write_predictions(tmp_path / "p.jsonl", rows)
    with pytest.raises(UserError, match=fault):
        join_manifest(tmp_path / "p.jsonl", "qa", manifest)


def test_items_are_proved_by_the_card(tmp_path):
    manifest, _ = manifest_of(tmp_path)
    card = {"name": "demo", "files": {"ecgqa/demo/test.json": {"items": 4, "sha256": sha256_file(manifest)}}}
    write_json(tmp_path / "dataset_card.json", card)
    assert "demo's card" in prove_items(manifest, tmp_path / "dataset_card.json")
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(UserError, match="none of the files"):
        prove_items(manifest, tmp_path / "dataset_card.json")


def system(folder, answers):
    rows = [
        {
            "index": number,
            "prediction": [answer],
            "reference": ["yes"],
            "question": "q?",
            "question_type": "single-verify",
            "attribute_type": "noise",
            "template_id": 1,
            "patient": str(number // 2),
            "ecg_path": f"<b>{number}</b>",
        }
        for number, answer in enumerate(answers)
    ]
    folder.mkdir()
    write_predictions(folder / "predictions.jsonl", rows)
    return folder


def test_systems_are_compared_on_the_same_items_only(tmp_path, capsys):
    a = system(tmp_path / "a", ["yes", "no", "yes", "no", "no", "no"])
    b = system(tmp_path / "b", ["yes", "yes", "yes", "no", "yes", "no"])
    found = compare_files([a, b])
    assert found["paired"]["b"]["exact_match"]["overall"]["difference"] == pytest.approx(2 / 6)
    assert [(item["index"], item["change"]) for item in found["changed"]["b"]] == [(1, "now right"), (4, "now right")]
    main(["compare", str(a), str(b)])
    assert "minus base +0.333" in capsys.readouterr().out
    c = system(tmp_path / "c", ["yes"] * 4)
    with pytest.raises(UserError, match="2 of 6 differ"):
        compare_files([a, c])


def test_the_figures_of_the_page_are_those_of_the_metrics(tmp_path):
    folder = system(tmp_path / "a", ["yes", "no", "yes", "no", "no", "no"])
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    chances = {"candidates": [["yes"], ["no"]], "log_likelihoods": [-0.3, -1.5]}
    rows = [{**row, "floor": ["no"], **chances} for row in rows]
    write_predictions(folder / "predictions.jsonl", rows)
    metrics = score_file(folder / "predictions.jsonl", "qa")
    write_json(folder / "metrics.json", metrics)
    write_page(folder / "report.html", rows, metrics, picture=lambda path: b"png")
    page, metrics = (folder / "report.html").read_text(), json.loads((folder / "metrics.json").read_text())
    shown = re.findall(r'data-path="([^"]+)" data-value="([^"]+)">([^<]+)<', page)
    assert len(shown) > 10
    for path, value, text in shown:
        expected = metrics
        for key in path.split("/"):
            expected = expected[key]
        assert float(value) == expected, path
        digits = float(text.replace(",", ""))
        assert digits == pytest.approx(expected, abs=0.006) or digits == pytest.approx(100 * expected, abs=0.051), path
    assert "<b>0</b>" not in page and "&lt;b&gt;0" in page  # what comes from the data set is text, never markup
    assert "prefers-color-scheme" in page and not re.search(r'(src|href)="(?!data:)', page)
