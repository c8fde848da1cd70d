"""The podman runtime: the docker runtime's containers, on podman's service, for root and ordinary users.

What the kernel does not limit for a user who is not root (podman_service.PodmanFacts) is watched, as for processes:
memory and the number of processes; a share of the CPU is then not enforced.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit
from typing import Any

from knockem_dagster.containers.commands import Output
from knockem_dagster.containers.docker_command import DockerCommand
from knockem_dagster.containers.docker_engine import DockerRuntime
from knockem_dagster.containers.hardening import describe_container
from knockem_dagster.containers.memory_watch import MEMORY_WATCH
from knockem_dagster.containers.podman_service import PodmanEngine, PodmanFacts, podman_facts
from knockem_dagster.containers.runtime import ContainerSpec, RuntimeName
from knockem_dagster.errors import ImageNotFound

LIMITED_BY = {"Memory": "memory", "MemorySwap": "memory", "PidsLimit": "pids", "NanoCpus": "cpu"}
"""Which controller each limit needs: podman refuses, or ignores, those it has none for."""
ITSELF = "0:0"
SMALL_TMPFS = "rw,nosuid,nodev,noexec,mode=1777,size=1m"


class PodmanRuntime(DockerRuntime):
    """Runs images with podman, as whoever runs this."""

    name: RuntimeName = "podman"

    def __init__(self) -> None:
        """Raises ContainerError when podman cannot be used here."""
        self._facts = podman_facts()
        super().__init__(PodmanEngine())

    def _pull(self, reference: str) -> None:
        pull_with_podman(reference)

    def _command(self, spec: ContainerSpec, command: Sequence[str], output: Output, image_user: str) -> DockerCommand:
        body = for_podman(describe_container(spec, command, image_user=image_user), self._facts)
        watch = None if {"memory", "pids"} <= self._facts.controllers else MEMORY_WATCH
        return DockerCommand(self._engine, spec, command, output, body=body, memory_watch=watch)


def for_podman(body: Mapping[str, Any], facts: PodmanFacts) -> dict[str, Any]:
    """Return the description of a container without what podman cannot do for this user.

    Without subordinate ids the container's user is its root, who has no capabilities and is the caller outside.
    Podman makes more places to write in a read-only container than /tmp: they are kept small.
    """
    possible = {"", *facts.controllers}
    host = {name: value for name, value in body["HostConfig"].items() if LIMITED_BY.get(name, "") in possible}
    host["Ulimits"] = [*host["Ulimits"], *_own_limits()]
    host["Tmpfs"] = {**host["Tmpfs"], "/run": SMALL_TMPFS, "/var/tmp": SMALL_TMPFS}
    user = body["User"] if facts.maps_users else ITSELF
    return {**body, "User": user, "HostConfig": host}


def _own_limits() -> list[dict[str, Any]]:
    """Return the user's limits of open files and processes.

    Podman would ask for 1,048,576 of each where it runs as root, who may not always have them, and has itself no more
    processes than there are numbers for.
    """
    numbers = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    files, processes = getrlimit(RLIMIT_NOFILE)[1], getrlimit(RLIMIT_NPROC)[1]
    processes = numbers if processes == RLIM_INFINITY else min(processes, numbers)
    return [{"Name": name, "Soft": most, "Hard": most} for name, most in (("nofile", files), ("nproc", processes))]


def pull_with_podman(reference: str) -> None:
    """Pull an image, blocking, with podman's and Docker's credentials. Raises ImageNotFound."""
    pulled = subprocess.run(["podman", "pull", "--quiet", "--", reference], capture_output=True, text=True, check=False)
    if pulled.returncode != 0:
        raise ImageNotFound(
            f"image {reference!r} is not among podman's on this machine, and pulling it failed: "
            f"{pulled.stderr.strip()[-500:]}. Check its name, `podman login` for a private registry, or build it here "
            "with `podman build -t`; images of Docker are not podman's."
        )
