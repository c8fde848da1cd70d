"""Nodes of Docker Compose: real containers of a real Compose, which do what a line of shell says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from knockem_dagster.containers.runtimes import has_engine
from knockem_dagster.nodes.node_pools import ComposePool
from knockem_dagster.nodes.opening import scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, NodeSight, Scheduler, SchedulerAway, node_name
from knockem_dagster.records.nodes import NodeState
from knockem_dagster.records.record import new_id
from tests.containers.laboratory import BASE_IMAGE, build_base_image

pytestmark = pytest.mark.docker
TOKEN = "the token of a 'worker'"
DRAINS = "trap 'sleep 1; echo drained > /out/last-words; exit' TERM; echo ready; sleep infinity & wait"
"""Draining takes a while, as a worker's does."""


@dataclass(frozen=True)
class Trial:
    """A scheduler whose containers do what a script says."""

    scheduler: Scheduler
    file: Path

    def order(self) -> NodeOrder:
        return NodeOrder(node_name(new_id()), {"KNOCKEM_URL": "http://host:3001", "KNOCKEM_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def engine() -> None:
    """An engine with an image, and Compose; skips where one is missing."""
    if not has_engine():
        pytest.skip("no container engine answers here")
    if shutil.which("docker-compose") is None and docker("compose", "version", check=False).returncode:
        pytest.skip("Docker Compose is missing")
    if reason := build_base_image():
        pytest.skip(reason)


@pytest.fixture
def trial(engine: None, tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    project = f"knockem-test-{new_id()[:8]}"

    def make(script: str = DRAINS, **service: Any) -> Trial:
        worker = {
            "image": BASE_IMAGE,
            "network_mode": "none",
            "volumes": [f"{tmp_path}:/out"],
            "entrypoint": ["sh", "-c", script.replace("$", "$$"), "entry-point"],
            **service,
        }
        file = tmp_path / "compose.yaml"
        file.write_text(yaml.safe_dump({"version": "3", "services": {"worker": worker}}))
        return Trial(scheduler_of(pool(file=str(file), project=project)), file)

    yield make
    label = f"label=com.docker.compose.project={project}"
    if left := docker("ps", "--all", "--quiet", "--filter", label).stdout.split():
        docker("rm", "--force", *left)


def pool(**changed: Any) -> ComposePool:
    limits = {"cpus": 1, "memory": "1g", "walltime": "00:10:00", "max_nodes": 4, "max_node_hours": 100}
    return ComposePool.model_validate({"name": "here", "scheduler": "compose", **limits, **changed})


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)


def first_line_of(name: str) -> str:
    """Wait for what a container says first."""
    with subprocess.Popen(["docker", "logs", "--follow", name], stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout is not None
        line = logs.stdout.readline()
        logs.terminate()
    return line


def exists(name: str) -> bool:
    return docker("container", "inspect", name, check=False).returncode == 0


def test_a_container_runs_the_worker_and_is_seen(trial: Callable[..., Trial]):
    before = datetime.now(UTC)
    made = trial()
    asked = made.order()
    assert made.scheduler.ask(asked) == asked.name
    [container] = json.loads(docker("inspect", asked.name).stdout)
    assert container["Args"][3:6] == ["knockem_dagster", "worker", "--cpus"]
    assert container["Args"][-2:] == ["--time-left", "540"]
    assert {f"{name}={value}" for name, value in asked.environment.items()} <= set(container["Config"]["Env"])
    sight = made.scheduler.look({asked.name: None, "knockem-never": None})
    assert list(sight) == [asked.name]
    assert (sight[asked.name].state, sight[asked.name].reason) == (NodeState.RUNNING, "")
    assert before <= (sight[asked.name].started or before) <= datetime.now(UTC)
    assert sight[asked.name].started is not None


def test_no_command_line_holds_the_token(trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "docker-compose"):
        if found := shutil.which(name):
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\nexec {found} "$@"\n')
            (folder / name).chmod(0o755)
    made = trial()
    asked = made.order()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
        made.scheduler.ask(asked)
        made.scheduler.look({asked.name: asked.name})
    told = calls.read_text()
    assert f"--name {asked.name} -e KNOCKEM_URL -e KNOCKEM_TOKEN worker knockem_dagster worker" in told
    assert TOKEN not in told


def test_a_container_that_failed_tells_how_and_is_removed(trial: Callable[..., Trial]):
    made = trial('echo "starting"; echo "KnockemError: the token is not known" >&2; exit 3')
    asked = made.order()
    before = datetime.now(UTC)
    made.scheduler.ask(asked)
    docker("wait", asked.name)
    sight = made.scheduler.look({asked.name: asked.name})[asked.name]
    assert sight.state is NodeState.ENDED
    assert sight.reason == "exited: exit code 3: starting KnockemError: the token is not known"
    for time in (sight.started, sight.ended):  # of a container this short the engine may tell them the wrong way round
        assert time is not None
        assert before <= time <= datetime.now(UTC)
    assert not exists(asked.name)
    assert not made.scheduler.look({asked.name: asked.name})


def test_a_container_that_is_done_is_no_failure(trial: Callable[..., Trial]):
    made = trial("echo done")
    asked = made.order()
    made.scheduler.ask(asked)
    docker("wait", asked.name)
    sight = made.scheduler.look({asked.name: asked.name})[asked.name]
    assert (sight.state, sight.reason) == (NodeState.ENDED, "exited")


def test_a_container_that_ate_its_memory_tells_so(trial: Callable[..., Trial]):
    eat = "exec python3 -c 'held = []\nwhile True: held.append(bytearray(10**6))'"
    made = trial(eat, mem_limit="32m", memswap_limit="32m")
    asked = made.order()
    made.scheduler.ask(asked)
    docker("wait", asked.name)
    reason = made.scheduler.look({asked.name: asked.name})[asked.name].reason
    assert reason.startswith("exited: out of memory: exit code 137")


def test_a_container_that_is_not_started_yet_is_pending(trial: Callable[..., Trial]):
    made = trial()
    name = made.order().name
    label = f"com.docker.compose.project={docker_project(made)}"
    docker("create", "--name", name, "--label", label, BASE_IMAGE, "true")
    assert made.scheduler.look({name: None}) == {name: NodeSight(name, NodeState.PENDING)}


def docker_project(made: Trial) -> str:
    words = made.scheduler.preview(made.order()).split()
    return words[words.index("-p") + 1]


def test_a_released_container_drains_and_is_gone(trial: Callable[..., Trial], tmp_path: Path):
    made = trial()
    released, kept = made.order(), made.order()
    for asked in (released, kept):
        made.scheduler.ask(asked)
    assert first_line_of(released.name) == "ready\n"
    made.scheduler.release([released.name, "knockem-which-never-was"])
    assert (tmp_path / "last-words").read_text() == "drained\n"
    assert not exists(released.name)
    assert exists(kept.name)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"entrypoint": ["no-such-program"]}, "no-such-program"),
        ({"image": "knockem/no-such-image:1"}, "no-such-image"),
    ],
)
def test_a_container_that_cannot_start_is_refused_and_leaves_nothing(
    trial: Callable[..., Trial], service: dict[str, Any], said: str
):
    made = trial(**service)
    asked = made.order()
    with pytest.raises(NodeRefused, match=said):
        made.scheduler.ask(asked)
    assert not exists(asked.name)


