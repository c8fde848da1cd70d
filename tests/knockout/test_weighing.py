"""Weighing sites of noisy organisms against one another: what it asks, what it costs, and what it may claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Competition
from tests.knockout.worlds import Losing, Recording, seeded

SMALL = ReferenceGenome.draw(seeded(21), num_sites=200, num_additive=12)


@dataclass(frozen=True)
class Weighed:
    """What weighing found and what it asked."""

    genome: ReferenceGenome
    weights: SiteWeights
    asked: list[Competition]

    @property
    def effects(self) -> NDArray[np.float64]:
        return self.weights.table["effect"].to_numpy()

    @property
    def truth(self) -> NDArray[np.float64]:
        return np.array([self.genome.effects.get(site, 0.0) for site in range(self.genome.num_sites)])


def weighed(
    genome: ReferenceGenome,
    chosen: WeighingSettings,
    *,
    seed: int = 1,
    delay: int | None = None,
    loses: Callable[[Competition], bool] = lambda _: False,
    **options: Any,
) -> Weighed:
    async def ask() -> Weighed:
        organism = ReferenceOrganism(genome, mode="wright-fisher", seed=seed)
        null = await measure_null_distribution(genome.genome, organism.compete, seeded(seed), NullSettings(100))
        recording = Recording(organism, None if delay is None else seeded(delay))
        weights = await weigh_sites(
            genome.genome, Losing(recording, loses), seeded(seed), chosen, null=null.distribution(), **options
        )
        return Weighed(genome, weights, recording.asked)

    return asyncio.run(ask())


def budget(most_competitions: int) -> WeighingSettings:
    return WeighingSettings(most_competitions=most_competitions)


def participation(found: Weighed) -> NDArray[np.int64]:
    """Return how often each site took part."""
    taking_part = [np.append(each.background.sites, each.challenger.sites) for each in found.asked]
    return np.bincount(np.concatenate(taking_part), minlength=found.genome.num_sites)


@pytest.fixture(scope="module")
def several() -> list[Weighed]:
    """Return what was found in eight genomes of 200 sites."""
    genomes = [ReferenceGenome.draw(seeded(seed), num_sites=200, num_additive=12) for seed in range(8)]
    return [weighed(genome, budget(1500), seed=seed) for seed, genome in enumerate(genomes)]


def within(hits: int, total: int, share: float) -> bool:
    """Tell whether so many hits are likely (1 - 2e-4) where each has this probability."""
    return stats.binom.cdf(hits, total, share) > 1e-4 and stats.binom.sf(hits - 1, total, share) > 1e-4


def test_intervals_hold_the_truth_as_often_as_they_say(several: list[Weighed]) -> None:
    for is_neutral in (True, False):
        inside = [
            bool(low <= truth <= high)
            for each in several
            for truth, low, high in zip(each.truth, each.weights.table["low"], each.weights.table["high"], strict=True)
            if (truth == 0) == is_neutral
        ]
        # The interval of a functional site leaves out the error of the unit, which all of a genome share.
        share = 0.95 if is_neutral else 0.90
        assert within(sum(inside), len(inside), share), (sum(inside), len(inside))


def test_large_effects_are_found_and_hardly_any_neutral_site_is_called_additive(several: list[Weighed]) -> None:
    called = [each.weights.additive(0.05) for each in several]
    assert sum(len(sites.keys() - each.genome.effects.keys()) for sites, each in zip(called, several, strict=True)) <= 2
    for sites, each in zip(called, several, strict=True):
        assert {site for site, effect in each.genome.effects.items() if effect > 0.15} <= sites.keys()


def test_every_site_takes_part_about_equally_often_unless_it_is_heavy(several: list[Weighed]) -> None:
    for each in several:
        light = participation(each)[each.truth < 0.15]
        assert np.ptp(light) < 0.35 * light.mean()


@pytest.mark.parametrize("most", [0, 1, 20, 41, 200, 997])
def test_a_budget_is_never_exceeded(most: int) -> None:
    found = weighed(SMALL, budget(most))
    assert len(found.asked) == found.weights.num_competitions <= most
    assert len(found.asked) == most, "nor is anything left without reason"


def test_each_wave_but_the_last_is_told_and_changes_nothing() -> None:
    told: list[SiteWeights] = []

    async def hear(weights: SiteWeights) -> None:
        told.append(weights)

    unheard, heard = weighed(SMALL, budget(3000)), weighed(SMALL, budget(3000), told=hear)
    assert heard.asked == unheard.asked
    assert heard.weights.table.equals(unheard.weights.table)
    numbers = [each.num_competitions for each in [*told, heard.weights]]
    assert numbers == sorted(set(numbers)) and len(numbers) > 2
    assert told[0].error > told[-1].error > heard.weights.error


def test_weighing_stops_when_every_error_is_small_enough() -> None:
    found = weighed(SMALL, WeighingSettings(most_competitions=8000, error=0.04))
    assert found.weights.num_competitions < 4500
    assert (found.weights.table["error"] <= 0.04).mean() > 0.99


@pytest.mark.parametrize("genome", [SMALL, ReferenceGenome(60, dict.fromkeys(range(6), 1.0))])
def test_no_side_lacks_more_than_the_largest_share(genome: ReferenceGenome) -> None:
    found = weighed(genome, WeighingSettings(most_competitions=800, largest_share=0.1))
    most = max(max(each.background.dose, each.challenger.dose) for each in found.asked)
    assert most <= 0.1 * genome.num_sites


def test_neither_results_nor_questions_depend_on_the_order_of_answers() -> None:
    calm = weighed(SMALL, budget(600))
    again = weighed(SMALL, budget(600), delay=5)
    pd.testing.assert_frame_equal(calm.weights.table, again.weights.table)
    assert calm.asked == again.asked
    assert len(set(calm.asked)) == len(calm.asked), "no competition is asked twice"


def test_a_few_lost_competitions_cost_only_what_they_would_have_told() -> None:
    found = weighed(SMALL, budget(1500), loses=lambda each: each.replicate % 33 == 32)
    assert found.weights.table["tested"].all()
    assert np.abs(found.effects - found.truth).max() < 5.5 * found.weights.error


def test_too_many_lost_competitions_end_weighing_with_the_reason() -> None:
    with pytest.raises(AssayError, match=r"weighing: .* more than the tolerated share of 0\.05.*killed for memory"):
        weighed(SMALL, budget(1500), loses=lambda each: each.replicate % 10 == 9)


@pytest.mark.parametrize("num_sites", [1, 2, 3, 50])
def test_where_nothing_has_an_effect_nothing_is_claimed(num_sites: int) -> None:
    found = weighed(ReferenceGenome(num_sites), budget(400))
    assert found.weights.table["tested"].all()
    assert found.weights.additive(0.02) == {}
    assert np.abs(found.effects).max() < 0.2


def test_a_genome_of_one_site_is_weighed() -> None:
    found = weighed(ReferenceGenome(1, {0: 0.5}), budget(400))
    assert found.weights.additive(0.02)[0] == pytest.approx(0.5, abs=0.1)


def test_beneficial_sites_have_negative_effects() -> None:
    genome = ReferenceGenome(200, {3: -0.6, 5: -0.3, 7: 0.6})
    found = weighed(genome, budget(1500))
    called = found.weights.additive(0.02)
    assert called == pytest.approx(genome.effects, abs=0.12)


def test_a_few_lethal_sites_are_called_and_spoil_nothing() -> None:
    found = weighed(ReferenceGenome(100, dict.fromkeys(range(3), 10.0)), budget(1500))
    called = found.weights.additive(0.02)
    assert called.keys() == {0, 1, 2}
    assert min(called.values()) > 1.5
    assert np.abs(found.effects[3:]).max() < 0.3


@pytest.mark.parametrize("functional", [2, 5, 12, 20])
def test_genomes_full_of_functional_sites_are_weighed_as_they_are(functional: int) -> None:
    """Sides that lack equally many sites would tell differences alone, never what all have in common."""
    genome = ReferenceGenome(20, dict.fromkeys(range(functional), 0.4))
    found = weighed(genome, budget(1500))
    assert found.effects[:functional].mean() == pytest.approx(0.4, abs=0.08)
    assert np.abs(found.effects[functional:]).max(initial=0.0) < 0.12


def test_where_every_site_is_lethal_every_site_is_called() -> None:
    found = weighed(ReferenceGenome(30, dict.fromkeys(range(30), 10.0)), budget(900))
    assert len(found.weights.additive(0.02)) == 30


def test_a_site_that_cannot_be_tested_is_untested_and_the_others_are_weighed() -> None:
    found = weighed(SMALL, budget(1500), loses=lambda each: 9 in each.background or 9 in each.challenger)
    assert np.flatnonzero(~found.weights.table["tested"]).tolist() == [9]


def test_weights_survive_their_table() -> None:
    found = weighed(SMALL, budget(300)).weights
    again = SiteWeights.from_table(found.table.sample(frac=1, random_state=1), found.numbers)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.numbers == found.numbers
    assert again.additive(0.02) == found.additive(0.02)
    with pytest.raises(ValueError, match="probability"):
        SiteWeights.from_table(found.table.drop(columns="probability"), found.numbers)


def weights_of(effects: list[float], errors: list[float], probabilities: list[float]) -> SiteWeights:
    return SiteWeights.of(
        np.array(effects),
        np.array(errors),
        np.array(probabilities),
        angle_sd=0.3,
        drift=0.9,
        unit_error=0.0,
        num_competitions=5,
        unit=0.006,
    )


def test_untested_sites_have_no_effect_and_are_never_called() -> None:
    weights = weights_of([0.0, 0.5, 0.9], [0.01, 0.01, np.inf], [0.0, 1.0, 1.0])
    assert weights.table["tested"].tolist() == [True, True, False]
    assert np.isnan(weights.table.loc[2, ["effect", "low", "high", "error", "probability"]].astype(float)).all()
    assert weights.additive(0.02) == {1: 0.5}
    assert weights.error == pytest.approx(0.01)


def test_what_is_called_additive_spends_the_error_rate() -> None:
    """Of many sites without effect, so many in expectation pass as the error rate says."""
    estimates = 0.1 * seeded(8).standard_normal((200, 100))
    called = sum(len(weights_of(part.tolist(), [0.1] * 100, [1.0] * 100).additive(0.5)) for part in estimates)
    assert within(called, 200, 0.5)


def test_a_genome_of_lethal_sites_does_not_ask_for_ever() -> None:
    """Once all that still takes part is known well enough, nothing is left to ask."""
    genome = ReferenceGenome(14, dict.fromkeys(range(8), 6.0))
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=1)

    async def weigh() -> SiteWeights:
        measured = await measure_null_distribution(genome.genome, organism.compete, seeded(1), NullSettings())
        settings = WeighingSettings(0.03, 20_000)
        return await weigh_sites(genome.genome, organism.compete, seeded(2), settings, null=measured.distribution())

    weights = asyncio.run(weigh())
    assert set(weights.additive(0.02)) == set(range(8))
    assert weights.num_competitions < 5000
