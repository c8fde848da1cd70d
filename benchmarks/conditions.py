"""Rows of `bench statistics` on organisms unlike the paper's: is every count right, or is it said that it may not be?

Each condition is a family of genomes and a kind of organism. What is judged is what a report says of it, its table
`estimates`: over ALL genomes of a condition the share whose interval does not hold the truth, and beside it how many
were given no interval. A count without an interval names the check that failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from benchmarks.effect_families import FAMILIES
from benchmarks.parallel import for_each
from benchmarks.reference_organism import INDIVIDUALS, UPDATES, ReferenceGenome, ReferenceOrganism, wright_fisher
from benchmarks.targets import TargetRow
from benchmarks.whole_study import RESOLUTION, study
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.knockout.estimates import (
    ADDITIVE_SITES,
    EPISTATIC_SETS,
    FUNCTIONAL_ABOVE_RESOLUTION,
    FUNCTIONAL_SITES,
    SITES_ABOVE_RESOLUTION,
)

Noise = Callable[[Generator, NDArray[np.float64], int], NDArray[np.float64]]
"""From mean differences, shape (n,), and the number of the batch to differences of fractions, shape (n,)."""

_SD = 0.309
_RATE = 0.88
_BATCH = 100


def growing(rng: Generator, mean: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
    """Scatter more the larger the effect: twice as much at a threshold."""
    del batch
    return mean + _SD * (1 + 1.4 * np.abs(mean)) * rng.standard_normal(mean.size)


def skewed(rng: Generator, mean: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
    """Scatter with the skewness of a gamma distribution of shape 4 (skewness 1)."""
    del batch
    return mean + _SD * (rng.gamma(4.0, 0.5, mean.size) - 2.0)


def heavy_tailed(rng: Generator, mean: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
    """Scatter as Student's t with three degrees of freedom."""
    del batch
    return mean + _SD / math.sqrt(3) * rng.standard_t(3, mean.size)


