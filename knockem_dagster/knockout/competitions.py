"""Competitions, their answers, and the score. `compete` is all an assay knows of the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from knockem_dagster.knockout.knockouts import KnockoutSet


@dataclass(frozen=True, slots=True)
class Competition:
    """A question: how does `challenger` (beta) fare against `background` (alpha)?

    `purpose` tells why it is asked (for instance "skeleton 3"); together with the two sets and
    `replicate` it identifies the question for ever, so asking it again finds the recorded answer.
    """

    background: KnockoutSet
    challenger: KnockoutSet
    purpose: str
    replicate: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The answer of a competition: updates elapsed, and individuals of each side at its end."""

    updates_elapsed: float
    num_alpha: int
    num_beta: int


@dataclass(frozen=True, slots=True)
class Untestable:
    """No answer: every permitted attempt failed. `reason` is for the report."""

    reason: str


Answer: TypeAlias = Counts | Untestable
Compete: TypeAlias = Callable[[Sequence[Competition]], Awaitable[list[Answer]]]
"""Answers in the order asked."""


def score(counts: Counts) -> float:
    """Return (fracAlpha - fracBeta) / updatesElapsed, per update; positive when the challenger loses."""
    total = counts.num_alpha + counts.num_beta
    return (counts.num_alpha - counts.num_beta) / total / counts.updates_elapsed
