"""One command of the docker runtime: a container from its creation to its removal."""

from __future__ import annotations

import asyncio
import re
import signal
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from knockem_dagster.containers.cgroup_counters import CgroupCounters, Counters
from knockem_dagster.containers.commands import Output, not_found
from knockem_dagster.containers.engine_api import READ_BYTES, Attachment, Engine, EngineError
from knockem_dagster.containers.exits import ExitWatch
from knockem_dagster.containers.frames import STDOUT, FrameReader
from knockem_dagster.containers.memory_watch import MemoryWatch, Watched
from knockem_dagster.containers.runtime import ContainerSpec, EndCause, Ended
from knockem_dagster.errors import ContainerError

NEVER_EXECUTED = re.compile(
    r"(?:standard_init_linux\.go:\d+: )?exec (?:user process caused|\S+): "
    r"(?:no such file or directory|exec format error|permission denied)"
)
"""What runc writes, in the container's name, when the kernel refuses to execute the command."""

NAME_PREFIX = "knockem-"
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.01, 0.1
"""How often the counters are read while it runs: on a busy machine the last of them are missed."""
LAST_OUTPUT_SECONDS = 5.0
"""How long the engine may take to hand over what a stopped container had written."""

Answer = TypeVar("Answer")


class DockerCommand:
    """Implements Command (see commands.py) for a container of its own."""

    def __init__(
        self,
        engine: Engine,
        spec: ContainerSpec,
        command: Sequence[str],
        output: Output,
        *,
        body: Mapping[str, Any],
        memory_watch: MemoryWatch | None = None,
    ) -> None:
        """`body` is the engine's description of the container; see hardening.py.

        `memory_watch` keeps memory and processes below their limits where the engine's cgroups cannot.
        """
        self._engine = engine
        self._spec = spec
        self._command = command
        self._output = output
        self._body = body
        self._memory_watch = memory_watch
        self._watched: Watched | None = None
        self._name = f"{NAME_PREFIX}{uuid.uuid4().hex}"
        self._path = f"/containers/{self._name}"
        self._started = time.perf_counter()
        self._attached: Attachment | None = None
        self._reading: asyncio.Task[None] | None = None
        self._cgroup: CgroupCounters | None = None
        self._exit_watch: ExitWatch | None = None
        self._first_process_ended = asyncio.Event()
        self._first_process_ended.set()
        self._looking: asyncio.Task[None] | None = None
        self._counters: Counters | None = None
        self._counters_are_final = False
        self._created = time.time()
        self._ended: Ended | None = None

    @property
    def peak_memory(self) -> int | None:
        """Bytes over the container at most so far; None before the first look, and where the kernel does not tell."""
        counted = self._counters.peak_memory if self._counters is not None else None
        watched = self._watched.peak_memory if self._watched is not None else None
        return counted or watched or None

    async def start(self) -> None:
        """Create, attach, start. A command that is not in the image makes one that has ended."""
        created = await uninterrupted(
            self._engine.call("POST", "/containers/create", query={"name": self._name}, body=self._body)
        )
        try:
            self._attached = await self._engine.attach(self._name)
            self._reading = asyncio.create_task(self._read(self._attached.reader))
            await uninterrupted(self._engine.call("POST", f"{self._path}/start"))
        except EngineError as error:
            if not _is_about_the_command(error):
                raise ContainerError(f"image {self._spec.image.reference} cannot be run: {error.reason}") from error
            await self._remove()
            self._output.close()
            self._ended = self._cannot_be_run(error.reason)
            return
        self._started = time.perf_counter()
        state = await self._inspect()
        self._watch(created["Id"], int(state["Pid"]))

    def _watch(self, container: str, pid: int) -> None:
        """Have memory watched if need be, and the counters read now and then, and when they are final."""
        if not pid:
            return  # it has ended already: the engine's memory of events must do
        if self._memory_watch is not None:
            limits = self._spec.limits
            self._watched = self._memory_watch.watch(
                pid, memory_limit=limits.memory_mib << 20, process_limit=limits.processes
            )
        self._cgroup = CgroupCounters.of_container(container, pid)
        if self._cgroup is not None or self._engine.has_local_processes:
            try:
                self._exit_watch = ExitWatch(pid, self._take_end)
            except ProcessLookupError:
                return
            self._first_process_ended.clear()
        if self._cgroup is not None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while not self._counters_are_final:
            self._read_counters()
            await asyncio.sleep(pause)
            pause = min(LONGEST_LOOK_SECONDS, 2 * pause)

    async def write(self, data: bytes) -> bool:
        """Write to standard input; False when nobody reads it any more."""
        if self._ended or self._attached is None or self._reading is None or self._reading.done():
            return False
        try:
            self._attached.writer.write(data)
            await self._attached.writer.drain()
        except (ConnectionError, RuntimeError):
            return False
        return True

    async def finish_input(self) -> None:
        """Close standard input."""
        if self._attached is not None and not self._ended:
            try:
                self._attached.writer.write_eof()
            except OSError:
                return  # it has ended

    async def finished(self) -> None:
        """Wait until the container has stopped."""
        if self._ended is None and self._reading is not None:
            # Its output ends with it, unless the engine hangs on input that nobody reads.
            stopped = asyncio.ensure_future(self._wait())
            try:
                await asyncio.wait([self._reading, stopped], return_when=asyncio.FIRST_COMPLETED)
                await stopped
            finally:
                stopped.cancel()

    async def end(self) -> Ended:
        """Kill the container, collect what it wrote, and remove it."""
        if self._ended is None:
            self._ended = await uninterrupted(self._clear_away())
        return self._ended

    async def _clear_away(self) -> Ended:
        try:
            self._read_counters()
            await self._kill()
            state = await self._last_state()
            out_of_memory = bool(state.get("OOMKilled")) or await self._had_memory_kills()
        finally:
            await self._remove()
        tail, peak_memory, watched = self._output.tail, self.peak_memory, self._watched
        if watched is not None:
            tail = watched.tail_of(tail)
            out_of_memory = out_of_memory or watched.out_of_memory
        if peak_memory is None and out_of_memory:
            peak_memory = self._spec.limits.memory_mib << 20  # what it was killed at
        if NEVER_EXECUTED.fullmatch(tail):
            return self._cannot_be_run(tail)
        return Ended(
            cause=EndCause.OUT_OF_MEMORY if out_of_memory else EndCause.EXITED,
            exit_code=_exit_code(int(state.get("ExitCode", 0))),
            stdout=b"",
            tail=tail,
            wall_seconds=time.perf_counter() - self._started,
            cpu_seconds=self._counters.cpu_seconds if self._counters else None,
            peak_memory=peak_memory,
        )

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Take the container's output until it ends.

        Reading goes on while a container is killed for what it wrote: an engine that cannot hand over
        output does not come round to ending its container.
        """
        frames = FrameReader()
        killing: asyncio.Task[None] | None = None
        try:
            while data := await reader.read(READ_BYTES):
                for stream, payload in frames.feed(data):
                    if stream != STDOUT:
                        self._output.feed_stderr(payload)
                    elif not self._output.feed_stdout(payload) and killing is None:
                        killing = asyncio.create_task(self._kill())
        except ConnectionError:
            pass  # the engine closed it: the container has ended
        finally:
            self._output.close()
        if killing is not None:
            await killing

    async def _last_state(self) -> Mapping[str, Any]:
        """Wait until the container has stopped and its output is read, and return how it ended."""
        try:
            await self._wait()
            state = await self._inspect()
            if state["Running"]:  # podman has not heard of it yet
                await self._engine.call("POST", f"{self._path}/wait")
                state = await self._inspect()
        except EngineError as error:
            if error.status != 404:  # somebody else removed it, or it was never created
                raise
            return {"ExitCode": 128 + signal.SIGKILL}
        if self._reading is not None and state["Status"] != "created":
            await asyncio.wait([self._reading], timeout=LAST_OUTPUT_SECONDS)
        return state

    async def _had_memory_kills(self) -> bool:
        """Tell whether the kernel killed anything for memory; the engine is asked where the counters were missed."""
        if self._counters is not None and self._counters_are_final:
            return self._counters.memory_kills > 0
        return bool(await self._engine.past_events("oom", container=self._name, since=self._created))

    def _read_counters(self) -> None:
        if self._cgroup is not None and not self._counters_are_final:
            self._counters = self._cgroup.read() or self._counters

    def _take_end(self) -> None:
        """The first process has ended: the counters are the last, if we are in time to see them."""
        counters = self._cgroup.read() if self._cgroup is not None else None
        if counters is not None:
            self._counters, self._counters_are_final = counters, True
        self._first_process_ended.set()

    def _cannot_be_run(self, reason: str) -> Ended:
        return not_found(
            f"{self._command[0]} cannot be run in image {self._spec.image.reference}: put an executable of that name "
            f"on its PATH, and the interpreter its first line names. The engine said: {reason}"
        )

    async def _wait(self) -> None:
        """Wait until the first process has ended: an engine knows at once, podman looks four times a second."""
        if self._engine.has_local_processes:
            await self._first_process_ended.wait()
        else:
            await self._engine.call("POST", f"{self._path}/wait")

    async def _inspect(self) -> Mapping[str, Any]:
        return (await self._engine.call("GET", f"{self._path}/json"))["State"]

    async def _kill(self) -> None:
        try:
            await self._engine.call("POST", f"{self._path}/kill")
        except EngineError as error:
            if error.status not in (404, 409):  # gone, or not running
                raise

    async def _remove(self) -> None:
        if self._memory_watch is not None and self._watched is not None:
            self._memory_watch.release(self._watched)
        if self._exit_watch is not None:
            self._exit_watch.stop()
        if self._looking is not None:
            self._looking.cancel()
        if self._reading is not None:
            self._reading.cancel()
        if self._attached is not None:
            self._attached.abort()
        try:
            await self._engine.call("DELETE", self._path, query={"force": "1", "v": "1"})
        except EngineError as error:
            if error.status not in (404, 409):  # never created, or being removed
                raise


async def uninterrupted(work: Awaitable[Answer]) -> Answer:
    """Finish a piece of work even when cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _is_about_the_command(error: EngineError) -> bool:
    """Tell whether the engine could make the container but not execute its command (runc's words, and crun's)."""
    return 'exec: "' in error.reason or "executable file" in error.reason


def _exit_code(status: int) -> int:
    """Return -N for 128 + N: the engine reports a command killed by signal N as a shell would."""
    return 128 - status if 128 < status <= 128 + 64 else status
