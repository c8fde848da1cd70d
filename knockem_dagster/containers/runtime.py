"""What every container runtime offers. Implementations: docker_engine.py, podman_engine.py, apptainer.py, processes.py.

A runtime starts commands of an image (or organism folder) and tells how they ended; it knows
nothing of genomes or competitions, which is the contract's business (contract.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from knockem_dagster.settings import RuntimeName

RUN_BY_DIGEST: frozenset[RuntimeName] = frozenset({"docker", "podman"})
"""The runtimes that run what an image was when it was resolved, whatever its name stands for by now."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use: CPUs, memory in MiB, number of processes, seconds, bytes of output kept."""

    cpus: float = 1.0
    memory_mib: int = 1024
    processes: int = 128
    timeout_seconds: float = 60.0
    output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """A resolved image: `reference` as the user wrote it, `digest` what it was when resolved.

    docker, podman: digest is the image id or repository digest, and is what is run. apptainer: `reference` is a file,
    a folder or docker://NAME, digest is the SHA-256 over it. process: `reference` names a folder below
    KNOCKEM_ORGANISMS, digest is the SHA-256 over its files.
    """

    runtime: RuntimeName
    reference: str
    digest: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host, seen in the container. `writable` only for the result folder."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """How to start a container: what image, with what environment, limits, mounts and labels."""

    image: Image
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: Limits = field(default_factory=Limits)
    mounts: Sequence[Mount] = ()
    submission_id: str = ""


class EndCause:
    """Names of the ways a command ends; see Ended.cause."""

    EXITED = "exited"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    NOT_FOUND = "command not found"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `stdout` is cut at limits.output_bytes; `tail` is the end of stdout and stderr.

    `stdout_cut` tells that there was more. `exit_code` is negative for a signal; `peak_memory` is bytes over
    the process tree, None if the runtime cannot tell.
    """

    cause: str
    exit_code: int
    stdout: bytes
    tail: str
    wall_seconds: float
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    stdout_cut: bool = False


class Conversation(Protocol):
    """A long-lived command that one talks to over its standard input and output, a line at a time."""

    @property
    def peak_memory(self) -> int | None:
        """Bytes over the process tree at most so far, as of a moment ago; None if the runtime cannot tell."""
        ...

    async def write(self, lines: bytes) -> None:
        """Send whole lines: they are taken at once, then it waits for room. Raises ConversationOver at the end."""
        ...

    async def read(self) -> Sequence[bytes]:
        """Wait for at least one line; return all whole lines received. Empty when the command has ended."""
        ...

    async def end(self) -> Ended:
        """Kill what still runs, remove the container, and tell how it ended."""
        ...


class Runtime(Protocol):
    """Starts commands of images. Everything it starts carries the submission's label and dies with its caller."""

    name: RuntimeName
    isolates: bool

    async def resolve(self, reference: str) -> Image:
        """Find the image and pin it. Raises ImageNotFound, or ContainerError when there is no engine."""
        ...

    async def run(self, spec: ContainerSpec, command: Sequence[str], stdin: bytes = b"") -> Ended:
        """Run one command to its end within the limits."""
        ...

    async def converse(self, spec: ContainerSpec, command: Sequence[str]) -> Conversation:
        """Start a command and keep talking to it. `limits.timeout_seconds` is not applied."""
        ...

    async def remove_leftovers(self, submission_id: str | None = None) -> int:
        """Remove what a crash left behind (of one submission, or of all that have no living owner)."""
        ...

    async def remove_owned_by(self, owner: str) -> int:
        """Remove what one process of this machine has started, dead or alive (owners.py: str(current_owner()))."""
        ...
