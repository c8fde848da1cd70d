"""Running commands in a launcher that is closed again, for the tests beside this module."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from knockem_dagster.jobs.commands.command import Command, CommandEnded
from knockem_dagster.jobs.commands.launcher import CommandLauncher

SECONDS = 20
"""How long to wait for what should happen within milliseconds."""

PYTHON = (sys.executable, "-I", "-S", "-c")


@asynccontextmanager
async def launcher() -> AsyncIterator[CommandLauncher]:
    opened = CommandLauncher()
    try:
        yield opened
    finally:
        opened.close()


def in_a_launcher(story: Callable[[CommandLauncher], Awaitable[object]]) -> None:
    async def told() -> None:
        async with asyncio.timeout(60), launcher() as opened:
            await story(opened)

    asyncio.run(told())


def run(*commands: Command) -> list[CommandEnded]:
    """Run commands one after the other in one launcher."""
    ends: list[CommandEnded] = []

    async def story(opened: CommandLauncher) -> None:
        ends.extend([await opened.run(command) for command in commands])

    in_a_launcher(story)
    return ends


def shell(script: str, **rest: object) -> Command:
    return Command(("/bin/sh", "-c", script), keep_output=True, **rest)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


async def until(event: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not event():
            await asyncio.sleep(0.005)