def drifting(rng: Generator, mean: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
    """Scatter around a mean of its own in each batch of competitions."""
    offset = 0.5 * _SD * default_rng(batch).standard_normal()
    return mean + offset + _SD * rng.standard_normal(mean.size)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of organism: Wright-Fisher with `strength` times the usual selection, or scores with this `noise`.

    Of all results the share `exchanged` has alpha and beta exchanged. `exact` organisms have no noise.
    """

    exact: bool = False
    strength: float = 1.0
    noise: Noise | None = None
    exchanged: float = 0.0


class Organism(ReferenceOrganism):
    """The reference organism as another kind; effects of the genome are in the usual Wright-Fisher unit."""

    def __init__(self, genome: ReferenceGenome, kind: Kind, seed: int) -> None:
        super().__init__(genome, mode="exact" if kind.exact else "wright-fisher", seed=seed)
        self._kind = kind
        self._strength = kind.strength

    def answer(self, competition: Competition) -> Counts:
        """Return the counts of one competition."""
        counts = self._counts(competition)
        rng = default_rng([self.seed_of(competition), 1])
        if rng.random() < self._kind.exchanged:
            return Counts(counts.updates_elapsed, counts.num_beta, counts.num_alpha)
        return counts

    def _counts(self, competition: Competition) -> Counts:
        if self._kind.exact or (self._kind.noise is None and self._strength == 1.0):
            return super().answer(competition)
        batch = self.num_asked // _BATCH
        self.num_asked += 1
        effect = (self._cost_of(competition.challenger) - self._cost_of(competition.background)) / 10**12
        return _counts_of(np.array([effect]), self._kind, default_rng(self.seed_of(competition)), batch)[0]


def _counts_of(effects: NDArray[np.float64], kind: Kind, rng: Generator, batch: int) -> list[Counts]:
    if kind.noise is None:
        survivors = wright_fisher(kind.strength * effects, rng)
    else:
        difference = np.clip(kind.noise(rng, np.tanh(_RATE * effects), batch), -1, 1)
        survivors = np.rint(INDIVIDUALS * (1 + difference) / 2).astype(np.int64)
    return [Counts(UPDATES, int(each), int(INDIVIDUALS - each)) for each in survivors]


@cache
def effect_of_one_threshold(kind: Kind) -> float:
    """Return the effect whose mean score is what the null exceeds in 1% of competitions (simulated)."""
    if kind.exact:
        return 1.0
    rng = default_rng(0)

    def differences(effect: float, size: int) -> NDArray[np.float64]:
        parts = [
            [each.num_alpha - each.num_beta for each in _counts_of(np.full(size // 100, effect), kind, rng, batch)]
            for batch in range(100)
        ]
        return np.array(parts).ravel()

    threshold = np.quantile(differences(0.0, 200_000), 0.99)
    grid = np.linspace(0.2, 4.0, 20)
    means = np.array([differences(effect, 5000).mean() for effect in grid])
    return float(np.interp(threshold, means, grid))


Draw = Callable[[Generator], ReferenceGenome]


def _with_effects(draw: Callable[[Generator, int], NDArray[np.float64]], rng: Generator) -> ReferenceGenome:
    """Draw the demonstration genome's size and sets, with effects of another family."""
    genome = ReferenceGenome.demo(rng)
    return replace(genome, effects=dict(zip(genome.effects, draw(rng, len(genome.effects)).tolist(), strict=True)))


def beneficial(rng: Generator, count: int) -> NDArray[np.float64]:
    """Draw effects U(0, .7), a third of which are benefits."""
    return np.where(rng.random(count) < 1 / 3, -1, 1) * rng.uniform(0, 0.7, count)


def _overlapping(rng: Generator) -> ReferenceGenome:
    return ReferenceGenome.draw(rng, num_sites=1000, num_additive=50, num_sets=20, set_size=5, overlapping=True)


def _of_size(num_sites: int, num_additive: int, num_sets: int, rng: Generator) -> ReferenceGenome:
    return ReferenceGenome.draw(rng, num_sites=num_sites, num_additive=num_additive, num_sets=num_sets)


def _lethal(rng: Generator) -> ReferenceGenome:
    sites = rng.choice(1000, 20, replace=False).tolist()
    return ReferenceGenome(1000, dict.fromkeys(sites, 6.0))


@dataclass(frozen=True, slots=True)
class Condition:
    """Genomes of one family, the kind of organism they are, and of how many of them the usual number are judged."""

    draw: Draw
    kind: Kind = field(default_factory=Kind)
    share: float = 1.0


_EXACT = Kind(exact=True)

CONDITIONS: dict[str, Condition] = {
    "the usual": Condition(ReferenceGenome.demo),
    "weak selection (d1 = 1)": Condition(ReferenceGenome.demo, Kind(strength=1 / 2.25)),
    "strong selection (d1 = 5)": Condition(ReferenceGenome.demo, Kind(strength=5 / 2.25)),
    **{
        f"effects {name}": Condition(partial(_with_effects, each))
        for name, each in {**FAMILIES, "beneficial": beneficial}.items()
        if name != "uniform"
    },
    "overlapping sets": Condition(_overlapping),
    "50 sites": Condition(partial(_of_size, 50, 5, 2)),
    "200 sites": Condition(partial(_of_size, 200, 10, 3)),
    "no functional site": Condition(partial(_of_size, 1000, 0, 0)),
    "only lethal sites": Condition(_lethal),
    "spread grows with the effect": Condition(ReferenceGenome.demo, Kind(noise=growing)),
    "skewed scores": Condition(ReferenceGenome.demo, Kind(noise=skewed)),
    "heavy tails": Condition(ReferenceGenome.demo, Kind(noise=heavy_tailed)),
    "a null that drifts": Condition(ReferenceGenome.demo, Kind(noise=drifting)),
    "2% exchanged": Condition(ReferenceGenome.demo, Kind(exchanged=0.02)),
    "no noise": Condition(ReferenceGenome.demo, _EXACT),
    "no noise, constant": Condition(partial(_with_effects, FAMILIES["constant"]), _EXACT),
    "no noise, beneficial": Condition(partial(_with_effects, beneficial), _EXACT),
    "no noise, overlapping sets": Condition(_overlapping, _EXACT),
    "no noise, 50 sites": Condition(partial(_of_size, 50, 5, 2), _EXACT),
    "no noise, no functional site": Condition(partial(_of_size, 1000, 0, 0), _EXACT),
    "no noise, only lethal sites": Condition(_lethal, _EXACT),
    "no noise, 20,000 sites": Condition(partial(_of_size, 20_000, 400, 40), _EXACT, share=0.25),
    "no noise, 2% exchanged": Condition(ReferenceGenome.demo, Kind(exact=True, exchanged=0.02)),
    "20,000 sites": Condition(partial(_of_size, 20_000, 100, 10), share=0.1),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What a report said of one genome: of each quantity whether it was right, None where no interval was given.

    `false_sites` were named and have no effect.
    """

    covered: Mapping[str, bool | None]
    false_sites: int


QUANTITIES = {
    "total": ADDITIVE_SITES,
    "above .1": SITES_ABOVE_RESOLUTION,
    "sets": EPISTATIC_SETS,
    "functional": FUNCTIONAL_SITES,
    "functional, above .1": FUNCTIONAL_ABOVE_RESOLUTION,
}
"""The counts that are judged, and how the rows call them."""
_WRONG, _FALSE = ", wrong", "false sites"


def measure_conditions(rng: Generator, count: int, names: Sequence[str] | None = None) -> list[TargetRow]:
    """Judge the reports on `count` genomes of each condition, fewer where a genome is large."""
    chosen = list(CONDITIONS) if names is None else list(names)
    return [
        row
        for name, child in zip(chosen, rng.spawn(len(chosen)), strict=True)
        for row in _rows(name, for_each(child, max(2, round(count * CONDITIONS[name].share)), partial(_judge, name)))
    ]


def _rows(name: str, judged: Sequence[Judged]) -> list[TargetRow]:
    rows: list[TargetRow] = []
    for words, quantity in QUANTITIES.items():
        answers = [each.covered[quantity] for each in judged]
        wrong = TargetRow.of(f"{name}: {words}{_WRONG}", [each is False for each in answers])
        declined = sum(each is None for each in answers)
        rows.append(replace(wrong, source=f"{declined} of {len(answers)} declined" if declined else ""))
    rows.append(TargetRow.of(f"{name}: {_FALSE}", [each.false_sites for each in judged]))
    return rows


def matrix(rows: Sequence[TargetRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return these rows as one per condition: headings, then of each count how many intervals were wrong, or not given.

    A cell reads "wrong" or "wrong + not given"; the last column is the number of false sites in a genome.
    """
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        condition, _, quantity = row.name.partition(": ")
        cells = table.setdefault(condition, {"n": str(row.n)})
        wrong, declined = f"{row.value * row.n:.0f}", row.source.partition(" of ")[0]
        is_count = quantity.endswith(_WRONG)
        cells[quantity.removesuffix(_WRONG)] = (
            f"{row.value:.2g}" if not is_count else f"{wrong} + {declined}" if declined else wrong
        )
    columns = ("n", *QUANTITIES, _FALSE)
    return ("condition", *columns), [(name, *(cells[each] for each in columns)) for name, cells in table.items()]


def _judge(name: str, rng: Generator) -> Judged:
    condition = CONDITIONS[name]
    genome = condition.draw(rng)
    organism = Organism(genome, condition.kind, seed=int(rng.integers(2**62)))
    try:
        studied = asyncio.run(study(organism, rng))
    except AssayError:
        return Judged(dict.fromkeys(QUANTITIES.values()), 0)
    truths = _truths(genome, effect_of_one_threshold(condition.kind), studied.found.resolution)
    table = studied.estimates
    covered = {quantity: _is_covered(table[table["quantity"] == quantity], truths[quantity]) for quantity in truths}
    return Judged(covered, len(studied.named - genome.functional_sites))


def _is_covered(rows: pd.DataFrame, truth: float) -> bool | None:
    """Tell whether the interval that heads the report holds the truth; None where it gives none."""
    first = rows[~rows["method"].str.contains("room for many")].iloc[0]
    return None if math.isnan(first["low"]) else bool(first["low"] <= truth <= first["high"])


def _truths(genome: ReferenceGenome, unit: float, resolution: float) -> dict[str, int]:
    """Return what there is to be counted, where one threshold is an effect of `unit`."""
    sets = [each for each in genome.sets if each.penalty >= resolution * unit]
    members = {site for each in sets for site in each.sites}
    above = {site for site, effect in genome.effects.items() if abs(effect) > RESOLUTION * unit}
    return {
        ADDITIVE_SITES: len(genome.additive_sites),
        SITES_ABOVE_RESOLUTION: len(above),
        EPISTATIC_SETS: len(sets),
        FUNCTIONAL_SITES: len(genome.additive_sites | members),
        FUNCTIONAL_ABOVE_RESOLUTION: len(above | members),
    }
