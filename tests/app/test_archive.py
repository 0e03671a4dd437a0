"""An archive in which a byte can change unseen proves nothing; one that writes outside its folder is a trap."""

import gzip
import io
import tarfile

import pytest

from app.archive import SUMS, Archive, write_archive
from utils.tools import UserError, sha256_bytes

MEMBERS = {"a/one.json": b'{"x": 1}', "two.bin": bytes(range(256)) * 3, "zero": b""}


def packed(members=MEMBERS):
    file = io.BytesIO()
    write_archive(file, members)
    return file.getvalue()


def written(folder, data):
    path = folder / "run.tar"
    path.write_bytes(data)
    return path


def tar(members):
    """Any tar archive: (name, bytes, more of its TarInfo), with a list of hashes that fits."""
    file, sums = io.BytesIO(), ""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, more in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
            sums += f"{sha256_bytes(data)}  {name}\n"
        info = tarfile.TarInfo(SUMS)
        info.size = len(sums)
        archive.addfile(info, io.BytesIO(sums.encode()))
    return file.getvalue()


def test_same_members_same_bytes_whatever_their_files_dates_and_order(tmp_path):
    (tmp_path / "file").write_bytes(MEMBERS["two.bin"])
    (tmp_path / "file").chmod(0o600)
    other = dict(reversed(MEMBERS.items())) | {"two.bin": tmp_path / "file"}
    assert packed(other) == packed()
    archive = Archive(written(tmp_path, packed()))
    assert {name: archive.read(name) for name in archive.sums} == MEMBERS
    archive.extract(tmp_path / "out", ["a/"])
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["a", "one.json"]


def test_one_byte_changed_anywhere_is_found(tmp_path):
    """In each member, in every header, in the hashes, in the padding and behind the end."""
    whole = packed()
    Archive(written(tmp_path, whole))
    for place in [*range(0, 6000, 31), *range(6000, len(whole), 397)]:
        changed = bytearray(whole)
        changed[place] ^= 1 + place % 255
        with pytest.raises(UserError):
            Archive(written(tmp_path, changed))
    for data in (whole[:-1], whole[:-10240], whole[:700], whole + b"\0", whole + bytes(10240), b"", b"no archive"):
        with pytest.raises(UserError):
            Archive(written(tmp_path, data))


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/outside", "a/../../outside", "a\\..\\outside", "C:/outside", "a//b", "a/.", "x. ", "é"]
)
def test_a_name_that_leads_outside_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="refused|was changed"):
        Archive(written(tmp_path, tar([(name, b"x", {})])))
    with pytest.raises(UserError, match="cannot go into"):
        packed({name: b"x"})


def test_links_devices_doubles_and_bombs_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        with pytest.raises(UserError, match="no plain file"):
            Archive(written(tmp_path, tar([("a", b"", {"type": kind, "linkname": "/etc/passwd"})])))
    with pytest.raises(UserError, match="twice"):
        Archive(written(tmp_path, tar([("a", b"1", {}), ("A", b"2", {})])))
    with pytest.raises(UserError):  # compressed archives aren't opened at all
        Archive(written(tmp_path, gzip.compress(packed({"zeros": bytes(10**7)}))))
    huge = bytearray(tar([("a", b"1", {})]))
    huge[124:136] = b"77777777777\0"  # 8 GiB, in an archive of 10 KB
    huge[148:156] = b"%06o\0 " % sum(huge[:148] + b" " * 8 + huge[156:512])
    with pytest.raises(UserError, match="larger than the archive"):
        Archive(written(tmp_path, huge))
