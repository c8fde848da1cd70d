"""Do the assays reach their targets? Each row with its standard error and n, beside the published procedure.

    python -m benchmarks.statistics [--scale 0.3] [--seed 1] [--json] [--write FILE]

At scale 1 every row has its full n (about an hour on two cores). A row whose target lies within two standard errors is
undecided.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from scipy import special

from benchmarks import targets as presentation
from benchmarks.conditions import measure_conditions
from benchmarks.monotone import MonotoneOrganism
from benchmarks.promises import measure_budgets, measure_plans
from benchmarks.published import false_positive_rates
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from benchmarks.results import Group, measure
from benchmarks.targets import TargetRow
from benchmarks.weighing import measure_additive, measure_enumeration, measure_report
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeleton
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeleton, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.published.skeletons import SkeletonSettings, skeletonize
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel

_PAGE = "reported"
_HERE = "measured here"
_RESOLUTION = 0.4


def run(scale: float, seed: int) -> list[TargetRow]:
    """Measure every row, at `scale` times its full n."""
    return [row for group in groups(scale, seed) for row in group.measure()]


def groups(scale: float, seed: int) -> list[Group]:
    """Return all rows in groups, each with random numbers of its own, to be measured at `scale` times their full n."""
    measures: list[tuple[str, Callable[[Generator], list[TargetRow]]]] = [
        ("identity", lambda rng: [_measure_identity(rng, scaled(10_000))]),
        (
            "cold skeletons, 4,000 sites",
            lambda rng: _measure_cold(rng, "4,000", ReferenceGenome.epistatic, scaled(60), published=5597),
        ),
        (
            "cold skeletons, 10,000 sites",
            lambda rng: _measure_cold(rng, "10,000", ReferenceGenome.any_effect, scaled(100), published=13_685),
        ),
        ("later skeletons", lambda rng: _measure_later(rng, scaled(10))),
        ("skeletons under noise", lambda rng: _measure_neutral(rng, scaled(200))),
        ("false positives", lambda rng: [_measure_false_positives(rng, scaled(1000))]),
        ("additive sites under noise", lambda rng: measure_additive(rng, scaled(60))),
        ("sets without noise", lambda rng: measure_enumeration(rng, scaled(50))),
        ("report under noise", lambda rng: measure_report(rng, scaled(100))),
        ("plans", lambda rng: measure_plans(rng, scaled(20))),
        ("budgets", lambda rng: measure_budgets(rng, scaled(10))),
        ("other conditions", lambda rng: measure_conditions(rng, scaled(16))),
    ]

    def scaled(count: int) -> int:
        return max(2, round(count * scale))

    rngs = default_rng(seed).spawn(len(measures))
    return [Group(name, partial(rows, rng)) for (name, rows), rng in zip(measures, rngs, strict=True)]


def _measure_identity(rng: Generator, comparisons: int) -> TargetRow:
    same = [asyncio.run(equals_greedy(child)) for child in rng.spawn(comparisons)]
    return TargetRow.of("prefix search equals greedy, monotone organisms: share", same, least=1.0, needed=10_000)


async def equals_greedy(rng: Generator) -> bool:
    """Tell whether prefix search keeps what greedy keeps, on one random monotone organism, prior and width."""
    organism = MonotoneOrganism.draw(rng)
    order = rng.permutation(organism.num_sites)
    prior = SitePrior.uninformed(organism.num_sites)
    if rng.random() < 0.5:
        prior = SitePrior(rng.random(organism.num_sites), RunningRate(0.5, float(rng.uniform(0.5, 5)), 0.6))
    settings = PrefixSkeletonSettings(search=SearchSettings(width=int(rng.integers(1, 5))))
    found = await search_skeleton(
        organism.compete, order, settings, model=organism.model(), prior=prior, purpose="skeleton 0"
    )
    return set(np.flatnonzero(found.kept).tolist()) == organism.greedy(order)


def _measure_cold(
    rng: Generator, size: str, draw: Callable[[Generator], ReferenceGenome], count: int, *, published: float
) -> list[TargetRow]:
    outcomes = [asyncio.run(_cold_outcome(child, draw(child))) for child in rng.spawn(count)]
    tests = [found.num_competitions for found, _ in outcomes]
    ratios = [found.num_competitions / _log2_choose(found.kept.size, found.kept.sum()) for found, _ in outcomes]
    one_pass = float(outcomes[0][0].kept.size)
    return [
        TargetRow.of(f"cold skeleton, {size} sites: tests", tests, published=published, source=_PAGE),
        TargetRow.of(f"cold skeleton, {size} sites: tests of one pass", [one_pass] * count, source=_HERE),
        TargetRow.of(f"cold skeleton, {size} sites: tests / log2 C(N, k)", ratios, most=1.02),
        TargetRow.of(f"cold skeleton, {size} sites: identical to greedy", [same for _, same in outcomes], least=1.0),
    ]


async def _cold_outcome(rng: Generator, genome: ReferenceGenome) -> tuple[PrefixSkeleton, bool]:
    organism = ReferenceOrganism(genome)
    found = await search_skeleton(
        organism.compete,
        rng.permutation(genome.num_sites),
        PrefixSkeletonSettings(),
        model=await _model_of(organism, rng),
        prior=SitePrior.uninformed(genome.num_sites),
        purpose="skeleton 0",
    )
    return found, is_greedy(genome, found)


def is_greedy(genome: ReferenceGenome, found: PrefixSkeleton) -> bool:
    """Tell whether a skeleton keeps what one pass of greedy deletion in its order keeps, by the definition.

    A deletion is judged by the cost of all deletions so far, followed site by site.
    """
    organism = ReferenceOrganism(genome)
    deleted, kept = KnockoutSet.none(genome.num_sites), np.zeros(genome.num_sites, dtype=bool)
    for site in found.order.tolist():
        trial = deleted.with_site(site)
        if organism.is_detectable(trial):
            kept[site] = True
        else:
            deleted = trial
    return bool(np.array_equal(kept, found.kept))


def _measure_later(rng: Generator, count: int) -> list[TargetRow]:
    costs, bounds, first = [], [], []
    settings = PrefixSkeletonSettings(skeletons=20)
    for child in rng.spawn(count):
        organism = ReferenceOrganism(ReferenceGenome.epistatic(child))
        model = asyncio.run(_model_of(organism, child))
        found = asyncio.run(
            search_skeletons(organism.genome.genome, organism.compete, child, settings, model=model)
        ).skeletons
        cost = [each.num_competitions / (int(each.kept.sum()) + 1) for each in found]
        first.append(float(np.mean(cost[: settings.wave])))
        costs.append(float(np.mean(cost[settings.wave :])))
        bounds.append(float(np.mean([_surprise(found, number, settings.wave) for number in range(settings.wave, 20)])))
    return [
        TargetRow.of("first wave, 4,000 sites: tests / (k + 1)", first, published=5597 / 209, source=_PAGE),
        TargetRow.of(
            "later skeletons, 4,000 sites: tests / (k + 1)", costs, most=2.0, published=5597 / 209, source=_PAGE
        ),
        TargetRow.of("later skeletons, 4,000 sites: bits of surprise / (k + 1)", bounds),
    ]


def _surprise(found: tuple[PrefixSkeleton, ...], number: int, wave: int) -> float:
    """Return the bits / (k + 1) that a skeleton tells who knows the prior it was searched with.

    No search hears more than one bit a test. None needs less than one test for each kept site, either.
    """
    prior = SitePrior.from_kept(np.array([each.kept for each in found[: number - number % wave]]))
    kept = found[number].kept
    chance = np.clip(prior.weights, 1e-5, 1 - 1e-5)
    return float(-np.log2(np.where(kept, chance, 1 - chance)).sum() / (kept.sum() + 1))


@dataclass(frozen=True, slots=True)
class _Noisy:
    neutral: int
    competitions: int
    missed: int
    hidden_sets: int
    residual: float
    covered: bool


def _measure_neutral(rng: Generator, count: int) -> list[TargetRow]:
    outcomes = [asyncio.run(_noisy_outcome(child)) for child in rng.spawn(count)]
    published = [asyncio.run(_published_neutral(child)) for child in rng.spawn(max(2, count // 20))]
    neutral = TargetRow.of(
        "neutral sites kept, 1,000 sites, r = .4",
        [each.neutral for each in outcomes],
        most=0.05,
        needed=100,
        published=float(np.mean(published)),
        source=f"{_HERE}, one pass of 1,000 tests, n = {len(published)}",
    )
    return [
        neutral,
        TargetRow.of(
            "its competitions, with 100 for the null",
            [each.competitions for each in outcomes],
            most=3200,
            published=11_255,
            source=_PAGE,
        ),
        TargetRow.of("its additive sites of effect >= .4 not kept", [each.missed for each in outcomes]),
        TargetRow.of("its sets without a kept member", [each.hidden_sets for each in outcomes]),
        TargetRow.of("its true residual effect", [each.residual for each in outcomes]),
        TargetRow.of("its residual's 95% interval holds the true one: share", [each.covered for each in outcomes]),
    ]


async def _noisy_outcome(rng: Generator) -> _Noisy:
    genome = ReferenceGenome.demo(rng)
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=int(rng.integers(2**62)))
    model = await _model_of(organism, rng)
    found = await search_skeleton(
        organism.compete,
        rng.permutation(genome.num_sites),
        PrefixSkeletonSettings(search=SearchSettings(resolution=_RESOLUTION)),
        model=model,
        prior=SitePrior.uninformed(genome.num_sites),
        purpose="skeleton 0",
    )
    kept = set(np.flatnonzero(found.kept).tolist())
    large = {site for site, effect in genome.effects.items() if effect >= _RESOLUTION}
    residual = genome.effect(found.deleted)
    return _Noisy(
        neutral=len(kept - genome.functional_sites),
        competitions=organism.num_asked,
        missed=len(large - kept),
        hidden_sets=sum(not kept & set(each.sites) for each in genome.sets),
        residual=residual,
        covered=found.residual.low <= residual <= found.residual.high,
    )


async def _published_neutral(rng: Generator) -> float:
    genome = ReferenceGenome.demo(rng)
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=int(rng.integers(2**62)))
    null = await _null_of(organism, rng)
    skeletons = await skeletonize(genome.genome, organism.compete, rng, SkeletonSettings(skeletons=1), null=null)
    return float(len(set(np.flatnonzero(skeletons.kept[0]).tolist()) - genome.functional_sites))


def _measure_false_positives(rng: Generator, num_sets: int) -> TargetRow:
    rates = false_positive_rates(rng, num_sets=num_sets, num_null=100, num_tests=1000)
    return TargetRow.of(
        "false-positive rate of detection, nominal .01",
        rates.tolist(),
        least=0.008,
        most=0.012,
        published=0.0194,
        source=_PAGE,
    )


async def _null_of(organism: ReferenceOrganism, rng: Generator) -> NullDistribution:
    settings = NullSettings(replicates=2 if organism.mode == "exact" else 100)
    competitions = await measure_null_distribution(organism.genome.genome, organism.compete, rng, settings)
    return competitions.distribution(stated_unit=organism.stated_unit)


async def _model_of(organism: ReferenceOrganism, rng: Generator) -> ScoreModel:
    return ScoreModel.fit(await _null_of(organism, rng))


def _log2_choose(total: int, chosen: int) -> float:
    return float(
        special.gammaln(total + 1) - special.gammaln(chosen + 1) - special.gammaln(total - chosen + 1)
    ) / math.log(2)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale", type=float, default=0.3, help="share of the full n (default 0.3: within 20 minutes on two cores)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of genomes and assays (default 1)")
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the result, group by group, and go on from it")
    arguments = parser.parse_args()
    scale, seed, path = arguments.scale, arguments.seed, arguments.write
    rows = run(scale, seed) if path is None else measure("statistics", groups, scale=scale, seed=seed, path=path)
    if arguments.json:
        print(presentation.as_json(rows))
    else:
        presentation.print_table(rows, title="The assays and their targets")


if __name__ == "__main__":
    main()
