"""The codec: the published weights give the published codes, files that aren't tokenizers are refused in one line."""

import pickle

import numpy as np
import pytest
import torch

from ecg_tokenizer.codec import EcgTokenizer, tokenizer_fingerprint
from ecg_tokenizer.weights import write_checkpoint
from tests.shared import SHARED, needs_shared
from tests.tokenizer_maker import beats, small_tokenizer
from utils.tools import UserError


@needs_shared
def test_the_published_weights_give_the_published_codes():
    tokenizer = EcgTokenizer.from_pretrained(SHARED / "reference/tokenizer/best.pt")
    expected = np.load(SHARED / "reference/tokenizer/expected.npz")
    for record in (3, 9, 17):
        codes = tokenizer.encode_standardised(expected[f"input_{record}"][None])
        assert np.array_equal(codes[0].numpy(), expected[f"codes_{record}"])
        recon = tokenizer.decode_standardised(codes)[0].numpy()
        assert np.abs(recon - expected[f"recon_{record}"]).max() < 1e-4
    assert (tokenizer.n_codes, tokenizer.codes_per_ecg) == (1296, 313)


@needs_shared
def test_the_published_weights_give_the_published_codes_from_the_files_on():
    from data_provider.read.records import read_record

    tokenizer = EcgTokenizer.from_pretrained(SHARED / "reference/tokenizer/best.pt")
    expected = np.load(SHARED / "reference/tokenizer/expected.npz")
    for number in (3, 9, 17):
        record = read_record(SHARED / f"data/ptbxl/records500/00000/{number:05d}_hr")
        codes = tokenizer.encode(record.signal, record.sample_rate)
        assert np.array_equal(codes, expected[f"codes_{number}"])


def test_a_saved_folder_is_as_readable_as_any_file(tmp_path):
    small_tokenizer().save(tmp_path)
    (tmp_path / "any").touch()
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_a_folder_and_its_best_pt_are_one_tokenizer(tmp_path):
    tokenizer = small_tokenizer()
    write_checkpoint(tmp_path / "best.pt", tokenizer._stored_config, tokenizer.network.state_dict(), 7)
    loaded = EcgTokenizer.from_pretrained(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint == tokenizer_fingerprint(tmp_path / "best.pt")
    assert small_tokenizer(seed=1).fingerprint != tokenizer.fingerprint


def test_the_order_of_leads_does_not_matter_when_they_are_named():
    tokenizer, signal = small_tokenizer(), beats() / 1000
    names = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    order = np.random.default_rng(0).permutation(12)
    shuffled = tokenizer.encode(signal[order], 500, [names[row].upper() for row in order])
    assert np.array_equal(shuffled, tokenizer.encode(signal, 500))


def test_codes_are_computed_in_float32_proper_whatever_is_switched_on(monkeypatch):
    """cuDNN's default, TF32, changes 0.5 % of the codes on a GPU."""
    tokenizer, seen = small_tokenizer(), []
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    encode, decode = tokenizer.network.encode, tokenizer.network.decode

    def flags():
        return conv.fp32_precision, matmul.fp32_precision

    def watched(inner):
        def watch(x):
            seen.append((conv.fp32_precision, matmul.fp32_precision))
            assert not torch.is_autocast_enabled("cpu")
            if len(seen) > 2:
                raise RuntimeError("inside")
            return inner(x)

        return watch

    monkeypatch.setattr(tokenizer.network, "encode", watched(encode))
    monkeypatch.setattr(tokenizer.network, "decode", watched(decode))
    default = flags()
    conv.fp32_precision = matmul.fp32_precision = "tf32"
    try:
        before = flags()
        with torch.autocast("cpu"):
            codes = tokenizer.encode_standardised(torch.zeros(1, 12, 5000))
            tokenizer.decode_standardised(codes)
        with pytest.raises(RuntimeError, match="inside"):
            tokenizer.encode_standardised(torch.zeros(1, 12, 5000))
        assert flags() == before, "restored, also after a fault"
    finally:
        conv.fp32_precision, matmul.fp32_precision = default
    assert seen == [("ieee", "ieee")] * 3


def test_a_batch_and_one_ecg():
    tokenizer = small_tokenizer()
    signals = np.stack([beats(seed=seed) / 1000 for seed in range(3)])
    codes = tokenizer.encode(signals, 500)
    assert codes.shape == (3, 50)
    assert tokenizer.decode(codes).shape == (3, 12, 5000) and tokenizer.decode(codes[0]).shape == (12, 5000)
    with pytest.raises(ValueError, match="codes must lie in"):
        tokenizer.decode(np.full(50, 1296))
    with pytest.raises(ValueError, match="12 leads"):
        tokenizer.encode(signals[:, :8], 500)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def bad_files(folder):
    good = folder / "good.pt"
    tokenizer = small_tokenizer()
    write_checkpoint(good, tokenizer._stored_config, tokenizer.network.state_dict(), 1)
    (folder / "half.pt").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    torch.save({"model": Evil(), "step": 1}, folder / "evil.pt")
    (folder / "evil_old.pt").write_bytes(pickle.dumps({"model": Evil()}))
    torch.save({"model": {"layer.weight": torch.zeros(3)}, "step": 1}, folder / "other.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "text.pt").write_text("not a checkpoint")
    (folder / "empty.pt").write_bytes(b"")
    config = {**tokenizer._stored_config, "width": 32}
    write_checkpoint(folder / "misfit.pt", config, tokenizer.network.state_dict(), 1)
    write_checkpoint(folder / "newer.pt", {**config, "colour": 1}, tokenizer.network.state_dict(), 1)
    write_checkpoint(folder / "levels.pt", {**config, "levels": [6, -1]}, tokenizer.network.state_dict(), 1)
    tokenizer.save(folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (folder / "nothing").mkdir()
    return [path for path in sorted(folder.iterdir()) if path.name != "good.pt"] + [folder / "absent"]


def test_files_that_are_no_tokenizers_are_refused_in_one_line(tmp_path, capsys):
    refused = bad_files(tmp_path)
    assert len(refused) == 13
    for path in refused:
        with pytest.raises(UserError) as raised:
            EcgTokenizer.from_pretrained(path)
        assert path.name in str(raised.value) and "\n" not in str(raised.value), raised.value
    assert "code ran" not in capsys.readouterr().out
