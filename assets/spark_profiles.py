"""The process that computes profiles of tools with Spark: started by an asset through Dagster Pipes, or by hand.

`spark.master` and all else are as Spark's own configuration says (SPARK_CONF_DIR, PYSPARK_SUBMIT_ARGS); without any,
Spark runs inside this process on all processors.
"""

import importlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from dagster_pipes import open_dagster_pipes

from knockem_dagster.joblogs.tool_profiles import KEYS, tool_profiles

MODULE = "assets.spark_profiles"
JOBS, PROFILES = "jobs", "profiles"
"""What the process is told: where the jobs are, and where the profiles go; both are Parquet files."""


def write_profiles(jobs: Path, profiles: Path) -> dict[str, int]:
    """Write the profiles of these jobs; return how many tools and jobs those are."""
    ibis: Any = importlib.import_module("ibis")
    sql: Any = importlib.import_module("pyspark.sql")
    session = (
        sql.SparkSession.builder.appName("knockem tool profiles")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    try:
        table = ibis.pyspark.connect(session).read_parquet(str(jobs))
        found = tool_profiles(table).order_by(*KEYS).to_pyarrow()
    finally:
        session.stop()
    pq.write_table(found, profiles, compression="zstd")
    return {"tools": found.num_rows, "jobs": sum(found["jobs"].to_pylist())}


def main() -> None:
    """Do what the asset asks for, and tell it how much that was."""
    with open_dagster_pipes() as pipes:
        told = write_profiles(Path(pipes.get_extra(JOBS)), Path(pipes.get_extra(PROFILES)))
        pipes.log.info(f"{told['tools']} profiles of {told['jobs']} jobs")
        pipes.report_asset_materialization(metadata=told)


if __name__ == "__main__":
    main()
