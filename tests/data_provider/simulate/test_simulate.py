"""The simulated data: what is written is what can be seen in the ECG, and the same seed gives the same folder."""

import ast
import os
import signal as signals
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import wfdb

from data_provider.read.leads import LEADS as STANDARD
from data_provider.read.wfdb_files import write_record
from data_provider.simulate.__main__ import main
from data_provider.simulate.dipole import BEFORE, beat_dipole, net_axis, voltages
from data_provider.simulate.lead_field import DOWER, SAMPLE_RATE, independent_leads
from data_provider.simulate.patients import beat_times, draw_ecg, draw_patient, heart_beats, signal
from data_provider.simulate.reports import write_report
from data_provider.simulate.write import COLUMNS, STATEMENT_COLUMNS, simulate
from tests.shared import SHARED, needs_shared
from utils.tools import REPOSITORY, UserError, read_json

LEADS = tuple(lead.upper() for lead in STANDARD)  # PTB-XL's spelling

PATIENTS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "files"
    simulate(out, PATIENTS, seed=3, progress=False)
    return out


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "ptbxl_database.csv")


@pytest.fixture(scope="module")
def ecgs():
    """First ECGs of 300 patients, each with its clean conducted beat [8, T] in mV (I, II, V1..V6)."""
    drawn = [draw_ecg(draw_patient(5, number), 0) for number in range(300)]
    return [(ecg, heart_beats(ecg)[0]) for ecg in drawn]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shape(beat, only_qrs=False):
    """Leads by name, in mV, of a clean beat, and the time in s after the QRS onset of each sample."""
    eight = independent_leads(beat_dipole(beat, only_qrs))
    leads = dict(zip(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), eight, strict=True))
    leads |= {"III": leads["II"] - leads["I"], "aVF": leads["II"] - leads["I"] / 2, "aVL": leads["I"] - leads["II"] / 2}
    return leads, np.arange(eight.shape[1]) / SAMPLE_RATE - BEFORE


def qrs_ms(beat):
    """QRS duration as on paper: where any lead is steeper or further from the baseline than 5 % of its largest."""
    leads = np.stack(list(shape(beat, only_qrs=True)[0].values()))
    inside = np.flatnonzero((np.abs(leads) > 0.05 * np.abs(leads).max(axis=1, keepdims=True)).any(axis=0))
    return 1000 * (inside[-1] - inside[0]) / SAMPLE_RATE


# ---- the leads ----


def test_leads_keep_their_identities_to_one_unit(folder):
    """Lost otherwise: Einthoven's law; a reader that derives or checks limb leads would find a broken recorder."""
    for record in sorted((folder / "records500").rglob("*.hea"))[:20]:
        read = wfdb.rdrecord(str(record.with_suffix("")), physical=False)
        assert tuple(read.sig_name) == LEADS and read.fs == 500 and read.d_signal.shape == (5000, 12)
        assert read.units == ["mV"] * 12 and read.adc_gain == [1000.0] * 12
        one, two, three, avr, avl, avf = read.d_signal[:, :6].T.astype(int)
        assert np.array_equal(two, one + three)
        for lead, exact in ((avr, -(one + two) / 2), (avl, one - two / 2), (avf, two - one / 2)):
            assert np.abs(lead - exact).max() <= 0.5
        assert 0.1 < np.ptp(read.d_signal[:, 1]) / 1000 < 10


def test_records_are_byte_for_byte_what_wfdb_writes(tmp_path):
    """Lost otherwise: the certainty that our quick writer makes standard WFDB files."""
    leads, _ = signal(draw_ecg(draw_patient(0, 0), 0))
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    write_record(tmp_path / "ours" / "00001_hr", leads, SAMPLE_RATE)
    wfdb.wrsamp("00001_hr", fs=SAMPLE_RATE, units=["mV"] * 12, sig_name=list(LEADS), d_signal=leads.T, fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path / "theirs"))
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_lead_field_is_dowers():
    """Lost otherwise: leads of a torso nobody published (V2 looks from the front, aVF from below)."""
    assert DOWER.shape == (8, 3) and DOWER[3].tolist() == [0.044, 0.164, -1.387]  # V2, Clin Cardiol 3 (1980) 87
    assert net_axis(np.array([1.0, 0.0, 0.0])) < 0 < 80 < net_axis(np.array([0.0, 1.0, 0.0]))


# ---- each finding can be measured in those that have it and only there ----


