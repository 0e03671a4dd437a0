"""Which items an epoch takes: what a run goes on with, and what the number of processes must not change."""

import numpy as np

from data_provider.data_factory import Mixture, epoch_steps


def test_one_part_once_is_what_it_always_was():
    """Runs that were begun before several parts could be mixed, and published figures, keep their order of items."""
    mixture = Mixture.of([(list("abcdefg"), 1.0)])
    for epoch in (0, 3):
        old = epoch_steps(7, 2, 5, epoch)
        assert [list(step) for step in mixture.steps(2, 5, epoch)] == [list(step) for step in old]


def test_an_epoch_takes_each_part_as_often_as_it_is_told():
    a, b, c = [f"a{n}" for n in range(10)], [f"b{n}" for n in range(7)], ["c0"]
    mixture = Mixture.of([(a, 2.5), (b, 0.4), (c, 0.01)])
    assert len(mixture) == 25 + 3 + 1
    seen = []
    for epoch in range(7):
        steps = mixture.steps(4, 0, epoch)
        assert len(steps) == 8 and sum(map(len, steps)) == len(mixture)
        taken = [mixture.items[index] for index in np.concatenate(steps)]
        assert all(2 <= taken.count(item) <= 3 for item in a) and taken.count("c0") == 1
        seen += [item for item in taken if item in b]
    assert {seen.count(item) for item in b} == {3}, "21 taken in 7 epochs: none a fourth time before all a third"
    assert len(set(np.concatenate(mixture.steps(4, 0, 0)).tolist())) == len(mixture), "an index each, so a view each"
    first, second = (np.concatenate(mixture.steps(4, 0, epoch)).tolist() for epoch in (0, 1))
    assert first != second
