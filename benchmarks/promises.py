"""Rows of `bench statistics` on what a study costs: plans that hold, budgets that are kept and well spent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.parallel import for_each
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism
from benchmarks.targets import TargetRow
from benchmarks.whole_study import ERROR_RATE, RESOLUTION, study
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.estimates import ADDITIVE_SITES
from knockem_dagster.knockout.planning import Need, Wanted, plan_study

BUDGETS = (200, 1000, 5000, 20_000)
_NUM_SITES = 1000


@dataclass(frozen=True, slots=True)
class _Spent:
    asked: int
    named: int
    width: float


def measure_plans(rng: Generator, count: int) -> list[TargetRow]:
    """Plan once, and study so many demonstration genomes: do they take what the plan says?"""
    plan_rng, study_rng = rng.spawn(2)
    allotment = Allotment(_NUM_SITES, RESOLUTION, ERROR_RATE, None)
    needs = asyncio.run(plan_study(allotment, plan_rng, Wanted(), is_exact=False))
    asked = [each.asked for each in for_each(study_rng, count, partial(_spend, budget=None))]
    nearest = _nearest(needs)
    within = [nearest.low <= each <= nearest.high for each in asked]
    return [
        TargetRow.of("plan, 1,000 sites, 10% functional: studies within its range", within, least=0.9),
        TargetRow.of("its range: lower end", [nearest.low] * 2),
        TargetRow.of("its range: upper end", [nearest.high] * 2),
        TargetRow.of("its studies: competitions", asked),
    ]


def measure_budgets(rng: Generator, count: int) -> list[TargetRow]:
    """Study the same demonstration genomes within each budget."""
    rows: list[TargetRow] = []
    seed = int(rng.integers(2**62))
    for budget in BUDGETS:
        spent = for_each(default_rng(seed), count, partial(_spend, budget=budget))
        words = f"budget of {budget:,}"
        rows += [
            TargetRow.of(f"{words}: most competitions", [max(each.asked for each in spent)] * 2, most=budget),
            TargetRow.of(f"{words}: sites named", [each.named for each in spent]),
            TargetRow.of(f"{words}: width of the additive count", [each.width for each in spent]),
        ]
    return rows


def _nearest(needs: list[Need]) -> Need:
    """Return what is planned for the share of functional sites that the demonstration genome comes nearest to."""
    genome = ReferenceGenome.demo(default_rng(0))
    share = len(genome.functional_sites) / genome.num_sites
    return min(needs, key=lambda need: abs(need.share - share))


def _spend(rng: Generator, *, budget: int | None) -> _Spent:
    genome = ReferenceGenome.demo(rng)
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=int(rng.integers(2**62)))
    studied = asyncio.run(study(organism, rng, budget=budget))
    table = studied.estimates
    first = table[table["quantity"] == ADDITIVE_SITES].iloc[0]
    return _Spent(
        studied.competitions, len(studied.named), float(np.nan_to_num(first["high"] - first["low"], nan=1000))
    )
