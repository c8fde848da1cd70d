"""The null distribution and the screen: what they ask, find, replace and refuse."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.published.null_distribution import (
    NullCompetitions,
    NullSettings,
    measure_null_distribution,
)
from knockem_dagster.knockout.assays.published.screen import Screen, ScreenSettings, screen_sites
from knockem_dagster.knockout.competitions import Competition
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import BENEFICIAL, UNDETECTED, Losing, Recording, answering, exact_null, seeded

LETHAL = ReferenceGenome(20, {3: 1.0, 7: 2.5, 11: 0.99})


def columns_of(name: str) -> dict[str, str]:
    return {column.name: column.dtype for column in TABLES[name].columns}


def test_the_null_asks_the_wild_type_against_itself_and_has_the_declared_columns() -> None:
    world = Recording(ReferenceOrganism(LETHAL))
    result = asyncio.run(measure_null_distribution(LETHAL.genome, world, seeded(), NullSettings(replicates=5)))
    assert all(each.background.is_wild_type and each.challenger.is_wild_type for each in world.asked)
    assert {(each.purpose, each.replicate) for each in world.asked} == {("null", number) for number in range(5)}
    assert result.table.dtypes.astype(str).to_dict() == columns_of("null_distribution")
    assert NullCompetitions.from_table(result.table).table.equals(result.table)
    assert result.distribution(stated_unit=0.25).unit == 0.25


def test_untestable_null_replicates_are_replaced_by_new_ones() -> None:
    world = Losing(ReferenceOrganism(LETHAL).compete, lambda competition: competition.replicate in (1, 3))
    result = asyncio.run(measure_null_distribution(LETHAL.genome, world, seeded(), NullSettings(replicates=4)))
    assert result.table["replicate"].tolist() == [0, 2, 5, 7]


def test_a_null_that_is_never_answered_stops_after_three_times_as_many_asks() -> None:
    asked: list[Competition] = []

    def lose(competition: Competition) -> bool:
        asked.append(competition)
        return True

    world = Losing(ReferenceOrganism(LETHAL).compete, lose)
    with pytest.raises(AssayError, match=r"4 of 4 competitions .* killed for memory"):
        asyncio.run(measure_null_distribution(LETHAL.genome, world, seeded(), NullSettings(replicates=4)))
    assert len(asked) == len(set(asked)) == 12


def test_the_screen_finds_the_sites_detectable_alone() -> None:
    organism = ReferenceOrganism(LETHAL)
    screen = asyncio.run(screen_sites(LETHAL.genome, organism.compete, seeded(), ScreenSettings(), null=exact_null()))
    assert screen.table.loc[screen.table["detected"], "site"].tolist() == [3, 7]
    assert organism.num_asked == 20
    assert screen.table.dtypes.astype(str).to_dict() == columns_of("screen")
    assert 11 in screen.undetected_sites
    assert Screen.from_table(screen.table).table.equals(screen.table)


def test_an_untestable_site_has_no_score_and_is_no_candidate() -> None:
    world = Losing(ReferenceOrganism(LETHAL).compete, lambda competition: 5 in competition.challenger)
    screen = asyncio.run(screen_sites(LETHAL.genome, world, seeded(), ScreenSettings(), null=exact_null()))
    assert screen.untested_sites.tolist() == [5]
    assert 5 not in screen.undetected_sites
    assert not screen.table["detected"][5]
    assert screen.table.loc[5, ["score", "p", "q"]].isna().all()


def test_too_many_untestable_sites_are_an_error_with_numbers_and_the_first_reason() -> None:
    world = Losing(ReferenceOrganism(LETHAL).compete, lambda competition: 3 not in competition.challenger)
    with pytest.raises(AssayError, match=r"19 of 20 .* share of 0.05; first reason: .*memory"):
        asyncio.run(screen_sites(LETHAL.genome, world, seeded(), ScreenSettings(), null=exact_null()))


def test_beneficial_single_knockouts_are_counted_not_raised() -> None:
    world = answering(lambda knockout: BENEFICIAL if 2 in knockout else UNDETECTED)
    screen = asyncio.run(screen_sites(LETHAL.genome, world, seeded(), ScreenSettings(), null=exact_null()))
    assert screen.num_beneficial(exact_null()) == 1
    assert not screen.table["detected"].any()


def test_the_screen_controls_the_false_discovery_rate_with_noise() -> None:
    genome = ReferenceGenome(300, dict.fromkeys(range(30), 3.0))
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=2)
    null = asyncio.run(
        measure_null_distribution(genome.genome, organism.compete, seeded(), NullSettings())
    ).distribution()
    screen = asyncio.run(screen_sites(genome.genome, organism.compete, seeded(), ScreenSettings(), null=null))
    detected = np.flatnonzero(screen.table["detected"])
    assert np.isin(np.arange(30), detected).mean() > 0.9
    assert (detected >= 30).mean() <= 0.15


@pytest.mark.parametrize("genome", [ReferenceGenome(1), ReferenceGenome(1, {0: 2.0})], ids=["neutral", "lethal"])
def test_a_genome_of_one_site_is_screened(genome: ReferenceGenome) -> None:
    organism = ReferenceOrganism(genome)
    screen = asyncio.run(screen_sites(genome.genome, organism.compete, seeded(), ScreenSettings(), null=exact_null()))
    assert screen.table["detected"].tolist() == [bool(genome.effects)]


def test_sites_are_numbered_from_zero() -> None:
    genome = ReferenceGenome(9, {0: 2.0, 8: 2.0})
    screen = asyncio.run(
        screen_sites(genome.genome, ReferenceOrganism(genome).compete, seeded(), ScreenSettings(), null=exact_null())
    )
    assert screen.table["site"].tolist() == list(range(9))
    assert screen.table.loc[screen.table["detected"], "site"].tolist() == [0, 8]


def test_a_table_without_its_columns_is_refused() -> None:
    organism = ReferenceOrganism(LETHAL)
    screen = asyncio.run(screen_sites(LETHAL.genome, organism.compete, seeded(), ScreenSettings(), null=exact_null()))
    with pytest.raises(ValueError, match="lacks score"):
        Screen.from_table(screen.table.drop(columns="score"))
