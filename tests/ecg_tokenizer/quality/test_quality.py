"""The codec's report: its measures are what they say, its page holds its figures."""

import json
import re

import numpy as np
import pytest

from ecg_tokenizer.quality.__main__ import main
from ecg_tokenizer.quality.measures import beat_errors, code_figures, signal_errors, summarise
from ecg_tokenizer.quality.page import DIFFERENCES, LEAD_MEASURES, MEASURES, SOURCE_MEASURES, short_names
from ecg_tokenizer.quality.probe import auroc, mean_beat, probe
from ecg_tokenizer.quality.report import by_source, paired_differences
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer, write_data_set


def test_signal_errors_by_hand():
    signal = np.tile([1.0, -1.0], (12, 2500))
    recon = signal * 0.9
    errors = signal_errors(signal, recon)
    assert errors["prdn"] == pytest.approx(10) and errors["prd"] == pytest.approx(10)
    assert errors["snr_db"] == pytest.approx(20) and errors["mse_mv2"] == pytest.approx(0.01)
    assert errors["correlation"] == pytest.approx(1) and errors["leads"]["V6"]["prdn"] == pytest.approx(10)


def test_noise_is_told_from_loss():
    """An error at 100 Hz is not in the ECG's band, one at 10 Hz is nowhere else, one at 0.2 Hz is below it."""
    t = np.arange(5000) / 500
    signal = np.tile(np.sqrt(2) * np.sin(2 * np.pi * 8 * t), (12, 1))
    for hertz, where in ((0.2, "error_below"), (10, None), (100, "error_above")):
        errors = signal_errors(signal, signal + 0.1 * np.sqrt(2) * np.sin(2 * np.pi * hertz * t))
        assert errors["prdn"] == pytest.approx(10, rel=0.01)
        shares = {key: errors[key] for key in ("error_below", "error_above")}
        assert shares == {key: pytest.approx(float(key == where), abs=0.02) for key in shares}
        assert errors["prdn_band"] == pytest.approx(0 if where else 10, abs=2)  # ends leak a little


def test_sources_are_told_apart():
    records = [
        {"prdn": 10.0, "beats": 4, "beats_kept": 4},
        {"prdn": 20.0, "beats": 0},
        {"prdn": 40.0, "beats": 2, "beats_kept": 1},
    ]
    figures = {"codes": {"n_codes": 8}, "config": {}}
    found = by_source(["a", "a", "b"], records, np.array([[0, 1], [0, 1], [2, 2]]), figures)
    assert found["a"]["prdn"] == 15 and found["a"]["prdn_worst"] == 20 and found["a"]["beats_kept"] == 1
    assert found["b"] == {"ecgs": 1, "prdn_worst": 40, "prdn": 40, "beats_kept": 0.5, "codes_used": 1, "perplexity": 1}


def test_a_flat_lead_does_not_count():
    signal = np.tile([1.0, -1.0], (12, 2500))
    signal[3] = 0.5
    errors = signal_errors(signal, signal * 0.9)
    assert errors["prdn"] == pytest.approx(10) and "aVR" not in errors["leads"]
    figures = summarise([errors, signal_errors(np.tile([1.0, -1.0], (12, 2500)), np.zeros((12, 5000)))], [{"beats": 0}])
    assert figures["leads"]["aVR"]["prdn"] == pytest.approx(100) and figures["leads"]["I"]["prdn"] == pytest.approx(55)
    assert figures["leads"]["I"]["snr_db"] == pytest.approx(10) and figures["leads"]["I"]["prd"] == pytest.approx(55)


def test_beats_of_the_same_ecg_are_all_kept():
    signal = np.abs(beats(rate_bpm=75) / 1000)
    same = beat_errors(signal, signal)
    assert same["beats"] == same["beats_kept"] >= 11 and same["beats_added"] == 0
    assert same["heart_rate_bpm"] == same["r_peak_ms"] == same["qrs_amplitude_mv"] == same["st_level_mv"] == 0
    late = beat_errors(signal, np.roll(signal, 5, axis=1))
    assert late["r_peak_ms"] == pytest.approx(10, abs=2)
    assert beat_errors(signal, 0 * signal)["beats_kept"] == 0
    assert beat_errors(0 * signal, signal)["beats"] == 0


