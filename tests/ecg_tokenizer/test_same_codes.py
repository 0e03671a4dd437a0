"""The same ECG has the same codes, whoever computes them: a fresh process, another batch, more threads; and the
tokenizer that comes with the repository does what the README shows."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from data_provider.read.records import read_record
from data_provider.read.signal import standardise
from data_provider.simulate.patients import draw_ecg, draw_patient, signal
from ecg_tokenizer.codec import EcgTokenizer, tokenizer_fingerprint
from ecg_tokenizer.network import NetworkConfig
from ecg_tokenizer.weights import SHIPPED, WEIGHTS_FILE
from tests.shared import SHARED
from tests.tokenizer_maker import small_tokenizer
from utils.tools import REPOSITORY, UserError

HAS_WEIGHTS = (SHIPPED / WEIGHTS_FILE).is_file()
EDGE = 1e-3  # of a level: so near to the edge between two levels, float32 sums in another order may fall on either side


@pytest.fixture(scope="module")
def tokenizer():
    """The shipped one; while there is none, an untrained one of its size."""
    return EcgTokenizer.from_pretrained() if HAS_WEIGHTS else small_tokenizer(0, NetworkConfig(amplitude=True))


@pytest.fixture(scope="module")
def ecgs():
    """64 ECGs in mV, [64, 12, 5000]: of patients where they lie beside the checkout, else simulated."""
    headers = sorted((SHARED / "data/ptbxl").glob("records500/*/*.hea"))[:64]
    if len(headers) == 64:
        return np.stack([read_record(header.with_suffix("")).signal for header in headers])
    return np.stack([signal(draw_ecg(draw_patient(1, n), 0))[0] / 1000 for n in range(64)])


@pytest.fixture
def one_thread():
    """One thread for the test, and after it as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_saved_folder_gives_the_same_bits_in_a_fresh_process(tokenizer, ecgs, one_thread, tmp_path):
    tokenizer.save(tmp_path / "saved")
    np.save(tmp_path / "ecgs.npy", ecgs[:4])
    script = (
        "import sys, numpy as np, torch; from ecg_tokenizer.codec import EcgTokenizer; torch.set_num_threads(1)\n"
        "t = EcgTokenizer.from_pretrained(sys.argv[1] + '/saved')\n"
        "codes = t.encode(np.load(sys.argv[1] + '/ecgs.npy'), 500)\n"
        "np.savez(sys.argv[1] + '/out.npz', codes=codes, decoded=t.decode(codes), fingerprint=t.fingerprint)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=REPOSITORY)
    out = np.load(tmp_path / "out.npz")
    codes = tokenizer.encode(ecgs[:4], 500)
    assert codes.dtype == np.uint16 and codes.shape == (4, 325) and len(np.unique(codes)) > 100
    assert np.array_equal(out["codes"], codes)
    decoded = tokenizer.decode(codes)
    assert decoded.dtype == np.float32 and out["decoded"].tobytes() == decoded.tobytes()
    assert str(out["fingerprint"]) == tokenizer.fingerprint == tokenizer_fingerprint(tmp_path / "saved")


def test_codes_do_not_depend_on_batch_or_threads(tokenizer, ecgs, one_thread):
    x = np.stack([standardise(ecg)[0] for ecg in ecgs])
    together = positions_and_levels(tokenizer, x, batch=64)
    alone = positions_and_levels(tokenizer, x, batch=1)
    torch.set_num_threads(2)
    two_threads = positions_and_levels(tokenizer, x, batch=64)
    for other in (alone, two_threads):
        places = (other[1] != together[1]).any(-1)
        assert places.mean() <= 1e-4, f"{places.sum()} of {places.size} codes differ"
        for positions, levels in (together, other):
            assert np.array_equal(levels, np.rint(positions))
        differing = other[1] != together[1]
        assert (np.abs(together[0][differing] % 1 - 0.5) < EDGE).all()


def positions_and_levels(tokenizer, x, batch):
    """Where the quantiser's dimensions lie before rounding, in levels, and the levels of the codes: both [N, F, D]."""
    fsq, parts = tokenizer.network.quantizer, []
    for start in range(0, len(x), batch):
        part = torch.from_numpy(x[start : start + batch])
        codes = tokenizer.encode_standardised(part)
        positions = torch.sigmoid(tokenizer.network.encode(part)) * fsq.steps
        levels = torch.round(fsq.from_codes(codes) * fsq.steps)
        parts.append((positions.numpy(), levels.numpy()))
    return [np.concatenate(kind) for kind in zip(*parts, strict=True)]


def test_without_weights_the_shipped_tokenizer_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("ecg_tokenizer.weights.SHIPPED", tmp_path)
    with pytest.raises(UserError, match="no trained tokenizer; name the path of yours"):
        EcgTokenizer.from_pretrained(tmp_path)


@pytest.mark.skipif(not HAS_WEIGHTS, reason="ecg_tokenizer/pretrained/ holds no weights yet")
def test_the_readme_example_runs(capsys):
    readme = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    (example,) = [block for block in blocks if "from_pretrained()" in block]
    exec(compile(example, "README.md", "exec"), {})
    printed = float(re.fullmatch(r"PRDN (.*) %\n", capsys.readouterr().out)[1])
    assert abs(printed - float(re.search(r"prints `PRDN (.*) %`", readme)[1])) < 0.15, "the README says another figure"
    assert (SHIPPED / WEIGHTS_FILE).stat().st_size < 8e6
