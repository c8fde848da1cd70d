"""The process runtime: organisms are folders of executables, run as plain processes.

For code one trusts: it bounds time, memory, processes and output, gives every command a session and
a folder of its own and a clean environment, and kills what is left, but it isolates nothing. Linux only.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.commands import Output, converse_with, run_to_end
from knockem_dagster.containers.memory_watch import MEMORY_WATCH
from knockem_dagster.containers.organism_folders import digest_folder, find_organism
from knockem_dagster.containers.output import Capture, Inbox
from knockem_dagster.containers.owners import Owner, current_owner, remove_abandoned_folders
from knockem_dagster.containers.process_command import ProcessCommand
from knockem_dagster.containers.runtime import ContainerSpec, Conversation, Ended, Image, RuntimeName
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import ContainerError


class ProcessRuntime:
    """Runs organism folders below `organisms`, and nothing else."""

    name: RuntimeName = "process"
    isolates = False

    def __init__(self, organisms: Sequence[Path]) -> None:
        """Raises ContainerError where there is no /proc to watch processes with."""
        if not sys.platform.startswith("linux"):
            raise ContainerError("the process runtime needs Linux: install a container engine and use --runtime docker")
        self._organisms = tuple(organisms)
        self._numbers = itertools.count(1)

    async def resolve(self, reference: str) -> Image:
        """Find an organism folder by its name, or by a path below KNOCKEM_ORGANISMS. Raises ImageNotFound."""
        folder = find_organism(reference, self._organisms)
        return Image("process", reference, await asyncio.to_thread(digest_folder, folder))

    async def run(self, spec: ContainerSpec, command: Sequence[str], stdin: bytes = b"") -> Ended:
        """Run one command to its end within the limits."""
        capture = Capture(spec.limits.output_bytes)
        limits = spec.limits
        cpu_limit = math.ceil(limits.timeout_seconds * max(1.0, limits.cpus)) + 1
        process = self._command(spec, command, capture, cpu_limit_seconds=cpu_limit)
        return await run_to_end(process, capture, stdin=stdin, timeout_seconds=limits.timeout_seconds)

    async def converse(self, spec: ContainerSpec, command: Sequence[str]) -> Conversation:
        """Start a command and keep talking to it. `limits.timeout_seconds` is not applied."""
        inbox = Inbox(spec.limits.output_bytes)
        return await converse_with(self._command(spec, command, inbox), inbox)

    async def remove_leftovers(self, submission_id: str | None = None) -> int:
        """Kill the processes of one submission, or of all whose owner is gone; return how many."""
        killed = 0
        for pid, owner_text, mark in marked_processes.marked_processes():
            owner = Owner.parse(owner_text)
            of_submission = submission_id is not None and mark.split("#", 2)[2:] == [submission_id]
            abandoned = submission_id is None and owner is not None and owner.is_gone
            if of_submission or abandoned:
                killed += marked_processes.kill(pid)
        remove_abandoned_folders()
        return killed

    async def remove_owned_by(self, owner: str) -> int:
        """Kill the processes that one process has started, dead or alive, and wait until they are gone."""
        return await asyncio.to_thread(marked_processes.end_owned_by, owner)

    def _command(
        self, spec: ContainerSpec, command: Sequence[str], output: Output, *, cpu_limit_seconds: int | None = None
    ) -> ProcessCommand:
        ensure_warden()
        return ProcessCommand(
            spec,
            command,
            output,
            organism=find_organism(spec.image.reference, self._organisms),
            mark=self._next_mark(spec.submission_id),
            memory_watch=MEMORY_WATCH,
            cpu_limit_seconds=cpu_limit_seconds,
        )

    def _next_mark(self, submission_id: str) -> str:
        return marked_processes.mark_of(str(current_owner()), next(self._numbers), submission_id)