def test_code_figures_by_hand():
    codes = np.array([[0, 1, 2, 3] * 5])
    figures = code_figures(codes, 8)
    assert figures["codes_used"] == figures["dead_codes"] == 4 and figures["usage"] == 0.5
    assert figures["perplexity"] == pytest.approx(4) and figures["entropy_bits"] == pytest.approx(2)
    assert figures["bits_per_second"] == pytest.approx(6) and figures["entropy_bits_per_second"] == pytest.approx(4)
    assert figures["compression"] == pytest.approx(16_000)
    residual = code_figures(codes, 8, depth=2)  # 0 and 2, then 1 and 3: one bit each, of the two that four codes take
    assert residual["bits_per_second"] == pytest.approx(4) and residual["entropy_bits_per_second"] == pytest.approx(2)
    assert residual["entropy_bits"] == pytest.approx(1) and residual["perplexity"] == pytest.approx(4)
    more = code_figures(codes, 8, levels=np.array([[0, 63] * 6]))
    assert more["bits_per_second"] == pytest.approx(6 + 7.2)
    assert more["entropy_bits_per_second"] == pytest.approx(4 + 1.2) and more["codes_used"] == 4


def test_paired_differences():
    first = [{"prdn": float(n), "st_level_mv": 1.0} for n in range(20)]
    second = [{"prdn": n + 1.0 + 0.1 * (n % 2)} for n in range(20)]
    found = paired_differences(first, second)
    assert set(found) == {"prdn"} and found["prdn"]["records"] == 20
    assert found["prdn"]["mean"] == pytest.approx(1.05)
    assert 1 <= found["prdn"]["low"] < 1.05 < found["prdn"]["high"] <= 1.1


def test_the_probe_finds_what_is_there():
    rng = np.random.default_rng(0)
    sick = np.arange(40) % 2
    signals = rng.standard_normal((40, 12, 5000)) * 0.01
    for n, x in enumerate(signals):
        x += beats(rate_bpm=70, seed=3) / 1000 * (1 if sick[n] else -1)
    codes = rng.integers(0, 8, (40, 50))
    codes[sick == 1, :25] = 1
    labelled = [(str(n), {"MI"} if sick[n] else {"NORM"}) for n in range(40)]
    found = probe(signals, signals, rng.standard_normal((40, 50, 2)), codes, 8, labelled)
    assert found["classes"] == ["NORM", "MI"]
    assert found["raw"] > 0.95 and found["histogram"] > 0.95 and found["latents"] < 0.8
    less = found["minus_raw"]["latents"]
    assert less["low"] < less["mean"] < less["high"] < 0 and found["patients"] == 40
    assert less["mean"] == pytest.approx(found["latents"] - found["raw"])
    large = np.where(sick, 2.0, 1.0)[:, None] * np.ones((1, 12))
    more = probe(signals, signals, rng.standard_normal((40, 50, 2)), codes, 8, labelled, large, large)
    assert more["latents"] > found["latents"]
    assert "skipped" in probe(signals[:4], signals[:4], codes[:4, :, None], codes[:4], 8, labelled[:4])


def test_the_mean_beat_lines_up():
    signal, peaks = np.zeros((5024, 12)), (807, 2011, 3302)  # each somewhere else in its stretch
    for peak in peaks:
        signal[peak - 60 : peak + 61] += 1 - np.abs(np.arange(-60, 61))[:, None] / 60
    raw = mean_beat(signal, 1, peaks).reshape(-1, 12)
    assert len(raw) == 9 + 16 and (raw.argmax(0) == 9).all() and 0.9 < raw.max() <= 1
    assert np.abs(raw[8] - raw[10]).max() < 0.03  # symmetrical about R, as the beats are
    for length in (8, 16, 32):  # the same instants, whatever the code rate
        coded = mean_beat(signal.reshape(-1, length, 12).mean(1), length, peaks)
        assert np.abs(coded.reshape(-1, 12) - raw).max() < 0.2
    assert not mean_beat(signal, 1, []).any() and not mean_beat(signal, 1, [10]).any()


