"""One child process of the process runtime: its own session, its pipes, its end.

The child is reaped through a pidfd in the event loop, so waiting costs no thread and the kernel's
account of its CPU time (that of its descendants included) can be read.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from knockem_dagster.containers.exits import ExitWatch

CORE_BYTES = 0
FILE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: exit code (negative for a signal) and seconds of CPU, descendants included."""

    exit_code: int
    cpu_seconds: float


class ChildProcess:
    """A started command. `died` is done when the process itself has ended, whatever its children do."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        on_stdout: Callable[[bytes], object],
        on_stderr: Callable[[bytes], object],
        on_stdout_end: Callable[[], object],
    ) -> None:
        """Start the command in a session of its own. Raises OSError when it cannot be executed."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        self.pid = self._process.pid
        self._connected = False
        loop = asyncio.get_running_loop()
        self.died: asyncio.Future[Death] = loop.create_future()
        self._stdout = _Reader(on_stdout, on_stdout_end)
        self._stderr = _Reader(on_stderr, lambda: None)
        self._stdin = _Writer()
        try:
            ExitWatch(self.pid, self._reap)
        except OSError:  # no file descriptor left
            self._kill_group()
            self._process.wait()
            raise
        self._limit(resource.RLIMIT_CORE, CORE_BYTES)
        self._limit(resource.RLIMIT_FSIZE, FILE_BYTES)

    def limit_cpu(self, seconds: int) -> None:
        """Let the kernel end the process after this much CPU time, should nobody else be left to do it."""
        self._limit(resource.RLIMIT_CPU, seconds)

    async def open_pipes(self) -> None:
        """Connect the three pipes to the event loop. Must be called once, before anything else."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: self._stdout, _pipe(self._process.stdout))
        await loop.connect_read_pipe(lambda: self._stderr, _pipe(self._process.stderr))
        await loop.connect_write_pipe(lambda: self._stdin, _pipe(self._process.stdin))
        self._connected = True

    async def write(self, data: bytes) -> bool:
        """Write to standard input, waiting while the pipe is full; False when nobody reads it any more."""
        return await self._stdin.write(data)

    def finish_input(self) -> None:
        """Close standard input once what was written has been read."""
        self._stdin.close()

    async def outputs_closed(self) -> None:
        """Wait until nobody holds the other end of standard output and error."""
        await asyncio.shield(self._stdout.closed)
        await asyncio.shield(self._stderr.closed)

    def kill(self) -> None:
        """Kill the process and its group. Safe after its end: the group's number is ours until we reap."""
        if not self.died.done():
            self._kill_group()

    def close_pipes(self) -> None:
        """Drop our ends of the pipes, whoever still holds the others."""
        for end in (self._stdin, self._stdout, self._stderr):
            end.abandon()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if not self._connected:
                _pipe(stream).close()

    def _limit(self, kind: int, most: int) -> None:
        _, hard = resource.prlimit(self.pid, kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.prlimit(self.pid, kind, (most, most))

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            self._process.kill()

    def _reap(self) -> None:
        self._kill_group()
        _, status, usage = os.wait4(self.pid, 0)
        exit_code = os.waitstatus_to_exitcode(status)
        self._process.returncode = exit_code  # reaped here: Popen must not wait for this number again
        if not self.died.done():
            self.died.set_result(Death(exit_code, usage.ru_utime + usage.ru_stime))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "all three streams are pipes"
    return stream


class _Reader(asyncio.Protocol):
    """Hands on what arrives, at once, and knows when nothing more can come."""

    def __init__(self, on_data: Callable[[bytes], object], on_end: Callable[[], object]) -> None:
        self._on_data = on_data
        self._on_end = on_end
        self._transport: asyncio.BaseTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()
        if not self.closed.done():
            self.closed.set_result(None)

    def abandon(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Writer(asyncio.BaseProtocol):
    """Writes with flow control."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._writable = asyncio.Event()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._writable.set()

    async def write(self, data: bytes) -> bool:
        if self._transport is None or self._over or self._transport.is_closing():
            return False
        self._transport.write(data)
        await self._writable.wait()
        return not self._over

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abandon(self) -> None:
        if self._transport is None or self._over:
            return
        # A transport that is closing with nothing left to write is about to say so; aborted now, it would say it twice.
        if not self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()
