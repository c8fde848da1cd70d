"""What all commands share: consoles, JSON for programs, errors for people, and the platform they work on."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from typer.core import TyperGroup

from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings

FAILED = 1
USAGE = 2
INTERRUPTED = 130

_PIPED_COLUMNS = 160

SubmissionId = Annotated[
    str, typer.Argument(metavar="ID", help="A submission's id, or at least 4 characters of its beginning.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON, for programs.")]


class _ExplainedErrors(TyperGroup):
    """Ends with a message where a KnockemError says what to do; any other error keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KnockemError as error:
            typer.echo(f"knockem: {error}", err=True)
            raise typer.Exit(FAILED) from error


def explained_errors() -> type[TyperGroup]:
    """Return the class of the application's group of commands."""
    return _ExplainedErrors


def for_people() -> Console:
    """Return standard output for people. Wide when it is a pipe, so that no cell is cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)


def aside() -> Console:
    """Return standard error, for progress and remarks: standard output stays the answer's."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPED_COLUMNS)


def harmless(text: str) -> str:
    """Return a text of others with escapes for what is no plain character: no terminal may take it as a command."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_line(error: Exception) -> str:
    """Return how begins what an error says; its name where it says nothing."""
    return harmless((str(error).splitlines() or [type(error).__name__])[0])


def answer_json(value: object) -> None:
    """Write one JSON value to standard output."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


@contextmanager
def open_platform() -> Generator[Platform]:
    """Open the stores and runtimes by the settings, and release them."""
    platform = Platform(load_settings())
    try:
        yield platform
    finally:
        platform.close()


def short(submission_id: str) -> str:
    """Return enough of an id to type."""
    return submission_id[:8]