def test_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, y, weights = rng.integers(0, 20, 60) / 10, rng.random(60) < 0.3, rng.integers(0, 3, (4, 60)).astype(float)
    expected = [roc_auc_score(y, scores, sample_weight=row) for row in weights]
    assert auroc(scores, y, weights) == pytest.approx(expected)


def write_ptbxl_tables(folder, records):
    """PTB-XL's two tables for these records, every second one an infarction."""
    (folder / "scp_statements.csv").write_text(",diagnostic,diagnostic_class\nNORM,1.0,NORM\nIMI,1.0,MI\n")
    rows = [f"{n},\"{{'{'IMI' if n % 2 else 'NORM'}': 100.0}}\",{path}\n" for n, path in enumerate(records)]
    (folder / "ptbxl_database.csv").write_text("patient_id,scp_codes,filename_hr\n" + "".join(rows))


def tables_of(page):
    """Caption -> (head, {first cell -> the others}) of each table of a page."""
    tables = {}
    for table in re.findall(r"<table>(.*?)</table>", page):
        head, *rows = [
            re.findall(r"<t[hd]>(.*?)(?=<t|$)", row.replace("</th>", "").replace("</td>", ""))
            for row in table.split("<tr>")[1:]
        ]
        tables[re.search("<caption>(.*?)</caption>", table)[1]] = head[1:], {row[0]: row[1:] for row in rows}
    return tables


def check_the_page(page, report, titles):
    """Every number in the page's tables is the report's, to its four digits; every figure has its row."""
    tables, tokenizers = tables_of(page), report["tokenizers"]
    near = lambda value: pytest.approx(value, rel=1e-3)  # noqa: E731
    head, figures = tables["Figures"]
    assert head == titles and len(figures) == len(MEASURES)
    for title, unit, place in MEASURES:
        for cell, value in zip(figures[f"{title} ({unit})" if unit else title], tokenizers, strict=True):
            for key in place:
                value = value.get(key, {})
            assert cell == "–" if value == {} else float(cell) == near(value), title
    for title, tokenizer in zip(titles, tokenizers, strict=True):
        _, leads = tables[title]
        for lead, cells in leads.items():
            assert [float(cell) for cell in cells] == near([tokenizer["leads"][lead][key] for _, key in LEAD_MEASURES])
        assert len(leads) == 12
        _, sources = tables[f"{title}, by source"]
        for source, cells in sources.items():
            expected = [tokenizer["by_source"][source].get(key) for _, key in SOURCE_MEASURES]
            assert [float(cell) for cell in cells if cell != "–"] == near([v for v in expected if v is not None])
        assert len(sources) == len(tokenizer["by_source"])
        (probed,) = [rows for caption, (_, rows) in tables.items() if caption.startswith("Linear probe")]
        found = tokenizer["probe"]
        for key, name in (("raw", "raw signal"), ("latents", "latents of the codes")):
            macro, less, *classes = probed[f"{title}: {name}"]
            assert float(macro) == near(found[key])
            assert [float(cell) for cell in classes] == near(list(found["by_class"][key].values()))
        assert numbers(less) == near([found["minus_raw"]["latents"][key] for key in ("mean", "low", "high")])
    for title, differences in zip(titles[1:], report["differences"], strict=True):
        _, rows = tables[f"{title} minus {titles[0]}, ECG by ECG"]
        assert len(rows) == len(differences) > 5
        for key, difference in differences.items():
            interval, ecgs = rows[DIFFERENCES[key]]
            assert numbers(interval) == near([difference[name] for name in ("mean", "low", "high")])
            assert int(ecgs) == difference["records"]


def numbers(text):
    return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", text)]


