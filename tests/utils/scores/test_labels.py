"""If these fail, label scores credit a report with what it doesn't say."""

import csv

import numpy as np
import pytest

from tests.shared import SHARED, needs_shared
from utils.scores.labels import (
    ABSENT,
    codes_of_row,
    f1_scores,
    label_counts,
    read_codes,
    read_findings,
    rules,
    score_labels,
    scored_findings,
    state_by_codes,
)
from utils.tools import REPOSITORY, UserError


@pytest.mark.parametrize(
    ("text", "finding", "state"),
    [
        ("sinus rhythm. normal ecg.", "normal ECG", "present"),
        ("Sinusrhythmus, normales EKG", "normal ECG", "present"),
        ("sinusrhythmus abnormes ekg", "normal ECG", None),
        ("vorhofflimmern/-flattern lagetyp normal", "atrial fibrillation or flutter", "present"),
        ("no atrial fibrillation.", "atrial fibrillation or flutter", "absent"),
        ("possible old inferior infarct.", "myocardial infarction", "uncertain"),
        ("old inferior infarct.", "myocardial infarction", "present"),
        ("inferiorer myokardschaden nicht auszuschliessen", "myocardial infarction", "uncertain"),
        ("inferior infarct. no other infarct.", "myocardial infarction", "present"),
        ("unvollstÄndiger rechtsschenkelblock", "right bundle branch block", "present"),
        ("unvollstaendiger linksschenkelblock", "left bundle branch block", None),
        ("2:1 av block", "first degree AV block", None),
        ("ventrikulÄre extrasystole(n)", "ventricular extrasystoles", "present"),
        ("supraventrikulÄre extrasystole(n)", "ventricular extrasystoles", None),
        ("sinus rhythm. Edit: AFIB, vorhofflimmern", "atrial fibrillation or flutter", None),
    ],
)
def test_wordings(text, finding, state):
    assert read_findings(text).get(finding) == state


def test_f1_by_hand():
    names = scored_findings()
    afib = names.index("atrial fibrillation or flutter")
    counts = label_counts(["atrial fibrillation", "sinus rhythm"], ["atrial fibrillation", "atrial fibrillation"])
    assert counts[:, afib].tolist() == [[1, 1, 1], [0, 0, 1]]
    scores = score_labels(counts)
    assert scores["by_finding"]["atrial fibrillation or flutter"] == pytest.approx(2 / 3)
    assert scores["micro_f1"] == pytest.approx(2 / 4)  # one right of two said and two true
    assert scores["macro_f1"] == pytest.approx(2 / 3)  # sinus rhythm is not in the references
    assert scores["by_finding"]["pacemaker"] is None
    assert np.isnan(f1_scores(np.zeros((1, 2, 3)))[0, 0])


def test_truth_from_statements_and_its_doubts():
    assert state_by_codes({"IMI": 15.0}, {"IMI", "AMI"}) == "uncertain"
    assert state_by_codes({"IMI": 15.0, "AMI": 50.0}, {"IMI", "AMI"}) == "present"
    assert state_by_codes({"AFIB": 0.0}, {"AFIB"}) == "present" and state_by_codes({}, {"AFIB"}) == ABSENT
    place = scored_findings().index("right bundle branch block")
    counts = label_counts(["rbbb", "rbbb"], [{"CRBBB": 100.0}, {"CRBBB": 15.0}])
    assert counts[:, place].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_table_of_another_form_is_named(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("filename_hr,filename_lr,scp_codes\na,b,not a dict\n")
    with pytest.raises(UserError, match="row 1"):
        read_codes(path)
    path.write_text("filename_hr,filename_lr,scp_codes,heart_axis\nrecords500/1_hr,records100/1_lr,{'SR': 0.0},LAD\n")
    assert read_codes(path)["records500/1_hr"] == {"SR": 0.0, "axis LAD": 100.0}


@needs_shared
def test_scored_findings_hold_on_real_reports_that_the_rules_were_not_made_on():
    with open(SHARED / "data" / "ptbxl" / "ptbxl_database.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["strat_fold"] == "9"][:600]
    for name in ("sinus rhythm", "atrial fibrillation or flutter", "sinus tachycardia"):
        said = [read_findings(row["report"]).get(name, ABSENT) != ABSENT for row in rows]
        true = [bool(rules()[name].codes & codes_of_row(row).keys()) for row in rows]
        both = sum(a and b for a, b in zip(said, true, strict=True))
        assert both / sum(said) > 0.8 and both / sum(true) > 0.8, name


def test_the_validation_table_decides_what_is_scored():
    page = (REPOSITORY / "docs" / "findings.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")][1:]
    assert sorted(row[0] for row in rows) == sorted(rules())
    for name, scored, _, *all_folds, _, precision, recall in (row[:8] for row in rows):
        reached = all(float(figure) >= 0.8 for figure in (*all_folds, precision, recall))
        assert (scored == "yes") == reached == rules()[name].scored, name
