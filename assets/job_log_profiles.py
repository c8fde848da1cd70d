"""Profiles of an instance's tools by Spark, in a process of its own: the mart `tools`, from the lake."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.job_logs import job_log_marts
from assets.partitions import instances
from assets.spark_profiles import INSTANCE, MODULE, PROFILES, REPORTS
from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs.ledger import SCRATCH
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.tool_profiles import check_spark
from resources.platform import PlatformResource

PROFILES_FILE = "tool_profiles.parquet"
"""How the profiles are called that are kept with an instance's marts."""
_ROOT = Path(__file__).parents[1]


@dg.asset(
    deps=[job_log_marts],
    partitions_def=instances,
    group_name="job_logs",
    kinds={"spark", "parquet"},
    description="Counts, sums and exact quantiles of each tool and version, by Spark. Needs Java.",
)
def job_log_tool_profiles(
    context: dg.AssetExecutionContext, platform: PlatformResource, processes: dg.PipesSubprocessClient
) -> Iterator[dg.MaterializeResult[None]]:
    """Let Spark compute the profiles, and keep them with the marts that they are of."""
    try:
        check_spark()
    except KnockemError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    opened = platform.open()
    marts = Marts(opened.records, opened.objects)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        generation, files = marts.made_of(context.partition_key, Path(folder))
        reports, profiles = Path(folder) / "reports.json", Path(folder) / "profiles.parquet"
        reports.write_text(json.dumps([(str(each.path), (each.generated, each.report)) for each in files]))
        ended = processes.run(
            command=[sys.executable, "-P", "-m", MODULE],
            context=context,
            extras={INSTANCE: context.partition_key, REPORTS: str(reports), PROFILES: str(profiles)},
            env={"PYTHONPATH": str(_ROOT)},
            cwd=folder,
        )
        marts.keep(context.partition_key, generation, PROFILES_FILE, profiles)
    yield ended.get_materialize_result()
