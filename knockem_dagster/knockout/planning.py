"""How many competitions a study will take: the assays themselves, asked of imagined genomes.

An imagined genome has as many sites as the real one, some of them functional. Effects are in detection thresholds, so
what the assays ask depends little on how noisy the organism is; its noise is taken to be normal in the score's angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Answer, Competition, Counts
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel, threshold_drift

SHARES = (0.01, 0.05, 0.10)
"""Shares of functional sites that a plan is made for."""
MOST_IMAGINED_SITES = 1500
"""Larger genomes are planned from one of this size: what is asked grows with the number of functional sites."""
_REPETITIONS = 2
_LATER_SKELETONS = 2
_CHEAPER_WITH_NOISE, _CHEAPER_WITHOUT = 0.6, 0.9
"""What a skeleton of the third wave and later takes, relative to one of the second."""
_MARGIN = 0.2
_ADDITIVE_SHARE = 0.55
_SET_SIZE = 4
_ANGLE_SD = 0.3
_INDIVIDUALS = 1_000_000
_EXACT_UNIT = 0.25


@dataclass(frozen=True, slots=True)
class Need:
    """About how many competitions a genome takes of which this `share` of sites is functional."""

    share: float
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The assays of a study that are planned; `skeletons` are those by prefix search, with the settings given."""

    weighing: bool = True
    sets: bool = True
    skeletons: PrefixSkeletonSettings | None = None


async def plan_study(allotment: Allotment, rng: Generator, wanted: Wanted, *, is_exact: bool) -> list[Need]:
    """Return what a study needs, for each of SHARES."""
    imagined = min(allotment.num_sites, MOST_IMAGINED_SITES)
    scale = allotment.num_sites / imagined
    small = Allotment(imagined, allotment.resolution, allotment.error_rate, None)
    needs: list[Need] = []
    for share in SHARES:
        asked = [
            await _asked(ImaginedOrganism.draw(child, imagined, share, is_exact), small, child, wanted)
            for child in rng.spawn(_REPETITIONS)
        ]
        low, high = ((1 - _MARGIN) * min(asked) * scale, (1 + _MARGIN) * max(asked) * scale)
        if allotment.budget is not None:
            low, high = min(low, allotment.budget), min(high, allotment.budget)
        needs.append(Need(share, round(low), round(high)))
    return needs


@dataclass(eq=False)
class ImaginedOrganism:
    """Competes as genomes with these `effects` (thresholds), shape (num_sites,), and sets with penalties would."""

    effects: NDArray[np.float64]
    sets: tuple[tuple[KnockoutSet, float], ...]
    is_exact: bool
    rng: Generator
    num_asked: int = 0

    @classmethod
    def draw(cls, rng: Generator, num_sites: int, share: float, is_exact: bool) -> ImaginedOrganism:
        """Draw a genome with this share of functional sites: effects U(0, .7), sets of four of penalty U(.7, 1.6)."""
        functional = max(1, round(share * num_sites))
        num_sets = round((1 - _ADDITIVE_SHARE) * functional / _SET_SIZE)
        chosen = rng.permutation(num_sites)
        num_additive = functional - _SET_SIZE * num_sets
        effects = np.zeros(num_sites)
        effects[chosen[:num_additive]] = rng.uniform(0, 0.7, num_additive)
        members = chosen[num_additive:functional].reshape(num_sets, _SET_SIZE)
        sets = tuple((KnockoutSet.of(each, num_sites), float(rng.uniform(0.7, 1.6))) for each in members)
        return cls(effects, sets, is_exact, rng)

    @property
    def stated_unit(self) -> float | None:
        """Return the score of one threshold, where there is no noise."""
        return _EXACT_UNIT if self.is_exact else None

    async def compete(self, competitions: Sequence[Competition]) -> list[Answer]:
        """Answer every competition, in order."""
        self.num_asked += len(competitions)
        return [self._answer(competition) for competition in competitions]

    def _answer(self, competition: Competition) -> Counts:
        lost = self._cost(competition.challenger) - self._cost(competition.background)
        if self.is_exact:
            score = 0.0 if abs(lost) < 1 else max(-1.0, min(1.0, _EXACT_UNIT * lost))
        else:
            drift = threshold_drift(_ANGLE_SD, 0.01) * lost
            angle = math.asin(math.tanh(drift)) + _ANGLE_SD * float(self.rng.standard_normal())
            score = math.sin(max(-math.pi / 2, min(math.pi / 2, angle)))
        alpha = round(_INDIVIDUALS * (1 + score) / 2)
        return Counts(1, alpha, _INDIVIDUALS - alpha)

    def _cost(self, knockout: KnockoutSet) -> float:
        own = float(self.effects[knockout.sites].sum())
        return own + sum(penalty for members, penalty in self.sets if members.issubset(knockout))


async def _asked(organism: ImaginedOrganism, allotment: Allotment, rng: Generator, wanted: Wanted) -> int:
    """Return how many competitions the assays ask of an imagined organism."""
    genome = Genome("imagined", organism.effects.size)
    replicates = NullSettings(2) if organism.is_exact else allotment.null_settings
    found = await measure_null_distribution(genome, organism.compete, rng, replicates)
    null = found.distribution(stated_unit=organism.stated_unit)
    model = ScoreModel.fit(null)
    if wanted.weighing:
        if organism.is_exact:
            weights = await weigh_exactly(genome, organism.compete, rng, ExactWeighingSettings(), model=model)
        else:
            settings = WeighingSettings(error=allotment.weighing_error)
            weights = await weigh_sites(genome, organism.compete, rng, settings, null=null)
        if wanted.sets:
            await find_sets(genome, organism.compete, rng, SetSearchSettings(), model=model, weights=weights)
    asked = organism.num_asked - replicates.replicates + allotment.null_settings.replicates
    if wanted.skeletons is not None:
        asked += await _asked_for_skeletons(organism, rng, wanted.skeletons, model)
    return asked


async def _asked_for_skeletons(
    organism: ImaginedOrganism, rng: Generator, settings: PrefixSkeletonSettings, model: ScoreModel
) -> int:
    """Return how many competitions all skeletons ask, from the first wave and a few of the second, which know it."""
    few = replace(settings, skeletons=min(settings.skeletons, settings.wave + _LATER_SKELETONS))
    genome = Genome("imagined", organism.effects.size)
    found = await search_skeletons(genome, organism.compete, rng, few, model=model)
    first, later = found.skeletons[: settings.wave], found.skeletons[settings.wave :]
    asked = sum(each.num_competitions for each in first)
    if later:
        of_second = min(settings.wave, settings.skeletons - len(first))
        cheaper = _CHEAPER_WITHOUT if model.is_exact else _CHEAPER_WITH_NOISE
        waves = of_second + cheaper * (settings.skeletons - len(first) - of_second)
        asked += round(waves * sum(each.num_competitions for each in later) / len(later))
    return asked
