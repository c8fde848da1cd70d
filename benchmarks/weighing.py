"""Rows of `bench statistics` on weighing sites and enumerating sets: counts, intervals, recall, whole reports.

Truth is in the simulator's unit of effect, which is a detection threshold by construction (to .3%: see
`wright_fisher_exactly.effect_of_one_threshold`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from benchmarks.effect_families import FAMILIES
from benchmarks.parallel import for_each
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from benchmarks.targets import TargetRow
from benchmarks.whole_study import ERROR_RATE, RESOLUTION, Studied, study
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.weighed_counts import Count, count_additive, count_functional

_PAGE = "reported"
_LARGE = 0.4


def additive_genome(rng: Generator, family: str) -> ReferenceGenome:
    """Draw 1,000 sites, 50 of them with effects of this family."""
    sites = rng.choice(1000, 50, replace=False)
    return ReferenceGenome(1000, dict(zip(sites.tolist(), FAMILIES[family](rng, 50).tolist(), strict=True)))


@dataclass(frozen=True, slots=True)
class Counted:
    """A count beside the truth."""

    error: float
    width: float
    covered: bool

    @classmethod
    def of(cls, count: Count, truth: int) -> Counted:
        """Compare a count with the truth."""
        return cls(count.value - truth, count.high - count.low, count.low <= truth <= count.high)


@dataclass(frozen=True, slots=True)
class _Additive:
    competitions: int
    total: Counted
    total_small: Counted
    above: Counted


def measure_additive(rng: Generator, count: int) -> list[TargetRow]:
    """Measure the paper's additive setting with noise, and the other families of effects."""
    rows: list[TargetRow] = []
    for family, child in zip(FAMILIES, rng.spawn(len(FAMILIES)), strict=True):
        outcomes = for_each(child, count, partial(_additive_outcome, family=family))
        above = [each.above for each in outcomes]
        if family == "uniform":
            totals = [each.total for each in outcomes]
            rows += [
                TargetRow.rmse(
                    "additive sites, 1,000 sites: RMSE",
                    [each.error for each in totals],
                    most=3.0,
                    published=18.6,
                    source=_PAGE,
                ),
                TargetRow.of("additive sites, 1,000 sites: bias", [each.error for each in totals], published=-18.0),
                TargetRow.coverage("additive sites, 1,000 sites: coverage", [each.covered for each in totals]),
                TargetRow.of("its interval's width", [each.width for each in totals]),
                TargetRow.of(
                    "its competitions, with 100 for the null", [each.competitions for each in outcomes], most=5250
                ),
                TargetRow.rmse("its RMSE with room for small effects", [each.total_small.error for each in outcomes]),
            ]
        rows += [
            TargetRow.rmse(f"sites with effect > .1, {family}: RMSE", [each.error for each in above], most=2.0),
            TargetRow.coverage(f"sites with effect > .1, {family}: coverage", [each.covered for each in above]),
        ]
    return rows


def _additive_outcome(rng: Generator, *, family: str) -> _Additive:
    genome = additive_genome(rng, family)
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=int(rng.integers(2**62)))
    weights = asyncio.run(_weighed(organism, rng))
    counts = count_additive(weights, rng, above=[RESOLUTION])
    effects = np.array(list(genome.effects.values()))
    return _Additive(
        organism.num_asked,
        Counted.of(counts.total, int((effects > 0).sum())),
        Counted.of(counts.with_small, int((effects > 0).sum())),
        Counted.of(counts.above[0], int((effects > RESOLUTION).sum())),
    )


async def _weighed(organism: ReferenceOrganism, rng: Generator) -> SiteWeights:
    genome, settings = organism.genome.genome, WeighingSettings(error=0.0, most_competitions=5000)
    found = await measure_null_distribution(genome, organism.compete, rng, NullSettings())
    return await weigh_sites(genome, organism.compete, rng, settings, null=found.distribution())


@dataclass(frozen=True, slots=True)
class _Enumerated:
    competitions: int
    recall: float
    precision: float
    exact_sets: float
    false_sets: int
    functional: Counted
    false_sites: int
    missed_large: int


