"""The same questions with an ECG that can't know the answer: another patient's, or a flat one.

A model that reads ECGs must lose by it; one that only knows its questions doesn't.
"""

import random
import re

from data_provider.manifests import item_paths
from utils.tools import UserError

CONTROLS = ("shuffled", "blank")
PATIENT = re.compile(r"Patient ID: *([^;]+);")


def patients_of_records(items):
    """Record path -> patient. Items about one record are asked first, those that compare two only for what is left."""
    patients = {}
    for item in sorted(items, key=lambda item: len(item_paths(item))):  # stable: otherwise in the items' order
        for path, patient in zip(item_paths(item), _patients_named(item), strict=True):
            if patient:
                patients.setdefault(path, patient)
    return {path: patients.get(path, path) for item in items for path in item_paths(item)}


def _patients_named(item):
    """What an item says of the patient of each of its records; None where it doesn't."""
    named = [found.strip() for found in PATIENT.findall(item.get("background") or "")]
    if item.get("patient_id") is not None:
        named[:1] = [str(item["patient_id"])]
    paths = item_paths(item)
    if len(named) < len(paths) and str(item.get("question_type", "")).startswith("comparison_consecutive"):
        named = named[:1] * len(paths)  # one patient's earlier and later ECG
    return (named + [None] * len(paths))[: len(paths)]


def other_patients_ecg(items, seed):
    """For every record of the items, a record of another patient, drawn from the same items.

    It is of none of the patients whose records any item compares with this one either, so that both ECGs of a
    comparison are others'. A patient is drawn, then one of the patient's records; the time grows with the items only.

    Returns
    -------
    dict
        Record path -> record path.
    """
    patients = patients_of_records(items)
    records, compared = {}, {}
    for path in sorted(patients):
        records.setdefault(patients[path], []).append(path)
    for item in items:
        together = {patients[path] for path in item_paths(item)}
        for path in item_paths(item):
            compared.setdefault(path, set()).update(together)
    names, rng = sorted(records), random.Random(f"shuffled {seed}")
    others = {}
    for path in sorted(patients):
        barred = compared[path]
        # Where most are barred, those that are left are listed; else a draw of a barred one is rare, and repeated.
        free = [name for name in names if name not in barred] if 2 * len(barred) > len(names) else names
        if not free:
            raise UserError(
                f"CONTROLS=shuffled: the test items have no ECG of another patient for {path} "
                f"(they hold {len(names)} patients); take more test items"
            )
        name = rng.choice(free)
        while name in barred:
            name = rng.choice(free)
        others[path] = rng.choice(records[name])
    return others
