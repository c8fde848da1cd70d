"""Dose calibration and titration: which knockouts they draw, the window they find, what they replace."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.published.doses import (
    COLUMNS,
    Calibration,
    CalibrationSettings,
    Titration,
    TitrationSettings,
    calibrate_doses,
    geometric_doses,
    titrate,
)
from knockem_dagster.knockout.competitions import Compete, Competition
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import BENEFICIAL, Losing, Recording, answering, exact_null, seeded, sites_of

GENOME = ReferenceGenome.draw(seeded(5), num_sites=120, num_additive=20)


def calibrated(compete: Compete, candidates: np.ndarray | None = None) -> Calibration:
    return asyncio.run(
        calibrate_doses(
            GENOME.genome,
            compete,
            seeded(2),
            CalibrationSettings(smear=40),
            null=exact_null(),
            candidates=sites_of(120) if candidates is None else candidates,
        )
    )


def titrated(compete: Compete, doses: list[int], replicates: int = 30) -> Titration:
    return asyncio.run(
        titrate(
            GENOME.genome,
            compete,
            seeded(3),
            TitrationSettings(replicates=replicates),
            null=exact_null(),
            candidates=sites_of(120),
            doses=np.array(doses, dtype=np.int64),
        )
    )


@settings(deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 400))
def test_geometric_doses_are_distinct_ascending_and_span_the_genome(num_sites: int, count: int) -> None:
    doses = geometric_doses(num_sites, count)
    assert (np.diff(doses) > 0).all()
    assert doses[0] == 1
    assert doses[-1] <= num_sites
    assert doses.size <= min(count, num_sites)
    if 1 < count <= num_sites:
        assert doses.size == count
        assert doses[-1] == num_sites


def hand_made(num_candidates: int, detected: dict[int, bool]) -> Calibration:
    table = pd.DataFrame(
        {
            "dose": list(detected),
            "replicate": 0,
            "knockout": "",
            "score": 0.0,
            "detected": list(detected.values()),
        }
    )
    return Calibration.from_table(table, num_candidates)


def test_doses_span_from_the_least_detected_to_the_largest_undetected() -> None:
    calibration = hand_made(1000, {5: False, 20: True, 50: False, 100: True, 120: False, 500: True})
    assert calibration.doses(5).tolist() == [20, 45, 70, 95, 120]


@pytest.mark.parametrize("all_detected", [True, False])
def test_doses_span_the_genome_when_all_or_nothing_is_detected(all_detected: bool) -> None:
    assert hand_made(1000, dict.fromkeys((1, 10, 1000), all_detected)).doses(5).tolist() == [1, 250, 500, 750, 1000]


def test_a_window_narrower_than_the_number_of_doses_is_widened() -> None:
    doses = hand_made(1000, {40: False, 41: True, 42: False, 43: True}).doses(5)
    assert len(doses) == 5
    assert doses[0] <= 41
    assert doses[-1] >= 42


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_doses_are_always_between_one_and_the_number_of_candidates(num_candidates: int, data: st.DataObject) -> None:
    detected = data.draw(st.lists(st.booleans(), min_size=num_candidates, max_size=num_candidates))
    doses = hand_made(num_candidates, dict(enumerate(detected, start=1))).doses(5)
    assert 1 <= doses.min() <= doses.max() <= num_candidates


def test_calibration_asks_one_random_knockout_of_the_candidates_a_dose() -> None:
    world = Recording(ReferenceOrganism(GENOME))
    candidates = np.arange(0, 120, 2)
    calibration = calibrated(world, candidates)
    assert [each.challenger.dose for each in world.asked] == geometric_doses(60, 40).tolist()
    assert all(set(each.challenger.sites.tolist()) <= set(candidates.tolist()) for each in world.asked)
    assert {each.purpose for each in world.asked} == {"calibration"}
    assert calibration.num_candidates == 60
    declared = {column.name: column.dtype for column in TABLES["calibration"].columns}
    assert calibration.table.dtypes.astype(str).to_dict() == declared == COLUMNS


def test_a_calibration_dose_that_stays_untestable_has_no_score() -> None:
    world = Losing(ReferenceOrganism(GENOME).compete, lambda competition: competition.challenger.dose == 120)
    calibration = calibrated(world)
    assert calibration.table.loc[calibration.table["score"].isna(), "dose"].tolist() == [120]
    assert calibration.doses(5).max() < 120


def test_calibration_gives_up_when_too_many_doses_are_untestable() -> None:
    world = Losing(ReferenceOrganism(GENOME).compete, lambda competition: competition.challenger.dose > 20)
    with pytest.raises(AssayError, match="dose calibration"):
        calibrated(world)


def test_titration_asks_its_replicates_at_each_dose_and_counts_sensitivity() -> None:
    organism = ReferenceOrganism(GENOME)
    titration = titrated(organism.compete, [1, 20, 120])
    assert organism.num_asked == 90
    assert titration.doses.tolist() == [1, 20, 120]
    assert titration.sensitivities[0] == 0
    assert 0 < titration.sensitivities[1] < 1
    assert titration.sensitivities[2] == 1
    truth = [GENOME.effect(KnockoutSet.from_bitset(each, 120)) >= 1 for each in titration.table["knockout"]]
    assert titration.table["detected"].tolist() == truth
    assert Titration.from_table(titration.table, 120).table.equals(titration.table)


def test_untestable_titration_replicates_are_replaced_by_other_knockouts() -> None:
    def loses(competition: Competition) -> bool:
        return competition.replicate in (3, 4)

    titration = titrated(Losing(ReferenceOrganism(GENOME).compete, loses), [20, 60], replicates=10)
    assert titration.table.groupby("dose").size().tolist() == [10, 10]
    assert not titration.table["replicate"].isin([3, 4]).any()
    assert not titration.table.duplicated(["dose", "replicate"]).any()


def test_titration_gives_up_after_three_times_as_many_asks() -> None:
    with pytest.raises(AssayError, match=r"dose titration: 60 of 60 .*memory"):
        titrated(Losing(ReferenceOrganism(GENOME).compete, lambda _: True), [20, 60])


def test_beneficial_random_knockouts_are_counted_not_raised() -> None:
    assert titrated(answering(lambda _: BENEFICIAL), [5], replicates=7).num_beneficial(exact_null()) == 7


def test_no_candidates_need_no_competitions() -> None:
    organism = ReferenceOrganism(GENOME)
    calibration = calibrated(organism.compete, np.zeros(0, dtype=np.int64))
    assert calibration.doses(5).size == 0
    assert titrated(organism.compete, []).table.empty
    assert organism.num_asked == 0
