"""Organisms of a few lines that work, and the ways in which they can be made not to.

A genome is one number a line; each competition ends 50 to 50 after 10 updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GENOME = "1\n" * 12
NUM_SITES = 12

COUNT_SITES = "#!/bin/sh\ngrep -c '' || true\n"
APPLY_KNOCKOUT = """#!/bin/sh
exec awk -v sites="$*" 'BEGIN { n = split(sites, s, " "); for (i = 1; i <= n; i++) gone[s[i]] = 1 }
                        { print ((NR - 1) in gone) ? 0 : $1 }'
"""
FAIR = '{"updatesElapsed": 10, "numAlpha": 50, "numBeta": 50}'

ONE_SHOT = {
    "knockem_count_sites": COUNT_SITES,
    "knockem_apply_knockout": APPLY_KNOCKOUT,
    "knockem_compete_two": f"#!/bin/sh\necho '{FAIR}' > \"$KNOCKEM_RESULT\"\n",
}

EAT_MEMORY = "held = []\nwhile True: held.append(bytearray(1 << 20))"
FLOOD = "import os\nfor _ in range(1 << 10): os.write(1, b'x' * (1 << 20))"


def reporting(result: str) -> str:
    """Return a knockem_compete_two that reports this text."""
    return f"#!/bin/sh\ncat > \"$KNOCKEM_RESULT\" <<'END'\n{result}\nEND\n"


def in_python(*lines: str) -> str:
    """Return a command of these lines of Python."""
    return "\n".join(["#!/usr/bin/env python3", *lines, ""])


def in_a_child(code: str) -> str:
    """Return a command that runs Python code in a child process and carries on whatever becomes of it."""
    return in_python("import subprocess, sys", f"subprocess.run([sys.executable, '-c', {code!r}])")


def serving(trouble: str, *, at: tuple[int, ...] | None = None) -> str:
    """Return a knockem_serve whose competitions run `trouble` first: all, or those of one knockout.

    The trouble is Python that may change `answer`, the competition's result.
    """
    return in_python(
        "import json, os, subprocess, sys, time",
        "knockouts = {}",
        "for line in sys.stdin:",
        "    request = json.loads(line)",
        "    answer = {}",
        "    if request['op'] == 'hello':",
        "        answer = {'protocol': 1}",
        "    elif request['op'] == 'knockout':",
        "        knockouts[request['genome']] = tuple(request['sites'])",
        "    elif request['op'] == 'compete_two':",
        f"        answer = {FAIR}",
        f"        if {at!r} in (None, knockouts.get(request['beta'], ())):",
        *(f"            {part}" for part in trouble.splitlines()),
        "    answer['id'] = request.get('id')",
        "    print(json.dumps(answer), flush=True)",
    )


def write_organism(folder: Path, commands: Mapping[str, str | None] | None = None) -> Path:
    """Write an organism folder: the working one-shot commands, with `commands` added, replaced or (None) left out."""
    folder.mkdir(parents=True)
    for name, script in {**ONE_SHOT, **(commands or {})}.items():
        if script is not None:
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
    return folder
