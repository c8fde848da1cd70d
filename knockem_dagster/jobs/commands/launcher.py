"""Runs command jobs within their limits, at the least cost to the worker, and tells how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.containers.memory_watch import MEMORY_WATCH, MemoryWatch, Watched
from knockem_dagster.containers.output import Tail
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.commands.channel import Exit, SpawnedJob, SpawnerChannel
from knockem_dagster.jobs.commands.command import Command, CommandEnded

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_numbers = itertools.count(1)
"""Of all launchers of this process: a job's number is in its mark."""


class CommandLauncher:
    """Starts commands through a spawner of its own, which it starts when first needed and after its loss.

    For one event loop. A job's processes end with it: its group, daemons it left in sessions of their own, and,
    should the worker be killed, all of them.
    """

    def __init__(self, memory_watch: MemoryWatch = MEMORY_WATCH) -> None:
        self._memory_watch = memory_watch
        self._environment = {
            "PATH": os.environ.get("PATH", SYSTEM_PATH),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
        }
        self._channel: SpawnerChannel | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def run(self, command: Command) -> CommandEnded:
        """Run a command to its end. Cancelled, it kills the command and returns when nothing is left of it.

        Raises SpawnerLost when the command was lost, or could not be started for want of resources.
        """
        channel = self._channel
        if channel is None or channel.lost:
            channel = await self._open_channel()
        run = _Run(command, self._memory_watch)
        channel.start(
            run.job,
            arguments=command.arguments,
            environment={**self._environment, **command.environment},
            folder=None if command.folder is None else str(command.folder.absolute()),
            keep_output=command.keep_output,
        )
        return await run.to_its_end(lambda: channel.kill(run.job))

    @property
    def spawner_pid(self) -> int | None:
        """The process id of the spawner; None while there is none."""
        return None if self._channel is None or self._channel.lost else self._channel.pid

    def own_cpu_seconds(self) -> float:
        """Return the CPU time of the spawner itself, jobs excluded: with our own, it is what launching costs."""
        return 0.0 if self._channel is None else self._channel.own_cpu_seconds()

    def close(self) -> None:
        """Kill what still runs. Whoever waits for a job gets SpawnerLost."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    async def _open_channel(self) -> SpawnerChannel:
        async with self._opening:
            if self._closed:
                raise SpawnerLost("this launcher was closed: make another to run commands")
            if self._channel is None or self._channel.lost:
                self._channel = await SpawnerChannel.open()
            return self._channel


class _Run:
    """One command on its way: its limits, and why it was killed if it was."""

    def __init__(self, command: Command, memory_watch: MemoryWatch) -> None:
        self.job = SpawnedJob(next(_numbers), self._watch)
        self._command = command
        self._memory_watch = memory_watch
        self._watched: Watched | None = None
        self._timed_out = False

    async def to_its_end(self, kill: Callable[[], None]) -> CommandEnded:
        seconds = self._command.timeout_seconds
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._time_out, kill)
        try:
            how = await self._exit(kill)
        finally:
            if timer is not None:
                timer.cancel()
            if self._watched is not None:
                self._memory_watch.release(self._watched)
        return self._ended(how)

    async def _exit(self, kill: Callable[[], None]) -> Exit:
        try:
            return await self.job.exited
        except asyncio.CancelledError:
            kill()
            while not self.job.is_over:
                exited = self.job.exited = asyncio.get_running_loop().create_future()
                with contextlib.suppress(asyncio.CancelledError, SpawnerLost):
                    await exited
            raise

    def _time_out(self, kill: Callable[[], None]) -> None:
        self._timed_out = True
        kill()

    def _watch(self, pid: int) -> None:
        mebibytes = self._command.memory_mib
        limit = sys.maxsize if mebibytes is None else mebibytes << 20
        self._watched = self._memory_watch.watch(pid, memory_limit=limit, process_limit=sys.maxsize)

    def _ended(self, how: Exit) -> CommandEnded:
        watched = self._watched
        return CommandEnded(
            outcome=self._outcome(how),
            exit_code=how.exit_code,
            tail=_text(how.tail) if how.refusal is None else how.refusal,
            peak_memory=max(how.peak_memory, 0 if watched is None else watched.peak_memory),
            cpu_seconds=how.cpu_seconds,
            wall_seconds=how.wall_seconds,
        )

    def _outcome(self, how: Exit) -> Outcome:
        if self._watched is not None and self._watched.out_of_memory:
            return Outcome.OUT_OF_MEMORY
        if how.exit_code == 0:
            return Outcome.SUCCEEDED
        # Had it ended by itself in the moment before, it would not have died of our signal.
        return Outcome.TIMED_OUT if self._timed_out and how.exit_code == -signal.SIGKILL else Outcome.FAILED


def _text(output: bytes) -> str:
    tail = Tail()
    tail.feed(output)
    return tail.text
