"""The shuffled control: a question must never be asked with an ECG of a patient that it is about."""

import pytest

from model.controls import other_patients_ecg, patients_of_records
from utils.scores import patient_of
from utils.tools import UserError


def qa(*paths, patients=(), kind="single-verify", **more):
    background = " ".join(f"Patient Information: - Patient ID: {patient};" for patient in patients)
    path = paths[0] if len(paths) == 1 else list(paths)
    return {"question": "?", "question_type": kind, "ecg_path": path, "background": background, **more}


def test_each_record_of_a_comparison_has_its_own_patient():
    items = [
        qa("a1", "b1", patients=["A", "B"], kind="comparison_irrelevant-verify"),
        qa("a1", "a2", patients=["A"], kind="comparison_consecutive-verify"),
        qa("c1", "d1", patients=["C"], kind="comparison_irrelevant-verify"),
        qa("d1", patients=["D"]),
        qa("e1"),
        qa("f1", patient_id=7),
    ]
    found = patients_of_records(items)
    assert found == {"a1": "A", "b1": "B", "a2": "A", "c1": "C", "d1": "D", "e1": "e1", "f1": "7"}
    assert patient_of(items[0]) == "A" and patient_of(items[4]) == "e1" and patient_of(items[5]) == "7"


def test_both_ecgs_of_a_comparison_come_from_other_patients():
    """The second one kept its own patient, so a comparison's control could show the very ECG that is asked about."""
    items = [qa(f"p{n}_{k}", patients=[f"P{n}"]) for n in range(8) for k in range(3)]
    for n in range(8):
        pair = n, (n + 1) % 8
        names = [f"P{m}" for m in pair]
        items.append(qa(f"p{pair[0]}_0", f"p{pair[1]}_1", patients=names, kind="comparison_irrelevant-verify"))
    patients = patients_of_records(items)
    for seed in range(20):
        other = other_patients_ecg(items, seed)
        assert set(other) == set(patients)
        for item in items:
            paths = item["ecg_path"] if isinstance(item["ecg_path"], list) else [item["ecg_path"]]
            assert not {patients[other[path]] for path in paths} & {patients[path] for path in paths}
    assert other_patients_ecg(items, 3) == other_patients_ecg(items[::-1], 3) != other_patients_ecg(items, 4)


def test_too_few_patients_are_refused():
    with pytest.raises(UserError, match="no ECG of another patient for a"):
        other_patients_ecg([qa("a"), qa("b", "a", patients=["B", "a"], kind="comparison_irrelevant-verify")], 0)


def test_the_work_grows_with_the_number_of_ecgs_only():
    """80,000 ECGs took 6.5 minutes: every one looked at every other. Counted, not timed."""
    looks = []

    class Name(str):
        def __eq__(self, other):
            looks.append(1)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    for count in (1000, 2000):
        looks.append(-len(looks))
        other_patients_ecg([qa(f"r{n}", patient_id=Name(n // 2)) for n in range(count)], 0)
    assert len(looks) < 1000 * 3000 / 10
