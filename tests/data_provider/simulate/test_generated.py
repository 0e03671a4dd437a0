"""Generated ECGs: numbered for good, plausible, and stage 1 takes them as they are."""

import importlib.metadata

import numpy as np
import pytest

from data_provider.data_loader import load_signals
from data_provider.generate import main
from data_provider.manifests import read_manifest, record_paths
from data_provider.read.records import read_record
from data_provider.read.signal import SignalPolicy
from data_provider.simulate import generated as module
from data_provider.simulate.generated import draw, fault_of, generate
from data_provider.simulate.lead_field import twelve_leads
from utils.tools import UserError


@pytest.fixture(scope="module")
def generator():
    pytest.importorskip("deepfakeecg", reason="needs requirements-optional.txt")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_larger_number_extends_a_smaller_one(generator, tmp_path):
    """Lost otherwise: codes made of a small corpus, and figures that name a seed and a number."""
    generate(tmp_path / "grown", 10, seed=3, progress=False)
    first = contents(tmp_path / "grown")
    (tmp_path / "grown/records/00000/00000004.hea").unlink()  # as after a kill
    assert generate(tmp_path / "grown", 20, seed=3, progress=False)["reused"] is False
    generate(tmp_path / "at once", 20, seed=3, workers=2, progress=False)
    grown = contents(tmp_path / "grown")
    assert grown == contents(tmp_path / "at once")
    assert all(grown[name] == data for name, data in first.items() if name.startswith("records"))
    assert generate(tmp_path / "grown", 20, seed=3, progress=False)["reused"] is True
    assert not np.array_equal(draw(3, 0), draw(4, 0))
    with pytest.raises(UserError, match="seed 3, not 4"):
        generate(tmp_path / "grown", 20, seed=4, progress=False)


def test_stage_1_reads_them_as_twelve_leads_in_millivolts(generator, tmp_path):
    """Lost otherwise: microvolts read as millivolts, or limb leads that break Einthoven's law."""
    generate(tmp_path, 10, progress=False)
    train, valid = (read_manifest(tmp_path / name, "report") for name in ("train.json", "valid.json"))
    assert len(train) == 9 and len(valid) == 1 and not set(record_paths(train)) & set(record_paths(valid))
    signals, good, bad = load_signals(tmp_path, record_paths(train), SignalPolicy())
    assert signals.shape == (9, 12, 5000) and len(good) == 9 and not bad
    record = read_record(tmp_path / record_paths(train)[0])
    one, two, three = record.signal[:3]
    assert np.abs(one + three - two).max() < 1e-6 and 0.5 < np.ptp(two) < 6 and not record.notes
    assert np.abs(record.signal[[0, 1, *range(6, 12)]] - draw(0, 0)).max() < 0.00051


def test_implausible_ecgs_are_left_out_and_said(generator, tmp_path, monkeypatch, capsys):
    """Lost otherwise: flat or saturated output of the network as training data, or a count that nobody can check."""
    real = draw(0, 0)
    drawn = {2: np.zeros_like(real), 5: real * 20}
    monkeypatch.setattr(module, "draw", lambda seed, number: drawn.get(number, real))
    for expected in ("written", "already there"):
        main(["--to", str(tmp_path), "--number", "10"])
        said = capsys.readouterr().out
        assert expected in said and "8 ECGs" in said and "ECG 2, lead I spans" in said and "ECG 5, lead" in said
    assert len(read_manifest(tmp_path / "train.json")) == 7
    assert fault_of(twelve_leads(real)) is None


def test_faults_of_the_user_are_one_line(tmp_path, monkeypatch):
    """Lost otherwise: a traceback where the package is missing, or a folder of somebody else's filled with ECGs."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("")
    with pytest.raises(UserError, match="choose another --to"):
        generate(tmp_path / "other", 10)
    with pytest.raises(UserError, match="--number"):
        generate(tmp_path / "new", 0)

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match="pip install deepfake-ecg=="):
        generate(tmp_path / "new", 10)
    assert not (tmp_path / "new").exists()
