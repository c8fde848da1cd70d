"""The stages of a submission: what each asked for before it was extended, and from which one results still stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import Field

from knockem_dagster.records.assays import AssayType, with_needs
from knockem_dagster.records.record import Value

OPTIONS_OF: Mapping[AssayType, frozenset[str]] = {
    AssayType.WEIGHING: frozenset({"resolution", "budget"}),
    AssayType.SET_ENUMERATION: frozenset({"budget"}),
    AssayType.SKELETONIZATION: frozenset({"skeletons"}),
    AssayType.PREFIX_SKELETONS: frozenset({"skeletons", "budget"}),
}
"""The options that can be extended and that an assay goes by, beside those of the assays it needs.

The null distribution goes by none: with another one, all that rests on it would ask other questions.
"""


class WeighingGoalValue(Value):
    """When weighing ends: at this standard error (detection thresholds), or after so many competitions."""

    error: float
    most_competitions: int


class StageValue(Value):
    """What a submission was asked for in a stage that is over, and what the next one starts from."""

    resolution: float
    budget: int | None = None
    error_rate: float
    skeletons: int
    weighing: WeighingGoalValue | None = Field(default=None, description="what weighing aimed at, if it began")
    weighed: int | None = Field(default=None, description="competitions of weighing, if it reached its goal")
    sets: tuple[tuple[int, ...], ...] = Field(default=(), description="found by its end; of one site: without mates")
    searched: int = Field(default=0, description="competitions that searches for sets had asked for by its end")

    @property
    def asked_for(self) -> str:
        """What the stage asked for, in words."""
        budget = "no limit" if self.budget is None else self.budget
        return f"resolution {self.resolution:g}, budget {budget}, skeletons {self.skeletons}"


class Options(Protocol):
    """The options of a stage that can be extended."""

    @property
    def resolution(self) -> float:
        """Smallest effect to be found (detection thresholds)."""
        ...

    @property
    def budget(self) -> int | None:
        """Competitions that may be asked for in all."""
        ...

    @property
    def skeletons(self) -> int:
        """Number of skeletons to sample."""
        ...


def stage_of_result(assay_type: AssayType, stages: Sequence[Options]) -> int:
    """Return the first of these stages (the current one is the last) since which nothing has changed for an assay.

    A result of that stage, or of a later one, stands.
    """
    names = sorted({name for each in with_needs({assay_type}) for name in OPTIONS_OF.get(each, ())})
    options = [[getattr(stage, name) for name in names] for stage in stages]
    changes = [number for number in range(1, len(options)) if options[number] != options[number - 1]]
    return max(changes, default=0)
