"""Job logs on their way into Dagster: what was put into the object store, and a run for whoever has sent anything."""

import json
import tempfile
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import PARTITION_NAME_TAG

from assets.job_logs import job_log_tables
from assets.partitions import JOB_LOGS_JOB, instances
from knockem_dagster.errors import Conflict, Fault, InvalidInput, KnockemError, NotFound, StoreError
from knockem_dagster.joblogs import folders, report_metadata
from knockem_dagster.joblogs.folders import DROPS, dropped, metadata_of
from knockem_dagster.joblogs.instances import local_instance, reports_of, told_of
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger, check_name, sweep_scratch
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.own_jobs import archive_own_jobs
from knockem_dagster.joblogs.served import open_served
from knockem_dagster.joblogs.tpv import TOOLS_FILE
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import QuarantineValue, ReportState
from knockem_dagster.stores.objects import StoredObject
from resources.names import INSTANCES, USER_TAG
from resources.platform import PlatformResource
from sensors.arrivals import passed_over
from sensors.rounds import START

MOST_LOOKED_AT = 20
"""Instances looked at in one tick, beside those of which something has arrived."""
MOST_REQUESTS = 100
TICK_SECONDS = 20.0
"""No further report is taken in after this long."""
SECONDS_WITHOUT_METADATA = 600.0
"""After which an archive is taken in, and quarantined, without."""
FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0
"""Seconds until a run that failed is followed by another; twice as long after each that fails."""
_MOST_FAILED = 8


@dataclass(slots=True)
class _Seen:
    """What was looked at: `drops` with their versions, and whether they were taken in; instances until this one.

    `failed`: drops that could not be taken in, those that failed first in front.
    """

    drops: dict[str, str] = field(default_factory=dict[str, str])
    taken: dict[str, str] = field(default_factory=dict[str, str])
    failed: list[str] = field(default_factory=list[str])
    after: str = START


