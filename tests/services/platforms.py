"""What a home holds, and Dagster's parts at work on it: for tests that look at the whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from assets.partitions import SUBMISSION_JOB
from assets.selection import selection_of
from knockem_dagster.assay_runs.intake import examine, store
from knockem_dagster.assay_runs.submission_file import read_submission_file
from knockem_dagster.definitions import build_definitions
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import COLLECTIONS
from knockem_dagster.settings import load_settings
from resources.names import SUBMISSIONS
from resources.platform import PlatformResource, SubmissionRuns
from sensors.arrivals import UPLOADS, uploaded_submissions
from tests.services.organisms import GENOME

USER = "someone@example.org"


def platform_of(home: Path) -> Platform:
    """Open the stores of a home; `close` them."""
    return Platform(load_settings(home=home))


def documents_in(home: Path) -> dict[str, int]:
    """Count the documents of each collection that has any."""
    platform = platform_of(home)
    counts = {collection.name: platform.records.documents.count(collection.name, {}) for collection in COLLECTIONS}
    platform.close()
    return {name: number for name, number in counts.items() if number}


def objects_in(home: Path) -> list[str]:
    """List the keys of all objects."""
    platform = platform_of(home)
    keys = sorted(stored.key for stored in platform.objects.list())
    platform.close()
    return keys


def study(**changes: object) -> dict[str, object]:
    """Return a submission of the tiny organism; a change to None removes a key."""
    content: dict[str, object] = {
        "genome": GENOME,
        "containerImage": "tiny",
        "containerRuntime": "process",
        "assayTypes": ["nulldist", "screenCritical"],
        "skeletons": 3,
        "userEmail": USER,
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def put_upload(home: Path, data: bytes | Mapping[str, object], *, name: str = "study.json") -> str:
    """Put a file where uploads are looked for, and return its key."""
    platform = platform_of(home)
    key = f"{UPLOADS}{name}"
    platform.objects.put(key, data if isinstance(data, bytes) else json.dumps(data).encode())
    platform.close()
    return key


def tick(
    sensor: dg.SensorDefinition, home: Path, instance: dg.DagsterInstance, *, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    """Evaluate a sensor once, as the daemon does."""
    platform = PlatformResource(home=str(home))
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform}) as context:
        return sensor(context)  # type: ignore[return-value]


def take_in_uploads(home: Path, instance: dg.DagsterInstance) -> Sequence[dg.AssetMaterialization]:
    """Let the upload sensor see what is there, and see that it no longer changes; return what it reports."""
    seen = tick(uploaded_submissions, home, instance)
    assert isinstance(seen, dg.SensorResult)
    taken = tick(uploaded_submissions, home, instance, cursor=seen.cursor)
    assert isinstance(taken, dg.SensorResult)
    return [event for event in taken.asset_events if isinstance(event, dg.AssetMaterialization)]


def faults_shown(event: dg.AssetMaterialization) -> list[str]:
    """Return the faults that the UI shows of a refused upload, in the command line's words."""
    table = event.metadata["faults"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [record.data for record in table.records]
    return [f"{row['field']}: {row['value']} is not allowed; {row['allowed']}" for row in rows]


def run_in_dagster(
    home: Path,
    instance: dg.DagsterInstance,
    submission_id: str,
    *,
    assets: Sequence[str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run a submission, or some of its assets, as a Dagster run of this process; failures are in the result."""
    platform = platform_of(home)
    wanted = selection_of(platform.records.submissions.get(submission_id).assay_types)
    platform.close()
    resource = PlatformResource(home=str(home))
    definitions = build_definitions(
        resource_overrides={"platform": resource, "runs": SubmissionRuns(platform=resource)}
    )
    instance.add_dynamic_partitions(SUBMISSIONS, [submission_id])
    return definitions.resolve_job_def(SUBMISSION_JOB).execute_in_process(
        instance=instance,
        partition_key=submission_id,
        asset_selection=wanted if assets is None else [dg.AssetKey(name) for name in assets],
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def submitted(home: Path, content: Mapping[str, object]) -> str:
    """Accept a submission as the front doors do, and return its id."""
    platform = platform_of(home)
    file = read_submission_file(json.dumps(content).encode(), folder=None)
    id = store(platform, asyncio.run(examine(platform, file))).id
    platform.close()
    return id
