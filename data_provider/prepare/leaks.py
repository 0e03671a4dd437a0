"""No test ECG in training: not itself, not a copy of it under another number, not another ECG of the same patient."""

from collections import Counter, defaultdict

from data_provider.prepare.inventory import Items
from utils.tools import UserError

ITSELF, DUPLICATE, PATIENT = (
    "in valid or test itself",
    "a duplicate of one in valid or test",
    "of a patient in valid or test",
)


class HeldOut:
    """What must not be trained on.

    Parameters
    ----------
    ecg_ids : iterable of int
        The ECGs of valid and test.
    patients : dict
        ecg_id -> patient_id, as far as known.
    duplicates : list of list of int
        Groups of ECGs with the same signal.
    """

    def __init__(self, ecg_ids, patients, duplicates):
        self.ecg_ids = set(ecg_ids)
        self._patient_of = patients
        self._duplicates = {ecg_id for group in duplicates if self.ecg_ids & set(group) for ecg_id in group}
        # a duplicate's patient is held out too: the same person under two numbers
        self._patients = {patients[ecg_id] for ecg_id in self.ecg_ids | self._duplicates if ecg_id in patients}

    def reason(self, ecg_id):
        """Why an ECG must not be trained on; None when it may."""
        if ecg_id in self.ecg_ids:
            return ITSELF
        if ecg_id in self._duplicates:
            return DUPLICATE
        if self._patient_of.get(ecg_id) in self._patients:
            return PATIENT
        return None

    def without_leaks(self, items):
        """The items that may be trained on, and a Counter of the reasons for the others."""
        reasons = Counter(filter(None, map(self._item_reason, items)))
        return Items(lambda: (item for item in items if not self._item_reason(item))), reasons

    def _item_reason(self, item):
        return next(filter(None, map(self.reason, item_ecg_ids(item))), None)


def item_ecg_ids(item):
    """The ecg_ids of a manifest item, as a list."""
    return item["ecg_id"] if isinstance(item["ecg_id"], list) else [item["ecg_id"]]


def check_no_leaks(manifests, patients, duplicates):
    """The last look at what was made: a `UserError` if a training item leaks.

    Parameters
    ----------
    manifests : list of dict
        Each: split -> items. What is held out of one is held out of all.
    patients, duplicates
        As for `HeldOut`.

    Returns
    -------
    dict
        How many ECGs of training and of valid and test were compared, and how many leak between valid and test.
    """
    ids = defaultdict(set)
    for manifest in manifests:
        for split, items in manifest.items():
            for item in items:
                ids[split].update(item_ecg_ids(item))
    held_out = HeldOut(ids["valid"] | ids["test"], patients, duplicates)
    leaks = Counter(reason for reason in map(held_out.reason, ids["train"]) if reason)
    if leaks:
        raise UserError("training ECGs leak: " + "; ".join(f"{count} {reason}" for reason, count in leaks.items()))
    of_test = HeldOut(ids["test"], patients, duplicates)
    return {
        "train": len(ids["train"]),
        "held_out": len(held_out.ecg_ids),
        "leaks": 0,
        "valid_shared_with_test": sum(of_test.reason(ecg_id) is not None for ecg_id in ids["valid"]),
    }