def measure_enumeration(rng: Generator, count: int) -> list[TargetRow]:
    """Measure sets and functional sites of organisms without noise, 4,000 and 10,000 sites."""
    small_rng, large_rng = rng.spawn(2)
    small = for_each(small_rng, count, partial(_exact_outcome, setting="epistatic"))
    large = for_each(large_rng, count, partial(_exact_outcome, setting="any_effect"))
    functional = [each.functional for each in large]
    return [
        TargetRow.of(
            "epistatic sites, 4,000 sites: recall", _each(small, "recall"), least=0.97, published=0.829, source=_PAGE
        ),
        TargetRow.of(
            "epistatic sites, 4,000 sites: precision",
            _each(small, "precision"),
            least=0.99,
            published=0.999,
            source=_PAGE,
        ),
        TargetRow.of(
            "its tests, with all effects", _each(small, "competitions"), most=5000, published=116_117, source=_PAGE
        ),
        TargetRow.of("sets found exactly, 4,000 sites: share", _each(small, "exact_sets"), least=0.95),
        TargetRow.of("sets found exactly, 10,000 sites: share", _each(large, "exact_sets"), least=0.98),
        TargetRow.of("sets that are none, 4,000 and 10,000 sites", _each([*small, *large], "false_sets")),
        TargetRow.rmse(
            "functional sites, 10,000 sites: RMSE",
            [each.error for each in functional],
            most=3.0,
            published=21.6,
            source=_PAGE,
        ),
        TargetRow.of("its bias", [each.error for each in functional], published=12.1, source=_PAGE),
        TargetRow.coverage("its coverage", [each.covered for each in functional], published=0.80, source=_PAGE),
        TargetRow.of(
            "its interval's width", [each.width for each in functional], most=12.0, published=54, source=_PAGE
        ),
        TargetRow.of("its tests", _each(large, "competitions"), most=7500, published=68_424, source=_PAGE),
    ]


def _exact_outcome(rng: Generator, *, setting: str) -> _Enumerated:
    genome: ReferenceGenome = getattr(ReferenceGenome, setting)(rng)
    return _compare(genome, asyncio.run(study(ReferenceOrganism(genome), rng)), rng)


def measure_report(rng: Generator, count: int) -> list[TargetRow]:
    """Measure a whole report under noise: 1,000 sites, 50 additive, 10 sets of 4."""
    outcomes = for_each(rng, count, _report_outcome)
    functional = [each.functional for each in outcomes]
    return [
        TargetRow.of("report, 1,000 sites: competitions", _each(outcomes, "competitions"), most=20_000),
        TargetRow.of("report: genomes without a false site", [each.false_sites == 0 for each in outcomes], least=0.95),
        TargetRow.of("report: additive sites of effect >= .4 not named", _each(outcomes, "missed_large"), most=0.0),
        TargetRow.of(
            "report: genomes with every effect >= .4 named", [each.missed_large == 0 for each in outcomes], least=0.95
        ),
        TargetRow.of("report: sites without effect named, in a genome", _each(outcomes, "false_sites"), most=0.05),
        TargetRow.of("report: sets found exactly, share", _each(outcomes, "exact_sets")),
        TargetRow.of("report: sets that are none", _each(outcomes, "false_sets")),
        TargetRow.rmse("report: functional sites, RMSE", [each.error for each in functional]),
        TargetRow.coverage("report: functional sites, coverage", [each.covered for each in functional]),
        TargetRow.of("report: functional sites, interval's width", [each.width for each in functional]),
    ]


def _report_outcome(rng: Generator) -> _Enumerated:
    genome = ReferenceGenome.demo(rng)
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=int(rng.integers(2**62)))
    return _compare(genome, asyncio.run(study(organism, rng)), rng)


def _compare(genome: ReferenceGenome, studied: Studied, rng: Generator) -> _Enumerated:
    found = studied.found
    true_sets = {frozenset(each.sites) for each in genome.sets}
    members = {site for each in found.sets for site in each}
    functional = count_functional(studied.weights, found, rng, above=RESOLUTION).total
    named = studied.weights.additive(ERROR_RATE)
    return _Enumerated(
        competitions=studied.competitions,
        recall=len(members & genome.epistatic_sites) / max(1, len(genome.epistatic_sites)),
        precision=len(members & genome.epistatic_sites) / max(1, len(members)),
        exact_sets=len(true_sets & set(found.sets)) / max(1, len(true_sets)),
        false_sets=len(set(found.sets) - true_sets),
        functional=Counted.of(functional, len(genome.functional_sites)),
        false_sites=len(studied.named - genome.functional_sites),
        missed_large=sum(effect >= _LARGE and site not in named for site, effect in genome.effects.items()),
    )


def _each(outcomes: Sequence[_Enumerated], name: str) -> list[float]:
    return [float(getattr(each, name)) for each in outcomes]
