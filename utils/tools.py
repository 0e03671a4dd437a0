"""Small things every stage needs: errors a user can cause, safe files, hashes, seeds."""

import functools
import hashlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class UserError(Exception):
    """A fault in what came from outside (a file, a manifest, a setting); its text says what to do.

    Entry points print it as one line and exit with code 2. Everything else is a bug and keeps its traceback.
    """


class Stopped(BaseException):
    """The run was asked to stop by a signal; the text says what is kept and how to go on. No `Exception`: no
    ``except`` on the way out is meant for it."""

    def __init__(self, number, text):
        super().__init__(text)
        self.number = number


def entry_point(main):
    """Let ``main(argv)`` end with one line: exit code 2 on a `UserError`, 128 + the signal's number on `Stopped`."""

    @functools.wraps(main)
    def guarded(argv=None):
        try:
            return main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print("error: " + " ".join(str(error).split()), file=sys.stderr, flush=True)
            sys.exit(2)
        except Stopped as stop:
            if str(stop):  # of several processes one says it
                print(f"stopped: {stop}", file=sys.stderr, flush=True)
            sys.exit(128 + stop.number)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr, flush=True)
            sys.exit(130)

    return guarded


def sha256_bytes(*chunks):
    """SHA-256 of the concatenated byte strings, as hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(path):
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value):
    """SHA-256 of a JSON-able value, independent of the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def read_json(path):
    """Read a JSON file; a missing or malformed one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_bytes())  # UTF-8 or, with its mark at the start, UTF-16; a mark is no content
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def write_atomically(path, write):
    """Call ``write(temporary_path)`` and put the result in place of ``path`` in one step.

    A reader sees the old file or the new one, never half of one, whenever the process is killed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder_once(path, build):
    """The folder ``path``; where it isn't there yet, ``build(temporary_folder)`` makes it, and it appears whole."""
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        built = Path(temporary) / "built"
        build(built)
        try:
            built.rename(path)
        except OSError:
            if not path.exists():  # another process has not been faster: a real fault
                raise
    return path


def write_json(path, value, indent=2):
    """Write ``value`` as JSON, atomically, with a newline at the end."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def seed_everything(seed):
    """Seed Python's, numpy's and torch's generators (torch's on every device)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
