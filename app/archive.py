"""One file that holds many, such that no byte of it can change unseen: a plain tar archive in one possible form.

The same members give the same bytes (sorted, without dates or owners, not compressed), and `SHA256SUMS` in it lists
each one's hash. A reader writes the archive again from what it read, and every byte must be the same: names, hashes
and contents say all that there is, so links, traps of names and bombs have no place to be.
"""

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

from utils.tools import UserError, sha256_bytes, sha256_file

SUMS = "SHA256SUMS"
NAME = re.compile(r"[\w.+-][\w.+ -]*", re.ASCII)  # of each part of a member's path
BLOCK = 2**20


def write_archive(file, members):
    """Write members to a binary file that is open for writing.

    Parameters
    ----------
    members : dict
        Name -> path of a file, or bytes.
    """
    sums = {
        name: sha256_bytes(data) if isinstance(data, bytes) else sha256_file(data) for name, data in members.items()
    }
    text = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=tarfile.RECORDSIZE) as archive:
        for name, data in sorted({**members, SUMS: text}.items()):
            if not is_plain(name):
                raise UserError(f"{name}: a name with other than letters, digits and . _ + - cannot go into an archive")
            if isinstance(data, bytes):
                archive.addfile(_info(name, len(data)), io.BytesIO(data))
            else:
                with open(data, "rb") as source:
                    archive.addfile(_info(name, Path(data).stat().st_size), source)


def _info(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def is_plain(name):
    """Whether a member's path is relative, stays below its folder and means the same on every system."""
    parts = name.split("/")
    return all(NAME.fullmatch(part) and part.strip(". ") and part[-1] not in ". " for part in parts)


class Archive:
    """An archive that has been checked to the last byte.

    Attributes
    ----------
    sums : dict
        Name of a member -> its SHA-256.
    """

    def __init__(self, path):
        """Check; a `UserError` names what is wrong. Nothing is written."""
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                self._members = {info.name: info for info in self._checked(archive)}
                self.sums = self._read_sums(archive)
                self._compare(archive)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            raise UserError(f"{path}: not an archive of a run, or damaged ({error})") from error

    def _checked(self, archive):
        seen, size = set(), self.path.stat().st_size
        for info in archive:
            if not info.isreg() or info.issparse():
                raise UserError(f"{self.path}: refused: {info.name!r} is no plain file (a link, a device, a hole)")
            if not is_plain(info.name):
                raise UserError(f"{self.path}: refused: a member is called {info.name!r}")
            if info.name.lower() in seen or info.size > size:
                raise UserError(f"{self.path}: refused: {info.name} is there twice, or larger than the archive")
            seen.add(info.name.lower())
            yield info

    def _read_sums(self, archive):
        if SUMS not in self._members:
            raise UserError(f"{self.path}: has no {SUMS}: not an archive of a run, or cut off")
        sums = {}
        for line in archive.extractfile(self._members[SUMS]).read().decode("ascii").splitlines():
            digest, _, name = line.partition("  ")
            sums[name] = digest
        for name in sorted(sums.keys() ^ (self._members.keys() - {SUMS})):
            where = "is listed and not there" if name in sums else "is there and not listed"
            raise UserError(f"{self.path}: {name} {where}: the archive was changed or cut off")
        for name, info in self._members.items():
            if name != SUMS and self._hash(archive, info) != sums[name]:
                raise UserError(f"{self.path}: {name} was changed: its SHA-256 is not the one listed")
        return sums

    @staticmethod
    def _hash(archive, info):
        digest, source = hashlib.sha256(), archive.extractfile(info)
        while block := source.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()

    def _compare(self, archive):
        """Write the archive again, against the file itself."""
        text = "".join(f"{self.sums[name]}  {name}\n" for name in sorted(self.sums)).encode()
        with open(self.path, "rb") as file:
            sink = _Same(file, self.path)
            with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=tarfile.RECORDSIZE) as again:
                for name in sorted(self._members):
                    data = io.BytesIO(text) if name == SUMS else archive.extractfile(self._members[name])
                    size = len(text) if name == SUMS else self._members[name].size
                    again.addfile(_info(name, size), data)
            if file.read(1):
                raise UserError(f"{self.path}: something was added behind its end")

    def read(self, name):
        """A member's bytes."""
        if name not in self._members:
            raise UserError(f"{self.path}: has no {name}")
        with tarfile.open(self.path, "r:") as archive:
            return archive.extractfile(self._members[name]).read()

    def extract(self, folder, prefixes):
        """Write the members whose names begin with one of the prefixes below a folder."""
        with tarfile.open(self.path, "r:") as archive:
            for name, info in self._members.items():
                if name.startswith(tuple(prefixes)):
                    target = Path(folder) / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "xb") as file:
                        shutil.copyfileobj(archive.extractfile(info), file, BLOCK)


class _Same:
    """A file to write to that holds what must be written already."""

    def __init__(self, file, path):
        self.file, self.path, self.place = file, path, 0

    def write(self, data):
        if self.file.read(len(data)) != bytes(data):
            raise UserError(f"{self.path}: was changed between its members, near byte {self.place}")
        self.place += len(data)
        return len(data)
