"""The worker's end of the socket to its spawner: requests out, replies back to whoever waits for them."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.commands import messages

KIND = "command job"
"""Where the mark of a container's process names its submission."""

ROOT = Path(__file__).parents[3]
SPAWNER = f"import sys; sys.path.append(sys.argv[1]); from {__package__}.spawner import main; main(sys.argv[2])"
"""For an interpreter without site-packages: what those hold would make it larger, and slower to start."""

MOST_LOOKS = 50
"""For processes that do not die when killed, as one that waits for a broken disk; the warden stays behind."""

BUFFER_BYTES = 1 << 16
CLOSING_SECONDS = 5.0
"""How long a process may need to die of SIGKILL before we stop waiting for it."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job's processes ended: exit code, end of output, bytes, seconds. `refusal` says why nothing was started."""

    exit_code: int
    tail: bytes = b""
    peak_memory: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    refusal: str | None = None


class SpawnedJob:
    """A job that the spawner was asked to start.

    `exited` is done at its end; `on_long` is called with its process id once it has lived a few milliseconds.
    `is_over` tells the end also to one whose wait was cancelled, and `exited` with it.
    """

    __slots__ = ("exited", "is_over", "number", "on_long")

    def __init__(self, number: int, on_long: Callable[[int], object]) -> None:
        self.number = number
        self.on_long = on_long
        self.is_over = False
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()


class SpawnerChannel(asyncio.BufferedProtocol):
    """Talks to one spawner. `lost` once that has ended; then every job it had raises SpawnerLost."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner = str(current_owner())
        self._arriving = bytearray(BUFFER_BYTES)
        self._pending = bytearray()
        self._jobs: dict[int, SpawnedJob] = {}
        self.pid = 0
        self.lost = False

    @classmethod
    async def open(cls) -> SpawnerChannel:
        """Start a spawner, a process of 8 MB, and this process's warden."""
        ensure_warden()
        ours, theirs = socket.socketpair()
        with theirs:
            starter = _start(theirs)
        _, channel = await asyncio.get_running_loop().create_unix_connection(cls, sock=ours)
        try:
            await channel._ready
        except BaseException:
            channel.close()
            raise
        finally:
            starter.wait()  # it ends as soon as it has made the spawner
        return channel

    def start(
        self,
        job: SpawnedJob,
        *,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: str | None,
        keep_output: bool,
    ) -> None:
        """Have a job started. Its mark is added to its environment."""
        self._jobs[job.number] = job
        marked = {**environment, marked_processes.MARK: self._mark(job.number)}
        self._send((messages.START, job.number, list(arguments), marked, folder, keep_output))

    def kill(self, job: SpawnedJob) -> None:
        """Have a job killed; its end is reported as any other."""
        self._send((messages.KILL, job.number))

    def close(self) -> None:
        """Let go of the spawner, and wait the moment until it has killed what still runs and ended."""
        if self._transport is None or self._transport.is_closing():
            return
        ours: socket.socket = self._transport.get_extra_info("socket")
        ours.shutdown(socket.SHUT_RDWR)
        self._transport.close()
        try:
            pidfd = os.pidfd_open(self.pid)
        except (ProcessLookupError, ValueError):  # it has ended, or never said who it is
            return
        try:
            select.select([pidfd], [], [], CLOSING_SECONDS)
        finally:
            os.close(pidfd)

    def own_cpu_seconds(self) -> float:
        """Return the CPU time of the spawner itself, without its jobs; 0 once it has ended."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        user, system = text[text.rindex(")") + 2 :].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to put what arrives (asyncio calls this)."""
        return self._arriving

    def buffer_updated(self, nbytes: int) -> None:
        """Hand out the replies that have arrived (asyncio calls this)."""
        self._pending += memoryview(self._arriving)[:nbytes]
        for kind, *reply in messages.unpack(self._pending):
            if kind == messages.READY:
                (self.pid,) = reply
                self._ready.set_result(None)
            elif kind == messages.RUNNING:
                number, pid = reply
                self._jobs[number].on_long(pid)
            elif kind == messages.ENDED:
                self._exited(reply[0], Exit(*reply[1:]))
            else:
                number, exit_code, refusal = reply
                if exit_code is None:
                    self._fail(self._jobs.pop(number), refusal)
                else:
                    self._exited(number, Exit(exit_code, refusal=refusal))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the jobs that were running (asyncio calls this)."""
        self.lost = True
        if not self._ready.done():
            self._ready.set_exception(SpawnerLost("the process that starts commands could not be started: see above"))
        if not self._jobs:
            return
        self._kill_orphaned()
        for job in self._jobs.values():
            self._fail(job, "the process that starts commands has ended; what it had started was killed")
        self._jobs.clear()

    def _kill_orphaned(self) -> None:
        """Kill what the lost spawner had started, found by its marks, until a look (ten milliseconds) finds none."""
        marks = {self._mark(number) for number in self._jobs}
        for _ in range(MOST_LOOKS):
            found = [pid for pid, _, mark in marked_processes.marked_processes() if mark in marks]
            if not found:
                return
            for pid in found:
                marked_processes.kill(pid)

    def _mark(self, number: int) -> str:
        return marked_processes.mark_of(self._owner, number, KIND)

    def _send(self, request: tuple[object, ...]) -> None:
        if self._transport is not None:
            self._transport.write(messages.pack(request))

    def _exited(self, number: int, how: Exit) -> None:
        job = self._jobs.pop(number)
        job.is_over = True
        if not job.exited.done():
            job.exited.set_result(how)

    def _fail(self, job: SpawnedJob, reason: str) -> None:
        job.is_over = True
        if not job.exited.done():
            job.exited.set_exception(SpawnerLost(f"{reason}; the commands can be run again"))


def _start(channel: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SPAWNER, str(ROOT), f"{marked_processes.MARK}={current_owner()}#"],
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != marked_processes.MARK},
        start_new_session=True,  # a signal to our whole group must not take the spawner with it
    )