def test_a_service_or_file_that_is_missing_is_refused(trial: Callable[..., Trial]):
    made = trial()
    with pytest.raises(NodeRefused, match=r"(?i)no such service: no-such"):
        scheduler_of(pool(file=str(made.file), service="no-such")).ask(made.order())
    made.file.unlink()
    with pytest.raises(NodeRefused, match=r"(?i)no such file"):
        made.scheduler.ask(made.order())


def test_an_engine_that_does_not_answer_is_away(
    trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = trial()
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
        for ask in (
            lambda: made.scheduler.ask(made.order()),
            lambda: made.scheduler.look({"a": "a"}),
            lambda: made.scheduler.release(["a"]),
        ):
            with pytest.raises(SchedulerAway, match="Docker daemon"):
                ask()
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(SchedulerAway, match="docker is not installed"):
            made.scheduler.look({"a": "a"})


def test_an_engine_that_goes_away_within_a_look_says_nothing_of_containers(
    trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = trial()
    asked = made.order()
    made.scheduler.ask(asked)
    folder = tmp_path / "bin"
    folder.mkdir()
    away = f"export DOCKER_HOST=unix://{tmp_path}/nothing.sock"
    script = f'#!/bin/sh\ncase "$*" in *inspect*) {away};; esac\nexec {shutil.which("docker")} "$@"\n'
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
        with pytest.raises(SchedulerAway, match="Docker daemon"):
            made.scheduler.look({asked.name: asked.name})
    assert made.scheduler.look({asked.name: asked.name})[asked.name].state is NodeState.RUNNING