def test_bundle_branch_blocks_are_broad_and_show_their_pattern(ecgs):
    """Lost otherwise: CLBBB and CRBBB as words without a picture."""
    seen = set()
    for ecg, beat in ecgs:
        leads, t = shape(beat, only_qrs=True)
        duration = qrs_ms(beat)
        if {"CLBBB", "CRBBB"} & set(ecg.findings):
            assert 120 <= duration <= 180, duration
        else:
            assert 60 <= duration < 118, duration
        late = (t > 0.085) & (t < 0.15)
        if "CRBBB" in ecg.findings:  # rSR' in V1, broad S in I and V6
            assert leads["V1"][late].max() > 1.1 * leads["V1"][(t > 0) & (t < 0.03)].max() > 0
            assert leads["V1"].min() < 0 and leads["I"][late].min() < 0 and leads["V6"][late].min() < 0
        if "CLBBB" in ecg.findings:  # notched R in V6, no q; no r to speak of but a deep S in V1; T against the QRS
            v6 = leads["V6"]
            peaks = np.flatnonzero((v6[1:-1] > v6[:-2]) & (v6[1:-1] >= v6[2:]) & (v6[1:-1] > 0.5 * v6.max()))
            assert len(peaks) == 2 and v6.min() > -0.05 and leads["V1"].min() < -0.8
            whole, t = shape(beat)
            repolarisation = (t > 0.2) & (t < beat.qt)
            assert whole["V6"][repolarisation].min() < -0.15 and whole["V1"][repolarisation].max() > 0.15
        seen |= set(ecg.findings)
    assert {"CLBBB", "CRBBB"} <= seen


def test_voltages_meet_the_criteria_of_hypertrophy_and_low_voltage(ecgs):
    """Lost otherwise: LVH without voltage, or a 'normal' ECG that meets Sokolow-Lyon."""
    for ecg, beat in ecgs:
        sokolow, limb, chest = voltages(beat)
        assert (limb < 0.5 and chest < 1.0) == ("LVOLT" in ecg.findings), (ecg.findings, limb, chest)
        if "CLBBB" not in ecg.findings:  # whose voltages aren't read for hypertrophy
            assert (sokolow >= 3.5) == ("LVH" in ecg.findings), (ecg.findings, sokolow)
        if ecg.findings == ("LVH",):  # strain
            leads, t = shape(beat)
            assert leads["V6"][(t > 0.2) & (t < beat.qt)].min() < -0.1


def test_infarctions_have_q_waves_where_they_belong(ecgs):
    """Lost otherwise: an infarction that cannot be told from a normal ECG, or told at the wrong wall."""
    for ecg, beat in ecgs:
        if {"CLBBB", "LVOLT"} & set(ecg.findings):
            continue
        leads, t = shape(beat, only_qrs=True)
        early = (t > -0.02) & (t < 0.04)
        q = {name: -lead[early].min() / np.ptp(lead) for name, lead in leads.items()}
        inferior = q["II"] > 0.2 and q["aVF"] > 0.2 and leads["II"].max() > 0.15
        anterior = leads["V2"][(t > -0.02) & (t < 0.025)].max() < 0.05
        if ecg.patient.axis > -30:  # in left axis deviation the inferior S comes early, after an r
            assert inferior == ("IMI" in ecg.findings), (ecg.findings, q)
        assert anterior == ("AMI" in ecg.findings), ecg.findings


@pytest.mark.parametrize(("finding", "lead"), [("IMI", "aVF"), ("AMI", "V3")])
def test_stages_of_infarction_differ_in_st_and_t(ecgs, finding, lead):
    """Lost otherwise: questions on the stage that no one could answer from the ECG."""
    seen = set()
    for ecg, beat in ecgs:
        if finding in ecg.findings and not {"CRBBB", "LVH", "LVOLT"} & set(ecg.findings):
            leads, t = shape(beat)
            st = leads[lead][np.searchsorted(t, 0.14)]
            wave = leads[lead][(t > beat.qt - 0.12) & (t < beat.qt)]
            stage = "Stadium I" if st > 0.1 else "Stadium II" if wave.min() < -0.1 else "Stadium III"
            assert stage == ecg.stage
            seen.add(stage)
        assert (ecg.stage is not None) == bool({"IMI", "AMI"} & set(ecg.findings))
    assert len(seen) == 3


def test_axis_is_read_from_leads_one_and_avf(ecgs):
    """Lost otherwise: left axis deviation in the column and a normal axis on the paper."""
    seen = []
    for ecg, beat in ecgs:
        leads, t = shape(beat, only_qrs=True)
        # in right bundle branch block the axis is that of the first half
        first = t < (0.062 if "CRBBB" in ecg.findings else 0.3)
        one, avf = leads["I"][first].sum(), leads["aVF"][first].sum()
        angle = np.degrees(np.arctan2(avf * 2 / np.sqrt(3), one))
        assert abs(angle - ecg.patient.axis) < (14 if "CRBBB" in ecg.findings else 2), ecg.findings
        seen.append(ecg.patient.axis < -30)
    assert 0.1 < np.mean(seen) < 0.3


