"""The process that computes profiles of tools with Spark: started by an asset through Dagster Pipes, or by hand.

`spark.master` and all else are as Spark's own configuration says (SPARK_CONF_DIR, PYSPARK_SUBMIT_ARGS); without any,
Spark runs inside this process on all processors.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from dagster_pipes import open_dagster_pipes

from knockem_dagster.joblogs.tool_profiles import KEYS, latest_of_each_job, tool_profiles

MODULE = "assets.spark_profiles"
INSTANCE, REPORTS, PROFILES = "instance", "reports", "profiles"
"""What the process is told: whose jobs these are, where it is said which files they are in, as JSON, and where the
profiles go, a Parquet file."""


def write_profiles(instance: str, reports: Path, profiles: Path) -> dict[str, int]:
    """Write the profiles of the jobs that these reports tell of; return how many tools and jobs those are.

    `reports`: a list of pairs, of a file of the lake, and when its report was made and how it is called. Spark tells
    files by their names as addresses have them: those of the lake are the same there.
    """
    ibis: Any = importlib.import_module("ibis")
    sql: Any = importlib.import_module("pyspark.sql")
    listed: dict[str, tuple[float, str]] = dict(json.loads(reports.read_bytes()))
    session = (
        sql.SparkSession.builder.appName("knockem tool profiles")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    try:
        told = session.read.parquet(*listed).select(
            "*", sql.functions.lit(instance).alias("instance"), "_metadata.file_name"
        )
        told.withColumnRenamed("file_name", "file").createOrReplaceTempView("told")
        made = [(Path(file).name, *about) for file, about in listed.items()]
        session.createDataFrame(made, "file string, generated double, report string").createOrReplaceTempView("reports")
        connection = ibis.pyspark.connect(session)
        jobs = latest_of_each_job(connection.table("told"), connection.table("reports"))
        found = tool_profiles(jobs).order_by(*KEYS).to_pyarrow()
    finally:
        session.stop()
    pq.write_table(found, profiles, compression="zstd")
    return {"tools": found.num_rows, "jobs": sum(found["jobs"].to_pylist())}


def main() -> None:
    """Do what the asset asks for, and tell it how much that was."""
    with open_dagster_pipes() as pipes:
        reports, profiles = Path(pipes.get_extra(REPORTS)), Path(pipes.get_extra(PROFILES))
        told = write_profiles(pipes.get_extra(INSTANCE), reports, profiles)
        pipes.log.info(f"{told['tools']} profiles of {told['jobs']} jobs")
        pipes.report_asset_materialization(metadata=told)


if __name__ == "__main__":
    main()
