"""An AWS Batch for tests: moto, over HTTP on loopback, whose jobs are as far as the test says and run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
import httpx
import pytest
from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend, Job, batch_backends
from moto.core import DEFAULT_ACCOUNT_ID

from tests.services.s3 import CREDENTIALS, s3_server

QUEUE, DEFINITION = "workers", "knockem-worker"
REGION = CREDENTIALS["AWS_REGION"]


@dataclass(frozen=True)
class BatchServer:
    """Where the server is; it has one queue and one job definition."""

    url: str

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs by id, to look at or to change."""
        return batch_backends[DEFAULT_ACCOUNT_ID][REGION]._jobs

    def set_state(
        self,
        id: str,
        status: str,
        *,
        started: datetime | None = None,
        stopped: datetime | None = None,
        **container: object,
    ) -> None:
        """Say how far a job is, since when, and what is told of its container, of which moto knows nothing."""
        job = self.jobs[id]
        job._container_details = lambda: container
        job.status = status
        job.job_stopped = stopped is not None
        job.job_started_at = job.job_started_at if started is None else started
        job.job_stopped_at = job.job_stopped_at if stopped is None else stopped


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    """Give a server without jobs."""
    with (
        s3_server() as url,
        httpx.Client(base_url=f"{url}/moto-api") as moto,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(BatchBackend, "describe_jobs", _describe_jobs)
        moto.post("/reset").raise_for_status()
        moto.post("/config", json={"batch": {"use_docker": False}}).raise_for_status()
        still = {"model_name": "batch::job", "transition": {"progression": "manual", "times": 1 << 30}}
        moto.post("/state-manager/set-transition", json=still).raise_for_status()
        _make_queue(url)
        try:
            yield BatchServer(url)
        finally:
            moto.post("/reset").raise_for_status()


_DESCRIBE_JOBS = BatchBackend.describe_jobs


def _describe_jobs(backend: BatchBackend, jobs: list[str]) -> list[dict[str, Any]]:
    """Describe jobs; unlike moto, as many at once as AWS does."""
    if not 1 <= len(jobs) <= 100:
        raise ClientException("jobs should have 1 to 100 elements")
    return _DESCRIBE_JOBS(backend, jobs)


def _make_queue(url: str) -> None:
    options: dict[str, Any] = {
        "endpoint_url": url,
        "region_name": REGION,
        "aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }
    iam, batch = boto3.client("iam", **options), boto3.client("batch", **options)
    role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch.create_compute_environment(
        computeEnvironmentName="machines", type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    order = [{"order": 1, "computeEnvironment": "machines"}]
    batch.create_job_queue(jobQueueName=QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order)
    container = {"image": "example.org/knockem:1", "vcpus": 1, "memory": 512, "command": ["knockem_dagster"]}
    batch.register_job_definition(jobDefinitionName=DEFINITION, type="container", containerProperties=container)
    iam.close()
    batch.close()
