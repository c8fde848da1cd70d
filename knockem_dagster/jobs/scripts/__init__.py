"""The Lua scripts of the queue: the only code that moves a job or touches a counter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

NAMES = ("enqueue", "claim", "finish", "beat", "reap", "cancel", "count", "expect", "release")


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the server knows it: its text, and the SHA-1 by which it is called."""

    text: str
    sha: str


def load_scripts() -> dict[str, Script]:
    """Return the scripts by name, each with what they share before it."""
    folder = files(__name__)
    common = folder.joinpath("common.lua").read_text(encoding="utf-8")
    scripts: dict[str, Script] = {}
    for name in NAMES:
        text = f"{common}\n{folder.joinpath(f'{name}.lua').read_text(encoding='utf-8')}"
        scripts[name] = Script(text, hashlib.sha1(text.encode()).hexdigest())
    return scripts
