"""Prefix search: the skeletons of greedy deletion at a fraction of the cost, under loss, benefit and noise."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from benchmarks.monotone import MonotoneOrganism
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from benchmarks.statistics import equals_greedy, is_greedy
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.boundary import Boundary
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeleton, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.competitions import Answer, Compete, Competition
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel
from tests.knockout.worlds import Losing, Recording, exact_null, seeded

SMALL = ReferenceGenome.draw(seeded(11), num_sites=300, num_additive=20, num_sets=4)


def skeletons_of(
    genome: ReferenceGenome, compete: Compete, chosen: PrefixSkeletonSettings, *, seed: int = 1
) -> PrefixSkeletons:
    model = ScoreModel.fit(exact_null())
    return asyncio.run(search_skeletons(genome.genome, compete, seeded(seed), chosen, model=model))


def with_width(width: int) -> PrefixSkeletonSettings:
    return PrefixSkeletonSettings(skeletons=1, search=SearchSettings(width=width))


@st.composite
def monotone_organisms(draw: st.DrawFn) -> MonotoneOrganism:
    num_sites = draw(st.integers(1, 14))
    smallest = draw(st.lists(st.frozensets(st.integers(0, num_sites - 1), min_size=1, max_size=4), max_size=6))
    return MonotoneOrganism(num_sites, tuple(KnockoutSet.of(each, num_sites).mask for each in smallest))


@settings(max_examples=200, deadline=None)
@given(monotone_organisms(), st.integers(1, 5), st.data())
def test_prefix_search_keeps_what_greedy_keeps_whatever_the_prior_and_width(
    organism: MonotoneOrganism, width: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(organism.num_sites))), dtype=np.int64)
    chances = data.draw(
        st.lists(st.floats(0, 1), min_size=organism.num_sites, max_size=organism.num_sites), label="chances"
    )
    found = asyncio.run(
        search_skeleton(
            organism.compete,
            order,
            with_width(width),
            model=organism.model(),
            prior=SitePrior(np.array(chances), RunningRate(0.5, 1.0, 0.6)),
            purpose="skeleton 0",
        )
    )
    assert set(np.flatnonzero(found.kept).tolist()) == organism.greedy(order)
    assert found.deleted == KnockoutSet.of(np.flatnonzero(~found.kept), organism.num_sites)
    assert found.tested.all()


def test_prefix_search_equals_greedy_in_two_thousand_random_organisms() -> None:
    assert all(asyncio.run(equals_greedy(child)) for child in seeded(5).spawn(2000))


def test_skeletons_cost_what_they_tell() -> None:
    genome = ReferenceGenome.epistatic(seeded(3))
    found = skeletons_of(genome, ReferenceOrganism(genome).compete, PrefixSkeletonSettings(skeletons=8))
    tests = found.summary["competitions"].to_numpy()
    kept = found.kept.sum(axis=1)
    bits = (gammaln(4001) - gammaln(kept + 1) - gammaln(4001 - kept)) / math.log(2)
    assert (tests[:4] / bits[:4]).mean() < 1.03
    assert (tests[4:] / (kept[4:] + 1)).mean() < 2.0
    assert all(is_greedy(genome, each) for each in found.skeletons)


def test_wider_search_finds_the_same_in_fewer_rounds() -> None:
    rounds: list[int] = []
    tables: list[pd.DataFrame] = []
    for width in (1, 3):
        organism = ReferenceOrganism(SMALL)
        waits = 0

        async def compete(competitions: Sequence[Competition], organism: ReferenceOrganism = organism) -> list[Answer]:
            nonlocal waits
            waits += 1
            return await organism.compete(competitions)

        tables.append(skeletons_of(SMALL, compete, with_width(width)).table)
        rounds.append(waits)
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert rounds[1] < 0.75 * rounds[0]


@pytest.mark.parametrize("exact", [True, False])
def test_neither_results_nor_questions_depend_on_the_order_of_answers(exact: bool) -> None:
    async def once(delay: int | None) -> tuple[PrefixSkeletons, list[Competition]]:
        organism = ReferenceOrganism(SMALL, mode="exact" if exact else "wright-fisher")
        recording = Recording(organism, None if delay is None else seeded(delay))
        model = await model_of(organism)
        chosen = PrefixSkeletonSettings(skeletons=4, wave=2)
        return await search_skeletons(SMALL.genome, recording, seeded(2), chosen, model=model), recording.asked

    calm, asked = asyncio.run(once(None))
    for delay in (1, 2):
        shuffled, again = asyncio.run(once(delay))
        pd.testing.assert_frame_equal(shuffled.table, calm.table)
        pd.testing.assert_frame_equal(shuffled.summary, calm.summary)
        assert sorted(map(repr, again)) == sorted(map(repr, asked))
    assert len(set(asked)) == len(asked), "no competition is asked twice"


def test_a_skeleton_depends_only_on_earlier_waves() -> None:
    compete = ReferenceOrganism(SMALL).compete
    few = skeletons_of(SMALL, compete, PrefixSkeletonSettings(skeletons=3, wave=2))
    many = skeletons_of(SMALL, compete, PrefixSkeletonSettings(skeletons=6, wave=2))
    pd.testing.assert_frame_equal(few.summary, many.summary.iloc[:3])
    assert (np.sort(few.table["order"].to_numpy().reshape(3, -1)) == np.arange(SMALL.num_sites)).all()


def test_a_site_that_cannot_be_tested_stays_and_says_so() -> None:
    def loses(competition: Competition) -> bool:
        return 7 in competition.challenger or 250 in competition.challenger

    found = skeletons_of(SMALL, Losing(ReferenceOrganism(SMALL).compete, loses), PrefixSkeletonSettings(skeletons=6))
    for each in found.skeletons:
        assert np.flatnonzero(~each.tested).tolist() == [7, 250]
        assert each.kept[[7, 250]].all()
        assert 0 < SMALL.effect(each.deleted) < 1
        for site in np.flatnonzero(each.kept & each.tested):
            assert SMALL.effect(each.deleted.with_site(int(site))) >= 1


def test_lost_answers_that_come_when_asked_again_change_nothing() -> None:
    compete = ReferenceOrganism(SMALL).compete
    chosen = PrefixSkeletonSettings(skeletons=5)
    losing = Losing(compete, lambda competition: competition.replicate == 0 and competition.challenger.mask % 3 == 0)
    pd.testing.assert_frame_equal(skeletons_of(SMALL, losing, chosen).table, skeletons_of(SMALL, compete, chosen).table)


def test_an_organism_that_never_answers_ends_the_search_with_the_reason() -> None:
    with pytest.raises(AssayError, match="killed for memory"):
        skeletons_of(SMALL, Losing(ReferenceOrganism(SMALL).compete, lambda _: True), PrefixSkeletonSettings())


def test_what_beneficial_sites_hid_is_removed_until_every_kept_site_is_critical() -> None:
    draw = seeded(4)
    removed, seen = 0, 0
    for number in range(20):
        effects = dict(enumerate(draw.uniform(0.2, 0.9, 30).tolist())) | dict.fromkeys(range(30, 36), -1.2)
        genome = ReferenceGenome(100, effects)
        compete = ReferenceOrganism(genome).compete
        raw, repaired = (
            skeletons_of(genome, compete, PrefixSkeletonSettings(skeletons=1, repair=repair), seed=number).skeletons[0]
            for repair in ("never", "always")
        )
        removed += int((raw.kept & ~repaired.kept).sum())
        assert genome.effect(repaired.deleted) < 1
        assert all(genome.effect(repaired.deleted.with_site(int(site))) >= 1 for site in np.flatnonzero(repaired.kept))
        by_default = skeletons_of(genome, compete, PrefixSkeletonSettings(skeletons=1), seed=number).skeletons[0]
        if by_default.num_beneficial:
            seen += 1
            assert by_default.deleted == repaired.deleted
    assert removed > 0
    assert seen > 0


@pytest.mark.parametrize("effects", [{}, dict.fromkeys(range(30), 2.0)], ids=["no functional site", "only lethal ones"])
def test_extreme_genomes_have_the_obvious_skeleton(effects: dict[int, float]) -> None:
    genome = ReferenceGenome(30, effects)
    organism = ReferenceOrganism(genome)
    found = skeletons_of(genome, organism.compete, PrefixSkeletonSettings(skeletons=5))
    assert (found.kept.sum(axis=1) == len(effects)).all()
    if not effects:
        assert organism.num_asked < 5 * 10


async def model_of(organism: ReferenceOrganism) -> ScoreModel:
    null = await measure_null_distribution(organism.genome.genome, organism.compete, seeded(), NullSettings(100))
    return ScoreModel.fit(null.distribution(stated_unit=organism.stated_unit))


def noisy_skeletons(
    genome: ReferenceGenome, chosen: PrefixSkeletonSettings, *, seed: int
) -> tuple[PrefixSkeletons, ReferenceOrganism]:
    async def search() -> PrefixSkeletons:
        return await search_skeletons(
            genome.genome, organism.compete, seeded(seed), chosen, model=await model_of(organism)
        )

    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=seed)
    return asyncio.run(search()), organism


def test_under_noise_no_neutral_site_is_kept_and_no_large_one_lost() -> None:
    genome = ReferenceGenome.demo(seeded(8))
    found, organism = noisy_skeletons(genome, PrefixSkeletonSettings(skeletons=2), seed=8)
    assert organism.num_asked < 2 * 3200
    assert found.summary["competitions"].sum() == organism.num_asked - 100
    for each in found.skeletons:
        kept = set(np.flatnonzero(each.kept).tolist())
        assert kept <= genome.functional_sites
        assert {site for site, effect in genome.effects.items() if effect >= 0.5} <= kept
        assert all(kept & set(group.sites) for group in genome.sets)
        assert each.residual.low <= genome.effect(each.deleted) <= each.residual.high
        assert each.resolution == 0.4


def test_a_skeleton_that_lost_too_much_goes_on_from_a_checkpoint_at_finer_resolution() -> None:
    genome = ReferenceGenome.draw(seeded(6), num_sites=200, num_additive=80, largest_effect=0.3)
    coarse = PrefixSkeletonSettings(skeletons=1, search=SearchSettings(resolution=1.0), refinements=0)
    [lossy] = noisy_skeletons(genome, coarse, seed=3)[0].skeletons
    [finer] = noisy_skeletons(genome, replace(coarse, refinements=2), seed=3)[0].skeletons
    assert lossy.residual.value > coarse.largest_residual
    assert finer.resolution in (0.5, 0.25)
    assert genome.effect(finer.deleted) < genome.effect(lossy.deleted)


def test_a_boundary_is_asked_about_where_its_probability_is_a_half() -> None:
    boundary = Boundary(np.full(100, 0.02))
    [length] = boundary.probes(1)
    assert boundary.probability_before(length) == pytest.approx(0.5, abs=0.01)
    assert len(boundary.probes(3)) == 3


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=30), st.data())
def test_certain_answers_find_every_boundary(chances: list[float], data: st.DataObject) -> None:
    truth = data.draw(st.integers(0, len(chances)))
    boundary = Boundary(np.array(chances))
    for _ in range(len(chances)):
        for length in boundary.probes(2):
            boundary.update(length, math.inf if truth < length else -math.inf)
    assert boundary.is_certain
    assert boundary.best == truth
    assert boundary.probes(2) == []


def test_evidence_moves_the_boundary_by_bayes_rule() -> None:
    boundary = Boundary(np.array([0.5, 0.5]))
    boundary.update(1, math.log(4))
    assert [boundary.probability(place) for place in range(3)] == pytest.approx([0.8, 0.1, 0.1])
    assert boundary.passing(0.79) == 0
    assert boundary.passing(0.85) == 1
    assert boundary.rule_out(0)
    assert boundary.passing(0.0) == 1


def test_what_earlier_skeletons_kept_makes_a_site_likely_critical() -> None:
    kept = np.zeros((4, 1000), dtype=bool)
    kept[:, :20] = True
    kept[np.arange(4), 20 + np.arange(4)] = True
    prior = SitePrior.from_kept(kept)
    assert prior.weights[0] > 0.9
    assert prior.weights[999] <= prior.weights[20] < 0.3
    assert SitePrior.from_kept(kept[:1]).weights.tolist() == [1.0] * 1000


def test_the_running_rate_forgets() -> None:
    rate = RunningRate(0.5, 30.0, 0.9)
    for _ in range(100):
        rate = rate.after(1, 10.0)
    assert rate.value == pytest.approx(0.1, rel=1e-3)
    assert rate.after(0, 50.0).value < rate.value
    assert RunningRate(0.5, 0.1, 0.9).value == 1


def test_a_genome_of_one_neutral_site_is_no_special_case() -> None:
    found = skeletons_of(ReferenceGenome(1), ReferenceOrganism(ReferenceGenome(1)).compete, PrefixSkeletonSettings())
    assert not found.kept.any()
