"""The command line as a user runs it, on a folder of its own, and a genome small enough for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY_GENOME = {
    "sites": 20,
    "effects": {"2": 1.5, "5": 0.6, "9": 0.5},
    "sets": [{"sites": [11, 14], "penalty": 1.2}],
}


def environment_of(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command that works on `home`, free of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KNOCKEM_", "DAGSTER_"))}
    return kept | {"KNOCKEM_HOME": str(home), "KNOCKEM_ENVIRONMENT": "testing", "PYTHONPATH": str(ROOT), **more}


def command_line(*arguments: str | Path) -> list[str]:
    """Return the command that the launcher ends in."""
    return [sys.executable, "-P", "-m", "knockem_dagster", *map(str, arguments)]


def knockem(*arguments: str | Path, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command_line(*arguments),
        env=environment_of(home, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def tiny_submission(folder: Path, **changes: object) -> Path:
    """Write a submission file that takes a second, with changes, and return its path. None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "genome.json").write_text(json.dumps(TINY_GENOME))
    content: dict[str, object] = {
        "genome": "genome.json",
        "containerImage": "explicit",
        "containerEnv": {"EXPLICIT_MODE": "exact"},
        "containerRuntime": "process",
        "assayTypes": ["nulldist", "screenCritical", "skeletonization", "skeletonMarkRecapture"],
        "skeletons": 3,
        "userEmail": "someone@example.org",
        **changes,
    }
    path = folder / "study.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path
