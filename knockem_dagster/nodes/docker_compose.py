"""Nodes that are containers of a service of Docker Compose, on the engine that the `docker` command reaches.

The token of a worker is in the environment of its container: who may use the engine can read it there.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from knockem_dagster.nodes.node_pools import ComposePool
from knockem_dagster.nodes.scheduler_commands import run_command
from knockem_dagster.nodes.schedulers import (
    ANSWER_SECONDS,
    NAME,
    NodeOrder,
    NodeRefused,
    NodeSight,
    SchedulerAway,
    reason_of,
)
from knockem_dagster.nodes.worker_image import DRAIN_SECONDS, image_arguments
from knockem_dagster.records.nodes import NodeState

START_SECONDS = 600
"""How long Compose may take to start a container: the image may have to come first."""
LAST_LINES = 3
_STATES = {"created": NodeState.PENDING, "exited": NodeState.ENDED, "dead": NodeState.ENDED}
"""Any other is there."""
_GONE = "no such container"


class DockerCompose:
    """A service of a Compose file, as the commands on this machine show it: a Scheduler."""

    def __init__(self, pool: ComposePool) -> None:
        self._pool = pool

    def ask(self, order: NodeOrder) -> str:
        """Start a container of the service; one that cannot start leaves nothing behind."""
        _engine("version", "--format", "{{.Server.Version}}")
        answer = run_command(*_compose(), *self._options(order), environment=order.environment, seconds=START_SECONDS)
        if answer.returncode:
            run_command("docker", "rm", "--force", order.name)
            said = answer.stderr.strip().splitlines()[-LAST_LINES:]
            raise NodeRefused(reason_of("Docker Compose", f"exit code {answer.returncode}", "\n".join(said)))
        return order.name

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        """Inspect our containers, and remove those that are over."""
        names = _engine("ps", "--all", "--filter", f"name={NAME}", "--format", "{{.Names}}").split()
        found = _inspected([name for name in names if name in nodes])
        seen = {container["Name"].removeprefix("/"): _sight(container) for container in found}
        _remove([name for name, sight in seen.items() if sight.state.is_over])
        return seen

    def release(self, external_ids: Collection[str]) -> None:
        """Stop containers, which lets their workers drain, and remove them."""
        if external_ids:
            names = sorted(external_ids)
            _of_containers("stop", "-t", f"{DRAIN_SECONDS}", *names, seconds=DRAIN_SECONDS + ANSWER_SECONDS)
            _remove(names)

    def preview(self, order: NodeOrder) -> str:
        """Return the call of Compose, with the environment that it is given."""
        given = [f"{name}={shlex.quote(value)}" for name, value in order.environment.items()]
        return " ".join([*given, shlex.join(["docker", "compose", *self._options(order)])])

    def _options(self, order: NodeOrder) -> list[str]:
        pool = self._pool
        project = [] if pool.project is None else ["-p", pool.project]
        # Names only: the command line is for everybody on this machine to see.
        passed = [part for name in order.environment for part in ("-e", name)]
        run = ["run", "--detach", "--no-deps", "--name", order.name, *passed]
        return ["-f", pool.file, *project, *run, pool.service, *image_arguments(pool)]


def _sight(container: Mapping[str, Any]) -> NodeSight:
    name, told = container["Name"].removeprefix("/"), container["State"]
    state = _STATES.get(told["Status"], NodeState.RUNNING)
    started, ended = _time(told["StartedAt"]), _time(told["FinishedAt"])
    if state is not NodeState.ENDED:
        return NodeSight(name, state, told["Error"], started)
    code = told["ExitCode"]
    reason = reason_of(
        "exited",
        "out of memory" if told["OOMKilled"] else None,
        told["Error"],
        f"exit code {code}" if code else None,
        _last_lines(name) if code else None,
    )
    return NodeSight(name, state, reason, started, ended)


def _inspected(names: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Return what the engine knows of containers; those that have gone meanwhile are left out."""
    return json.loads(_of_containers("inspect", *names)) if names else []


def _last_lines(name: str) -> str:
    answer = run_command("docker", "logs", "--tail", f"{LAST_LINES}", name)
    return answer.stdout + answer.stderr


def _remove(names: Sequence[str]) -> None:
    if names:
        _of_containers("rm", "--force", *names)


def _time(text: str) -> datetime | None:
    """Read a time of the engine's; None for the year 1, which is never."""
    return None if text.startswith("0001-") else datetime.fromisoformat(text)


def _compose() -> tuple[str, ...]:
    """Return the command of Compose: the plugin of `docker`, else the program. Raises SchedulerAway."""
    if not run_command("docker", "compose", "version").returncode:
        return ("docker", "compose")
    if shutil.which("docker-compose") is None:
        raise SchedulerAway("Docker Compose is not installed on this machine")
    return ("docker-compose",)


def _of_containers(*arguments: str, seconds: float = ANSWER_SECONDS) -> str:
    """Return what the engine answers of containers, some of which may be gone. Raises SchedulerAway for all else."""
    answer = run_command("docker", "container", *arguments, seconds=seconds)
    complaints = [line for line in answer.stderr.splitlines() if line.strip() and _GONE not in line.lower()]
    if answer.returncode and complaints:
        raise SchedulerAway(reason_of("docker", "\n".join(complaints)))
    return answer.stdout


def _engine(*arguments: str) -> str:
    """Return what the engine answers. Raises SchedulerAway where it does not."""
    answer = run_command("docker", *arguments)
    if answer.returncode:
        raise SchedulerAway(reason_of("docker", answer.stderr))
    return answer.stdout