def test_pr_and_qt_intervals(ecgs):
    """Lost otherwise: first-degree block without a long PR, long QT without a late T."""
    for ecg, beat in ecgs:
        leads, t = shape(beat)
        if ecg.rhythm == "AFIB":
            assert not any(name.startswith("P") for name in beat.waves)
        else:
            before = t < -0.02
            p = leads["II"][before]
            onset = t[before][np.flatnonzero(p > 0.12 * p.max())[0]]
            assert (-onset > 0.2) == ("1AVB" in ecg.findings), (onset, ecg.pr)
            assert abs(-onset - ecg.pr) < 0.025
        lead = max(("II", "V2", "V3", "V4"), key=lambda name: np.abs(leads[name][t > 0.25]).max())
        late = t > max(0.2, beat.qt - 0.11)
        wave = np.abs(leads[lead][late])
        steepest = np.argmin(np.diff(wave))  # the T wave's end: where its steepest tangent meets the baseline
        end = t[late][steepest] + wave[steepest] / -np.diff(wave)[steepest] / SAMPLE_RATE
        assert abs(end - ecg.qt) < 0.03, (end, ecg.qt, ecg.findings)
        bazett = ecg.qt / np.sqrt(60 / ecg.rate)
        if "LNGQT" in ecg.findings:
            assert bazett > 0.5
        elif ecg.rhythm == "SR" and not {"CLBBB", "CRBBB"} & set(ecg.findings):
            assert bazett < 0.47


def r_times(leads):
    """QRS times in s of a record [12, T] in mV: peaks of the chest leads' steepness, at least 0.28 s apart."""
    smooth = np.apply_along_axis(np.convolve, 1, leads[[1, 6, 7, 8, 9, 10]], np.ones(10) / 10, "same")
    steep = (np.gradient(smooth, axis=1) ** 2).sum(axis=0)
    steep[:10] = steep[-10:] = 0  # the smoothing's own steps at the ends
    steep = np.convolve(steep, np.hanning(80), mode="same")
    peaks, level = [], 0.3 * np.quantile(steep, 0.98)
    for k in np.flatnonzero((steep[1:-1] >= steep[:-2]) & (steep[1:-1] > steep[2:]) & (steep[1:-1] > level)) + 1:
        if not peaks or k - peaks[-1] > 140:
            peaks.append(k)
        elif steep[k] > steep[peaks[-1]]:
            peaks[-1] = k
    return np.array(peaks) / SAMPLE_RATE


def test_rhythms_are_in_the_recorded_signal(ecgs):
    """Lost otherwise: bradycardia, tachycardia and fibrillation in the text alone."""
    seen, wrong = {"SR": 0, "SBRAD": 0, "STACH": 0, "AFIB": 0}, []
    for ecg, _ in ecgs:
        if ecg.static or "PVC" in ecg.findings or seen[ecg.rhythm] >= 12:
            continue
        seen[ecg.rhythm] += 1
        leads, rate = signal(ecg)
        rr = np.diff(r_times(leads / 1000.0))
        irregular = rr.std() / rr.mean()
        mean = 60 / rr.mean()
        found = "AFIB" if irregular > 0.115 else "SBRAD" if mean < 60 else "STACH" if mean > 100 else "SR"
        if found != ecg.rhythm or abs(mean - rate) > 7:
            wrong.append((ecg.rhythm, found, irregular, rate, ecg.findings))
    assert not wrong and min(seen.values()) >= 10


def test_ectopic_beats_come_early_broad_and_as_often_as_said(ecgs):
    """Lost otherwise: ventricular ectopy that is neither premature nor counted right."""
    checked = 0
    for ecg, _ in ecgs:
        onsets, _, ectopic = beat_times(ecg, np.random.default_rng([ecg.patient.seed, ecg.patient.number, 1001]))
        shown = np.flatnonzero(ectopic)
        assert len(shown) == ecg.ectopics == ecg.ectopics * ("PVC" in ecg.findings)
        if len(shown):
            checked += 1
            assert 120 <= qrs_ms(heart_beats(ecg)[1]) <= 200
            assert ((onsets[shown] > 0.2) & (onsets[shown] < 9.5)).all()
            if ecg.rhythm != "AFIB":
                early, late = np.diff(onsets)[shown - 1], np.diff(onsets)[shown]
                assert (early < 0.75 * 60 / ecg.rate).all() and (late > 1.2 * 60 / ecg.rate).all()
    assert checked > 20


