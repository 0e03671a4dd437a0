"""A machine twice as slow is told twice the time; were it not, the line before the quickstart would mislead."""

from utils.expected_time import PROBE, STEPS, expected_text, minutes, probe


def test_the_time_follows_the_machine():
    assert minutes(7) == "5 s" and minutes(89) == "90 s" and minutes(600) == "10 min"
    total = sum(STEPS.values())
    assert f"{minutes(total / 0.85)} in all" in expected_text(PROBE, 1)
    assert f"{minutes(2 * total / (0.85 * 2))} in all" in expected_text(2 * PROBE, 2)
    assert expected_text(PROBE, 4) != expected_text(PROBE, 2) and expected_text(PROBE, 64).endswith(
        expected_text(PROBE, 4).split("\n")[1]
    )
    assert probe(repeats=1) > 0
