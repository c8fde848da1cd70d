"""Weighing sites against one another: competitions between random knockouts, and a regression on who lacked what.

Both sides of a competition are knockouts of about equally many sites, so that their losses nearly cancel and the score
stays where it tells most (a chemical balance: Hotelling 1944). Each site takes part in a large share of all
competitions, on either side, and its effect is what it adds, all others accounted for. The first doses are found by
stochastic approximation (Robbins and Monro 1951); then sites known to be heavy take part rarely, which leaves room for
many more of the light ones. Effects are taken to add up: what does not is for the assays of sets to find.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import require_tolerable
from knockem_dagster.knockout.assays.losses import Losses
from knockem_dagster.knockout.assays.site_weights import LETHAL, SiteWeights
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimators.residuals import ResidualSummary
from knockem_dagster.knockout.estimators.sparse_regression import SparseFit, fit_effects
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

_STEP, _STEP_DECAY = 2.0, 0.8
_HEAVY = 0.25
_HEAVY_ERRORS = 5.0
"""A site is heavy when its effect is at least so large (thresholds), by so many standard errors."""
_LIGHT_SPREAD = 0.8
_HEAVY_SPREAD = 0.5
"""Standard deviation, in thresholds, of what light and heavy sites together do to a competition."""


@dataclass(frozen=True, slots=True)
class WeighingGoal:
    """When weighing ends: at a standard error of `error` (thresholds), or after `most_competitions`."""

    error: float
    most_competitions: int


@dataclass(frozen=True, slots=True)
class WeighingSettings:
    """How much is weighed: until a site's standard error is `error` (thresholds), or `most_competitions` are asked.

    `dose_tests` of them find the first dose. The first wave has `first_wave` competitions, later ones as many as seem
    to be needed, at most twice what was asked before. No side of a competition lacks more than the share
    `largest_share` of sites, lest sets be lost wholly. The share `tolerated_untested` of competitions may have no
    answer.
    """

    error: float = 0.015
    most_competitions: int = 100_000
    dose_tests: int = 40
    first_wave: int = 500
    largest_share: float = 0.15
    tolerated_untested: float = 0.05

    @property
    def goal(self) -> WeighingGoal:
        """Return when weighing ends."""
        return WeighingGoal(self.error, self.most_competitions)


@dataclass(frozen=True, slots=True)
class _Pair:
    alpha: KnockoutSet
    beta: KnockoutSet


Told = Callable[[SiteWeights], Awaitable[object]]


async def _to_nobody(_: SiteWeights) -> None:
    pass


async def weigh_sites(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: WeighingSettings,
    *,
    null: NullDistribution,
    earlier: Sequence[WeighingGoal] = (),
    told: Told = _to_nobody,
) -> SiteWeights:
    """Weigh all sites of a noisy organism. Raises AssayError when too many competitions are untestable.

    A weighing that goes on where others ended is given their goals as `earlier`: it asks what they asked, in the same
    order, before it asks more. `told` hears what each wave came to, but for the last.
    """
    return await _Weighing(genome, compete, rng, settings, null).weigh([*earlier, settings.goal], told)


class _Weighing:
    def __init__(
        self,
        genome: Genome,
        compete: Compete,
        rng: Generator,
        settings: WeighingSettings,
        null: NullDistribution,
    ) -> None:
        self._num_sites = genome.num_sites
        self._compete = compete
        self._rng = rng
        self._settings = settings
        self._null = null
        self._data = _Data(genome.num_sites, null)
        self._num_asked = 0
        self._num_waves = 0
        self._num_in_waves = 0
        self._losses = Losses(genome.num_sites)
        self._sites = np.arange(genome.num_sites)
        self._fit: SparseFit | None = None
        self._log_dose = math.log(max(1.0, self._largest_dose(self._num_sites) / 8))
        self._num_dose_tests = 0

    async def weigh(self, goals: Sequence[WeighingGoal], told: Told) -> SiteWeights:
        fits = [await self._reach(goal, told) for goal in goals]
        return self._weights(fits[-1])

    async def _reach(self, goal: WeighingGoal, told: Told) -> SparseFit:
        """Go on from where the goal before was reached: what is asked until then knows nothing of goals to come."""
        await self._find_dose(goal)
        fit = self._fit
        uninformed = min(self._left(goal), max(0, self._settings.first_wave - self._num_in_waves))
        if uninformed or fit is None or fit.deviations.size < self._data.size:
            fit = await self._wave(self._pairs(uninformed, self._first_dose))
        while size := self._next_wave(goal, fit):
            await told(self._weights(fit))
            fit = await self._wave(self._informed_pairs(size, fit))
        return fit

    async def _wave(self, pairs: Sequence[_Pair]) -> SparseFit:
        """Ask the next wave and return what all answers tell; a fit to a part of the first one is no start."""
        start = self._fit if self._num_in_waves >= self._settings.first_wave else None
        self._num_waves += 1
        self._num_in_waves += len(pairs)
        await self._ask(self._num_waves, pairs)
        self._fit = fit = self._data.fit(start)
        return fit

    def _left(self, goal: WeighingGoal) -> int:
        return max(0, goal.most_competitions - self._num_asked)

    def _next_wave(self, goal: WeighingGoal, fit: SparseFit) -> int:
        """Return how many more competitions are worth asking for, as errors fall with the root of their number."""
        asked_of = np.setdiff1d(self._sites, np.flatnonzero(self._is_lethal(fit)))
        if not asked_of.size:
            return 0
        error = float(np.median(fit.error[asked_of])) / self._unit(fit)
        if error <= goal.error:
            return 0
        needed = self._num_asked * ((error / goal.error) ** 2 - 1) if goal.error else math.inf
        return int(min(self._left(goal), 2 * self._num_asked, max(needed, self._settings.first_wave / 4)))

    async def _find_dose(self, goal: WeighingGoal) -> None:
        """Look for the dose of both sides at which half of all competitions are detected, on either side."""
        largest = self._largest_dose(self._num_sites)
        for number in range(self._num_dose_tests, min(self._settings.dose_tests, goal.most_competitions)):
            angle = await self._ask(0, self._pairs(1, self._first_dose), number)
            detected = abs(angle) > 2.3263 * self._null.angle_sd
            self._log_dose += _STEP / (number + 2) ** _STEP_DECAY * (0.5 - detected)
            self._log_dose = min(max(self._log_dose, 0.0), math.log(largest))
            self._num_dose_tests += 1

    @property
    def _first_dose(self) -> int:
        return min(self._largest_dose(self._num_sites), max(1, round(math.exp(self._log_dose))))

    def _largest_dose(self, num_sites: int) -> int:
        return max(1, int(min(self._settings.largest_share, 0.5) * num_sites))

    def _pairs(self, count: int, dose: int) -> list[_Pair]:
        return [self._pair(group) for group in self._groups(self._sites, 2 * dose, count)]

    def _informed_pairs(self, count: int, fit: SparseFit) -> list[_Pair]:
        """Draw pairs in which light sites take part as often as their effects allow, and heavy ones rarely.

        Lethal ones never do: where one is missing the scale ends, and nothing is told of the others.
        """
        unit = self._unit(fit)
        size = np.abs(fit.mean)
        is_heavy = (size > _HEAVY * unit) & (size > _HEAVY_ERRORS * fit.error)
        is_lethal = self._is_lethal(fit)
        heavy, light = self._sites[(is_heavy & ~is_lethal)[self._sites]], self._sites[~is_heavy[self._sites]]
        num_heavy = 2 * self._dose(fit, heavy, _HEAVY_SPREAD * unit)
        num_light = 2 * self._dose(fit, light, _LIGHT_SPREAD * unit)
        groups = zip(self._groups(heavy, num_heavy, count), self._groups(light, num_light, count), strict=True)
        return [self._pair(np.concatenate(group)) for group in groups]

    def _is_lethal(self, fit: SparseFit) -> NDArray[np.bool_]:
        size = np.abs(fit.mean)
        return (size > LETHAL * self._unit(fit)) & (size > _HEAVY_ERRORS * fit.error)

    def _dose(self, fit: SparseFit, sites: NDArray[np.int64], spread: float) -> int:
        """Return how many of these sites on each side make a difference with this standard deviation (drift)."""
        if not sites.size:
            return 0
        mean_square = float((fit.mean[sites] ** 2).mean())
        allowed = spread**2 / (2 * mean_square) if mean_square else math.inf
        return int(min(self._largest_dose(sites.size), max(1.0, allowed)))

    def _groups(self, sites: NDArray[np.int64], size: int, count: int) -> Iterator[NDArray[np.int64]]:
        """Yield groups of sites, cut from one random order after another so that all take part about equally often."""
        size = min(size, sites.size)
        order, start = sites, sites.size
        for _ in range(count):
            if start + size > sites.size:
                order, start = self._rng.permutation(sites), 0
            yield order[start : start + size]
            start += size

    def _pair(self, group: NDArray[np.int64]) -> _Pair:
        """Let a coin decide on which side each of these sites is missing, while the sides are not full.

        Were both sides always equally large, an effect that all sites have would cancel in every competition.
        """
        on_beta = self._rng.random(group.size) < 0.5
        largest = self._largest_dose(self._num_sites)
        alpha, beta = group[~on_beta][:largest], group[on_beta][:largest]
        return _Pair(KnockoutSet.of(alpha, self._num_sites), KnockoutSet.of(beta, self._num_sites))

    async def _ask(self, wave: int, pairs: Sequence[_Pair], first: int = 0) -> float:
        """Ask a wave; return the angle of the last answer, zero where there is none."""
        purpose = f"weighing {wave}" if wave else "dose"
        answers = await self._compete(
            [Competition(pair.alpha, pair.beta, purpose, first + number) for number, pair in enumerate(pairs)]
        )
        self._num_asked += len(pairs)
        angle = 0.0
        for pair, answer in zip(pairs, answers, strict=True):
            if isinstance(answer, Counts):
                angle = self._null.angle(score(answer))
                self._data.add(wave, pair, angle)
            else:
                self._losses.add(pair.alpha | pair.beta, answer)
        if wave:
            self._leave_out(self._losses.culprits(self._data.took_part))
        return angle

    def _leave_out(self, culprits: NDArray[np.int64]) -> None:
        """Ask no more with sites that no answer was had of. AssayError if that leaves too many of anything lost."""
        self._sites = np.setdiff1d(self._sites, culprits)
        tolerated = self._settings.tolerated_untested
        left_out = np.setdiff1d(np.arange(self._num_sites), self._sites)
        unexplained = self._losses.without(left_out)
        asked = max(self._num_asked, self._settings.first_wave)
        require_tolerable(unexplained, asked=asked, tolerated=tolerated, assay="weighing")
        require_tolerable(
            self._losses.reasons[:1] * left_out.size,
            asked=self._num_sites,
            tolerated=tolerated,
            assay="weighing: sites",
        )

    def _unit(self, fit: SparseFit) -> float:
        return fit.link.threshold(self._null.level)

    def _weights(self, fit: SparseFit) -> SiteWeights:
        unit = self._unit(fit)
        return SiteWeights.of(
            fit.estimate / unit,
            fit.error / unit,
            fit.probability,
            angle_sd=fit.link.sd,
            drift=unit,
            unit_error=(2 * (self._null.n + self._num_asked / 3)) ** -0.5,
            num_competitions=self._num_asked,
            unit=self._null.unit,
            residuals=ResidualSummary.of(fit.deviations, self._data.waves, growth=-fit.link.narrowing),
        )


class _Data:
    """What was weighed so far, in the form that the regression takes."""

    def __init__(self, num_sites: int, null: NullDistribution) -> None:
        self._num_sites = num_sites
        self._null = null
        self.took_part = np.zeros(num_sites, dtype=np.int64)
        self._rows: list[NDArray[np.int8]] = []
        self._waves: list[int] = []
        self._angles: list[float] = []

    def add(self, wave: int, pair: _Pair, angle: float) -> None:
        row = np.zeros(self._num_sites, dtype=np.int8)
        row[pair.beta.sites] += 1
        row[pair.alpha.sites] -= 1
        self.took_part += row != 0
        self._rows.append(row)
        self._waves.append(wave)
        self._angles.append(angle)

    @property
    def size(self) -> int:
        return len(self._angles)

    @property
    def waves(self) -> NDArray[np.int64]:
        return np.array(self._waves, dtype=np.int64)

    def fit(self, start: SparseFit | None) -> SparseFit:
        return fit_effects(
            np.array(self._rows, dtype=np.int8).reshape(-1, self._num_sites),
            np.array(self._angles),
            self.waves,
            null_sd=self._null.angle_sd,
            num_null=self._null.n,
            start=start,
        )
