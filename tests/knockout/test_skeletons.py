"""One-pass skeletons: N tests each, the same as greedy deletion, and whole under loss and benefit."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.published.skeletons import Skeletons, SkeletonSettings, skeletonize
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import BENEFICIAL, DETECTED, UNDETECTED, Losing, Recording, answering, exact_null, seeded


def skeletons_of(
    genome: Genome, compete: Compete, count: int = 3, *, seed: int = 1, tolerated: float = 0.05
) -> Skeletons:
    return asyncio.run(
        skeletonize(genome, compete, seeded(seed), SkeletonSettings(count, tolerated), null=exact_null())
    )


@st.composite
def monotone_detection(draw: st.DrawFn) -> tuple[int, list[frozenset[int]]]:
    """Return a number of sites and the smallest sets whose knockout is detected; every superset is, too."""
    num_sites = draw(st.integers(1, 14))
    smallest = st.frozensets(st.integers(0, num_sites - 1), min_size=1, max_size=4)
    return num_sites, draw(st.lists(smallest, max_size=6))


def restarting_greedy(order: list[int], smallest: list[frozenset[int]]) -> set[int]:
    """Delete the first site of the order that goes unnoticed, start over, stop when none does."""
    deleted: set[int] = set()
    while True:
        candidates = (site for site in order if site not in deleted)
        site = next((each for each in candidates if not any(s <= deleted | {each} for s in smallest)), None)
        if site is None:
            return deleted
        deleted.add(site)


@settings(max_examples=300, deadline=None)
@given(monotone_detection(), st.integers(0, 2**32))
def test_one_pass_equals_restarting_greedy_and_leaves_only_critical_sites(
    world: tuple[int, list[frozenset[int]]], seed: int
) -> None:
    num_sites, smallest = world

    def detected(sites: set[int]) -> bool:
        return any(each <= sites for each in smallest)

    compete = answering(lambda knockout: DETECTED if detected(set(knockout.sites.tolist())) else UNDETECTED)
    skeletons = skeletons_of(Genome("monotone", num_sites), compete, 1, seed=seed)
    order = skeletons.table.sort_values("order")["site"].tolist()
    deleted = set(skeletons.knockouts[0].sites.tolist())
    assert deleted == restarting_greedy(order, smallest)
    assert not detected(deleted)
    assert all(detected(deleted | {site}) for site in np.flatnonzero(skeletons.kept[0]).tolist())


def test_a_skeleton_takes_one_test_a_site_against_the_wild_type() -> None:
    genome = ReferenceGenome.draw(seeded(), num_sites=200, num_additive=20, num_sets=5)
    world = Recording(ReferenceOrganism(genome))
    skeletons = skeletons_of(genome.genome, world, 3)
    assert len(world.asked) == len(set(world.asked)) == 600
    assert all(each.background.is_wild_type for each in world.asked)
    assert {each.purpose for each in world.asked} == {"skeleton 0", "skeleton 1", "skeleton 2"}
    declared = {column.name: column.dtype for column in TABLES["skeletons"].columns}
    assert skeletons.table.dtypes.astype(str).to_dict() == declared
    assert skeletons.table.groupby("skeleton")["order"].apply(lambda order: sorted(order) == list(range(200))).all()
    assert (skeletons.kept.sum(axis=1) <= len(genome.functional_sites)).all()


def test_a_skeleton_keeps_lethal_sites_and_one_member_of_each_costly_set() -> None:
    genome = ReferenceGenome.from_json(
        '{"sites": 30, "effects": {"4": 2.0}, "sets": [{"sites": [7, 8, 9], "penalty": 1.5}]}'
    )
    skeletons = skeletons_of(genome.genome, ReferenceOrganism(genome).compete, 8)
    for kept in skeletons.kept:
        assert kept.sum() == 2
        assert kept[4]
        assert kept[7:10].sum() == 1


@pytest.mark.parametrize(
    ("genome", "num_kept"),
    [
        (ReferenceGenome(1), 0),
        (ReferenceGenome(1, {0: 3.0}), 1),
        (ReferenceGenome(5), 0),
        (ReferenceGenome(5, dict.fromkeys(range(5), 1.0)), 5),
    ],
    ids=["one neutral site", "one lethal site", "no functional site", "only lethal sites"],
)
def test_extreme_genomes_have_skeletons(genome: ReferenceGenome, num_kept: int) -> None:
    skeletons = skeletons_of(genome.genome, ReferenceOrganism(genome).compete)
    assert skeletons.kept.sum(axis=1).tolist() == [num_kept] * 3


def test_a_beneficial_deletion_is_made_and_counted() -> None:
    compete = answering(lambda knockout: BENEFICIAL if 2 in knockout else UNDETECTED)
    skeletons = skeletons_of(Genome("better without", 6), compete, 2)
    assert not skeletons.kept.any()
    assert skeletons.num_beneficial >= 2


def test_an_untestable_deletion_keeps_its_site() -> None:
    genome = ReferenceGenome(40)
    compete = Losing(ReferenceOrganism(genome).compete, lambda competition: 17 in competition.challenger)
    skeletons = skeletons_of(genome.genome, compete, 2)
    assert [np.flatnonzero(kept).tolist() for kept in skeletons.kept] == [[17], [17]]
    assert skeletons.num_untested == 2


def test_too_many_untestable_deletions_stop_the_search_early() -> None:
    genome = ReferenceGenome(100)
    world = Recording(ReferenceOrganism(genome))
    with pytest.raises(AssayError, match=r"skeleton \d: 6 of 100 .* first reason: .*memory"):
        skeletons_of(genome.genome, Losing(world, lambda _: True), 2)
    assert len(world.asked) <= 12


def test_what_is_asked_does_not_depend_on_when_answers_come() -> None:
    genome = ReferenceGenome.draw(seeded(), num_sites=80, num_additive=20, num_sets=3)
    asked = []
    tables = []
    for delay in (None, seeded(5), seeded(6)):
        world = Recording(ReferenceOrganism(genome), delay)
        tables.append(skeletons_of(genome.genome, world, 4).table)
        asked.append(sorted(map(repr, world.asked)))
    assert asked[0] == asked[1] == asked[2]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_skeletons_survive_their_table() -> None:
    genome = ReferenceGenome.draw(seeded(), num_sites=50, num_additive=20)
    skeletons = skeletons_of(genome.genome, ReferenceOrganism(genome).compete, 2)
    again = Skeletons.from_table(skeletons.table.sample(frac=1, random_state=1), 50)
    assert again.table.equals(skeletons.table)
    assert again.knockouts == skeletons.knockouts
    assert all(isinstance(each, KnockoutSet) for each in again.knockouts)
    with pytest.raises(ValueError, match="whole skeletons"):
        Skeletons.from_table(skeletons.table.iloc[1:], 50)
