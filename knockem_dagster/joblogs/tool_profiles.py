"""Profiles of tools as one expression, for any engine that ibis has: DuckDB here, Spark where there is a cluster.

They are the mart `tools`, from the job tables of the lake. Needs the extra `spark`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knockem_dagster.errors import KnockemError

KEYS = ("instance", "tool_id", "tool_version")


def latest_of_each_job(told: Any, reports: Any) -> Any:
    """Return a row per job of an instance: an ibis table, of one with a row for each report that tells of it.

    `told` has a column `file`, and so has `reports`, beside `generated` and `report`. The report made last is right; of
    two made at once, the one whose name is last.
    """
    ibis: Any = importlib.import_module("ibis")
    rows = told.join(reports, "file")
    place = ibis.row_number().over(group_by=rows.id, order_by=[rows.generated.desc(), rows.report.desc()])
    numbered = rows.mutate(place=place)
    return numbered.filter(numbered.place == 0).drop("place", "file", "generated", "report")


def tool_profiles(jobs: Any) -> Any:
    """Return the profile of each tool and version of each instance: an ibis table, of one with a row per job.

    Quantiles are exact. What is not known is null.
    """

    def number(which: Any) -> Any:
        return jobs.count(where=which.fill_null(False)).coalesce(0)  # of no row Spark would count null

    return jobs.group_by(*KEYS).agg(
        jobs=jobs.count(),
        ok=number(jobs.state == "ok"),
        errors=number(jobs.state == "error"),
        first_created=jobs.created.min(),
        last_created=jobs.created.max(),
        hours=jobs.runtime.sum() / 3600,
        cpu_hours=jobs.cpu.sum() / 3600,
        allocated_gb_hours=(jobs.memory_allocated * jobs.runtime).sum(where=jobs.memory_peak.notnull()) / 3.6e12,
        used_gb_hours=(jobs.memory_peak * jobs.runtime).sum(where=jobs.memory_allocated.notnull()) / 3.6e12,
        memory_known=jobs.memory_peak.count(),
        memory_censored=number(jobs.is_censored),
        memory_median=jobs.memory_peak.quantile(0.5),
        memory_95=jobs.memory_peak.quantile(0.95),
        memory_largest=jobs.memory_peak.max(),
        runtime_known=jobs.runtime.count(),
        runtime_median=jobs.runtime.quantile(0.5),
        runtime_95=jobs.runtime.quantile(0.95),
        runtime_longest=jobs.runtime.max(),
    )


def spark_is_installed() -> bool:
    """Tell whether the extra is there."""
    return find_spec("ibis") is not None and find_spec("pyspark") is not None


def check_spark() -> None:
    """Raise KnockemError where Spark cannot be started, with what to do."""
    if not spark_is_installed():
        raise KnockemError("Spark is an extra: install it, `pip install 'knockem_dagster[spark]'`.")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and (Path(home) / "bin" / "java").exists()):
        raise KnockemError("Spark needs Java 17 or 21: install one, for instance Debian's openjdk-17-jre-headless.")
