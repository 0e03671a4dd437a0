"""If this fails, two groups can't tell whether they train and test on the same ECGs."""

from data_provider.prepare.card import records_digest


def test_the_digest_depends_on_record_and_split_alone():
    a, b = {"filepath": "a"}, {"question": "q?", "ecg_path": ["a", "b"]}
    one = records_digest([{"train": [a], "valid": [], "test": []}, {"train": [b], "valid": [], "test": []}])
    assert one == records_digest([{"train": [b, a, a], "valid": [], "test": []}])
    assert one != records_digest([{"train": [a], "valid": [], "test": [b]}])