def test_quality_columns_are_in_the_signal(ecgs):
    """Lost otherwise: questions on noise with clean ECGs for an answer."""
    for ecg, _ in [item for item in ecgs if item[0].static or item[0].drift][:25] + ecgs[:25]:
        leads = signal(ecg)[0] / 1000.0
        hiss = np.abs(np.diff(leads[1], n=2)).mean()  # hum and muscle noise are in every sample, QRS in a few
        assert (hiss > 0.025) == bool(ecg.static), (hiss, ecg.static)
        wander = np.ptp(leads.reshape(12, 10, 500).mean(axis=2), axis=1).max()
        assert (wander > 0.5) == bool(ecg.drift), (wander, ecg.drift, ecg.findings)


# ---- the set as a whole ----


def test_each_finding_is_common_enough_to_learn_and_rare_enough_to_ask():
    """Lost otherwise: answerable, balanced questions; a small model would learn the majority answer."""
    drawn = [draw_ecg(draw_patient(1, number), 0) for number in range(1500)]
    marks = [{*ecg.findings, ecg.rhythm, ecg.stage} | ({"static"} if ecg.static else set()) for ecg in drawn]
    for ecg, mark in zip(drawn, marks, strict=True):
        mark |= ({"drift"} if ecg.drift else set()) | ({"LAD"} if ecg.patient.axis < -30 else set())
        assert not {"CLBBB", "CRBBB"} <= mark and not {"LVH", "LVOLT"} <= mark and not {"1AVB", "AFIB"} <= mark
    for name in "NORM SBRAD STACH AFIB PVC 1AVB CLBBB CRBBB LVH IMI AMI LAD LVOLT LNGQT drift static".split():
        assert 0.08 <= np.mean([name in mark for mark in marks]) <= 0.25, name


def test_database_reads_like_ptbxls(folder, table):
    """Lost otherwise: code written for the real download would stumble over the simulated one."""
    assert tuple(table.columns) == COLUMNS
    assert (table.ecg_id == np.arange(1, len(table) + 1)).all()
    statements = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    for row in table.itertuples():
        codes = ast.literal_eval(row.scp_codes)
        assert set(codes) <= set(statements.index)
        assert len({"SR", "SBRAD", "STACH", "AFIB"} & set(codes)) == 1
        assert (folder / f"{row.filename_hr}.hea").is_file() and len(row.report.split()) <= 32
        assert ("PVC" in codes) == isinstance(row.extra_beats, str)
        assert row.report == row.report.lower()
        assert bool({"IMI", "AMI"} & set(codes)) == isinstance(row.infarction_stadium1, str)
    assert set(table.heart_axis) == {"LAD", "MID"} and table.age.max() <= 300 and table.height.isna().any()


@needs_shared
def test_columns_and_types_are_those_of_the_real_tables(folder, table):
    """Lost otherwise: the promise that this is PTB-XL's layout."""
    real = pd.read_csv(SHARED / "data/ptbxl/ptbxl_database.csv")
    assert list(real.columns) == list(table.columns)
    filled = [name for name in real if table[name].notna().any()]
    assert {name: real[name].dtype for name in filled} == {name: table[name].dtype for name in filled}
    empty = ["infarction_stadium2", "burst_noise", "electrodes_problems", "pacemaker"]
    assert sorted(set(real) - set(filled)) == sorted(empty)
    theirs = pd.read_csv(SHARED / "data/ptbxl/scp_statements.csv", index_col=0)
    ours = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    assert ("", *ours.columns) == tuple(STATEMENT_COLUMNS) and list(theirs.columns) == list(ours.columns)
    same = ["diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass", "description"]
    for code in ours.index:
        for column in same:
            mine, real_value = ours.loc[code, column], theirs.loc[code, column]
            if column == "description":
                mine, real_value = mine.replace("(", "").replace(")", ""), real_value.replace("(", "").replace(")", "")
            assert mine == real_value or (pd.isna(mine) and pd.isna(real_value)), (code, column)


def test_patients_never_cross_folds_and_folds_are_even(table):
    """Lost otherwise: unseen patients in the test split; every score would be too good."""
    assert table.groupby("patient_id").strat_fold.nunique().max() == 1
    assert (table.groupby("patient_id").size() > 1).any()
    assert table.drop_duplicates("patient_id").strat_fold.value_counts().to_dict() == dict.fromkeys(range(1, 11), 6)


