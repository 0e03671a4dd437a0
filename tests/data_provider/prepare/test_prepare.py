"""The manifests decide what is trained and scored: nothing lost without a reason, no answer that can be guessed."""

import json
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from data_provider.manifests import read_manifest, record_paths
from data_provider.prepare.__main__ import main
from data_provider.prepare.annotations import SUPRAVENTRICULAR, VENTRICULAR, Statements, annotate
from data_provider.prepare.build import prepare_ptbxl
from data_provider.prepare.card import summary
from data_provider.prepare.inventory import read_table
from data_provider.prepare.ptbxl import COLUMNS, background
from data_provider.prepare.questions import check_balance
from tests.shared import SHARED, needs_shared
from tests.wfdb_maker import STATEMENTS, write_ptbxl
from utils.tools import REPOSITORY, UserError

HEADER = ("", "description", "diagnostic", "form", "rhythm", "diagnostic_class")
TABLE = Statements(dict(zip(HEADER, statement, strict=True)) for statement in STATEMENTS)


def row(number, codes="{'SR': 0.0, 'NORM': 100.0}", **more):
    return {"ecg_id": number, "patient_id": f"{number}.0", "strat_fold": number % 10 + 1, "scp_codes": codes, **more}


def rows(count=120):
    """Findings that depend on the number, so that every fold has each."""
    made = []
    for number in range(1, count + 1):
        third = number // 10 % 3
        codes = ["{'SR': 0.0, 'NORM': 100.0}", "{'AFIB': 0.0, 'IMI': 80.0}", "{'SR': 0.0, 'LVH': 100.0, 'IMI': 50.0}"][
            third
        ]
        axis, noise = ["MID", "LAD", "RAD"][third], ["", " , I-AVR,  ", ""][third]
        drift, beats = ["", "", " , V6"][third], ["", "VES", "SVES"][third]
        stage = ["", "Stadium III", "Stadium I"][third]
        more = {"heart_axis": axis, "static_noise": noise, "baseline_drift": drift, "extra_beats": beats}
        made.append(row(number, codes, infarction_stadium1=stage, **more))
    return made


def manifests(out, name="ptbxl"):
    return {
        s: read_manifest(out / f"ecgqa/{name}/template_{s}_background.json", "qa") for s in ("train", "valid", "test")
    }


@needs_shared
def test_every_row_of_the_real_table_is_accounted_for(tmp_path):
    card = prepare_ptbxl(SHARED / "data/ptbxl", tmp_path)
    assert card["records"]["rows"] == 21_837 and card["records"]["used"] == 450
    assert card["records"]["left_out"] == {"not on disk": 21_387}
    assert card["records"]["by_split"] == {"train": 317, "valid": 71, "test": 62}
    assert "21,837 rows: 450 with a record" in summary(card) and "21,387 left out: not on disk" in summary(card)
    for items in manifests(tmp_path).values():
        check_balance(items)
        assert {item["question_type"] for item in items} == {"single-verify", "single-choose", "single-query"}
        assert max(Counter(item["ecg_path"] for item in items).values()) <= 12
    reports = read_manifest(tmp_path / "report/ptbxl/test.json", "report")
    assert reports[0]["filepath"] == "records500/00000/00015_hr" or len(reports) == 62


@needs_shared
def test_backgrounds_equal_the_published_ones():
    ours = {
        int(row["ecg_id"]): background(row) for row in read_table(SHARED / "data/ptbxl/ptbxl_database.csv", COLUMNS)
    }
    for path in (SHARED / "data/published_manifests/report/ptbxl").glob("*.json"):
        for item in json.loads(path.read_text()):
            mine, published = ours[item["ecg_id"]], item["background"]
            # version 1.0.1 of the table, which is here, leaves some ages out that later ones give as 300
            assert mine == published or mine.replace("Age: nan", "Age: 300") == published


def test_questions_are_balanced_in_every_split_and_fit_the_findings(tmp_path):
    data = rows()
    prepare_ptbxl(write_ptbxl(tmp_path / "root", data), tmp_path / "out", check="none")
    by_id = {entry["ecg_id"]: entry for entry in data}
    for split, items in manifests(tmp_path / "out").items():
        folds = {"train": range(1, 9), "valid": [9], "test": [10]}[split]
        yes = defaultdict(Counter)
        for item in items:
            entry = by_id[item["ecg_id"][0]]
            assert entry["strat_fold"] in folds
            assert item["answer"] == sorted(item["answer"]) and not any("." in part for part in item["answer"])
            if item["question_type"] == "single-verify":
                yes[item["question"]][item["answer"][0]] += 1
            if item["attribute"] == ["atrial fibrillation"]:
                assert (item["answer"] == ["yes"]) == ("AFIB" in entry["scp_codes"])
            if item["question"].startswith("Which disturbances"):
                expected = [
                    name
                    for column, name in (("baseline_drift", "baseline drift"), ("static_noise", "static noise"))
                    if entry[column]
                ]
                assert item["answer"] == (expected or ["none"])
        assert len(yes) >= 10
        for count in yes.values():
            assert count["yes"] == count["no"]
        assert [item["sample_id"] for item in items] == list(range(len(items)))


def test_no_answer_of_any_question_is_ahead_of_the_next(tmp_path):
    prepare_ptbxl(write_ptbxl(tmp_path / "root", rows()), tmp_path / "out", check="none")
    for items in manifests(tmp_path / "out").values():
        answers = defaultdict(Counter)
        for item in items:
            answers[item["question"]][tuple(item["answer"])] += 1
        for count in answers.values():
            first, second, *_ = [number for _, number in count.most_common()]
            assert first == second


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    root = write_ptbxl(tmp_path / "root", rows())
    cards = [prepare_ptbxl(root, tmp_path / str(run), check="none", seed=seed) for run, seed in enumerate((1, 1, 2))]
    assert cards[0]["files"] == cards[1]["files"] != cards[2]["files"]


