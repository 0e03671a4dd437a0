"""A download breaks, lies and fills disks: whatever arrives under a record's name is the record."""

import errno
import hashlib
import http.server
import io
import os
import threading
import zipfile

import pytest

import data_provider.prepare.fetch
from data_provider.download import main
from data_provider.prepare.build import prepare_ptbxl
from data_provider.prepare.download import SOURCES, download, in_threads
from data_provider.prepare.fetch import fetch
from data_provider.read.records import read_record
from tests.wfdb_maker import write_ptbxl
from utils.tools import UserError


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder with ranges. ``cut``: path -> bytes after which the connection breaks, once."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.cut, self.ranges, self.requests, self.busy = folder, {}, [], [], 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.requests.append(name)
        file = self.server.folder / name
        if self.server.busy:
            self.server.busy -= 1
            self.send_error(503)
            return
        if not file.is_file():
            self.send_error(404)
            return
        content, start = file.read_bytes(), 0
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.server.ranges.append((name, start))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.server.cut.pop(name, len(content))
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if end < len(content):
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(data_provider.prepare.fetch, "PAUSE_S", 0.01)
    server = Server(tmp_path / "served")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def physionet(server):
    """A PTB-XL of six records with its checksums."""
    codes = "{'SR': 0.0, 'NORM': 100.0}"
    rows = [{"ecg_id": n, "patient_id": n, "strat_fold": n, "scp_codes": codes} for n in range(1, 7)]
    root = write_ptbxl(server.folder, rows)
    (root / "LICENSE.txt").write_text("CC BY 4.0")
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.relative_to(root)}" for file in files]
    (root / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    return server


def test_a_download_can_be_prepared_and_is_not_fetched_twice(physionet, tmp_path, capsys):
    to = tmp_path / "to"
    main(["ptb-xl", "--to", str(to), "--url", physionet.url])
    said = capsys.readouterr().out
    assert "CC" in said or "Creative Commons" in said
    assert "2.6 GB" in said and "6 records in" in said and "data_provider.prepare ptbxl --root" in said
    assert prepare_ptbxl(to, tmp_path / "out")["records"]["used"] == 6
    fetched = len(physionet.requests)
    (to / "records500/00000/00003_hr.dat").unlink()
    assert download("ptb-xl", to, url=physionet.url) == 6
    assert physionet.requests[fetched:] == ["records500/00000/00003_hr.dat"]


def test_limit(physionet, tmp_path):
    assert download("ptb-xl", tmp_path / "to", limit=2, url=physionet.url) == 2
    assert len(list((tmp_path / "to").rglob("*.dat"))) == 2


def test_a_broken_connection_goes_on_where_it_broke(physionet, tmp_path):
    name = "records500/00000/00002_hr.dat"
    physionet.cut[name] = 50_000
    download("ptb-xl", tmp_path / "to", url=physionet.url)
    assert physionet.ranges == [(name, 50_000)]
    assert (tmp_path / "to" / name).read_bytes() == (physionet.folder / name).read_bytes()


def test_a_killed_download_goes_on(physionet, tmp_path):
    name = "records500/00000/00002_hr.dat"
    part = tmp_path / "to" / (name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes((physionet.folder / name).read_bytes()[:70_000])
    download("ptb-xl", tmp_path / "to", url=physionet.url)
    assert physionet.ranges == [(name, 70_000)] and not part.exists()
    assert read_record(tmp_path / "to" / name).signal.shape == (12, 5000)


def test_a_damaged_start_is_noticed_and_fetched_anew(physionet, tmp_path):
    name = "records500/00000/00002_hr.dat"
    part = tmp_path / "to" / (name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    download("ptb-xl", tmp_path / "to", url=physionet.url)
    assert (tmp_path / "to" / name).read_bytes() == (physionet.folder / name).read_bytes()


def test_a_corrupted_file_is_caught_by_its_checksum(physionet, tmp_path):
    name = "records500/00000/00004_hr.dat"
    content = bytearray((physionet.folder / name).read_bytes())
    content[1234] ^= 1
    (physionet.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=r"00004_hr.dat: arrives damaged \(SHA-256"):
        download("ptb-xl", tmp_path / "to", url=physionet.url)
    assert not (tmp_path / "to" / name).exists()


def test_not_found_is_one_line(physionet, tmp_path, capsys):
    (physionet.folder / "records500/00000/00005_hr.hea").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["ptb-xl", "--to", str(tmp_path / "to"), "--url", physionet.url])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and "00005_hr.hea: the server says 404" in said


def test_a_busy_server_is_asked_again_but_not_for_ever(physionet, tmp_path):
    physionet.busy = 2
    fetch(physionet.url + "LICENSE.txt", tmp_path / "a")
    physionet.busy = 100
    with pytest.raises(UserError, match=r"503 .* \(tried 4 times; run the command again to go on\)"):
        fetch(physionet.url + "LICENSE.txt", tmp_path / "b")
    with pytest.raises(UserError, match="tried 4 times"):
        fetch("http://127.0.0.1:9/", tmp_path / "c")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_line(physionet, tmp_path):
    (tmp_path / "LICENSE.txt.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full") as error:
        fetch(physionet.url + "LICENSE.txt", tmp_path / "LICENSE.txt")
    assert error.value.__cause__.errno == errno.ENOSPC


def test_too_little_room_is_said_before_anything_is_fetched(physionet, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    with pytest.raises(UserError, match=r"2,638 MB are needed and 1,000 MB are free"):
        download("ptb-xl", tmp_path / "to", url=physionet.url)
    assert physionet.requests == []


def test_paths_out_of_the_folder_are_refused(physionet, tmp_path):
    table = physionet.folder / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("records500/00000/00001_hr", "../../evil"))
    sums = physionet.folder / "SHA256SUMS.txt"
    sums.write_text("\n".join(line for line in sums.read_text().splitlines() if "database" not in line))
    with pytest.raises(UserError, match="leaves the data set's root"):
        download("ptb-xl", tmp_path / "to", url=physionet.url)


def test_ecgqas_archive(server, tmp_path):
    server.folder.mkdir()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ecg-qa-master/ecgqa/ptbxl/template/train/00000.json", "[]")
        file.writestr("ecg-qa-master/README.md", "x")
    (server.folder / "m.zip").write_bytes(archive.getvalue())
    assert download("ecg-qa", tmp_path / "to", url=server.url + "m.zip") == 1
    assert (tmp_path / "to/ecgqa/ptbxl/template/train/00000.json").read_text() == "[]"
    (server.folder / "bad.zip").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="cannot be unpacked"):
        download("ecg-qa", tmp_path / "other", url=server.url + "bad.zip")
    with zipfile.ZipFile(server.folder / "evil.zip", "w") as file:
        file.writestr("ecg-qa-master/ecgqa/../../evil", "x")
    with pytest.raises(UserError, match="leaves the data set's root"):
        download("ecg-qa", tmp_path / "third", url=server.url + "evil.zip")


def test_every_source_says_what_it_costs():
    for source in SOURCES.values():
        assert source.licence and source.size and source.url.startswith("https://")


def test_jobs_are_begun_as_they_are_needed():
    """The list of MIMIC-IV-ECG's 1.6 million jobs in waiting took 3 GB."""
    taken, done = [], []

    def jobs():
        for number in range(1000):
            taken.append(number)
            yield number

    for job in in_threads(lambda number: number, jobs(), workers=4):
        done.append(job)
        assert len(taken) - len(done) <= 17
    assert done == list(range(1000))
