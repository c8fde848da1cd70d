"""Where the engine finds what a container of ours is given.

In place, as a rule. A process that is in a container itself sees its own mounts only, which the engine knows by other
names: what lies in a volume is found by the volume's place on the host, and what lies in our image is copied to the
temporary folder, which must lie in a volume.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from knockem_dagster.containers.engine_api import Engine, EngineError
from knockem_dagster.containers.owners import private_folder
from knockem_dagster.containers.runtime import ContainerSpec
from knockem_dagster.errors import ContainerError

IN_A_CONTAINER = Path("/.dockerenv")
_OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/hostname ")


def own_container() -> str | None:
    """Return the id of the container that this process is in, as its engine's files are mounted; None for none."""
    if not IN_A_CONTAINER.exists():
        return None
    found = _OWN_ID.search(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    return None if found is None else found[1]


class EnginePaths:
    """The places of this process's files as an engine sees them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volumes: Mapping[Path, Path] | None = None
        self._copies: dict[Path, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def seen(self, spec: ContainerSpec) -> ContainerSpec:
        """Return a specification whose mounts the engine finds. Raises ContainerError where it cannot."""
        if self._volumes is None:
            self._volumes = await self._find_volumes()
        if not self._volumes:
            return spec
        places = [_within(each.source, self._volumes) or self._copied(each.source) for each in spec.mounts]
        mounts = [replace(each, source=place) for each, place in zip(spec.mounts, places, strict=True)]
        return replace(spec, mounts=mounts)

    async def _find_volumes(self) -> Mapping[Path, Path]:
        """Return what is mounted here, and where that is on the engine's side; nothing where both are the same."""
        container = own_container()
        if container is None:
            return {}
        try:
            found = await self._engine.call("GET", f"/containers/{container}/json")
        except EngineError as error:
            if error.status != 404:
                raise
            return {}  # the engine is in here with us
        volumes = {Path(mount["Destination"]): Path(mount["Source"]) for mount in found["Mounts"]}
        if _within(Path(tempfile.gettempdir()), volumes) is None:
            raise ContainerError(
                f"This is a container, and containers that it starts cannot be given files from {tempfile.gettempdir()}"
                ": mount a volume somewhere and name the place in TMPDIR, as deploy/compose.yaml does for workers."
            )
        return volumes

    def _copied(self, source: Path) -> Path:
        """Return where the engine finds a copy of something that never changes."""
        if source not in self._copies:
            if self._folder is None:
                self._folder = private_folder()
            copy = Path(self._folder.name, str(len(self._copies)))
            shutil.copytree(source, copy)
            place = _within(copy, self._volumes or {})
            assert place is not None, "the temporary folder lies in a volume"
            self._copies[source] = place
        return self._copies[source]


def _within(path: Path, volumes: Mapping[Path, Path]) -> Path | None:
    """Return where the engine finds a path that lies in a volume; None for another."""
    inside = [folder for folder in volumes if path.is_relative_to(folder)]
    if not inside:
        return None
    innermost = max(inside, key=lambda folder: len(folder.parts))
    return volumes[innermost] / path.relative_to(innermost)
