"""What the platform measured of jobs like those that are submitted, offered as what to give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from knockem_dagster.cli.terminal import aside, first_line
from knockem_dagster.cli.wording import counted
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.working import capacity_here
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import ResourcesValue

if TYPE_CHECKING:
    from knockem_dagster.joblogs.measured import Measured

Tool = tuple[str, str]
"""Its name and its version."""


def measured_of(platform: Platform, tools: Sequence[Tool], *, anew: bool) -> Mapping[Tool, Measured]:
    """Return what earlier jobs of these tools used, as far as enough of them are known.

    `anew`: archive and read first what is not yet, however long it takes; else this is done only where it is little.
    Where anything fails, that is said aside, and nothing is known: no submission may depend on it.
    """
    import duckdb  # here: they and what they bring take a second
    import pyarrow as pa

    try:
        return _measured_of(platform, tools, anew=anew)
    except (KnockemError, OSError, MemoryError, duckdb.Error, pa.ArrowException) as error:
        told = f"What earlier jobs used cannot be told now: {first_line(error)}"
        aside().print(told, markup=False, soft_wrap=True)
        return {}


def _measured_of(platform: Platform, tools: Sequence[Tool], *, anew: bool) -> Mapping[Tool, Measured]:
    from knockem_dagster.joblogs.marts import Marts
    from knockem_dagster.joblogs.measured import measured
    from knockem_dagster.joblogs.own_jobs import archive_own_jobs, has_little_new, own_instance

    records, objects = platform.records, platform.objects
    marts = Marts(records, objects)  # the copy in PostgreSQL follows in the next run
    if anew or has_little_new(records, objects):
        instance = archive_own_jobs(records, objects, most=None)
        if instance is not None:
            marts.refresh(instance)
    else:
        instance = own_instance(records)
    return {} if instance is None else measured(marts, instance, tools)


def offer(platform: Platform, what: str, given: ResourcesValue, found: Measured, *, accepted: bool) -> None:
    """Say what was measured, and how many such jobs fit here at a time: as they are given it, and as measured."""
    better = found.resources(given)
    if better == given:
        return
    here = capacity_here(platform)
    used = f"used {found.largest_peak / (1 << 20):,.0f} MiB at most"
    if found.at_limit:
        used += f"; {found.at_limit:,} more {'was at its' if found.at_limit == 1 else 'were at their'} limit"
    giving = "Each is given" if accepted else "`--measured` gives each"
    aside().print(
        f"{what}: {counted(found.jobs, 'job')} from {found.first:%Y-%m-%d} to {found.last:%Y-%m-%d} {used}. "
        f"{giving} {_said(better)} instead of {_said(given)}: {_fitting(here, better):,} at a time on this machine "
        f"instead of {_fitting(here, given):,}.",
        markup=False,
        soft_wrap=True,
    )


def _said(needs: ResourcesValue) -> str:
    return f"{needs.memory_mib:,} MiB and {needs.cpus:g} CPU{'' if needs.cpus == 1 else 's'}"


def _fitting(here: Capacity, needs: ResourcesValue) -> int:
    """Return how many jobs fit into what a machine has."""
    return min(int(here.cpus / needs.cpus + 1e-9), here.memory_mib // max(1, needs.memory_mib))
