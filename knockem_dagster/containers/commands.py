"""What every runtime does with a command once it is started: run it to its end, or talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from knockem_dagster.containers.output import Capture, Inbox
from knockem_dagster.containers.runtime import EndCause, Ended
from knockem_dagster.errors import ConversationOver


class Output(Protocol):
    """Where what a command writes goes."""

    def feed_stdout(self, data: bytes) -> bool:
        """Take standard output; False when the command is to be killed for it."""
        ...

    def feed_stderr(self, data: bytes) -> None:
        """Take standard error."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...

    @property
    def tail(self) -> str:
        """The last lines."""
        ...


class Command(Protocol):
    """A command of one runtime. Who makes one must call `end`, whatever happens."""

    @property
    def peak_memory(self) -> int | None:
        """Bytes over the process tree at most so far, as of a moment ago; None if the runtime cannot tell."""
        ...

    async def start(self) -> None:
        """Start it. A command that does not exist is started and has ended."""
        ...

    async def write(self, data: bytes) -> bool:
        """Write to its standard input, waiting while it is full; False when nobody reads it any more."""
        ...

    async def finish_input(self) -> None:
        """Close its standard input."""
        ...

    async def finished(self) -> None:
        """Wait until it has ended by itself."""
        ...

    async def end(self) -> Ended:
        """Kill what still runs, remove everything it had, and tell how it ended."""
        ...


async def run_to_end(command: Command, capture: Capture, *, stdin: bytes, timeout_seconds: float) -> Ended:
    """Start a command, give it its input, and wait; kill it when the time is over or we are cancelled."""
    timed_out = False
    try:
        await command.start()
        async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(command, stdin))
            await command.finished()
            feeding.cancel()
    except TimeoutError:
        timed_out = True
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    finally:
        ended = await command.end()
    if timed_out and ended.cause == EndCause.EXITED:
        ended = replace(ended, cause=EndCause.TIMED_OUT)
    return replace(ended, stdout=capture.stdout, stdout_cut=capture.stdout_cut)


async def _feed(command: Command, stdin: bytes) -> None:
    """Give a command its input; one that ends without reading it is not waited for."""
    await command.write(stdin)
    await command.finish_input()


class CommandConversation:
    """The Conversation (see runtime.py) over any started command."""

    def __init__(self, command: Command, inbox: Inbox) -> None:
        self._command = command
        self._inbox = inbox

    @property
    def peak_memory(self) -> int | None:
        """Bytes over the process tree at most so far, as of a moment ago; None if the runtime cannot tell."""
        return self._command.peak_memory

    async def write(self, lines: bytes) -> None:
        """Send whole lines. Raises ConversationOver if the command has ended."""
        if not await self._command.write(lines):
            raise ConversationOver("the command has ended: call end() to learn how")

    async def read(self) -> Sequence[bytes]:
        """Wait for at least one line; return all whole lines received. Empty when the command has ended."""
        return await self._inbox.read()

    async def end(self) -> Ended:
        """Kill what still runs, remove the container, and tell how it ended."""
        return await self._command.end()


async def converse_with(command: Command, inbox: Inbox) -> CommandConversation:
    """Start a command to talk to; it is ended here should that fail or be cancelled."""
    try:
        await command.start()
    except BaseException:
        await command.end()
        raise
    return CommandConversation(command, inbox)


def not_found(reason: str) -> Ended:
    """Tell that a command does not exist, as a shell would: exit code 127."""
    return Ended(EndCause.NOT_FOUND, exit_code=127, stdout=b"", tail=reason, wall_seconds=0.0)
