"""What tests of nodes share: a platform with a file of node pools, work for it, and a look at SLURM."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import httpx

from knockem_dagster.nodes.pool_states import PoolState
from knockem_dagster.nodes.tending import tend_nodes
from knockem_dagster.records.nodes import ScheduledNodeRecord
from tests.services.api_server import ALICE, ApiServer
from tests.services.command_line import ROOT
from tests.services.slurm import PARTITION
from tests.services.waiting import until


def write_pools(api: ApiServer, *pools: dict[str, Any], **whole: Any) -> None:
    """Write the file of node pools; a pool has nodes of one CPU that end after a second without work."""
    usual = {
        "name": "p",
        "scheduler": "slurm",
        "partition": PARTITION,
        "cpus": 1,
        "memory": "1g",
        "walltime": "00:10:00",
        "max_nodes": 2,
        "max_node_hours": 100,
        "idle_seconds": 1,
        "command": [sys.executable, "-P", "-m", "knockem_dagster"],
        "environment": {"PYTHONPATH": str(ROOT), "KNOCKEM_ENVIRONMENT": "testing", "KNOCKEM_LEASE_SECONDS": "3"},
        "folder": str(api.platform.settings.home),
    }
    content = {"url": api.url, "pools": [{**usual, **pool} for pool in pools], **whole}
    (api.platform.settings.folder / "nodes.yaml").write_text(json.dumps(content))


def tend(api: ApiServer) -> list[PoolState]:
    states = asyncio.run(tend_nodes(api.platform))
    assert states is not None
    return list(states)


def submit(api: ApiServer, *jobs: dict[str, Any], address: str = ALICE, **fields: Any) -> tuple[httpx.Client, str]:
    client = api.client(address)
    answer = client.post("/v1/workflows", json={"name": "w", "jobs": list(jobs), **fields})
    assert answer.status_code == 201, answer.text
    return client, f"/v1/workflows/{answer.json()['id']}"


def nodes(api: ApiServer) -> list[ScheduledNodeRecord]:
    return sorted(api.platform.records.scheduled_nodes.find({}), key=lambda node: node.datetime)


def in_slurm(form: str = "%i") -> list[str]:
    found = subprocess.run(["squeue", "--me", "-h", "-o", form], capture_output=True, text=True, check=True)
    return found.stdout.split("\n")[:-1]


def let_all_end(api: ApiServer) -> None:
    until(lambda: not in_slurm())
    tend(api)
