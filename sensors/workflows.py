"""Workflows on their way into Dagster: a partition for each new one, and what became of it when it is over."""

import asyncio
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

import dagster as dg

from assets.partitions import workflows
from assets.workflows import workflow
from knockem_dagster.jobs.workflow_views import WorkflowView, view_workflow
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import JobState, WorkflowRecord
from knockem_dagster.records.record import now
from resources.names import WORKFLOWS
from resources.platform import PlatformResource

MOST_NEW = 200
"""New workflows taken up, and ends of workflows told of, in one tick."""
MARGIN = timedelta(seconds=60)
"""By how much the clocks of the machines that write the record may differ."""
MOST_FAILED_SHOWN = 20
BEGINNING = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at: workflows submitted, and over, until these times; `told`: when each was over, of the last."""

    new: str = BEGINNING
    ended: str = BEGINNING
    told: dict[str, str] = field(default_factory=dict[str, str])


@dg.sensor(
    name="workflows",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each workflow, and reports what became of it each time that it is over.",
)
def watch_workflows(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Look at new workflows, and at those that are over since it looked last."""
    records = platform.open().records
    content = json.loads(context.cursor) if context.cursor else {}
    seen = Seen(**content) if "told" in content else Seen()  # from an earlier version: ends are told once more
    unknown, new = _unknown(records, context.instance, seen)
    over, ended = _over(records, seen)
    unknown += [each.id for each in over if each.id not in unknown and not _is_known(context.instance, each.id)]
    told = seen.told | {each.id: each.ended or "" for each in over}
    late = {id: when for id, when in told.items() if when > _margin_before(ended)}
    return dg.SensorResult(
        asset_events=[_materialization(records, each) for each in over],
        dynamic_partitions_requests=[workflows.build_add_request(unknown)] if unknown else [],
        cursor=json.dumps(asdict(Seen(new, ended, late))),
        skip_reason=None if over or unknown else "No workflow is new, or over since.",
    )


def _unknown(records: Records, instance: dg.DagsterInstance, seen: Seen) -> tuple[list[str], str]:
    """Return workflows without a partition, and until when all that were submitted have one.

    What is not wholly stored has none yet: until it has one, or is taken back, it is looked at again.
    """
    unknown: list[str] = []
    until, is_stored = seen.new, True
    asked = {"isGraph": True, "datetime": {"$gt": _margin_before(seen.new)}}
    for each in records.workflows.find(asked, sort=[("datetime", 1)]):
        is_stored = is_stored and each.state != "uninitialized"
        if is_stored:
            until = _later(until, each.datetime)
        if each.state != "uninitialized" and not _is_known(instance, each.id):
            unknown.append(each.id)
            if len(unknown) == MOST_NEW:
                break
    return unknown, until


def _over(records: Records, seen: Seen) -> tuple[list[WorkflowRecord], str]:
    """Return workflows whose last end was not told of, and until when all ends are."""
    over: list[WorkflowRecord] = []
    until = seen.ended
    asked = {"isGraph": True, "ended": {"$gt": _margin_before(seen.ended)}}
    for each in records.workflows.find(asked, sort=[("ended", 1)]):
        until = _later(until, each.ended or "")
        if seen.told.get(each.id) != each.ended:
            over.append(each)
            if len(over) == MOST_NEW:
                break
    return over, until


def _is_known(instance: dg.DagsterInstance, id: str) -> bool:
    return instance.has_dynamic_partition(WORKFLOWS, id)


def _margin_before(moment: str) -> str:
    return (datetime.fromisoformat(moment) - MARGIN).isoformat()


def _later(until: str, moment: str) -> str:
    """Return the later time, but none that is still to come: others may yet write what is before it."""
    return max(until, min(moment, now()))


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
