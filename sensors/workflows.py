"""Workflows on their way into Dagster: a partition for each new one, and what became of it when it is over."""

import asyncio
import json
from collections.abc import Mapping
from itertools import islice

import dagster as dg

from assets.partitions import workflows
from assets.workflows import workflow
from knockem_dagster.jobs.workflow_views import WorkflowView, view_workflow
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import JobState, WorkflowRecord
from resources.names import WORKFLOWS
from resources.platform import PlatformResource

MOST_NEW = 200
"""New workflows taken up in one tick."""
MOST_FAILED_SHOWN = 20
BEGINNING = "0"


@dg.sensor(
    name="workflows",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each workflow, and reports what became of it each time that it is over.",
)
def watch_workflows(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Look at new workflows, at those that run, and at those that ran when it looked last."""
    records = platform.open().records
    seen = json.loads(context.cursor) if context.cursor else {"after": BEGINNING, "going": []}
    asked = {"isGraph": True, "datetime": {"$gt": seen["after"]}}
    new = list(islice(records.workflows.find(asked, sort=[("datetime", 1)]), MOST_NEW))
    running = {each.id: each for each in records.workflows.find({"state": "running"}) if each.is_graph}
    looked_at = _there(records, {*seen["going"], *(each.id for each in new)}) | running
    going = sorted(id for id, each in looked_at.items() if each.state not in ("completed", "canceled"))
    over = [each for id, each in looked_at.items() if id not in going]
    events = [_materialization(records, each) for each in over]
    stored = [id for id, each in looked_at.items() if each.state != "uninitialized"]
    unknown = [id for id in stored if not context.instance.has_dynamic_partition(WORKFLOWS, id)]
    cursor = json.dumps({"after": new[-1].datetime if new else seen["after"], "going": going})
    said = None if events or unknown else f"{len(going)} workflows are going"
    return dg.SensorResult(
        asset_events=events,
        dynamic_partitions_requests=[workflows.build_add_request(unknown)] if unknown else [],
        cursor=cursor,
        skip_reason=said,
    )


def _there(records: Records, ids: set[str]) -> Mapping[str, WorkflowRecord]:
    return records.workflows.get_many(sorted(ids))


def _materialization(records: Records, record: WorkflowRecord) -> dg.AssetMaterialization:
    view: WorkflowView = asyncio.run(view_workflow(records, None, record))
    metadata: dict[str, dg.MetadataValue] = {
        "name": dg.MetadataValue.text(record.name),
        "state": dg.MetadataValue.text(record.state),
        "user": dg.MetadataValue.text(record.user_email),
        "jobs": dg.MetadataValue.int(view.number),
        "completed share": dg.MetadataValue.float(view.jobs.get(JobState.COMPLETED.value, 0) / max(1, view.number)),
        **{f"jobs {state}": dg.MetadataValue.int(number) for state, number in view.jobs.items()},
    }
    failed = _failed(records, record)
    if failed:
        metadata["failed jobs"] = dg.MetadataValue.md(failed)
    return dg.AssetMaterialization(workflow.key, partition=record.id, metadata=metadata)


def _failed(records: Records, record: WorkflowRecord) -> str:
    """Return some of the jobs that failed, as a table."""
    where = {"workflowId": record.id, "state": JobState.FAILED.value}
    jobs = list(records.jobs.find(where, sort=[("name", 1)], limit=MOST_FAILED_SHOWN))
    results = records.results.get_many([job.id for job in jobs])
    rows = [
        f"| `{job.name}` | {'' if (code := results[job.id].exit_code) is None else code} |"
        for job in jobs
        if job.id in results
    ]
    return "\n".join(["| job | exit code |", "|---|---|", *rows]) if rows else ""
