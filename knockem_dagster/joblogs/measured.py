"""What the platform's own jobs of an image or a program used, as the resources to give them next time."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.sizing.chosen import FEWEST
from knockem_dagster.records.jobs import ResourcesValue

MARGIN = 1.25
"""Upon the largest peak: memory is a job's limit, and who reaches it is killed."""
MARGIN_AT_LIMIT = 2.0
"""Upon the largest limit, or peak, of those that were at theirs."""
LATEST = 2_000
"""Jobs of a tool that are looked at: a program changes."""
_STEP_MIB = 16
_CORES_OF = 0.95
_MEASURED = f"""
WITH latest AS (
    SELECT *, state = 'ok' AND memory_peak > 0 AS is_known
    FROM jobs
    WHERE tool_id = $tool AND tool_version = $version AND (is_known OR is_censored)
    ORDER BY created DESC, id
    LIMIT $latest
)
SELECT
    count(*) FILTER (is_known),
    max(memory_peak) FILTER (is_known),
    count(*) FILTER (NOT is_known),
    coalesce(max(greatest(memory_peak, memory_limit)) FILTER (is_censored), 0),
    quantile_cont(cpu / runtime, {_CORES_OF}) FILTER (state = 'ok' AND runtime > 0),
    min(created) FILTER (is_known),
    max(created) FILTER (is_known)
FROM latest
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What jobs used that succeeded: how many, between when and when, at most so many bytes, and cores but for a few.

    `at_limit`: how many more were at their limit; `largest_at_limit`: what any of those had that were, in bytes.
    """

    jobs: int
    first: datetime
    last: datetime
    largest_peak: float
    at_limit: int
    largest_at_limit: float
    cores: float | None

    @property
    def memory_mib(self) -> int:
        """The memory to give them, in MiB."""
        enough = max(MARGIN * self.largest_peak, MARGIN_AT_LIMIT * self.largest_at_limit)
        return max(_STEP_MIB, math.ceil(enough / (_STEP_MIB << 20)) * _STEP_MIB)

    def resources(self, given: ResourcesValue) -> ResourcesValue:
        """Return what to give them: no more CPUs than before, and whole ones."""
        cpus = given.cpus if self.cores is None else min(given.cpus, max(1.0, float(math.ceil(self.cores))))
        return given.model_copy(update={"cpus": cpus, "memory_mib": self.memory_mib})


def measured(marts: Marts, instance: str, tools: Collection[tuple[str, str]]) -> dict[tuple[str, str], Measured]:
    """Return what jobs of these tools and versions used; those are left out of which fewer than FEWEST are known."""
    found: dict[tuple[str, str], Measured] = {}
    with marts.opened([instance]) as opened:
        for tool, version in tools:
            [row] = opened.execute(_MEASURED, {"tool": tool, "version": version, "latest": LATEST}).fetchall()
            jobs, largest, at_limit, largest_at_limit, cores, first, last = row
            if jobs >= FEWEST:
                found[tool, version] = Measured(jobs, first, last, largest, at_limit, largest_at_limit, cores)
    return found