def test_rows_that_cannot_be_used_are_counted_under_their_reason(tmp_path):
    data = [
        *rows(20),
        row(30, "not a dict"),
        row(31, strat_fold=11),
        row(32, patient_id=""),
        row(33, filename_hr="../x"),
    ]
    data += [row(34), row(35), row(1)]
    root = write_ptbxl(tmp_path / "root", data, with_record=lambda entry: entry["ecg_id"] not in (33, 34))
    (root / "records500/00000/00035_hr.dat").write_bytes(b"")
    card = prepare_ptbxl(root, tmp_path / "out")
    assert card["records"]["used"] == 20 and sum(card["records"]["left_out"].values()) == 7
    assert card["records"]["left_out"] == {
        "scp_codes is not a dict of likelihoods": 1,
        "strat_fold not in 1..10": 1,
        "no ecg_id, patient_id or strat_fold": 1,
        "no record path inside the download": 1,
        "not on disk": 1,
        "unreadable": 1,
        "an ecg_id that was there before": 1,
    }
    assert card["records"]["unreadable"] == {"records500/00000/00035_hr": "00035_hr.dat is empty"}


def test_patients_in_two_splits_are_counted(tmp_path):
    data = [row(number, patient_id="5.0") for number in (7, 8, 9)]
    card = prepare_ptbxl(write_ptbxl(tmp_path / "root", data), tmp_path / "out")
    assert card["records"]["patients_in_two_splits"] == 1 and "1 patients are in more than one split" in summary(card)


def test_questions_per_ecg_is_a_cap(tmp_path):
    root = write_ptbxl(tmp_path / "root", rows())
    for cap in (1, 6, 20):
        prepare_ptbxl(root, tmp_path / "out", check="none", questions_per_ecg=cap)
        items = manifests(tmp_path / "out")["train"]
        assert max(Counter(item["ecg_path"] for item in items).values()) <= cap
    assert len(record_paths(items)) > 50


def test_likelihoods():
    read = TABLE.read
    assert read("{'SR': 0.0, 'NORM': 50.0, 'IMI': 35.0, 'LVH': 0.0, 'LNGQT': 0.0}") == {
        "SR": True,
        "NORM": True,
        "IMI": None,
        "LVH": None,
        "LNGQT": True,
    }
    assert read("{'UNHEARD': 100.0}") == {}
    for text in ("", "[1]", "{'SR': 'x'}", "__import__('os')", "{" * 500):
        with pytest.raises(ValueError, match="scp_codes"):
            read(text)


@pytest.mark.parametrize(
    "text, codes, expected",
    [
        ("", "{}", {}),
        ("VES", "{}", {VENTRICULAR: True}),
        ("SVES1,alles", "{}", {SUPRAVENTRICULAR: True}),
        ("VES,SVES", "{}", {VENTRICULAR: True, SUPRAVENTRICULAR: True}),
        ("3ES", "{}", {VENTRICULAR: None, SUPRAVENTRICULAR: None}),
        ("1,alles", "{}", {VENTRICULAR: None, SUPRAVENTRICULAR: None}),
        ("", "{'PVC': 100.0}", {VENTRICULAR: None}),
    ],
)
def test_extra_beats(text, codes, expected):
    assert annotate({"scp_codes": codes, "extra_beats": text}, TABLE)["extra_systole"] == expected


def test_stages_need_to_be_known():
    def stages(codes, stage):
        return annotate({"scp_codes": codes, "infarction_stadium1": stage}, TABLE).get(
            "stage_of_infarction", "not asked"
        )

    assert stages("{'IMI': 100.0}", "Stadium II-III") == {"middle stage of myocardial infarction": True}
    assert stages("{'IMI': 100.0}", "unknown") == stages("{'IMI': 100.0}", "") == "not asked"
    assert stages("{'NORM': 100.0}", "") == {}


def test_a_rare_finding_does_not_make_an_answer_wrong(tmp_path):
    # one ECG with a diagnosis too rare to be asked about: the open question is not answered without it
    data = [*rows(), row(200, "{'SR': 0.0, 'AMI': 100.0}", strat_fold=1)]
    prepare_ptbxl(write_ptbxl(tmp_path / "root", data), tmp_path / "out", check="none", questions_per_ecg=100)
    asked = [item for item in manifests(tmp_path / "out")["train"] if item["ecg_id"] == [200]]
    assert asked and not any(item["question"].startswith("What are the diagnoses") for item in asked)


def test_faults_of_the_download_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"scp_statements.csv: cannot be read"):
        prepare_ptbxl(tmp_path, tmp_path / "out")
    root = write_ptbxl(tmp_path / "root", rows(10))
    table = root / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("strat_fold", "fold"))
    with pytest.raises(UserError, match="lacks the column strat_fold"):
        prepare_ptbxl(root, tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main(["ptbxl", "--root", str(root)])
    assert stop.value.code == 2


def test_the_command_runs(tmp_path):
    root = write_ptbxl(tmp_path / "root", rows())
    command = [sys.executable, "-m", "data_provider.prepare", "ptbxl", "--root", root, "--out", tmp_path / "out"]
    done = subprocess.run([*command, "--name", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "120 rows: 120 with" in done.stdout
    assert (tmp_path / "out/ecgqa/demo/dataset_card.json").is_file() and manifests(tmp_path / "out", "demo")["train"]
