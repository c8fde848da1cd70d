"""What became of nodes where SLURM keeps accounts: `sacct` tells it also after SLURM itself has forgotten."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.records.nodes import NodeState
from tests.services.api_server import ApiServer, running_api
from tests.services.node_play import in_slurm, nodes, submit, tend, write_pools
from tests.services.queues import running_queue
from tests.services.slurm import needs_slurm, running_slurm
from tests.services.waiting import until

pytestmark = needs_slurm("slurmdbd", "mariadbd", "mariadb-install-db")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with (
        running_slurm(with_accounting=True, min_job_age=2),
        running_queue(tmp_path / "home", lease_seconds=3.0) as queue,
        running_api(queue.settings) as api,
    ):
        yield api


def test_the_account_of_a_node_is_read_when_slurm_has_forgotten_it(api: ApiServer) -> None:
    write_pools(api, {"max_nodes": 1, "setup": ["echo the module is missing", "exit 7"]})
    submit(api, {"name": "a", "command": "true"})
    assert tend(api)[0].asked == 1
    [node] = nodes(api)
    assert node.external_id is not None
    until(lambda: not in_slurm())
    until(lambda: subprocess.run(["scontrol", "show", "job", str(node.external_id)], check=False).returncode)
    tend(api)
    over = nodes(api)[0]
    assert over.state is NodeState.FAILED
    assert "FAILED, exit code 7:0: the module is missing" in over.reason
    assert over.started is not None and over.ended is not None
