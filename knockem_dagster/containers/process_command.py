"""One command of the process runtime, from its private folder to the last process it left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.child_process import ChildProcess
from knockem_dagster.containers.commands import Output, not_found
from knockem_dagster.containers.memory_watch import MemoryWatch, Watched
from knockem_dagster.containers.organism_folders import find_command
from knockem_dagster.containers.owners import private_folder
from knockem_dagster.containers.runtime import ContainerSpec, EndCause, Ended, Mount
from knockem_dagster.errors import ContainerError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNUSABLE = {errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ENOTDIR, errno.ELOOP}
"""What the kernel says of a file that is there but cannot be executed."""

CLOSING_SECONDS = 0.25
"""How long outputs may stay open after a command ended before daemons it left behind are looked for."""


class ProcessCommand:
    """Implements Command (see commands.py) for an executable of an organism folder."""

    def __init__(
        self,
        spec: ContainerSpec,
        command: Sequence[str],
        output: Output,
        *,
        organism: Path,
        mark: str,
        memory_watch: MemoryWatch,
        cpu_limit_seconds: int | None = None,
    ) -> None:
        """`cpu_limit_seconds` is the kernel's last resort, should both we and the warden be killed."""
        self._spec = spec
        self._command = command
        self._output = output
        self._organism = organism
        self._mark = mark
        self._memory_watch = memory_watch
        self._cpu_limit_seconds = cpu_limit_seconds
        self._folder = private_folder()
        self._started = time.perf_counter()
        self._child: ChildProcess | None = None
        self._watched: Watched | None = None
        self._ended: Ended | None = None

    @property
    def peak_memory(self) -> int | None:
        """Bytes over the process tree at most so far; None before the first look."""
        return (self._watched.peak_memory or None) if self._watched is not None else None

    async def start(self) -> None:
        """Start the process; a missing or unusable executable makes a command that has ended."""
        arguments = self._arguments()
        if isinstance(arguments, str):
            self._never_started(arguments)
            return
        try:
            self._child = child = ChildProcess(
                arguments,
                environment=self._environment(),
                folder=Path(self._folder.name),
                on_stdout=self._take_stdout,
                on_stderr=self._output.feed_stderr,
                on_stdout_end=self._output.close,
            )
        except OSError as error:
            if error.errno not in UNUSABLE:
                raise ContainerError(f"{arguments[0]} could not be started: {error.strerror}") from error
            self._never_started(f"{arguments[0]} cannot be executed ({error.strerror}): check its first line, `#!...`")
            return
        limits = self._spec.limits
        self._watched = self._memory_watch.watch(
            child.pid, memory_limit=limits.memory_mib << 20, process_limit=limits.processes
        )
        if self._cpu_limit_seconds is not None:
            child.limit_cpu(self._cpu_limit_seconds)
        loop = asyncio.get_running_loop()
        child.died.add_done_callback(lambda _: loop.call_later(CLOSING_SECONDS, self._output.close))
        await child.open_pipes()

    async def write(self, data: bytes) -> bool:
        """Write to standard input; False when nobody reads it any more."""
        return self._child is not None and await self._child.write(data)

    async def finish_input(self) -> None:
        """Close standard input."""
        if self._child is not None:
            self._child.finish_input()

    async def finished(self) -> None:
        """Wait until the process has ended."""
        if self._child is not None:
            await asyncio.shield(self._child.died)

    async def end(self) -> Ended:
        """Kill the process, its group and descendants, and remove its folder."""
        if self._ended is None:
            self._ended = await self._clear_away()
        return self._ended

    async def _clear_away(self) -> Ended:
        child, watched = self._child, self._watched
        if child is None or watched is None:
            self._folder.cleanup()
            return not_found("it was never started")
        self._memory_watch.release(watched)
        watched.tree.look()  # those that left the group are still their parents' children
        child.kill()
        watched.tree.kill()
        death = await asyncio.shield(child.died)
        await self._close_outputs(child)
        self._folder.cleanup()
        return Ended(
            cause=EndCause.OUT_OF_MEMORY if watched.out_of_memory else EndCause.EXITED,
            exit_code=death.exit_code,
            stdout=b"",
            tail=watched.tail_of(self._output.tail),
            wall_seconds=time.perf_counter() - self._started,
            cpu_seconds=death.cpu_seconds,
            peak_memory=self.peak_memory,
        )

    async def _close_outputs(self, child: ChildProcess) -> None:
        """Read the outputs to their end; if a daemon keeps them open, kill whatever carries this command's mark."""
        if not await _within(CLOSING_SECONDS, child.outputs_closed()):
            await asyncio.to_thread(marked_processes.kill_marked, self._mark)
            await _within(CLOSING_SECONDS, child.outputs_closed())
        child.close_pipes()

    def _never_started(self, reason: str) -> None:
        self._folder.cleanup()
        self._output.close()
        self._ended = not_found(reason)

    def _take_stdout(self, data: bytes) -> None:
        if not self._output.feed_stdout(data) and self._child is not None:
            self._child.kill()

    def _arguments(self) -> list[str] | str:
        """Return what to execute, or why that cannot be done."""
        executable = find_command(self._organism, self._command[0])
        return executable if isinstance(executable, str) else [str(executable), *self._command[1:]]

    def _environment(self) -> dict[str, str]:
        """Return the command's whole environment: what the specification says, and what any program needs."""
        given = {name: translate(value, self._spec.mounts) for name, value in self._spec.environment.items()}
        path = given.pop("PATH", f"{SYSTEM_PATH}:{Path(sys.executable).parent}")
        return {
            "LANG": "C.UTF-8",
            "HOME": self._folder.name,
            "TMPDIR": self._folder.name,
            **given,
            "PATH": f"{self._organism}{os.pathsep}{path}",
            marked_processes.MARK: self._mark,
        }


async def _within(seconds: float, event: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True


def translate(value: str, mounts: Sequence[Mount]) -> str:
    """Replace a mount's target at the start of a value, or of a part of a list of paths, by its source.

    A process sees the host's files where they are, so this is all that mounting means for it.
    """
    return os.pathsep.join(_translate_path(part, mounts) for part in value.split(os.pathsep))


def _translate_path(path: str, mounts: Sequence[Mount]) -> str:
    for mount in mounts:
        if path == mount.target or path.startswith(f"{mount.target}/"):
            return f"{mount.source}{path.removeprefix(mount.target)}"
    return path
