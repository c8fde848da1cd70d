"""A study whose competitions are all done on nodes of SLURM, by an ordinary user, in containers of rootless podman.

The workers of the nodes are told a URL and a token, and nothing of where the platform's folder is, which is out of
their sight; they make no stores of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from tests.containers.laboratory import BASE_IMAGE, why_no_podman
from tests.end_to_end import homes
from tests.end_to_end.homes import Home
from tests.services.command_line import ROOT
from tests.services.node_play import in_slurm
from tests.services.slurm import PARTITION, needs_slurm, running_slurm

IDLE_SECONDS = 5
RELEASE_SECONDS = 60.0
"""A node's worker is idle for IDLE_SECONDS, ends, and SLURM takes note: on a busy machine."""
ERRANDS_MIB = 1
"""The memory of a worker that does errands, and has no room for a competition."""
WALLTIME_HOURS = 0.5
MAX_NODE_HOURS = 1.0
NODES_PERMITTED = round(MAX_NODE_HOURS / WALLTIME_HOURS)
"""At a time, by their hours; `max_nodes` and the work would be for twice as many."""
NUM_SITES = 20
COMMAND = [sys.executable, "-P", "-m", "knockem_dagster"]
until = partial(homes.until, look_seconds=0.5)
Note: TypeAlias = Callable[[str, object], None]
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
    """A home where runs do no competitions, and one worker examines images; the fixture ends all that works for it."""
    home = Home.make(tmp_path / "platform", KNOCKEM_LEAVE_TO_WORKERS="true")
    with running_slurm():
        home.up()
        try:
            url_of(home)
            errands = home.start("worker", "--runtimes", "podman", "--memory", str(ERRANDS_MIB))
            yield home
        finally:
            subprocess.run(["scancel", "--me"], check=False)
            home.destroy()
        errands.wait(5)


def url_of(home: Home) -> str:
    """Return where the HTTP API is, as soon as it is there."""
    output = home.folder / "output"
    return until(lambda: re.search(r"Knockem is at (http://[0-9.:]+)", output.read_text()), "the HTTP API")[1]


def blindfold(hidden: Path, script: Path) -> list[str]:
    """Return what goes before a command that is to see an empty folder in that place.

    It runs in a mount namespace of its own and in podman's namespace of users, whose root is this user. The place
    stands in a script, and not in the command: what names the platform's folder ends with the platform.
    """
    script.write_text(f'#!/bin/sh\nmount -t tmpfs tmpfs {shlex.quote(str(hidden))} && exec "$@"\n')
    script.chmod(0o755)
    return ["podman", "unshare", "unshare", "--mount", str(script)]


def write_pool(home: Home, nodes: Path) -> None:
    """Let nodes be asked for, whose workers are at home in a folder of their own."""
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
        "walltime": f"{round(WALLTIME_HOURS * 60)}",
        "max_nodes": 2 * NODES_PERMITTED,
        "max_node_hours": MAX_NODE_HOURS,
        "idle_seconds": IDLE_SECONDS,
        "runtimes": ["podman"],
        "command": [*blindfold(home.folder, nodes / "blindfold"), *COMMAND],
        "environment": {name: value for name, value in environment.items() if value},
        "folder": str(nodes),
    }
    home.data.mkdir(exist_ok=True, parents=True)
    (home.data / "nodes.yaml").write_text(json.dumps({"url": url_of(home), "pools": [pool]}))


def submit(home: Home, image: str) -> str:
    genome = home.folder / "genome.txt"
    genome.write_text("0.5\n" * NUM_SITES)
    return home.submit(
        genome=str(genome),
        containerImage=image,
        containerRuntime="podman",
        containerEnv=None,
        assayTypes=["nulldist", "screenCritical"],
        skeletons=None,
        maxActive=16,
    )


def nodes_of(home: Home) -> dict[str, Any]:
    listed = home.command("nodes", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    [pool] = json.loads(listed.stdout)
    return pool


def workers_of_nodes() -> list[psutil.Process]:
    """Return the workers that SLURM runs."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_worker = process.cmdline()[:5] == [*COMMAND, "worker"]
            if is_worker and "SLURM_JOB_ID" in process.environ():
                found.append(process)
    return found


def names_of_workers(home: Home) -> set[str]:
    """Return the names of the workers on nodes, as the record has them."""
    return {each["id"] for each in home.documents_of("computeNodes") if each["memoryMiB"] > ERRANDS_MIB}


def most_hours(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Return the most node-hours used or promised at a time: they become more only when a node is asked for."""

    def at(moment: str) -> float:
        asked = [node for node in nodes if node["datetime"] <= moment]
        over = [node["hours"] for node in asked if node["ended"] is not None and node["ended"] <= moment]
        return sum(over) + (len(asked) - len(over)) * WALLTIME_HOURS

    return max(at(node["datetime"]) for node in nodes)


def work_on_nodes(home: Home) -> None:
    """Wait until an ordinary user's workers are on as many nodes as there may be; none sees the platform's folder."""
    until(lambda: len(names_of_workers(home)) >= NODES_PERMITTED, "workers on nodes")
    assert most_hours(nodes_of(home)["nodes"]) == MAX_NODE_HOURS
    there = workers_of_nodes()
    assert len(there) == NODES_PERMITTED
    assert {worker.uids().real for worker in there} == {os.getuid()} != {0}
    assert any(home.folder.iterdir())
    for worker in there:
        assert not any(Path(f"/proc/{worker.pid}/root{home.folder}").iterdir())


def wait_for_release(note: Note, since: str) -> None:
    """Wait until no node is left; note how long it took."""
    began = time.monotonic()
    until(lambda: not in_slurm(), "the release of the nodes", seconds=RELEASE_SECONDS)
    seconds = round(time.monotonic() - began, 1)
    note(f"seconds until nodes were released after {since}", f"{seconds} (idle_seconds {IDLE_SECONDS})")


def test_nodes_do_all_competitions_and_are_released(
    home: Home, image: str, tmp_path: Path, record_property: Note
) -> None:
    write_pool(home, tmp_path / "node")
    study = submit(home, image)
    work_on_nodes(home)
    until(lambda: home.submissions()[study]["state"] == "completed", "the end of the study")
    wait_for_release(record_property, "the end of the study")
    results = home.documents_of("competitionAttemptResults")
    workers = {result["worker"] for result in results}
    assert workers <= names_of_workers(home)
    assert len(workers) >= NODES_PERMITTED
    assert {result["outcome"] for result in results} == {"succeeded"}
    assert not list((tmp_path / "node").rglob("documents.sqlite"))
    until(lambda: nodes_of(home)["live"] == 0, "the note of their end")
    nodes = nodes_of(home)["nodes"]
    assert {(node["state"], node["reason"]) for node in nodes} == {("ended", "COMPLETED")}
    assert most_hours(nodes) == MAX_NODE_HOURS, "never beyond the limit, and up to it"


def test_nodes_are_released_when_daemon_and_api_are_killed(
    home: Home, image: str, tmp_path: Path, record_property: Note
) -> None:
    write_pool(home, tmp_path / "node")
    submit(home, image)
    work_on_nodes(home)
    home.destroy()
    wait_for_release(record_property, "the platform's death")
    assert nodes_of(home)["hours"] == MAX_NODE_HOURS, "their time is promised until somebody sees that it is over"
