"""An ECG that the tokenizer hardly knows must be noticed, and one that it knows left in peace."""

import numpy as np
import pytest

from data_provider.read import standardise
from data_provider.records import main
from data_provider.simulate.patients import draw_ecg, draw_patient, signal
from ecg_tokenizer.codec import EcgTokenizer
from ecg_tokenizer.familiarity import FILE, ecg_loss, familiar_level, loss_lines, write_familiar_level
from tests.tokenizer_maker import beats, small_tokenizer
from tests.wfdb_maker import write_record
from utils.tools import UserError


def test_the_loss_is_the_prdn_of_what_comes_back():
    tokenizer = small_tokenizer()
    x = np.stack([standardise(beats(seed=n))[0] for n in range(3)])
    recon = tokenizer.decode_standardised(tokenizer.encode_standardised(x)).numpy()
    expected = 100 * np.sqrt(((recon - x) ** 2).sum((1, 2)) / (x**2).sum((1, 2)))
    assert ecg_loss(tokenizer, x) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(ecg_loss(tokenizer, 0 * x)).all()


def test_the_level_is_kept_beside_the_weights(tmp_path):
    assert familiar_level(tmp_path) is None
    write_familiar_level(tmp_path, np.arange(101.0))
    assert familiar_level(tmp_path) == familiar_level(tmp_path / "best.pt") == 99
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(UserError, match="holds no level"):
        familiar_level(tmp_path)


def test_only_what_is_unlike_is_warned_of():
    assert loss_lines(20.0, 30.0) == ["codes: 20 % lost (PRDN), 30 % is usual at most"]
    assert loss_lines(48.0, 30.0)[1] == "warning: this ECG is unlike those the tokenizer knows: 48 % lost"
    assert loss_lines(48.0, None) == ["codes: 48 % lost (PRDN)"]
    assert "no signal" in loss_lines(float("nan"), 30.0)[0]


def test_the_records_command_says_it(tmp_path, capsys):
    """The shipped tokenizer knows the demo's first ECG; noise of the same size it has never seen."""
    ecg, _ = signal(draw_ecg(draw_patient(seed=0, number=0), which=0))
    noise = np.random.default_rng(0).normal(0, 500, (12, 5000))
    for name, microvolts, warned in (("ecg", ecg, False), ("noise", noise, True)):
        write_record(tmp_path / name, np.round(microvolts).astype("<i2"))
        main([str(tmp_path / name)])
        assert ("unlike those the tokenizer knows" in capsys.readouterr().out) == warned, name
    write_record(tmp_path / "short", beats(samples=2000))
    main([str(tmp_path / "short")])
    assert "codes: none (4 s long" in capsys.readouterr().out


def test_the_shipped_tokenizer_has_a_level():
    from ecg_tokenizer.weights import SHIPPED

    assert 15 < familiar_level(SHIPPED) < 60
    assert EcgTokenizer.from_pretrained(SHIPPED).n_codes == 1296
