"""What Dagster loads: the composition root, and the only module of this package that imports dagster.

The command line starts runs through `run_submission`; nothing opens a store when this is imported.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy.exc import DBAPIError

from assets import conclusions, job_log_profiles, job_logs, knockout, published
from assets.partitions import JOB_LOGS_JOB, SUBMISSION_JOB
from assets.selection import selection_of
from assets.trial import try_image
from assets.workflows import workflow
from knockem_dagster.errors import Conflict, KnockemError, SettingsError, StoreError
from knockem_dagster.joblogs.tool_profiles import spark_is_installed
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State
from knockem_dagster.settings import Settings
from resources.dagster_storage import forget, runs_of
from resources.names import INSTANCES, SUBMISSION_TAG, SUBMISSIONS, USER_TAG
from resources.platform import PlatformResource, SubmissionRuns
from sensors.arrivals import new_submissions, submission_uploads, uploaded_submissions
from sensors.dead_runs import settle_dead_runs
from sensors.job_logs import watch_job_logs
from sensors.nodes import watch_nodes
from sensors.queue_upkeep import queue_upkeep
from sensors.removed_instances import removed_instances
from sensors.schedules import retention, retention_schedule, summary_schedule
from sensors.upkeep import interrupted_submissions, leftovers
from sensors.workflows import watch_workflows

ROOT = Path(__file__).parent.parent
DAGSTER_HOME = "DAGSTER_HOME"
OUR_MARK = b"# Dagster's own storage and daemons for one machine"
"""How a configuration begins that this package wrote and may write anew."""
_OPENING = "opening.lock"
LEAST_FREE_BYTES = 1 << 20
"""With less than this SQLite cannot even read: it needs room for its log."""
SECONDS_FOR_RUNS_TO_END, SECONDS_BETWEEN_LOOKS = 30.0, 0.5
IN_PROCESS = {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
"""What a run is while it may still tell of what it does."""
SUBMISSION_ASSETS = [
    knockout.genome,
    knockout.null_distribution,
    published.screen,
    published.calibration,
    published.titration,
    published.skeletons,
    published.jackknife,
    knockout.weights,
    knockout.sets,
    knockout.prefix_skeletons,
    conclusions.estimates,
    conclusions.report,
]

JOB_LOG_ASSETS = [
    job_logs.job_log_archives,
    job_logs.job_log_tables,
    job_logs.job_log_marts,
    job_logs.job_log_recommendations,
]
SPARK_ASSETS = [job_log_profiles.job_log_tool_profiles] if spark_is_installed() else []


def build_definitions(
    *, resource_overrides: Mapping[str, dg.ConfigurableResource[Any]] | None = None
) -> dg.Definitions:
    """Put assets, jobs, sensors and schedules together; tests override resources."""
    platform = PlatformResource()
    submission_job = dg.define_asset_job(
        SUBMISSION_JOB,
        selection=dg.AssetSelection.assets(*SUBMISSION_ASSETS),
        executor_def=dg.in_process_executor,
        description="One submission, from its genome to its report, in one process.",
    )
    job_logs_job = dg.define_asset_job(
        JOB_LOGS_JOB,
        selection=dg.AssetSelection.assets(*JOB_LOG_ASSETS),
        executor_def=dg.in_process_executor,
        description="The job logs of one instance, from its archives to its marts, in one process.",
    )
    return dg.Definitions(
        assets=[
            *SUBMISSION_ASSETS,
            *JOB_LOG_ASSETS,
            *SPARK_ASSETS,
            conclusions.submission_summary,
            submission_uploads,
            workflow,
        ],
        jobs=[submission_job, job_logs_job, try_image, retention],
        sensors=[
            new_submissions,
            uploaded_submissions,
            interrupted_submissions,
            leftovers,
            queue_upkeep,
            watch_workflows,
            watch_nodes,
            watch_job_logs,
            removed_instances,
        ],
        schedules=[summary_schedule, retention_schedule],
        resources={
            "platform": platform,
            "runs": SubmissionRuns(platform=platform),
            "processes": dg.PipesSubprocessClient(),
            **(resource_overrides or {}),
        },
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster` commands load."""
    return build_definitions()


def dagster_home(settings: Settings) -> Path:
    """Return Dagster's own folder: DAGSTER_HOME where that is set, else one below home.

    Raises SettingsError when DAGSTER_HOME is no folder.
    """
    chosen = os.environ.get(DAGSTER_HOME)
    if not chosen:
        return settings.folder / "dagster"
    if not Path(chosen).is_absolute() or not Path(chosen).is_dir():
        raise SettingsError(
            f"DAGSTER_HOME is {chosen}: it must be the whole path of a folder that exists. Make that folder, or unset "
            f"DAGSTER_HOME: Dagster's storage is then below {settings.folder}."
        )
    return Path(chosen)


def prepare_dagster_home(settings: Settings) -> Path:
    """Return Dagster's own folder; the one below home is made, with the configuration that deploy/ keeps.

    A DAGSTER_HOME that is set belongs to its user, as does a configuration that does not begin as ours does: they
    are left as they are.
    """
    home = dagster_home(settings)
    if os.environ.get(DAGSTER_HOME):
        return home
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    configuration = home / "dagster.yaml"
    wanted = (ROOT / "deploy" / "dagster.yaml").read_bytes()
    if _may_be_written(configuration, wanted):
        partial = configuration.with_suffix(f".{os.getpid()}")
        partial.write_bytes(wanted)
        partial.replace(configuration)
    return home


