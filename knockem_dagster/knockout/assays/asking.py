"""How assays ask: replacing what could not be tested, counting what was lost, running side by side.

The rules here keep what an assay asks independent of timing: waves depend on earlier answers
only, and a replacement has its own replicate number, so asking again finds the recorded answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.competitions import Answer, Compete, Competition, Counts, Untestable

_MOST_ASKS_PER_ANSWER = 3

Result = TypeVar("Result")


class BudgetSpent(AssayError):
    """The next competitions would be more than may be asked for; none of them was."""


@dataclass(slots=True)
class Budget:
    """How many competitions may still be asked for; each is spent before it is asked."""

    left: int = 10**12

    def spend(self, competitions: int) -> None:
        """Take so many. Raises BudgetSpent, and takes none, when fewer are left."""
        if competitions > self.left:
            raise BudgetSpent(f"{competitions} more competitions would exceed the budget; {self.left} are left")
        self.left -= competitions


@dataclass(frozen=True, slots=True)
class Asked:
    """A competition and its answer."""

    competition: Competition
    answer: Answer


async def ask_with_replacement(
    compete: Compete,
    draw: Callable[[int, int], Competition],
    *,
    slots: int,
    most_asks_per_slot: int | None = None,
) -> list[Asked]:
    """Ask `draw(slot, attempt)` for every slot, and again with the next attempt where it was untestable.

    Returns the last question and answer of each slot, shape (slots,). An answer is still Untestable only
    when a slot was asked `most_asks_per_slot` times, or all slots together three times their number.
    """
    asked: list[Asked | None] = [None] * slots
    open_slots = list(range(slots))
    budget = _MOST_ASKS_PER_ANSWER * slots
    attempt = 0
    while open_slots and budget and (most_asks_per_slot is None or attempt < most_asks_per_slot):
        wave = [draw(slot, attempt) for slot in open_slots[:budget]]
        budget -= len(wave)
        answers = await compete(wave)
        for slot, competition, answer in zip(open_slots, wave, answers, strict=False):
            asked[slot] = Asked(competition, answer)
        open_slots = [slot for slot in open_slots if not _is_answered(asked[slot])]
        attempt += 1
    return [one for one in asked if one is not None]


def require_answers(asked: Sequence[Asked], assay: str) -> list[tuple[Competition, Counts]]:
    """Return every question with its counts. Raises AssayError when one is still untestable."""
    lost = [one.answer for one in asked if isinstance(one.answer, Untestable)]
    if lost:
        raise AssayError(
            f"{assay}: {len(lost)} of {len(asked)} competitions stayed untestable after replacements of up to "
            f"{_MOST_ASKS_PER_ANSWER} times as many; first reason: {lost[0].reason}. If what made them fail "
            "has passed, resume the study; else run `./knockem check`, mend the organism and submit it again"
        )
    return [(one.competition, one.answer) for one in asked if isinstance(one.answer, Counts)]


def require_tolerable(untested: Sequence[Untestable], *, asked: int, tolerated: float, assay: str) -> None:
    """Raise AssayError when more than the share `tolerated` of `asked` competitions was untestable."""
    if len(untested) > tolerated * asked:
        raise AssayError(
            f"{assay}: {len(untested)} of {asked} competitions were untestable, more than the tolerated share of "
            f"{tolerated:g}; first reason: {untested[0].reason}. If what made them fail has passed, resume the study; "
            "else mend the organism, or allow more (maxFail, timeoutSeconds, toleratedUntested), and submit it again"
        )


async def side_by_side(parts: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run independent parts concurrently; results in order. The first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _is_answered(asked: Asked | None) -> bool:
    return asked is not None and isinstance(asked.answer, Counts)
