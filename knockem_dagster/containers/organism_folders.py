"""Organism folders: images for the process runtime, each a folder of executables below a trusted one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from knockem_dagster.errors import ImageNotFound


def find_organism(reference: str, roots: Sequence[Path]) -> Path:
    """Return the folder that a name, or a path, stands for.

    Only what lies below one of the roots is an organism, wherever links lead. Raises ImageNotFound.
    """
    resolved_roots = [root.resolve() for root in roots]
    for candidate in [*(root / reference for root in resolved_roots), Path(reference)]:
        folder = candidate.resolve()
        below = any(root != folder and folder.is_relative_to(root) for root in resolved_roots)
        if below and folder.is_dir():
            return folder
    looked = ", ".join(map(str, resolved_roots)) or "nowhere: KNOCKEM_ORGANISMS names no folder"
    there = sorted(path.name for root in resolved_roots if root.is_dir() for path in root.iterdir() if path.is_dir())
    raise ImageNotFound(
        f"there is no organism folder {reference!r}. Looked below {looked}; the folders there are: "
        f"{', '.join(there) or 'none'}. Name one of them, or put the folder below one that KNOCKEM_ORGANISMS names."
    )


def digest_folder(folder: Path) -> str:
    """Return "sha256:..." over names, contents and executability of the files; caches of Python are left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".pyc" or not path.is_file():
            continue
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        digest.update(f"{len(name)} {name} {os.access(path, os.X_OK)} {len(content)} ".encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def find_command(folder: Path, command: str) -> Path | str:
    """Return the executable of this name in the folder, or why there is none."""
    path = folder / command
    if Path(command).name != command or not path.is_file():
        return f"{command} is not in {folder}: add an executable of that name"
    if not os.access(path, os.X_OK):
        return f"{path} is not executable: run `chmod +x {path}`"
    return path
