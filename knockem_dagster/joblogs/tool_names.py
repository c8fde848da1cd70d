"""What counts as a tool among the platform's own jobs. Nothing that people gave a tool is in its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

COMMAND = "command"
"""Stands for the version of a program, which nobody knows."""
_INTERPRETERS = frozenset(
    ("bash", "sh", "dash", "zsh", "python", "python3", "perl", "ruby", "R", "Rscript", "julia", "node", "java")
)
_WORDS = 16
"""At the beginning of a command, among which its program is looked for."""


def tool_of_image(image: str) -> str:
    """Return the tool that an image is; of a folder, its name."""
    return PurePath(image).name if image.startswith(("/", ".", "~")) else image


def tool_of_command(command: Sequence[str]) -> str:
    """Return the tool that a command is: its program, and a script where that is one's interpreter."""
    is_shell = len(command) > 2 and command[1] == "-c"
    words = command[2].split(maxsplit=_WORDS)[:_WORDS] if is_shell else list(command[:_WORDS])
    while words and words[0].partition("=")[0].isidentifier() and "=" in words[0]:
        words.pop(0)
    if not words:
        return "nothing"
    program = _name(words[0])
    script = words[1] if len(words) > 1 and program in _INTERPRETERS else "-"
    return program if script.startswith("-") else f"{program} {_name(script)}"


def _name(word: str) -> str:
    return PurePath(word.strip("'\";")).name
