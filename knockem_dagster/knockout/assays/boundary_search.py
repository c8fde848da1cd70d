"""Finding the first site of an order that matters, by asking about prefixes, with a confirmation at the end.

The posterior over where it is comes from `boundary`; what a prefix is asked is the caller's. This is the core of
prefix search for skeletons and of the search for the members of a set.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.boundary import Boundary
from knockem_dagster.knockout.assays.group_tests import Question, Tests
from knockem_dagster.knockout.assays.sequential import SequentialBounds, Verdict, test_together
from knockem_dagster.knockout.competitions import Untestable


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a search decides.

    `resolution` is the smallest effect it looks for (thresholds), and `error_rate` the wrong confirmations a skeleton
    may expect, spread over `expected_confirmations` of sites that are not critical. A boundary is found at
    probability `certainty`, and the rest of the order passes at `tail_certainty`; what is absorbed without a boundary
    may hold one with probability `overlooked`. Looking for one boundary ends after competitions worth `patience`
    (expected log likelihood ratio), one confirmation after `cap` competitions. `width` questions are asked at a time.
    """

    resolution: float = 0.4
    error_rate: float = 0.05
    expected_confirmations: float = 20.0
    certainty: float = 0.9
    tail_certainty: float = 0.98
    overlooked: float = 0.02
    patience: float = 25.0
    cap: int = 120
    width: int = 1

    @property
    def bounds(self) -> SequentialBounds:
        """Return the bounds of a confirmation."""
        return SequentialBounds.for_error_rate(
            self.error_rate, expected_tests=self.expected_confirmations, cap=self.cap
        ).confirming()


@dataclass(frozen=True, slots=True)
class Found:
    """The first site that is critical or untestable, as a position among the candidates, or one that just passed.

    Everything before it passes; `verdict` is NO_EFFECT where it does so, too. No position: all of them pass.
    """

    position: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Probed:
    num_competitions: int
    lost: bool


class BoundarySearch:
    """Finds the first site of an order at which the answer changes, by asking about prefixes."""

    def __init__(self, tests: Tests, settings: SearchSettings) -> None:
        self._tests = tests
        self._settings = settings

    async def first(
        self,
        candidates: NDArray[np.int64],
        chances: NDArray[np.float64],
        question: Callable[[NDArray[np.int64]], Question],
        confirm: Callable[[int], Awaitable[Verdict]],
    ) -> Found:
        """Find the first candidate that matters, each having such a chance to.

        `question` asks whether a prefix holds one that does; `confirm` looks again at the candidate of this position.
        """
        boundary = Boundary(chances)
        patience = self._patience()
        while True:
            probed = await self._probe(boundary, candidates, question, patience)
            patience -= probed.num_competitions
            if boundary.best == boundary.none and (self._is_found(boundary) or not candidates.size):
                return Found(None, Verdict.NO_EFFECT)
            position = boundary.best_site
            if self._tests.model.is_exact and not probed.lost:
                return Found(position, Verdict.EFFECT)
            verdict = await confirm(position)
            if verdict is not Verdict.NO_EFFECT:
                return Found(position, verdict)
            # Small effects add up in a prefix without any site being critical: then a background that holds them
            # already shows the next site more clearly than more competitions on the old one would.
            passing = boundary.passing(self._settings.overlooked) if boundary.rule_out(position) else position + 1
            if passing > position or patience <= 0:
                return Found(passing - 1 if passing else position, verdict)

    async def confirm(self, question: Question) -> Verdict:
        """Return EFFECT, NO_EFFECT (also when the cap was reached: it is below the resolution) or UNTESTABLE."""
        [verdict] = await self.confirm_all([question])
        return verdict

    async def confirm_all(self, questions: Sequence[Question]) -> list[Verdict]:
        """Do so for several questions side by side."""
        settings = self._settings
        results = await test_together(
            self._tests, questions, resolution=settings.resolution, bounds=settings.bounds, width=settings.width
        )
        undecided = Verdict.UNDECIDED
        return [Verdict.NO_EFFECT if each.verdict is undecided else each.verdict for each in results]

    def _patience(self) -> float:
        """Return how many competitions finding one boundary may take."""
        if self._tests.model.is_exact:
            return math.inf
        return self._settings.patience / self._tests.model.information(self._settings.resolution)

    async def _probe(
        self,
        boundary: Boundary,
        candidates: NDArray[np.int64],
        question: Callable[[NDArray[np.int64]], Question],
        patience: float,
    ) -> _Probed:
        """Ask about prefixes of the candidates until the boundary is found or patience is at its end."""
        spent, lost = 0, False
        while spent < patience and not self._is_found(boundary):
            lengths = boundary.probes(self._settings.width)
            answers = await self._tests.evidence(
                [question(candidates[:length]) for length in lengths], effect=self._settings.resolution
            )
            for length, answer in zip(lengths, answers, strict=True):
                spent += 1
                # A prefix that cannot be tested counts as failing, until the site that makes it so is looked at alone.
                lost = lost or isinstance(answer, Untestable)
                boundary.update(length, math.inf if isinstance(answer, Untestable) else answer)
        return _Probed(spent, lost)

    def _is_found(self, boundary: Boundary) -> bool:
        if self._tests.model.is_exact or boundary.is_certain:
            return boundary.is_certain
        position = boundary.best
        needed = self._settings.tail_certainty if position == boundary.none else self._settings.certainty
        return boundary.probability(position) >= needed
