"""`bench recommendations`: no worse than the best published way, in what is wasted and in what fails."""

from __future__ import annotations

from benchmarks import recommendations

WORKLOADS = ("sizes", "capped", "modes", "real archive")
WORSE = "versions"
"""Where the best published way wastes less: a few hundredths, with many more failed tries."""


def test_the_chosen_rule_is_no_worse_than_the_best_published_one() -> None:
    measured = {each.name: each for each in recommendations.run(1.0, 1)}
    better: list[str] = []
    for name in WORKLOADS:
        wasted, failed = measured[f"{name}: wasted"], measured[f"{name}: failed tries"]
        assert wasted.reference_value is not None and failed.reference_value is not None
        assert wasted.value <= wasted.reference_value and failed.value <= failed.reference_value, name
        if wasted.value <= 0.9 * wasted.reference_value or failed.value <= 0.9 * failed.reference_value:
            better.append(name)
    assert len(better) >= 2
    wasted, failed = measured[f"{WORSE}: wasted"], measured[f"{WORSE}: failed tries"]
    assert wasted.reference_value is not None and failed.reference_value is not None
    assert wasted.value <= 1.1 * wasted.reference_value and failed.value <= 0.7 * failed.reference_value