def test_the_report(tmp_path, capsys):
    words = dict(word.split("=", 1) for word in write_data_set(tmp_path, train=1, valid=25))
    small_tokenizer(0).save(tmp_path / "tokenizer0")
    small_tokenizer(0, WITH_AMPLITUDE).save(tmp_path / "tokenizer1")
    (tmp_path / "files" / "r103.dat").unlink()
    write_ptbxl_tables(tmp_path / "files", [f"r{n}" for n in range(100, 125)])
    compared = ["--compare", str(tmp_path / "tokenizer0"), str(tmp_path / "tokenizer1")]
    main([*compared, "--manifest", words["VAL_PATH"], "--root", words["ROOT_ECG"], "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "quality.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert report["records"] == 24 and list(report["bad"]) == ["r103"] and len(report["tokenizers"]) == 2
    figures = report["tokenizers"][0]
    by_record = [values[0] for values in report["by_record"].values()]
    assert figures["signal"]["prdn"] == pytest.approx(np.mean(by_record))
    assert report["differences"][0]["prdn"]["records"] == 24
    without, with_it = report["tokenizers"]
    assert without["amplitude"].startswith("of the record") and with_it["amplitude"].startswith("of the codes")
    assert with_it["codes"]["bits_per_second"] - without["codes"]["bits_per_second"] == pytest.approx(7.2)
    assert with_it["signal"]["prdn"] == pytest.approx(without["signal"]["prdn"], rel=0.05)
    page = (tmp_path / "out" / "quality.html").read_text()
    check_the_page(page, report, ["tokenizer0", "tokenizer1"])
    ranked = sorted(by_record)
    for which, prdn in (("best", ranked[0]), ("median", ranked[12]), ("worst", ranked[-1])):
        assert re.search(rf"tokenizer0, {which}: r\d+, PRDN {prdn:.1f} %", page)
    assert page.count("data:image/png;base64,") == 2 + 3 * 2
    assert not re.search(r"(src|href)=.?(https?:|/)", page)  # nothing is fetched
    assert "PRDN" in capsys.readouterr().out


def test_tokenizers_are_named_by_what_tells_them_apart():
    assert short_names(["/a/b/best.pt"]) == ["b/best.pt"]
    assert short_names(["/a/run1/best.pt", "/a/run2"]) == ["run1/best.pt", "run2"]
    assert short_names(["/a/run", "/a/run"]) == ["a/run", "a/run"]


def test_wrong_words_end_in_one_line(tmp_path, capsys):
    words = dict(word.split("=", 1) for word in write_data_set(tmp_path, train=1, valid=1))
    base = ["--manifest", words["VAL_PATH"], "--out", str(tmp_path / "out")]
    for wrong in (
        ["--checkpoint", str(tmp_path), "--root", words["ROOT_ECG"]],
        ["--checkpoint", str(tmp_path), "--root", str(tmp_path / "nowhere")],
        ["--compare", str(tmp_path), "--root", words["ROOT_ECG"]],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*base, *wrong])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 2 and len(lines) == 1


def test_several_sources_have_their_own_rows(tmp_path, capsys):
    paths = []
    for name, ecgs in (("one", 3), ("two", 2)):
        words = dict(word.split("=", 1) for word in write_data_set(tmp_path / name, train=1, valid=ecgs))
        paths.append((words["VAL_PATH"], words["ROOT_ECG"]))
    small_tokenizer(0).save(tmp_path / "tokenizer")
    manifests, roots = zip(*paths, strict=True)
    base = ["--checkpoint", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "out"), "--root", *roots]
    main([*base, "--manifest", *manifests])
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    sources = report["tokenizers"][0]["by_source"]
    assert {name: part["ecgs"] for name, part in sources.items()} == {"one": 3, "two": 2} and report["records"] == 5
    values = [loss[0] for name, loss in report["by_record"].items() if name.startswith("two/")]
    assert sources["two"]["prdn"] == pytest.approx(np.mean(values))
    assert "two: 2 ECGs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*base, "--manifest", manifests[0]])
    assert "each needs its --root" in capsys.readouterr().err