def _may_be_written(configuration: Path, wanted: bytes) -> bool:
    """Tell whether a configuration is missing, or an older one of ours. A link is a choice, wherever it leads."""
    if configuration.is_symlink():
        return False
    if not configuration.exists():
        return True
    found = configuration.read_bytes()
    return found != wanted and found.startswith(OUR_MARK)


@contextmanager
def dagster_instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """Open Dagster's own storage. Raises StoreError where it cannot be used."""
    home = dagster_home(settings)
    try:
        prepare_dagster_home(settings)
        with ExitStack() as stack:
            is_ours = not os.environ.get(DAGSTER_HOME)
            stack.enter_context(_naming(home))
            with _one_at_a_time(home) if is_ours else nullcontext():
                instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
            yield instance
    except (DBAPIError, sqlite3.Error, OSError) as error:
        raise StoreError(_why_unusable(home, error)) from error


@contextmanager
def _one_at_a_time(home: Path) -> Generator[None]:
    """Let nobody else open the storage meanwhile: two that open a new one both make its files, and spoil them."""
    with (home / _OPENING).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _naming(home: Path) -> Generator[None]:
    """Name Dagster's folder to what Dagster starts, for as long as the block lasts."""
    before = os.environ.get(DAGSTER_HOME)
    os.environ[DAGSTER_HOME] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DAGSTER_HOME]
        else:
            os.environ[DAGSTER_HOME] = before


def _why_unusable(home: Path, error: DBAPIError | sqlite3.Error | OSError) -> str:
    """Say what is wrong with Dagster's storage. SQLite tells of a full disk in several ways, not all of them plain."""
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    is_full = shutil.disk_usage(place).free < LEAST_FREE_BYTES
    advice = "the disk is full: free some space and repeat" if is_full else "see the cause, and repeat"
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"Dagster's storage in {home} cannot be used: {advice} ({cause})"


def run_submission(settings: Settings, submission_id: str) -> bool:
    """Run a submission to its end in this process, recorded in Dagster's storage like any other run.

    Returns whether it is completed. Raises KnockemError with the reason when it failed.
    """
    logging.getLogger("dagster").setLevel(logging.WARNING)
    platform = Platform(settings)
    try:
        with dagster_instance(settings) as instance:
            settle_dead_runs(instance, platform)
            submission = platform.records.submissions.get(submission_id)
            instance.add_dynamic_partitions(SUBMISSIONS, [submission_id])
            job = build_definitions(resource_overrides=_resources(settings)).resolve_job_def(SUBMISSION_JOB)
            result = job.execute_in_process(
                instance=instance,
                partition_key=submission_id,
                asset_selection=selection_of(submission.assay_types),
                tags={SUBMISSION_TAG: submission_id, USER_TAG: submission.user_email},
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
        ended = platform.records.submissions.get(submission_id)
    finally:
        platform.close()
    if ended.state is State.COMPLETED:
        return True
    reason = ended.reason or _failure_in(result)
    raise KnockemError(
        f"Submission {submission_id} is {ended.state.value}"
        + (f": {reason.rstrip('.')}" if reason else "")
        + f". `./knockem resume {submission_id[:8]}` goes on with it."
    )


def _failure_in(result: dg.ExecuteInProcessResult) -> str | None:
    """Return what the first failed step told: all there is when the failure could not be recorded."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            return error and error.message.strip()
    return None


def _resources(settings: Settings) -> dict[str, dg.ConfigurableResource[Any]]:
    platform = PlatformResource(home=str(settings.home))
    return {"platform": platform, "runs": SubmissionRuns(platform=platform)}


def forget_submission(settings: Settings, submission_id: str, *, dry_run: bool) -> list[str]:
    """Remove a submission from Dagster's storage: its runs with their events, its partition, and all that names it.

    Returns what was removed, or with `dry_run` what would be, one line each.
    """
    with dagster_instance(settings) as instance:
        runs = runs_of(instance, submission_id)
        lines = [f"Dagster run {run.run_id} ({run.status.value.lower()}) with its events" for run in runs]
        if instance.has_dynamic_partition(SUBMISSIONS, submission_id):
            lines.append(f"Dagster partition {submission_id} with its materializations")
        if not dry_run:
            forget(instance, submission_id, of=SUBMISSIONS)
    return lines


def forget_instance(platform: Platform, instance_id: str) -> None:
    """Remove an instance, which nobody may want any more, from Dagster's storage, as `forget_submission` does.

    Raises Conflict where a run of it does not end soon, StoreError where the storage cannot be used.
    """
    with dagster_instance(platform.settings) as instance:
        last = time.monotonic() + SECONDS_FOR_RUNS_TO_END
        settle_dead_runs(instance, platform)
        while any(run.status in IN_PROCESS for run in runs_of(instance, instance_id)):
            if time.monotonic() > last:
                raise Conflict(
                    "A run of this instance is under way in Dagster, and would tell of it again. "
                    "It ends by itself: repeat the removal then, or terminate the run in the Dagster UI."
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
        forget(instance, instance_id, of=INSTANCES)


def daemon_is_running(settings: Settings) -> bool:
    """Tell whether a daemon looks after this home: it must have given a sign of life lately."""
    if not dagster_home(settings).is_dir():
        return False
    with dagster_instance(settings) as instance:
        statuses = instance.get_daemon_statuses()
        sensors = statuses.get("SENSOR")
        return bool(sensors and sensors.healthy)
