"""What every data set's download comes to: its ECGs, and for each of the others the reason why it is not used."""

import csv
import dataclasses
import os
from collections import Counter, defaultdict

from data_provider.read import TOO_SHORT, UNREADABLE, RecordError, check_wfdb, record_file
from utils.tools import UserError, sha256_bytes, sha256_file

SPLITS = ("train", "valid", "test")
CHECKS = ("none", "headers", "signals")
SECONDS = 10  # what the stages need of a record
NOT_ON_DISK = "not on disk"
VALID_SHARE, TEST_SHARE = 0.1, 0.1


@dataclasses.dataclass(slots=True)
class Ecg:
    """One row of a data set's table: ids, split, record path, texts, and findings (see `annotations.annotate`)."""

    ecg_id: int
    patient_id: int
    split: str
    path: str
    report: str = ""
    background: str = ""
    found: dict | None = None
    duplicate_key: tuple = ()


@dataclasses.dataclass
class DatasetIndex:
    """A download's table and what of it can be used.

    Attributes
    ----------
    ecgs : dict
        ecg_id -> Ecg, those that can be used.
    patients : dict
        ecg_id -> patient_id, of every row that has both.
    missing : dict
        ecg_id -> why it cannot be used.
    rows : int
    left_out : Counter
        Reason -> rows.
    unreadable : dict
        Record path -> fault.
    """

    ecgs: dict = dataclasses.field(default_factory=dict)
    patients: dict = dataclasses.field(default_factory=dict)
    missing: dict = dataclasses.field(default_factory=dict)
    rows: int = 0
    left_out: Counter = dataclasses.field(default_factory=Counter)
    unreadable: dict = dataclasses.field(default_factory=dict)

    def leave_out(self, ecg_id, reason, path=None, fault=None):
        """Note why a row is not used."""
        self.left_out[reason] += 1
        if ecg_id is not None:
            self.missing[ecg_id] = reason
            self.ecgs.pop(ecg_id, None)
        if fault:
            self.unreadable[path] = fault

    def counts(self):
        """For the card: rows, used, left_out, unreadable, records by split, patients in two splits."""
        splits = defaultdict(set)
        for ecg in self.ecgs.values():
            splits[ecg.patient_id].add(ecg.split)
        by_split = Counter(ecg.split for ecg in self.ecgs.values())
        return {
            "rows": self.rows,
            "used": len(self.ecgs),
            "left_out": dict(sorted(self.left_out.items())),
            "unreadable": dict(sorted(self.unreadable.items())),
            "by_split": {split: by_split[split] for split in SPLITS},
            "patients_in_two_splits": sum(len(of_patient) > 1 for of_patient in splits.values()),
        }


class Items:
    """Manifest items made anew each time they are gone through, so that a million of them take no memory.

    Parameters
    ----------
    make : callable
        Returns an iterator over the items, the same at every call.
    """

    def __init__(self, make):
        self._make, self._count = make, None

    def __iter__(self):
        return iter(self._make())

    def __len__(self):
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count


def split_of(patient_id, seed=0):
    """The split of a patient: a hash of seed and id below 0.8 is train, below 0.9 valid, else test."""
    share = int(sha256_bytes(f"{seed} {patient_id}".encode())[:13], 16) / 16**13
    if share < 1 - VALID_SHARE - TEST_SHARE:
        return "train"
    return "valid" if share < 1 - TEST_SHARE else "test"


def read_table(path, columns):
    """Rows of a CSV file as dicts, one at a time; a `UserError` when it is not there or lacks a column."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            mark = "," if "," in first else max(";\t", key=first.count)  # where "," is the decimal point
            reader = csv.DictReader(file, delimiter=mark if mark in first else ",")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: lacks the column {', '.join(missing)}")
            for row in reader:
                yield {key: value or "" for key, value in row.items() if isinstance(key, str)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def check_headers(root, index):
    """Leave out what is damaged or too short by its header, and note what duplicates have in common."""
    from tqdm import tqdm

    for ecg in tqdm(list(index.ecgs.values()), desc="checking headers", unit="ECG", delay=2):
        try:
            header = check_wfdb(os.path.join(root, ecg.path))
        except ValueError as error:
            index.leave_out(ecg.ecg_id, UNREADABLE, ecg.path, str(error))
            continue
        samples = header["samples"] or header.get("present", 0)
        if samples and samples < SECONDS * header["sample_rate"]:
            index.leave_out(ecg.ecg_id, TOO_SHORT)
        ecg.duplicate_key = header["duplicate_key"]


def is_on_disk(root, path):
    """Whether there is a file for a record path."""
    return os.path.isfile(record_file(os.path.join(root, path)))


def duplicate_groups(root, index):
    """Groups of ecg_ids whose signal files are the same to the byte.

    Records whose headers agree in length, first samples and checksums are compared by the hash of their files.
    """
    candidates = defaultdict(list)
    for ecg in index.ecgs.values():
        if ecg.duplicate_key:
            candidates[ecg.duplicate_key].append(ecg)
    groups = defaultdict(list)
    for ecgs in candidates.values():
        if len(ecgs) > 1:
            for ecg in ecgs:
                groups[signal_hash(os.path.join(root, ecg.path))].append(ecg.ecg_id)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def signal_hash(path):
    """SHA-256 of a record's signal file."""
    try:
        header = check_wfdb(path)
        return sha256_file(header["path"].parent / header["signals"][0]["file"])
    except (ValueError, OSError) as error:
        raise RecordError(path, f"cannot be read ({error})") from error
