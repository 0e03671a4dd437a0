"""The same questions with an ECG that can't know the answer: another patient's, or a flat one.

A model that reads ECGs must lose by it; one that only knows its questions doesn't.
"""

import random

from data_provider.manifests import item_paths
from utils.scores import patient_of
from utils.tools import UserError

CONTROLS = ("shuffled", "blank")


def other_patients_ecg(items, seed):
    """For every record of the items, a record of another patient, drawn from the same items.

    Returns
    -------
    dict
        Record path -> record path.
    """
    patients = {path: patient_of(item) for item in items for path in item_paths(item)}
    if len(set(patients.values())) < 2:
        raise UserError("CONTROLS=shuffled needs ECGs of at least two patients among the test items")
    rng = random.Random(f"shuffled {seed}")
    paths = sorted(patients)
    return {path: rng.choice([p for p in paths if patients[p] != patients[path]]) for path in paths}
