"""Job logs as Dagster shows them: of each instance its archives, the tables that were read from them, and the marts."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import dagster as dg
from pydantic import Field

from assets.partitions import instances
from knockem_dagster.joblogs.instances import reports_of, told_of
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.recommendations import KEPT_FILE, Recommendation, as_file, described, recommend
from knockem_dagster.joblogs.served import open_served
from knockem_dagster.joblogs.tpv import TOOLS_FILE, fragment
from knockem_dagster.records.joblogs import ReportRecord, ReportState
from resources.platform import PlatformResource

_GROUP = "job_logs"
_MOST_SHOWN = 50
_MOST_TOOLS = 20
_MOST_TOOLS_QUERY = f"""
SELECT tool_id, sum(jobs), sum(errors), sum(hours), max(memory_largest) / 1e9
FROM tools GROUP BY tool_id ORDER BY sum(jobs) DESC, tool_id LIMIT {_MOST_TOOLS}
"""


class Reading(dg.Config):
    """How much is to be done."""

    again: bool = Field(
        default=True, description="whether all is read and computed again; otherwise only what has not been yet"
    )


@dg.asset(
    partitions_def=instances,
    group_name=_GROUP,
    kinds={"file"},
    description="The archives of an instance, as they were sent: they never change.",
)
def job_log_archives(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    """Tell what has arrived."""
    stored = platform.open().objects.list(f"joblogs/raw/{context.partition_key}")
    sizes = [entry.size for entry in stored if PurePath(entry.key).suffix == ".gz"]
    return dg.MaterializeResult(metadata={"archives": len(sizes), "bytes": sum(sizes)})


@dg.asset(
    deps=[job_log_archives],
    partitions_def=instances,
    group_name=_GROUP,
    kinds={"parquet"},
    description="What was read from an instance's archives: a file for each report and kind of row. "
    "A report that is not to be trusted is quarantined, and the others are none the worse for it.",
)
def job_log_tables(
    context: dg.AssetExecutionContext, config: Reading, platform: PlatformResource
) -> dg.MaterializeResult[None]:
    """Read reports into tables, or quarantine them."""
    opened, instance = platform.open(), context.partition_key
    Ledger(opened.records, opened.objects).read_all(instance, again=config.again)
    reports = reports_of(opened.records, instance)
    metadata: dict[str, Any] = {state.value: sum(each.state is state for each in reports) for state in ReportState}
    used = [each for each in reports if each.state is ReportState.LOADED]
    metadata["rows"] = sum(sum(each.kept.values()) for each in used)
    metadata["rows left out"] = sum(sum(each.rejected.values()) for each in used)
    if bad := [each for each in reports if each.state is ReportState.QUARANTINED]:
        metadata["quarantine"] = _quarantine_table(bad)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(told_of(reports)))


@dg.asset(
    deps=[job_log_tables],
    partitions_def=instances,
    group_name=_GROUP,
    kinds={"duckdb", "parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            "each_job_once",
            asset="job_log_marts",
            description="Each job that is over is counted once, whichever reports tell of it, in every mart.",
        )
    ],
    description="What is asked of an instance's jobs: what each used, and sums and quantiles by tool and month.",
)
def job_log_marts(
    context: dg.AssetExecutionContext, config: Reading, platform: PlatformResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Compute the marts; readers see the ones before until these are complete."""
    opened, instance = platform.open(), context.partition_key
    marts = Marts(opened.records, opened.objects, open_served(opened.settings))
    marts.refresh(instance, again=config.again)
    with marts.opened([instance]) as found:
        [(jobs, ids)] = found.sql("SELECT count(*), count(DISTINCT id) FROM jobs").fetchall()
        sums = {
            name: found.sql(f"SELECT coalesce(sum(jobs), 0)::BIGINT FROM {name}").fetchall()[0][0]
            for name in ("tools", "tool_months", "months")
        }
        [(tools,)] = found.sql("SELECT count(DISTINCT tool_id) FROM tools").fetchall()
        most_used = found.sql(_MOST_TOOLS_QUERY).fetchall()
    yield dg.MaterializeResult(
        metadata={"jobs": jobs, "tools": tools, "most used tools": dg.MetadataValue.md(_tools_table(most_used))},
        check_results=[
            dg.AssetCheckResult(
                check_name="each_job_once",
                passed=jobs == ids and set(sums.values()) == {jobs},
                metadata={"jobs": jobs, "different jobs": ids, **sums},
            )
        ],
    )


@dg.asset(
    deps=[job_log_marts],
    partitions_def=instances,
    group_name=_GROUP,
    kinds={"yaml"},
    description="What an instance's tools should be given, from what their jobs used: for its administrator's review, "
    "as a fragment of the tools.yml of the Total Perspective Vortex.",
)
def job_log_recommendations(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> dg.MaterializeResult[None]:
    """Recommend cores and memory for the tools of an instance."""
    opened, instance = platform.open(), context.partition_key
    marts = Marts(opened.records, opened.objects)
    generation = marts.in_use().get(instance)
    with marts.opened([instance]) as found:
        recommended = recommend(found)
    if generation is not None and marts.in_use().get(instance) == generation:  # else another run is at the new one
        name = opened.records.job_log_instances.get(instance).name
        marts.keep(instance, generation, TOOLS_FILE, fragment(recommended, name=name).encode())
        marts.keep(instance, generation, KEPT_FILE, as_file(recommended))
    tools = [each for each in recommended if not each.tool_version]
    known = sorted((each for each in tools if each.memory is not None), key=lambda each: -each.jobs)
    metadata: dict[str, Any] = {"tools": len(known), "tools with too few jobs": len(tools) - len(known)}
    if known:
        metadata["recommended"] = dg.MetadataValue.md(_recommended_table(known[:_MOST_TOOLS]))
    return dg.MaterializeResult(metadata=metadata)


def _quarantine_table(reports: list[ReportRecord]) -> dg.TableMetadataValue:
    return dg.TableMetadataValue(
        records=[
            dg.TableRecord({"report": each.name, "arrived": each.datetime, "why": str(each.quarantine)})
            for each in reports[-_MOST_SHOWN:]
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in ("report", "arrived", "why")]),
    )


def _tools_table(rows: list[tuple[Any, ...]]) -> str:
    told = [
        f"| `{tool}` | {jobs:,} | {errors:,} | {_number(hours)} | {_number(memory)} |"
        for tool, jobs, errors, hours, memory in rows
    ]
    return "\n".join(["| tool | jobs | errors | hours | largest memory, GB |", "|---|--:|--:|--:|--:|", *told])


def _recommended_table(recommended: list[Recommendation]) -> str:
    told = [
        f"| `{each.tool_id}` | {each.jobs:,} | {each.cores or 'unknown'} | {described(each.memory.rule, unit=1e9)} "
        f"| {_number(each.failed_tries)} |"
        for each in recommended
        if each.memory is not None
    ]
    heading = "| tool | jobs | cores | memory, GB, by the size of inputs in GB | failed tries expected in 100 jobs |"
    return "\n".join([heading, "|---|--:|--:|---|--:|", *told])


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"
