"""What a report is made from: values gathered elsewhere, checked here, drawn and told in this package.

Nothing here reads a store. Whoever builds a `ReportInputs` leaves secrets out: every field is printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import pandas as pd

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.records.tables import TABLES

SUCCEEDED = "succeeded"


class Quantity(StrEnum):
    """The names in the column `quantity` of the estimates, in the order a report tells them."""

    FUNCTIONAL_SITES = "functional sites"
    FUNCTIONAL_ABOVE_RESOLUTION = "functional sites above the resolution"
    ADDITIVE_SITES = "additive sites"
    SITES_ABOVE_RESOLUTION = "sites with effect above the resolution"
    ADDITIVE_SITES_NAMED = "additive sites named"
    EPISTATIC_SETS = "epistatic sets"
    EPISTATIC_SITES = "epistatic sites"
    MEAN_EFFECT = "mean effect of additive sites"
    DETECTED_ALONE = "sites detected alone"
    SITES_OF_MINIMAL_GENOME = "sites of a minimal genome"
    EFFECT_OF_DELETIONS = "effect of all deletions together"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionFacts:
    """Where a submission came from and what it ran: enough to run it again.

    `organism` is the image or folder as it was named, `digest` what that name meant, `genome_digest`
    that of the wild type's content. `resolution` (detection thresholds) is the smallest effect that was to be found.
    `settings` are printed as they are, in their order.
    """

    id: str
    organism: str
    digest: str
    runtime: str
    num_sites: int
    genome_digest: str
    assay_types: Sequence[str]
    seed: int
    submitted: datetime
    finished: datetime | None
    revision: str
    user_email: str | None = None
    resolution: float = math.nan
    settings: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class NullFacts:
    """The score without any knockout: scores are per update.

    `threshold` is the lowest score that counts as detected, `unit` the score, above the mean, of an
    effect of one detection threshold, `symmetry_p` the p value of the mean being zero (NaN at sd 0).
    """

    mean: float
    sd: float
    threshold: float
    unit: float
    symmetry_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeBinomialFit:
    """Dose response of the additive estimate: `r` hits are detected, a knocked-out site hits with probability `p`.

    `r` is NaN where no dose was ever detected: then there is no curve.
    """

    r: float
    p: float

    @property
    def has_curve(self) -> bool:
        """Tell whether there is a curve to draw."""
        return math.isfinite(self.r) and math.isfinite(self.p)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An example of an attempt that brought no result, with the last lines of its output."""

    outcome: str
    exit_code: int | None
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFacts:
    """What was asked and did not come back.

    `attempts` counts attempts by outcome, "succeeded" among them. Slot seconds are the seconds that
    attempts occupied a worker; `failed_slot_seconds` those of attempts without a result.
    """

    asked: int
    answered: int
    untestable: int
    attempts: Mapping[str, int]
    slot_seconds: float
    failed_slot_seconds: float
    examples: Sequence[FailedAttempt] = ()
    untested_sites: Sequence[int] = ()

    @property
    def failed_attempts(self) -> int:
        """Return the number of attempts that brought no result."""
        return sum(count for outcome, count in self.attempts.items() if outcome != SUCCEEDED)

    @property
    def unfinished(self) -> int:
        """Return the number of competitions neither answered nor given up."""
        return max(self.asked - self.answered - self.untestable, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthFacts:
    """What the organism says about itself: effects by site in detection thresholds, and its redundant sets."""

    effects: Mapping[int, float]
    sets: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """Everything a report tells. A table that is missing or empty leaves its section out.

    `sets_complete` is False where the budget ended before all sets were searched for.

    Raises InvalidInput when a table is not one of `TABLES` or lacks declared columns.
    """

    submission: SubmissionFacts
    tables: Mapping[str, pd.DataFrame]
    losses: LossFacts
    competitions_by_assay: Mapping[str, int]
    null: NullFacts | None = None
    truth: TruthFacts | None = None
    dose_fit: NegativeBinomialFit | None = None
    sets_complete: bool = True

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        for name, table in self.tables.items():
            if name not in TABLES:
                faults.append(Fault("tables", name, f"the tables of a report are {', '.join(TABLES)}"))
                continue
            missing = [column.name for column in TABLES[name].columns if column.name not in table.columns]
            if missing:
                faults.append(Fault(f"tables.{name}", "a table without " + ", ".join(missing), "give every column"))
        if faults:
            raise InvalidInput("the report cannot be made from these tables", faults)

    def table(self, name: str) -> pd.DataFrame | None:
        """Return the table of this name, or None when there is none or it is empty."""
        table = self.tables.get(name)
        return None if table is None or table.empty else table
