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
"""The same where jobs were at their limit."""
_STEP_MIB = 16
_CORES_OF = 0.95
_MEASURED = f"""
SELECT
    count(*) FILTER (state = 'ok' AND memory_peak > 0),
    max(memory_peak),
    count(*) FILTER (is_censored),
    quantile_cont(cpu / runtime, {_CORES_OF}) FILTER (state = 'ok' AND runtime > 0),
    min(created),
    max(created)
FROM jobs
WHERE tool_id = $tool AND tool_version = $version AND (state = 'ok' OR is_censored)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What jobs used: how many, between when and when, at most so many bytes, nearly all at most so many cores."""

    jobs: int
    first: datetime
    last: datetime
    largest_peak: float
    at_limit: int
    cores: float | None

    @property
    def memory_mib(self) -> int:
        """The memory to give them, in MiB."""
        margin = MARGIN_AT_LIMIT if self.at_limit else MARGIN
        return max(_STEP_MIB, math.ceil(margin * self.largest_peak / (_STEP_MIB << 20)) * _STEP_MIB)

    def resources(self, given: ResourcesValue) -> ResourcesValue:
        """Return what to give them: no more CPUs than before, and whole ones."""
        cpus = given.cpus if self.cores is None else min(given.cpus, max(1.0, float(math.ceil(self.cores))))
        return given.model_copy(update={"cpus": cpus, "memory_mib": self.memory_mib})


def measured(marts: Marts, instance: str, tools: Collection[tuple[str, str]]) -> dict[tuple[str, str], Measured]:
    """Return what jobs of these tools and versions used; those are left out of which fewer than FEWEST are known."""
    found: dict[tuple[str, str], Measured] = {}
    with marts.opened([instance]) as opened:
        for tool, version in tools:
            [row] = opened.execute(_MEASURED, {"tool": tool, "version": version}).fetchall()
            jobs, largest, at_limit, cores, first, last = row
            if jobs >= FEWEST:
                found[tool, version] = Measured(jobs, first, last, largest, at_limit, cores)
    return found
