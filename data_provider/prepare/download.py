"""Fetch the open data sets from their official homes; interrupted transfers go on, every file is checked.

python -m data_provider.download ptb-xl|mimic-iv-ecg|ecg-qa --to DIR [--limit N]
"""

import collections
import dataclasses
import itertools
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_provider.manifests import path_fault
from data_provider.prepare.fetch import fetch
from data_provider.prepare.inventory import read_table
from utils.tools import UserError, sha256_file

SUMS = "SHA256SUMS.txt"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set lives and what it costs.

    Attributes
    ----------
    url : str
        The folder of its files, or of an archive the file itself.
    licence, size : str
    tables : tuple of str
        Files beside the records; the first names them.
    column : str
        The column of the first table that holds the record paths.
    megabytes_a_record : float
    records : int
    prepare : str
        The command that goes on from here.
    """

    url: str
    licence: str
    size: str
    tables: tuple = ()
    column: str = ""
    megabytes_a_record: float = 0.0
    records: int = 0
    prepare: str = ""


SOURCES = {
    "ptb-xl": Source(
        "https://physionet.org/files/ptb-xl/1.0.3/",
        "Creative Commons Attribution 4.0 (Wagner et al. 2020, doi 10.13026/kfzx-aw45)",
        "21,799 records at 500 Hz, 2.6 GB",
        ("ptbxl_database.csv", "scp_statements.csv", "LICENSE.txt"),
        "filename_hr",
        0.121,
        21_799,
        "ptbxl --root {to} --out dataset",
    ),
    "mimic-iv-ecg": Source(
        "https://physionet.org/files/mimic-iv-ecg/1.0/",
        "Open Data Commons Open Database License 1.0 (Gow et al. 2023, doi 10.13026/4nqg-sb35)",
        "800,035 records, 97 GB",
        ("record_list.csv", "machine_measurements.csv", "LICENSE.txt"),
        "path",
        0.121,
        800_035,
        "mimic-iv-ecg --root {to} --out dataset",
    ),
    "ecg-qa": Source(
        "https://github.com/Jwoo5/ecg-qa/archive/refs/heads/master.zip",
        "Creative Commons Attribution 4.0 (Oh et al. 2023, arXiv 2306.15681)",
        "an archive of about 100 MB, 1.5 GB when unpacked",
        prepare="ptbxl --ecgqa {to} --root PTBXL --out dataset",
    ),
}


def download(name, to, limit=None, workers=4, url=None):
    """Fetch a data set into ``to``; what is there and whole is not fetched again.

    Parameters
    ----------
    name : {"ptb-xl", "mimic-iv-ecg", "ecg-qa"}
    to : str or Path
    limit : int, optional
        The first so many records only.
    workers : int
        Transfers at the same time.
    url : str, optional
        Another place with the same files.

    Returns
    -------
    int
        Records (or unpacked files) that are there now.
    """
    source, to = SOURCES[name], Path(to)
    url = url or source.url
    to.mkdir(parents=True, exist_ok=True)
    count = min(limit or source.records, source.records)
    _check_space(to, count * source.megabytes_a_record)
    if not source.tables:
        return _download_archive(url, to)
    return _download_records(source, url.rstrip("/") + "/", to, limit, workers)


def _check_space(to, megabytes):
    # what is there already counts as taken; a quarter of it again would be refused for nothing
    there = sum(file.stat().st_size for file in itertools.islice(to.rglob("*.dat"), 2_000_000)) / 1e6
    free = shutil.disk_usage(to).free / 1e6
    if megabytes - there > free:
        raise UserError(f"{to}: {megabytes - there:,.0f} MB are needed and {free:,.0f} MB are free (fewer: --limit N)")


def _download_records(source, url, to, limit, workers):
    from tqdm import tqdm

    fetch(url + SUMS, to / SUMS, description=SUMS)
    sums = read_sums(to / SUMS, wanted=set(source.tables))
    for table in source.tables:
        fetch(url + table, to / table, sums.get(table), description=table)
    rows = itertools.islice(read_table(to / source.tables[0], (source.column,)), limit)
    records = [row[source.column].strip() for row in rows]
    for record in records:
        if path_fault(record):
            raise UserError(f"{to / source.tables[0]}: {path_fault(record)}")
    sums, unlisted = read_sums(to / SUMS, wanted=set(records)), 0

    def get(file):
        fetch(url + file, to / file, sums.get(file))

    files = (record + extension for record in records for extension in (".hea", ".dat"))
    with tqdm(total=2 * len(records), desc="fetching records", unit="file") as bar:
        for file in in_threads(get, files, workers):
            unlisted += file not in sums
            bar.update()
    if unlisted:
        print(f"note: {unlisted:,} of {2 * len(records):,} files are not in {SUMS}, so they could not be checked")
    return len(records)


def in_threads(work, jobs, workers):
    """Do ``work(job)`` for each of ``jobs`` in threads, and yield the jobs, done, in order.

    Only so many are begun as keep the threads busy: a list of 1.6 million jobs in waiting takes 3 GB.
    """
    pool, waiting = ThreadPoolExecutor(max(1, workers)), collections.deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) > 4 * workers:
                done, future = waiting.popleft()
                future.result()
                yield done
        for done, future in waiting:
            future.result()
            yield done
    finally:
        pool.shutdown(cancel_futures=True)  # after a fault the files not begun are not begun


def read_sums(path, wanted=None):
    """File name -> SHA-256 from a ``SHA256SUMS.txt``, of the wanted files, or of all the files of wanted records."""
    sums = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            match = re.match(r"([0-9a-f]{64})\s+\*?(.+?)\s*$", line)
            if match and (wanted is None or match[2] in wanted or match[2][:-4] in wanted):
                sums[match[2]] = match[1]
    return sums


def _download_archive(url, to):
    """Fetch a repository's archive and unpack its folder ``ecgqa``; what is unpacked already is left."""
    archive = to / "archive.zip"
    fetch(url, archive, description=url)
    count = 0
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if "/ecgqa/" in info.filename and not info.is_dir()]
            _check_space(to, sum(info.file_size for info in members) / 1e6)
            for info in members:
                name = "ecgqa/" + info.filename.partition("/ecgqa/")[2]
                if path_fault(name):
                    raise UserError(f"{archive}: {path_fault(name)}")
                target = to / name
                count += 1
                if target.is_file() and target.stat().st_size == info.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        archive.unlink(missing_ok=True)
        raise UserError(f"{archive}: cannot be unpacked ({error}); it was removed, run the command again") from error
    if not count:
        raise UserError(f"{archive}: no folder ecgqa inside")
    print(f"SHA-256 of the archive: {sha256_file(archive)}")
    return count
