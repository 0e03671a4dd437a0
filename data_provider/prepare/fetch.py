"""One file over HTTP: goes on where it stopped, tries again, is checked, and appears under its name only when whole."""

import errno
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from utils.tools import UserError, sha256_file

TRIES, PAUSE_S, TIMEOUT_S = 4, 1.0, 60
BLOCK = 1 << 18
BAR_FROM = 5_000_000  # bytes from which a single file gets a progress bar


def fetch(url, path, sha256=None, description=None):
    """Fetch ``url`` to ``path`` unless the file is there already (and has that SHA-256).

    Parameters
    ----------
    url : str
    path : Path
    sha256 : str, optional
        Hex digest that the file must have.
    description : str, optional
        A name for the progress bar of a large file.

    Raises
    ------
    UserError
        Not found, no connection after several tries, disk full, wrong checksum.
    """
    path = Path(path)
    if path.is_file() and (sha256 is None or sha256_file(path) == sha256):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for fresh in (False, True):
        _fetch_part(url, part, description)
        found = sha256_file(part) if sha256 else None
        if found == sha256:
            os.replace(part, path)
            return
        part.unlink()  # what was there before the interruption may be the fault: once more from the start
        if fresh:
            raise UserError(f"{url}: arrives damaged (SHA-256 {found[:12]}..., should be {sha256[:12]}...)")


def _fetch_part(url, part, description):
    """Fill ``part`` to the end, in several goes where the connection breaks."""
    for attempt in range(TRIES):
        try:
            _transfer(url, part, description)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise UserError(f"{url}: the server says {error.code} {error.reason}") from error
            fault = f"the server says {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            fault = str(getattr(error, "reason", "") or error) or type(error).__name__
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"{part}: the disk is full; make room and run the command again") from error
            raise UserError(f"{part}: cannot be written ({error.strerror or error})") from error
        if attempt < TRIES - 1:
            time.sleep(PAUSE_S * 2**attempt)
    raise UserError(f"{url}: {fault} (tried {TRIES} times; run the command again to go on)")


def _transfer(url, part, description):
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "heartllm-download"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(urllib.parse.quote(url, safe=":/?&=%"), headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left of it: it was whole, or another file; the checksum tells
            return
        raise
    with answer:
        goes_on = answer.status == 206
        length = int(answer.headers.get("Content-Length") or -1)
        with open(part, "ab" if goes_on else "wb") as file, _bar(description, length, have if goes_on else 0) as bar:
            received = 0
            while block := answer.read(BLOCK):
                file.write(block)
                received += len(block)
                bar.update(len(block))
        if 0 <= length != received:
            raise ConnectionError(f"the connection broke after {received} of {length} bytes")


def _bar(description, length, have):
    from tqdm import tqdm

    total = length + have if length >= 0 else None
    small = description is None or (total is not None and total < BAR_FROM)
    return tqdm(total=total, initial=have, desc=description, unit="B", unit_scale=True, disable=small)
