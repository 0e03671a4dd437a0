"""Codes once: found again, never another tokenizer's, and a killed run costs only what it had not yet written."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_provider.read.signal import SignalPolicy, load_signal
from ecg_tokenizer.encode import encode_records, main, missing_records
from ecg_tokenizer.familiarity import ecg_loss, write_familiar_level
from ecg_tokenizer.store import CodeStore, StoreWriter, new_part, store_folder
from tests.tokenizer_maker import WITH_AMPLITUDE, beats, small_tokenizer
from tests.wfdb_maker import write_record
from utils.tools import REPOSITORY, UserError

POLICY = SignalPolicy()


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer(config=WITH_AMPLITUDE)


@pytest.fixture
def root(tmp_path):
    for number in range(6):
        write_record(tmp_path / "files" / f"r{number}", beats(seed=number))
    return tmp_path / "files"


class Watched:
    """The tokenizer, counting the ECGs that it encodes."""

    def __init__(self, tokenizer, stop_after=None):
        self.tokenizer, self.encoded, self.stop_after = tokenizer, 0, stop_after

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode_rows(self, x, std):
        self.encoded += len(x)
        if self.stop_after and self.encoded > self.stop_after:
            raise KeyboardInterrupt
        return self.tokenizer.encode_rows(x, std)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_record_is_encoded_once(tokenizer, root, tmp_path, workers):
    watched, paths = Watched(tokenizer), [f"r{n}" for n in range(6)]
    store = encode_records(watched, root, paths[:4], tmp_path / "store", POLICY, workers, batch_size=3)
    assert len(store) == 4 and "r4" not in store
    store = encode_records(watched, root, paths, tmp_path / "store", POLICY, workers, batch_size=3)
    assert watched.encoded == 6 and len(store) == 6
    for path in paths:
        x, _, std = load_signal(root / path, POLICY)
        expected = tokenizer.encode_rows(x[None], std[None])[0]
        assert store[path].dtype == np.uint16 and np.array_equal(store[path], expected)
    assert np.load(tmp_path / "store" / "codes.npy", mmap_mode="r").shape == (6, 12 + 50)
    assert len(CodeStore.open(tmp_path / "store", tokenizer.fingerprint, POLICY)) == 6


def test_a_changed_file_is_encoded_again(tokenizer, root, tmp_path):
    watched, paths = Watched(tokenizer), ["r0", "r1"]
    before = encode_records(watched, root, paths, tmp_path / "store", POLICY)
    write_record(root / "r0", beats(rate_bpm=120, seed=50))
    os.utime(root / "r0.dat", ns=(1, 1))
    after = encode_records(watched, root, paths, tmp_path / "store", POLICY)
    assert watched.encoded == 3 and len(after) == 2
    assert not np.array_equal(before["r0"], after["r0"]) and np.array_equal(before["r1"], after["r1"])


def test_bad_records_are_listed_and_looked_at_again_when_they_change(tokenizer, root, tmp_path):
    (root / "r1.dat").write_bytes(b"short")
    paths = ["r0", "r1", "absent"]
    store = encode_records(tokenizer, root, paths, tmp_path / "store", POLICY)
    assert set(store.bad) == {"r1", "absent"} and "r1" not in store and all(store.bad.values())
    write_record(root / "r1", beats(seed=1))
    watched = Watched(tokenizer)
    store = encode_records(watched, root, paths, tmp_path / "store", POLICY)
    assert set(store.bad) == {"absent"} and "r1" in store and watched.encoded == 1


def test_another_tokenizers_store_is_never_read(tokenizer, root, tmp_path):
    encode_records(tokenizer, root, ["r0"], tmp_path / "store", POLICY)
    with pytest.raises(UserError, match="another tokenizer"):
        CodeStore.open(tmp_path / "store", small_tokenizer(seed=1).fingerprint, POLICY)
    with pytest.raises(UserError, match="from other signals"):
        encode_records(tokenizer, root, ["r0"], tmp_path / "store", SignalPolicy(crop="centre"))
    places = {
        store_folder(tmp_path, fingerprint, policy, base)
        for fingerprint in (tokenizer.fingerprint, "other")
        for policy in (POLICY, SignalPolicy(short="pad"))
        for base in (root, tmp_path)
    }
    assert len(places) == 8


def test_an_interrupted_run_goes_on(tokenizer, root, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_tokenizer.encode.SAVE_SECONDS", -1)
    paths = [f"r{n}" for n in range(6)]
    with pytest.raises(KeyboardInterrupt):
        encode_records(Watched(tokenizer, stop_after=4), root, paths, tmp_path / "store", POLICY, batch_size=2)
    with open(tmp_path / "store" / "codes.npy", "ab") as file:  # as if killed between the rows and their lines
        file.write(b"\1" * 100)
    with open(tmp_path / "store" / "index.jsonl", "a") as file:  # as if killed within a line
        file.write('{"record": "r4", "ro')
    assert len(CodeStore.open(tmp_path / "store", tokenizer.fingerprint, POLICY)) == 4
    watched = Watched(tokenizer)
    store = encode_records(watched, root, paths, tmp_path / "store", POLICY, batch_size=2)
    assert watched.encoded == 2
    whole = encode_records(tokenizer, root, paths, tmp_path / "whole", POLICY)
    assert all(np.array_equal(store[path], whole[path]) for path in paths)


KILLED = """
import os, sys, random, threading, time
from ecg_tokenizer import encode
encode.SAVE_SECONDS = 0
threading.Timer(float(sys.argv.pop(1)), lambda: os.kill(os.getpid(), 9)).start()
batches = encode.encode_batches
def slowly(*arguments, **options):
    for batch in batches(*arguments, **options):
        time.sleep(0.05)
        yield batch
