"""Nodes of AWS Batch: jobs of a queue, by a definition whose image is ours.

The token of a worker is in the environment of its job: who may describe the jobs of the queue can read it there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from knockem_dagster.nodes.node_pools import AwsBatchPool
from knockem_dagster.nodes.schedulers import ANSWER_SECONDS, NodeOrder, NodeRefused, NodeSight, SchedulerAway, reason_of
from knockem_dagster.nodes.worker_image import image_arguments
from knockem_dagster.records.nodes import NodeState

TRIES = 1
"""Asking again might make two jobs of one node: AWS Batch takes the same request twice."""
MOST_DESCRIBED = 100
"""Jobs that AWS describes in one answer."""
_REFUSALS = ("ClientException", "AccessDeniedException", "ValidationException")
_STATES = {"RUNNING": NodeState.RUNNING, "SUCCEEDED": NodeState.ENDED, "FAILED": NodeState.ENDED}
"""Any other is on its way."""


class AwsBatch:
    """A job queue of AWS Batch, with the credentials that boto3 finds: a Scheduler."""

    def __init__(self, pool: AwsBatchPool) -> None:
        self._pool = pool

    def ask(self, order: NodeOrder) -> str:
        """Submit a job."""
        with _answering():
            try:
                return self._client.submit_job(**self._request(order))["jobId"]
            except ParamValidationError as error:
                raise NodeRefused(reason_of(str(error))) from error
            except ClientError as error:
                if error.response["Error"]["Code"] in _REFUSALS:
                    raise NodeRefused(reason_of(str(error))) from error
                raise

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        """Describe the jobs, which AWS knows for a week, and look for those whose ids we never heard."""
        with _answering():
            ids = [id for name, known in nodes.items() for id in ([known] if known else self._ids_of(name))]
            return {job["jobName"]: _sight(job) for job in self._described(ids)}

    def release(self, external_ids: Collection[str]) -> None:
        """Terminate jobs, which cancels those that have not started."""
        with _answering():
            for id in sorted(external_ids):
                self._client.terminate_job(jobId=id, reason="let go")

    def preview(self, order: NodeOrder) -> str:
        """Return the request in JSON."""
        return json.dumps(self._request(order), indent=2)

    @cached_property
    def _client(self) -> Any:
        pool = self._pool
        tries = {"total_max_attempts": TRIES}
        config = Config(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries=tries)
        return boto3.client("batch", region_name=pool.region, endpoint_url=pool.endpoint, config=config)

    def _request(self, order: NodeOrder) -> dict[str, Any]:
        pool = self._pool
        amounts = {"VCPU": f"{pool.cpus:g}", "MEMORY": f"{pool.memory}", "GPU": f"{pool.gpus}" if pool.gpus else None}
        return {
            "jobName": order.name,
            "jobQueue": pool.job_queue,
            "jobDefinition": pool.job_definition,
            "containerOverrides": {
                "command": image_arguments(pool),
                "environment": [{"name": name, "value": value} for name, value in order.environment.items()],
                "resourceRequirements": [{"type": type, "value": value} for type, value in amounts.items() if value],
            },
            "retryStrategy": {"attempts": 1},
            "timeout": {"attemptDurationSeconds": pool.walltime},
        }

    def _ids_of(self, name: str) -> list[str]:
        pages = self._client.get_paginator("list_jobs").paginate(
            jobQueue=self._pool.job_queue, filters=[{"name": "JOB_NAME", "values": [name]}]
        )
        return [job["jobId"] for page in pages for job in page["jobSummaryList"]]

    def _described(self, ids: Sequence[str]) -> Iterator[Any]:
        for first in range(0, len(ids), MOST_DESCRIBED):
            yield from self._client.describe_jobs(jobs=ids[first : first + MOST_DESCRIBED])["jobs"]


@contextmanager
def _answering() -> Generator[None]:
    """Raise SchedulerAway for whatever AWS says that nobody has caught."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SchedulerAway(reason_of("AWS Batch does not answer as it should", str(error))) from error


def _sight(job: Mapping[str, Any]) -> NodeSight:
    state = _STATES.get(job["status"], NodeState.PENDING)
    container = job.get("container", {})
    code = container.get("exitCode")
    reason = reason_of(
        job["status"] if state is not NodeState.RUNNING else None,
        job.get("statusReason"),
        container.get("reason"),
        f"exit code {code}" if code else None,
    )
    return NodeSight(job["jobId"], state, reason, _time(job.get("startedAt")), _time(job.get("stoppedAt")))


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
