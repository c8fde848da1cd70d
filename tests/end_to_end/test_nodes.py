"""A study whose competitions are done on a node of SLURM, by an ordinary user, in containers of rootless podman.

The node's worker has a URL, a token and an image; it shares no folder with the platform.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.containers.laboratory import BASE_IMAGE, why_no_podman
from tests.end_to_end.homes import Home, until
from tests.services.command_line import ROOT
from tests.services.node_play import in_slurm
from tests.services.slurm import PARTITION, needs_slurm, running_slurm

IDLE_SECONDS = 5
pytestmark = [
    needs_slurm(),
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() == 0, reason="an ordinary user's test: podman is to be rootless"),
]


@pytest.fixture(scope="module")
def image() -> str:
    reason = why_no_podman()
    if reason is not None:
        pytest.skip(reason)
    organism = ROOT / "deploy" / "organisms" / "additive"
    name = "localhost/knockem/additive"
    build = ["podman", "build", "--quiet", "--build-arg", f"BASE_IMAGE=localhost/{BASE_IMAGE}", "--tag", name, organism]
    subprocess.run(build, check=True, capture_output=True)
    return name


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path / "platform")
    with running_slurm():
        home.up()
        try:
            yield home
        finally:
            subprocess.run(["scancel", "--me"], check=False)
            home.destroy()


def write_pool(home: Home, nodes: Path) -> None:
    """Let one node be asked for, whose worker is at home in a folder of its own."""
    output = home.folder / "output"
    url = until(lambda: re.search(r"Knockem is at (http://[0-9.:]+)", output.read_text()), "the HTTP API")[1]
    nodes.mkdir()
    environment = {
        "PYTHONPATH": str(ROOT),
        "KNOCKEM_HOME": str(nodes / "home"),
        "KNOCKEM_ENVIRONMENT": "testing",
        "KNOCKEM_LEASE_SECONDS": "6",
        "STORAGE_DRIVER": os.environ.get("STORAGE_DRIVER", "overlay"),
        "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", ""),
        "HOME": str(Path.home()),
    }
    pool = {
        "name": "podman",
        "scheduler": "slurm",
        "partition": PARTITION,
        "cpus": 2,
        "memory": "4g",
        "walltime": "00:30:00",
        "max_nodes": 1,
        "max_node_hours": 2,
        "idle_seconds": IDLE_SECONDS,
        "runtimes": ["podman"],
        "command": [sys.executable, "-P", "-m", "knockem_dagster"],
        "environment": {name: value for name, value in environment.items() if value},
        "folder": str(nodes),
    }
    home.data.mkdir(exist_ok=True, parents=True)
    (home.data / "nodes.yaml").write_text(json.dumps({"url": url, "pools": [pool]}))


def submit(home: Home, image: str) -> str:
    return home.submit(
        genome=str(ROOT / "deploy" / "organisms" / "additive" / "genome.txt"),
        containerImage=image,
        containerRuntime="podman",
        containerEnv=None,
        assayTypes=["nulldist", "screenCritical"],
        skeletons=None,
    )


def nodes_of(home: Home) -> dict[str, Any]:
    listed = home.command("nodes", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    [pool] = json.loads(listed.stdout)
    return pool


def worker_of_node() -> psutil.Process | None:
    """Return the worker that SLURM runs."""
    for process in psutil.process_iter():
        try:
            if "worker" in process.cmdline() and "SLURM_JOB_ID" in process.environ():
                return process
        except psutil.Error:
            continue
    return None


def test_a_node_does_competitions_and_is_released(home: Home, image: str, tmp_path: Path) -> None:
    write_pool(home, tmp_path / "node")
    study = submit(home, image)
    worker = until(worker_of_node, "a worker on a node")
    until(lambda: home.documents_of("computeNodes"), "its name in the record")
    shared = [file.path for file in worker.open_files() if file.path.startswith(str(home.path))]
    assert not shared
    until(lambda: home.submissions()[study]["state"] == "completed", "the end of the study")
    [name] = [node["id"] for node in home.documents_of("computeNodes")]
    results = home.documents_of("competitionAttemptResults")
    assert sum(result["worker"] == name for result in results) > 5, "the node had a share of the work"
    assert {result["outcome"] for result in results} == {"succeeded"}
    until(lambda: not in_slurm(), "the release of the node")
    until(lambda: nodes_of(home)["live"] == 0, "the note of its end")
    [node] = nodes_of(home)["nodes"]
    assert (node["state"], node["reason"]) == ("ended", "COMPLETED")


def test_a_node_is_released_when_daemon_and_api_are_killed(home: Home, image: str, tmp_path: Path) -> None:
    write_pool(home, tmp_path / "node")
    submit(home, image)
    until(worker_of_node, "a worker on a node")
    until(lambda: home.documents_of("computeNodes"), "its name in the record")
    home.destroy()
    until(lambda: not in_slurm(), "the release of the node")
    pool = nodes_of(home)
    assert 0 < pool["hours"] <= pool["max_node_hours"], "its time is promised until somebody sees that it is over"
