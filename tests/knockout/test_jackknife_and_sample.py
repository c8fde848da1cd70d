"""The jackknife of skeletons, and the epistatic sites it shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.published.jackknife import Jackknife, JackknifeSettings, jackknife_skeletons
from knockem_dagster.knockout.assays.published.skeletons import Skeletons, SkeletonSettings, skeletonize
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.estimators.skeleton_sample import find_epistatic_sites
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import Losing, Recording, exact_null, seeded

DRAWN = ReferenceGenome.draw(seeded(8), num_sites=400, num_additive=40, num_sets=6, penalties=(1.0, 1.6))
# A member with an effect of its own is kept by nearly every skeleton and hides the other members of its set.
GENOME = replace(
    DRAWN, effects={site: effect for site, effect in DRAWN.effects.items() if site not in DRAWN.epistatic_sites}
)


def skeletons_of(genome: ReferenceGenome, count: int) -> Skeletons:
    organism = ReferenceOrganism(genome)
    return asyncio.run(
        skeletonize(genome.genome, organism.compete, seeded(2), SkeletonSettings(count), null=exact_null())
    )


def jackknife_of(genome: ReferenceGenome, skeletons: Skeletons, compete: Compete | None = None) -> Jackknife:
    return asyncio.run(
        jackknife_skeletons(
            genome.genome,
            compete or ReferenceOrganism(genome).compete,
            seeded(),
            JackknifeSettings(),
            null=exact_null(),
            skeletons=skeletons,
        )
    )


def test_each_kept_site_is_knocked_out_on_top_of_its_skeleton() -> None:
    skeletons = skeletons_of(GENOME, 4)
    world = Recording(ReferenceOrganism(GENOME))
    jackknife = jackknife_of(GENOME, skeletons, world)
    assert len(world.asked) == skeletons.kept.sum()
    assert {each.purpose for each in world.asked} == {f"jackknife {number}" for number in range(4)}
    declared = {column.name: column.dtype for column in TABLES["jackknife"].columns}
    assert jackknife.table.dtypes.astype(str).to_dict() == declared
    severity = jackknife.severity(exact_null(), skeletons)
    np.testing.assert_array_equal(np.isfinite(severity), skeletons.kept)
    for number, deleted in enumerate(skeletons.knockouts):
        for site in np.flatnonzero(skeletons.kept[number])[:5].tolist():
            expected = GENOME.effect(deleted.with_site(site))
            assert severity[number, site] == pytest.approx(expected, abs=1e-5)
    assert Jackknife.from_table(jackknife.table).table.equals(jackknife.table)


def test_an_undetected_jackknife_counts_as_one_threshold_and_an_untestable_one_as_missing() -> None:
    genome = ReferenceGenome(40, {0: 2.0, 1: 2.0})
    skeletons = skeletons_of(genome, 1)
    neutral = ReferenceOrganism(ReferenceGenome(40))
    severity = jackknife_of(genome, skeletons, neutral.compete).severity(exact_null(), skeletons)
    assert severity[0, :2].tolist() == [1.0, 1.0]
    big = ReferenceGenome(40, dict.fromkeys(range(40), 2.0))
    losing = Losing(ReferenceOrganism(big).compete, lambda competition: 3 in competition.challenger)
    kept = skeletons_of(big, 1)
    severity = jackknife_of(big, kept, losing).severity(exact_null(), kept)
    assert np.flatnonzero(np.isnan(severity[0])).tolist() == [3]


def test_too_many_untestable_jackknives_are_an_error() -> None:
    skeletons = skeletons_of(GENOME, 2)
    with pytest.raises(AssayError, match=r"jackknife: .* tolerated share"):
        jackknife_of(GENOME, skeletons, Losing(ReferenceOrganism(GENOME).compete, lambda _: True))


def test_a_skeleton_that_keeps_nothing_needs_no_jackknife() -> None:
    genome = ReferenceGenome(10)
    organism = ReferenceOrganism(genome)
    assert jackknife_of(genome, skeletons_of(genome, 2), organism.compete).table.empty
    assert organism.num_asked == 0


def test_epistatic_sites_are_found_with_few_false_ones() -> None:
    skeletons = skeletons_of(GENOME, 20)
    found = find_epistatic_sites(skeletons.kept, jackknife_of(GENOME, skeletons).severity(exact_null(), skeletons))
    picked = set(found.epistatic.tolist())
    assert len(picked & GENOME.epistatic_sites) >= 0.9 * len(GENOME.epistatic_sites)
    assert len(picked - GENOME.epistatic_sites) <= 1


def test_without_rarely_excluded_sites_one_threshold_is_costly() -> None:
    kept = np.eye(4, dtype=bool)
    found = find_epistatic_sites(kept, np.where(kept, 1.5, np.nan))
    assert found.epistatic.tolist() == [0, 1, 2, 3]
    assert found.severity_threshold == 1.0


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(1, 8), st.randoms(use_true_random=False))
def test_only_sites_kept_at_least_once_and_often_excluded_are_picked(
    count: int, num_sites: int, random: st.DataObject
) -> None:
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    kept = rng.random((count, num_sites)) < 0.5
    severity = np.where(kept & (rng.random(kept.shape) < 0.9), rng.uniform(1, 3, kept.shape), np.nan)
    found = find_epistatic_sites(kept, severity)
    for site in found.epistatic.tolist():
        assert np.isfinite(severity[:, site]).any()
        assert found.exclusion_frequency[site] > 0.3
