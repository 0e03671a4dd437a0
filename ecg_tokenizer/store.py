"""The codes of a data set's records, encoded once and found again.

A folder with ``codes.npy`` (uint16 [N, row_length], memory-mapped), ``index.jsonl`` (one line a record: its row, or why
it was left out, and the signature of its file) and ``meta.json`` (what the codes were made with). Rows are appended
first and their index lines after: a run that is killed leaves a store that opens, without the rows that no line names.

Several processes write at once into parts: folders ``parts/<name>`` of the same three files, each with a lock beside it
that goes with its process. Parts that nobody writes any more are merged when the store is opened (`merge_parts`).
"""

import json
import os
import secrets
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from utils.tools import UserError, read_json, sha256_json, write_json

FORMAT = 2
CODES, INDEX, META, LOCK, PARTS = "codes.npy", "index.jsonl", "meta.json", "lock", "parts"
MERGED_AT_ONCE = 20_000  # rows of a part that are in memory together: 13 MB of 325 codes each


def store_folder(codes_root, tokenizer_fingerprint, policy, root):
    """The folder for the codes of the records below ``root``, made with this tokenizer and signal policy."""
    root = Path(root).resolve()
    key = sha256_json([FORMAT, tokenizer_fingerprint, policy.fingerprint(), str(root)])
    return Path(codes_root) / f"{root.name}_{key[:16]}"


class CodeStore:
    """Codes by record path, read-only; `StoreWriter` adds to it.

    Attributes
    ----------
    bad : dict
        Record path -> why it has no codes.
    """

    def __init__(self, folder, meta):
        self.folder, self.meta = Path(folder), meta
        self.rows, self.bad, self.signatures = {}, {}, {}
        self.row_length = meta["row_length"]
        self._read_index()
        used = 1 + max(self.rows.values(), default=-1)
        self._codes = self._map_codes(used)

    @classmethod
    def open(cls, folder, tokenizer_fingerprint, policy):
        """Open a store, merged; a `UserError` where it was made with another tokenizer or signal policy."""
        if _parts(folder):
            try:
                with locked(folder):
                    merge_parts(folder, tokenizer_fingerprint, policy)
            except PermissionError as error:
                raise UserError(
                    f"{folder}: has parts that are not merged, and cannot be written ({error.strerror}); "
                    "open it once as somebody who may write there"
                ) from error
        return cls.open_as_it_is(folder, tokenizer_fingerprint, policy)

    @classmethod
    def open_as_it_is(cls, folder, tokenizer_fingerprint, policy):
        """`open` without a merge: what a process that holds the lock calls."""
        meta = read_json(Path(folder) / META)
        expected = {"format": FORMAT, "tokenizer": tokenizer_fingerprint, "policy": policy.fingerprint()}
        names = {"format": "by another version", "tokenizer": "with another tokenizer", "policy": "from other signals"}
        for key, value in expected.items():
            if not isinstance(meta, dict) or meta.get(key) != value:
                raise UserError(f"{folder}: these codes were made {names[key]}; choose another CODES_ROOT or delete it")
        if not isinstance(meta.get("row_length"), int) or meta["row_length"] < 1:
            raise UserError(f"{folder}/{META}: no number of codes an ECG; delete the folder")
        return cls(folder, meta)

    def __contains__(self, record_path):
        return record_path in self.rows

    def __getitem__(self, record_path):
        return np.array(self._codes[self.rows[record_path]])

    def __len__(self):
        return len(self.rows)

    def _read_index(self):
        path = self.folder / INDEX
        if path.is_file():
            with open(path, "rb") as file:  # line by line: of many records the whole text takes hundreds of megabytes
                self._read_lines(path, file)

    def _read_lines(self, path, file):
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return  # cut off by a kill
            try:
                line = json.loads(text)
                record, self.signatures[record] = line["record"], line["file"]
                if "row" in line:
                    self.rows[record] = int(line["row"])
                    self.bad.pop(record, None)
                else:
                    self.bad[record] = str(line["bad"])
                    self.rows.pop(record, None)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}: line {number} is damaged; delete {self.folder} to encode anew") from error

    def _map_codes(self, rows):
        path = self.folder / CODES
        if not rows:
            return np.empty((0, self.row_length), np.uint16)
        offset = len(_header(0, self.row_length))
        if not path.is_file() or path.stat().st_size < offset + rows * self.row_length * 2:
            raise UserError(f"{path}: shorter than its index says; delete {self.folder} to encode anew")
        return np.memmap(path, np.uint16, "r", offset, (rows, self.row_length))


