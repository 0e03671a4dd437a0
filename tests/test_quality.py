"""The codec's report: its measures are what they say, its page holds its figures."""

import json
import re

import numpy as np
import pytest

from ecg_tokenizer.quality import main, paired_differences
from ecg_tokenizer.quality_measures import beat_errors, code_figures, signal_errors
from ecg_tokenizer.quality_probe import mean_beat, probe
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer, write_data_set


def test_signal_errors_by_hand():
    signal = np.tile([1.0, -1.0], (12, 2500))
    recon = signal * 0.9
    errors = signal_errors(signal, recon)
    assert errors["prdn"] == pytest.approx(10) and errors["prd"] == pytest.approx(10)
    assert errors["snr_db"] == pytest.approx(20) and errors["mse_mv2"] == pytest.approx(0.01)
    assert errors["correlation"] == pytest.approx(1) and errors["leads"]["V6"]["prdn"] == pytest.approx(10)


def test_a_flat_lead_does_not_count():
    signal = np.tile([1.0, -1.0], (12, 2500))
    signal[3] = 0.5
    errors = signal_errors(signal, signal * 0.9)
    assert errors["prdn"] == pytest.approx(10) and "aVR" not in errors["leads"]


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
    assert "skipped" in probe(signals[:4], signals[:4], codes[:4, :, None], codes[:4], 8, labelled[:4])


def test_the_mean_beat_lines_up():
    channels = np.zeros((2, 500))
    channels[:, [100, 200, 300]] = 1
    beat = mean_beat(channels, [2, 4, 6]).reshape(2, -1)
    assert (beat.argmax(1) == 15).all() and beat.max() == 1
    assert not mean_beat(channels, []).any()


def test_the_report(tmp_path, capsys):
    words = dict(word.split("=", 1) for word in write_data_set(tmp_path, train=1, valid=4))
    small_tokenizer(0).save(tmp_path / "tokenizer0")
    small_tokenizer(0, WITH_AMPLITUDE).save(tmp_path / "tokenizer1")
    (tmp_path / "files" / "r103.dat").unlink()
    compared = ["--compare", str(tmp_path / "tokenizer0"), str(tmp_path / "tokenizer1")]
    main([*compared, "--manifest", words["VAL_PATH"], "--root", words["ROOT_ECG"], "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert report["records"] == 3 and list(report["bad"]) == ["r103"] and len(report["tokenizers"]) == 2
    figures = report["tokenizers"][0]
    by_record = [values[0] for values in report["by_record"].values()]
    assert figures["signal"]["prdn"] == pytest.approx(np.mean(by_record))
    assert report["differences"][0]["prdn"]["records"] == 3
    without, with_it = report["tokenizers"]
    assert without["amplitude"].startswith("of the record") and with_it["amplitude"].startswith("of the codes")
    assert with_it["codes"]["bits_per_second"] - without["codes"]["bits_per_second"] == pytest.approx(7.2)
    assert with_it["signal"]["prdn"] == pytest.approx(without["signal"]["prdn"], rel=0.05)
    page = (tmp_path / "out" / "quality.html").read_text()
    for figures in report["tokenizers"]:
        assert f"{figures['signal']['prdn']:.4g}" in page and f"{figures['codes']['perplexity']:.4g}" in page
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"(src|href)=.?(https?:|/)", page)  # nothing is fetched
    assert "PRDN" in capsys.readouterr().out


def test_wrong_words_end_in_one_line(tmp_path, capsys):
    words = dict(word.split("=", 1) for word in write_data_set(tmp_path, train=1, valid=1))
    base = ["--manifest", words["VAL_PATH"], "--out", str(tmp_path / "out")]
    for wrong in (
        ["--checkpoint", str(tmp_path), "--root", words["ROOT_ECG"]],
        ["--checkpoint", str(tmp_path), "--root", str(tmp_path / "nowhere")],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*base, *wrong])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 2 and len(lines) == 1
