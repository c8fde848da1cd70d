"""The apptainer runtime, for clusters without an engine: images run as processes of the caller, in namespaces.

What apptainer starts descends from this process and has its user, so it is marked, watched, limited and ended as
processes are (process_command.py). The container's root is read-only, its /tmp and home are in memory, it sees no
other processes, and has no network and no privileges. A share of the CPU is not enforced.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.commands import Output, not_found
from knockem_dagster.containers.memory_watch import MEMORY_WATCH
from knockem_dagster.containers.organism_folders import digest_folder
from knockem_dagster.containers.process_command import SYSTEM_PATH, ProcessCommand
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import ContainerSpec, Ended, Image, RuntimeName
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import ContainerError, ContractError, ImageNotFound

SHUT_IN = ("--containall", "--cleanenv", "--no-home", "--no-privs", "--net", "--network", "none")
"""Of the network, `none` is what every user may ask for. Where a site forbids even that no container starts."""

REGISTRIES = ("docker://", "oras://", "library://")
NEVER_EXECUTED = re.compile("FATAL: .*(executable file not found|no such file|permission denied|exec format)")
"""What apptainer says when the command is not in the image or cannot be executed; it then ends with 255."""


class ApptainerRuntime(ProcessRuntime):
    """Runs .sif files, sandbox folders, and images of registries by docker://NAME."""

    name: RuntimeName = "apptainer"
    isolates = True

    def __init__(self) -> None:
        """Raises ContainerError where there is no apptainer."""
        super().__init__(())
        if not has_apptainer():
            raise ContainerError("`apptainer` is not on PATH: load its module, or use --runtime process.")

    async def resolve(self, reference: str) -> Image:
        """Find a file or folder and take its SHA-256; of a registry's image, of the file that it is pulled into."""
        return Image(self.name, reference, await asyncio.to_thread(digest_of, reference))

    def _command(
        self, spec: ContainerSpec, command: Sequence[str], output: Output, *, cpu_limit_seconds: int | None = None
    ) -> ProcessCommand:
        if spec.image.runtime != self.name:
            raise ContractError(f"{spec.image.reference} was resolved for {spec.image.runtime}: resolve it again here")
        ensure_warden()
        return ApptainerCommand(
            spec,
            command,
            output,
            organism=file_of(spec.image.reference),
            mark=self._next_mark(spec.submission_id),
            memory_watch=MEMORY_WATCH,
            cpu_limit_seconds=cpu_limit_seconds,
        )


class ApptainerCommand(ProcessCommand):
    """A command in a container of apptainer; `organism` is the image's file or folder."""

    def _arguments(self) -> list[str]:
        return command_line(self._organism, self._spec, self._command)

    def _environment(self) -> dict[str, str]:
        """Return apptainer's environment: what is for the container has its prefix, which --cleanenv lets through."""
        given = {"LANG": "C.UTF-8", "TMPDIR": "/tmp", **self._spec.environment, marked_processes.MARK: self._mark}
        own = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        passed = {f"APPTAINERENV_{name}": value for name, value in given.items()}
        return {"PATH": SYSTEM_PATH, **own, **passed, marked_processes.MARK: self._mark}

    async def _clear_away(self) -> Ended:
        ended = await super()._clear_away()
        if ended.exit_code == 255 and NEVER_EXECUTED.search(ended.tail):
            reason = f"{self._command[0]} cannot be run in {self._spec.image.reference}; apptainer said: {ended.tail}"
            return replace(not_found(reason), wall_seconds=ended.wall_seconds)
        return ended


def command_line(image: Path, spec: ContainerSpec, command: Sequence[str]) -> list[str]:
    """Return how apptainer runs a command of an image, with the mounts of the specification."""
    mounts = [f"--bind={mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}" for mount in spec.mounts]
    return ["apptainer", "exec", *SHUT_IN, "--pwd", "/tmp", *mounts, str(image), *command]


def has_apptainer() -> bool:
    """Tell whether apptainer is on PATH."""
    return shutil.which("apptainer") is not None


def file_of(reference: str) -> Path:
    """Return where an image is: itself, or for one of a registry the file that it is pulled into, once."""
    if not reference.startswith(REGISTRIES):
        return Path(reference).absolute()
    cache = Path(os.environ.get("APPTAINER_CACHEDIR") or Path.home() / ".apptainer" / "cache")
    return cache / "knockem" / f"{hashlib.sha256(reference.encode()).hexdigest()}.sif"


def digest_of(reference: str) -> str:
    """Return "sha256:..." over an image, which is pulled if need be. Raises ImageNotFound."""
    path = file_of(reference)
    if reference.startswith(REGISTRIES) and not path.exists():
        _pull(reference, path)
    if path.is_dir():
        return digest_folder(path)
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ImageNotFound(
            f"there is no image {reference!r} ({error.strerror}): name a .sif file, a sandbox folder or docker://NAME"
        ) from error


def _pull(reference: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.sif")
    pulled = subprocess.run(
        ["apptainer", "pull", "--force", str(unfinished), reference], capture_output=True, text=True, check=False
    )
    if pulled.returncode != 0:
        raise ImageNotFound(f"image {reference!r} cannot be pulled: {pulled.stderr.strip()[-500:]}")
    unfinished.replace(path)