@dg.sensor(
    name="job_logs",
    job_name=JOB_LOGS_JOB,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Takes in reports below {DROPS}, and requests a run for each instance of which anything is not read.",
)
def watch_job_logs(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Look at what has arrived, by whatever way, and at some of the other instances."""
    opened = platform.open()
    seen = _Seen(**json.loads(context.cursor)) if context.cursor else _Seen()
    trouble: list[str] = []
    with _told("what was put into the object store", trouble):
        _take_in(opened, seen, trouble)
    with _told("the platform's own jobs", trouble):
        archive_own_jobs(opened.records, opened.objects)
    marts = _marts(opened, trouble)
    with _told("what is not in use any more", trouble):
        marts.sweep()
        sweep_scratch()
    arrived = opened.records.job_log_reports.find({"state": ReportState.RECEIVED})
    looked_at = _not_current(opened, context.instance, marts, seen)
    wanted = _wanted(opened, dict.fromkeys([*(each.instance_id for each in arrived), *looked_at]))
    now = [instance for instance in wanted[:MOST_REQUESTS] if _may_run(context.instance, instance)]
    unknown = [each for each in now if not context.instance.has_dynamic_partition(INSTANCES, each)]
    for each in trouble:
        context.log.warning(each)
    return dg.SensorResult(
        run_requests=[_request(each) for each in now],
        dynamic_partitions_requests=[instances.build_add_request(unknown)] if unknown else [],
        cursor=json.dumps(asdict(seen)),
        skip_reason=None if now else "; ".join(["Nothing has arrived.", *trouble]),
    )


def _marts(platform: Platform, trouble: list[str]) -> Marts:
    """Return the marts, with their copy if that can be asked: what does not need it is done without."""
    served = open_served(platform.settings)
    try:
        if served is not None:
            served.generation_of("")
    except StoreError as error:
        trouble.append(str(error))
        served = None
    return Marts(platform.records, platform.objects, served)


def _request(instance: str) -> dg.RunRequest:
    """Return a run that reads what was not read yet. Runs of job logs take turns as those of one user do."""
    only_new = {"config": {"again": False}}
    return dg.RunRequest(
        job_name=JOB_LOGS_JOB,
        partition_key=instance,
        run_config={"ops": {"job_log_tables": only_new, "job_log_marts": only_new}},
        tags={USER_TAG: "job logs"},
    )


@contextmanager
def _told(what: str, trouble: list[str]) -> Generator[None]:
    """Let what goes wrong here be told, and hold up nothing else."""
    try:
        yield
    except (KnockemError, OSError) as error:
        trouble.append(f"{what}: {error}")


def _take_in(platform: Platform, seen: _Seen, trouble: list[str]) -> None:
    """Take in each report that has not changed since the last tick; tell what goes wrong."""
    ledger, began = Ledger(platform.records, platform.objects), time.monotonic()
    entries = {entry.key: entry for entry in platform.objects.list(DROPS)}
    now = {key: _version(entries, key) for key in sorted(entries) if dropped(key)}
    if none := platform.objects.no_objects(DROPS):
        trouble.append(passed_over(none))
    seen.failed = [key for key in seen.failed if key in now]
    for key in [*(key for key in now if key not in seen.failed), *seen.failed]:
        version = now[key]
        is_still = seen.drops.get(key) == version and _is_whole(entries, key)
        if not is_still or seen.taken.get(key) == version or time.monotonic() - began > TICK_SECONDS:
            continue
        seen.failed = [each for each in seen.failed if each != key]
        try:
            _receive(platform, ledger, key, entries)
        except (InvalidInput, Conflict) as error:
            trouble.append(f"{key}: {error}")
        except (KnockemError, OSError) as error:  # which may pass: it is tried again, after all others
            trouble.append(f"{key}: {error}")
            seen.failed.append(key)
            continue
        seen.taken[key] = version
    seen.drops = now
    seen.taken = {key: version for key, version in seen.taken.items() if key in now}


def _receive(platform: Platform, ledger: Ledger, key: str, entries: Mapping[str, StoredObject]) -> None:
    names = dropped(key)
    assert names is not None
    instance = local_instance(platform.records, names[0]).id
    try:
        check_name(names[1])
        _check_size(entries[key])
    except InvalidInput as error:
        what = f"It was refused as it was dropped: {'; '.join(map(str, error.faults))}"
        ledger.refuse(instance, names[1], QuarantineValue(what=what, remedy="put it there again as this says"))
        raise
    described, metadata = metadata_of(key), b""
    if described in entries:
        metadata = platform.objects.get_range(described, start=0, length=report_metadata.MOST_BYTES + 1)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        archive = Path(scratch) / "archive"
        platform.objects.fetch(key, archive)
        ledger.receive(instance, names[1], archive, metadata)


def _check_size(archive: StoredObject) -> None:
    if archive.size > folders.MOST_REPORT_BYTES:
        allowed = f"at most {folders.MOST_REPORT_BYTES:,} bytes are"
        raise InvalidInput("The report is too large.", [Fault("its archive", f"{archive.size:,} bytes", allowed)])


def _version(entries: dict[str, StoredObject], key: str) -> str:
    both = [entries[each] for each in (key, metadata_of(key)) if each in entries]
    return " ".join(f"{entry.size}:{entry.modified.isoformat()}" for entry in both)


def _is_whole(entries: dict[str, StoredObject], key: str) -> bool:
    """Tell whether metadata are there, or will hardly come any more."""
    age = time.time() - entries[key].modified.timestamp()
    return metadata_of(key) in entries or age > SECONDS_WITHOUT_METADATA


def _not_current(platform: Platform, instance: dg.DagsterInstance, marts: Marts, seen: _Seen) -> list[str]:
    """Return those of the next instances whose marts, or what was told of them, are not current; go round all."""
    where = {"_id": {"$gt": seen.after}}
    found = list(platform.records.job_log_instances.find(where, sort=[("_id", 1)], limit=MOST_LOOKED_AT))
    seen.after = found[-1].id if len(found) == MOST_LOOKED_AT else START
    ids = [each.id for each in found]
    return [id for id in ids if not (marts.is_current(id) and _is_told(platform, instance, marts, id))]


def _wanted(platform: Platform, ids: Collection[str]) -> list[str]:
    """Return those of the instances that are there, and are not being removed."""
    known = platform.records.job_log_instances.get_many(list(ids))
    return [id for id in ids if id in known and known[id].unwanted is None]


def _is_told(platform: Platform, instance: dg.DagsterInstance, marts: Marts, id: str) -> bool:
    """Tell whether Dagster knows of an instance what is so: others than its runs read reports, release and dismiss."""
    reports = reports_of(platform.records, id)
    if not reports:
        return True
    of_instance = dg.AssetRecordsFilter(asset_key=job_log_tables.key, asset_partitions=[id])
    latest = [each.asset_materialization for each in instance.fetch_materializations(of_instance, limit=1).records]
    if [(each.tags or {}).get(DATA_VERSION_TAG) for each in latest if each is not None] != [told_of(reports)]:
        return False
    try:
        marts.kept(id, TOOLS_FILE)
    except NotFound:
        return id not in marts.in_use()
    return True


def _may_run(instance: dg.DagsterInstance, id: str) -> bool:
    """Tell whether no run of an instance is under way, or has failed just now."""
    runs = instance.get_run_records(
        dg.RunsFilter(job_name=JOB_LOGS_JOB, tags={PARTITION_NAME_TAG: id}), limit=_MOST_FAILED
    )
    if any(not record.dagster_run.is_finished for record in runs):
        return False
    failed = 0
    while failed < len(runs) and runs[failed].dagster_run.status is dg.DagsterRunStatus.FAILURE:
        failed += 1
    wait = min(FIRST_WAIT * 2 ** (failed - 1), LONGEST_WAIT) if failed else 0.0
    return not failed or time.time() - runs[0].update_timestamp.timestamp() > wait