def test_reports_follow_from_the_findings_alone(ecgs):
    """Lost otherwise: a report that says what the ECG doesn't show, or leaves out what it does."""
    words = {"CLBBB": "left bundle", "CRBBB": "right bundle", "LVH": "hypertrophy", "IMI": "inferior",
             "AMI": "anterior", "LVOLT": "low", "LNGQT": "qt", "PVC": "ventric"}
    for ecg, _ in ecgs:
        report = write_report(ecg, ecg.rate)
        body = report.split(".", 1)[1]  # without the rhythm
        assert all((word in body) == (finding in ecg.findings or (finding == "PVC" and "LVH" in ecg.findings))
                   for finding, word in words.items()), report
        assert ("static" in report) == bool(ecg.static) and ("drift" in report) == bool(ecg.drift)


# ---- same seed, same bytes; a killed run shows ----


def test_same_seed_same_bytes_whatever_the_processes(folder, tmp_path):
    """Lost otherwise: results that anyone can make again."""
    simulate(tmp_path / "again", PATIENTS, seed=3, workers=2, progress=False)
    assert contents(folder) == contents(tmp_path / "again")
    simulate(tmp_path / "other", 2, seed=4, progress=False)
    assert contents(tmp_path / "other")["records500/00000/00001_hr.dat"] != (
        folder / "records500/00000/00001_hr.dat").read_bytes()


def test_a_longer_simulation_begins_with_a_shorter_ones_records(folder, tmp_path):
    """Lost otherwise: codes already computed for a small set, when a larger one is wanted."""
    simulate(tmp_path / "short", 7, seed=3, progress=False)
    short, long = contents(tmp_path / "short"), contents(folder)
    assert all(long[name] == data for name, data in short.items() if name.startswith("records500"))
    assert long["ptbxl_database.csv"].startswith(short["ptbxl_database.csv"])


def test_a_finished_simulation_is_kept_and_a_damaged_one_made_again(tmp_path):
    """Lost otherwise: minutes at every start, or a set that silently lacks records."""
    out = tmp_path / "files"
    assert simulate(out, 3, seed=1, progress=False)["reused"] is False
    before = (out / "ptbxl_database.csv").stat().st_mtime_ns
    assert simulate(out, 3, seed=1, progress=False)["reused"] is True
    assert (out / "ptbxl_database.csv").stat().st_mtime_ns == before
    whole = contents(out)
    for damage in (
        lambda: (out / "records500/00000/00002_hr.dat").unlink(),
        lambda: (out / "ptbxl_database.csv").write_text("ecg_id\n"),
        lambda: (out / "records500/00000/00001_hr.dat").write_bytes(b"half"),
        lambda: (out / "scp_statements.csv").unlink(),
        lambda: (out / "simulation.json").write_text('{"version": 1'),
    ):
        damage()
        assert simulate(out, 3, seed=1, progress=False)["reused"] is False
        assert contents(out) == whole
    assert simulate(out, 3, seed=1, fresh=True, progress=False)["reused"] is False
    assert simulate(out, 2, seed=1, progress=False)["patients"] == 2
    assert len(list((out / "records500").rglob("*.dat"))) == len(pd.read_csv(out / "ptbxl_database.csv"))


def test_a_killed_run_does_not_look_finished(tmp_path):
    """Lost otherwise: a quickstart stopped with Ctrl-C or worse would train on half a data set for ever after."""
    out = tmp_path / "files"
    command = [sys.executable, "-m", "data_provider.simulate", "--out", str(out), "--patients", "5000", "--seed", "1"]
    quiet = {"cwd": REPOSITORY, "stderr": subprocess.DEVNULL, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    run = subprocess.Popen(command, **quiet)
    deadline = time.monotonic() + 30
    while not list(out.rglob("00020_hr.dat")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signals.SIGKILL)
    assert run.wait() == -signals.SIGKILL
    assert read_json(out / "simulation.json")["finished"] is False and not (out / "ptbxl_database.csv").exists()
    assert simulate(out, 3, seed=1, progress=False)["reused"] is False  # and goes on without being told
    assert len(list(out.rglob("*.dat"))) == len(pd.read_csv(out / "ptbxl_database.csv"))


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    """Lost otherwise: a user's real PTB-XL download, overwritten by a mistyped --out."""
    (tmp_path / "ptbxl_database.csv").write_text("real")
    with pytest.raises(UserError, match="holds no simulation"):
        simulate(tmp_path, 2, seed=1, fresh=True, progress=False)
    assert (tmp_path / "ptbxl_database.csv").read_text() == "real"
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "new"), "--patients", "0"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: --patients")
