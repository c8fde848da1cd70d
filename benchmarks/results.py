"""A benchmark's rows in a file, with the command, commit and day they come from: what docs/methods.md quotes.

Groups of rows are kept as they are finished. The same command on the same code goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import scipy

from benchmarks.targets import TargetRow, row_from_fields, row_to_fields
from knockem_dagster.records.record import revision

ROOT = Path(__file__).parents[1]
_MEASURED_CODE = ("benchmarks", "knockem_dagster/knockout")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are measured together, with random numbers of their own, so that no other group changes them."""

    name: str
    measure: Callable[[], list[TargetRow]]


@dataclass(frozen=True, slots=True)
class Result:
    """The `groups` of rows that are finished, by name, of a `command` (./knockem bench ...).

    `commit` ends in "+ changes" where the code differed from it; `code` is the digest of the code itself, `versions`
    those of what computes. `date` (UTC) is the day on which the last group was finished.
    """

    command: str
    commit: str
    code: str
    versions: Mapping[str, str]
    date: str
    groups: Mapping[str, Sequence[TargetRow]]

    @classmethod
    def begin(cls, command: str) -> Result:
        """Return a result of this code without any rows yet."""
        versions = {"python": platform.python_version(), "numpy": numpy.__version__, "scipy": scipy.__version__}
        return cls(command, _commit(), _digest_of_code(), versions, _today(), {})

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result. Raises ValueError when the file holds none."""
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            groups = {name: [row_from_fields(row) for row in rows] for name, rows in content.pop("groups").items()}
            return cls(**content, groups=groups)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a benchmark's result ({error}): name another file, or remove it"
            ) from error

    def write(self, path: Path) -> None:
        """Write the result whole, so that an interruption leaves the file as it was before."""
        content = {
            "command": self.command,
            "commit": self.commit,
            "code": self.code,
            "versions": dict(self.versions),
            "date": self.date,
            "groups": {name: [row_to_fields(row) for row in rows] for name, rows in self.groups.items()},
        }
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def continues(self, other: Result) -> bool:
        """Tell whether the rows of both are those of one command, run by one code on one set of versions."""
        return (self.command, self.code, self.versions) == (other.command, other.code, other.versions)

    def with_group(self, name: str, rows: Sequence[TargetRow]) -> Result:
        """Return this result with one more group, finished today."""
        return replace(self, date=_today(), groups={**self.groups, name: rows})


def measure(
    name: str, groups: Callable[[float, int], Sequence[Group]], *, scale: float, seed: int, path: Path
) -> list[TargetRow]:
    """Measure all `groups` of the benchmark `name`, keep each in `path` once it is finished, and return all rows.

    Groups that an earlier run of this command has finished there are not measured again. Raises ValueError when the
    file holds something else, or when the code is changed in the meantime.
    """
    result = Result.begin(f"./knockem bench {name} --scale {scale:g} --seed {seed}")
    if path.exists():
        earlier = Result.read(path)
        result = earlier if result.continues(earlier) else result
    wanted = groups(scale, seed)
    for group in wanted:
        if group.name not in result.groups:
            rows = group.measure()
            if _digest_of_code() != result.code:
                raise ValueError(
                    f"the code was changed while {group.name!r} was measured, so that its rows are of neither version: "
                    "measure in a checkout that nobody works in (git worktree add)"
                )
            result = result.with_group(group.name, rows)
            result.write(path)
    return [row for group in wanted for row in result.groups[group.name]]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    for package in _MEASURED_CODE:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _commit() -> str:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return revision()
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "status", "--porcelain", "--", *_MEASURED_CODE]
    changes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return revision() + (" + changes" if changes else "")
