"""The benchmark of the published procedures, at a small scale: every promised row, and the rows that are exact."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from benchmarks.measurement import Measurement, as_json, print_table
from benchmarks.published import run


@pytest.fixture(scope="module")
def measurements() -> dict[str, Measurement]:
    return {each.name: each for each in run(scale=0.02, seed=3)}


def test_exact_rows_have_their_exact_values(measurements: dict[str, Measurement]) -> None:
    assert measurements["skeleton of 4,000 sites: tests"].value == 4000
    assert measurements["skeleton of 10,000 sites: tests"].value == 10_000
    assert measurements["additive: tests"].value == 5250
    for name, measurement in measurements.items():
        if name.startswith("cottontails"):
            assert measurement.value == pytest.approx(measurement.reference_value, abs=0.05)


def test_random_rows_are_near_the_published_ones(measurements: dict[str, Measurement]) -> None:
    assert measurements["skeleton of 4,000 sites: kept"].value == pytest.approx(208, abs=8)
    assert measurements["skeleton of 10,000 sites: kept"].value == pytest.approx(426, abs=10)
    assert 0.5 < measurements["epistatic sites: recall"].value <= 1
    assert measurements["epistatic sites: precision"].value > 0.95
    assert 20 < measurements["functional sites: interval width"].value < 100


def test_measurements_are_printed_for_people_and_programs(measurements: dict[str, Measurement]) -> None:
    rows = json.loads(as_json(list(measurements.values())))
    assert {tuple(sorted(row)) for row in rows} == {
        ("n", "name", "ratio", "reference", "reference_value", "unit", "value")
    }
    screen = io.StringIO()
    print_table(list(measurements.values()), title="published", console=Console(file=screen, width=140))
    assert all(name in screen.getvalue() for name in measurements)


def test_a_ratio_needs_a_reference_that_is_not_zero() -> None:
    assert Measurement("x", 3.0, "s", 1, "other", 2.0).ratio == 1.5
    assert Measurement("x", 3.0, "s", 1).ratio is None
    assert Measurement("x", 3.0, "s", 1, "other", 0.0).ratio is None