class StoreWriter:
    """Appends to a folder (a store's, or a part's); one writer at a time (see `locked` and `new_part`)."""

    def __init__(self, folder, tokenizer_fingerprint, policy, row_length):
        self.folder, self.row_length = Path(folder), row_length
        if not (self.folder / META).is_file():
            meta = {"format": FORMAT, "tokenizer": tokenizer_fingerprint, "policy": policy.fingerprint()}
            write_json(self.folder / META, {**meta, "row_length": row_length})
        self.store = CodeStore.open_as_it_is(self.folder, tokenizer_fingerprint, policy)
        self.rows = len(self.store._codes)
        if (self.folder / INDEX).is_file():  # a line that was cut off by a kill goes
            text = (self.folder / INDEX).read_bytes()
            os.truncate(self.folder / INDEX, text.rfind(b"\n") + 1)

    def append(self, records, codes, signatures, bad):
        """Add the rows [n, row_length] of ``records``, and ``bad`` (path -> reason); on disk when this returns."""
        header = _header(self.rows + len(codes), self.row_length)
        path = self.folder / CODES
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.write(header)
            file.seek(len(header) + self.rows * self.row_length * 2)
            file.write(np.ascontiguousarray(codes, np.uint16).tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        lines = [
            {"record": record, "row": self.rows + number, "file": signatures[record]}
            for number, record in enumerate(records)
        ]
        lines += [{"record": record, "bad": reason, "file": signatures[record]} for record, reason in bad.items()]
        with open(self.folder / INDEX, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(codes)


@contextmanager
def locked(folder):
    """Hold the folder's lock; it goes with the process, however that ends."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield


@contextmanager
def new_part(folder):
    """A folder for what this process adds to the store ``folder``; the part's lock is held until it ends."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    part = Path(folder) / PARTS / name
    part.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(part.with_name(f"{name}.lock")):
        part.mkdir()
        yield part


def merge_parts(folder, tokenizer_fingerprint, policy):
    """Move into a store what its parts hold, but for parts that a process still writes; call it `locked`.

    A merge that is killed is done again: what the store has already, of the same file, is not added twice.

    Returns
    -------
    int
        Records that were added, bad ones too.
    """
    parts, added, writer = _parts(folder), 0, None
    for part in parts:
        lock = FileLock(part.with_name(f"{part.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue  # its process lives
        try:
            if (part / META).is_file():  # otherwise its process was killed before a record, or a merge at its end
                store = CodeStore.open_as_it_is(part, tokenizer_fingerprint, policy)
                writer = writer or StoreWriter(folder, tokenizer_fingerprint, policy, store.row_length)
                added += _merge(store, writer)
                (part / META).unlink()
            shutil.rmtree(part)
        finally:
            lock.release()
        part.with_name(f"{part.name}.lock").unlink(missing_ok=True)
    return added


def _merge(part, writer):
    known = writer.store.signatures
    new = [record for record, signature in part.signatures.items() if known.get(record) != signature]
    good, bad = [r for r in new if r in part], {r: part.bad[r] for r in new if r in part.bad}
    for start in range(0, max(1, len(good)), MERGED_AT_ONCE):
        records = good[start : start + MERGED_AT_ONCE]
        codes = part._codes[[part.rows[record] for record in records]]
        writer.append(records, codes, part.signatures, {} if start else bad)
    known.update((record, part.signatures[record]) for record in new)
    return len(new)


def _parts(folder):
    folder = Path(folder) / PARTS
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _header(rows, row_length):
    """The .npy header of [rows, row_length] uint16; numpy leaves room for more rows, so its length is fixed."""
    import io

    buffer = io.BytesIO()
    description = {"descr": "<u2", "fortran_order": False, "shape": (rows, row_length)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