encode.encode_batches = slowly
encode.main(sys.argv[1:])
"""


def test_shards_killed_at_random_and_run_on_another_number_leave_every_record_once(tokenizer, root, tmp_path):
    """Lost otherwise: hours of a job array, or records that are there twice or not at all."""
    for number in range(6, 40):
        for suffix in (".hea", ".dat"):
            data = (root / f"r{number % 6}{suffix}").read_bytes()
            (root / f"r{number}{suffix}").write_bytes(data.replace(b"r%d" % (number % 6), b"r%d" % number))
    (root / "r7.dat").write_bytes(b"short")
    paths = [f"r{n}" for n in range(40)]
    tokenizer.save(tmp_path / "tokenizer")
    codes_root = tmp_path / "codes"
    words = ["--checkpoint", str(tmp_path / "tokenizer"), "--root", str(root), "--codes-root", str(codes_root)]
    words += ["--batch", "1", "--workers", "0", *paths]
    command = [sys.executable, "-c", KILLED]
    folder = store_folder(codes_root, tokenizer.fingerprint, POLICY, root)
    drawn = random.Random(4)
    for count in (2, 4):  # each some seconds of start, then 50 ms a record
        jobs = [[*command, str(drawn.uniform(1.5, 4)), f"--shard={n}/{count}", *words] for n in range(count)]
        jobs = [subprocess.Popen(job, cwd=REPOSITORY, stdout=subprocess.DEVNULL) for job in jobs]
        assert {job.wait() for job in jobs} <= {0, -9}
        if (folder / "meta.json").is_file():
            CodeStore.open(folder, tokenizer.fingerprint, POLICY)
    for number in range(3):
        main([*words, "--shard", f"{number}/3"])
    store = CodeStore.open(folder, tokenizer.fingerprint, POLICY)
    assert not list((folder / "parts").iterdir()) and set(store.bad) == {"r7"} and len(store) == 39
    assert sorted(store.rows.values()) == list(range(39)), "every record once"
    whole = encode_records(tokenizer, root, paths, tmp_path / "whole", POLICY)
    assert all(np.array_equal(store[path], whole[path]) for path in paths if path != "r7")


def test_a_part_that_is_written_is_left_alone_and_a_merge_cut_off_is_done_again(tokenizer, root, tmp_path, monkeypatch):
    """Lost otherwise: the codes of a job that still runs, or rows twice after a kill at the wrong moment."""
    folder, made_with = tmp_path / "store", (tokenizer.fingerprint, POLICY)
    encode_records(tokenizer, root, ["r0"], folder, POLICY)
    store = CodeStore.open(folder, *made_with)
    with new_part(folder) as part:
        writer = StoreWriter(part, *made_with, tokenizer.row_length)
        writer.append(["r1"], store["r0"][None], missing_records(store, root, ["r1"]), {})
        assert "r1" not in CodeStore.open(folder, *made_with) and part.is_dir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupt)
        patch.setattr(Path, "unlink", interrupt)
        CodeStore.open(folder, *made_with)
    store = CodeStore.open(folder, *made_with)
    assert sorted(store.rows.values()) == [0, 1] and not part.exists()


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_a_damaged_store_says_so(tokenizer, root, tmp_path):
    encode_records(tokenizer, root, ["r0", "r1"], tmp_path / "store", POLICY)
    codes = tmp_path / "store" / "codes.npy"
    codes.write_bytes(codes.read_bytes()[:-10])
    with pytest.raises(UserError, match="shorter than its index"):
        CodeStore.open(tmp_path / "store", tokenizer.fingerprint, POLICY)


def test_the_command_says_what_is_lost(tokenizer, root, tmp_path, capsys):
    """Lost otherwise: codes of an ECG that the tokenizer does not know, believed like any other's."""
    tokenizer.save(tmp_path / "tokenizer")
    words = ["--checkpoint", str(tmp_path / "tokenizer"), "--root", str(root), "--out", str(tmp_path / "codes.npz")]
    main([*words, "--loss", "r0", "absent", "r2"])
    losses = np.load(tmp_path / "codes.npz")["loss"]
    x = np.stack([load_signal(root / path, POLICY)[0] for path in ("r0", "r2")])
    assert losses == pytest.approx(ecg_loss(tokenizer, x), rel=1e-4)
    said = capsys.readouterr().out
    assert f"{max(losses):.0f} % of the worst" in said and "unlike" not in said
    write_familiar_level(tmp_path / "tokenizer", np.full(9, losses.mean()))
    main([*words, "--loss", "r0", "r2"])
    worst = ("r0", "r2")[losses.argmax()]
    assert f"unlike those the tokenizer knows: {worst} ({max(losses):.0f} %)\n" in capsys.readouterr().out


def test_the_command_writes_codes(tokenizer, root, tmp_path, capsys):
    tokenizer.save(tmp_path / "tokenizer")
    words = ["--checkpoint", str(tmp_path / "tokenizer"), "--root", str(root), "--out", str(tmp_path / "codes.npz")]
    main([*words, "r0", "r2", "absent"])
    out = np.load(tmp_path / "codes.npz")
    assert (
        out["records"].tolist() == ["r0", "r2"]
        and out["codes"].shape == (2, 12 + 50)
        and out["codes"].dtype == np.uint16
    )
    assert "absent" in capsys.readouterr().out
    for wrong in (["absent"], ["--batch", "0", "r0"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *wrong])
        assert ended.value.code == 2


def test_help_is_quick():
    script = "import sys, ecg_tokenizer.encode, ecg_tokenizer.tokenizer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY)
