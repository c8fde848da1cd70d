"""The docker runtime: every command in a container of its own, shut in as hardening.py says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from knockem_dagster.containers.commands import Output, converse_with, run_to_end
from knockem_dagster.containers.docker_command import DockerCommand
from knockem_dagster.containers.engine_api import Engine, EngineError, engine_socket
from knockem_dagster.containers.engine_paths import EnginePaths
from knockem_dagster.containers.hardening import OWNER_LABEL, SUBMISSION_LABEL, describe_container
from knockem_dagster.containers.image_pull import pull_image
from knockem_dagster.containers.output import Capture, Inbox
from knockem_dagster.containers.owners import Owner, remove_abandoned_folders
from knockem_dagster.containers.runtime import ContainerSpec, Conversation, Ended, Image, RuntimeName
from knockem_dagster.errors import ContractError, ImageNotFound


class DockerRuntime:
    """Runs images on the container engine of this machine."""

    name: RuntimeName = "docker"
    isolates = True

    def __init__(self, engine: Engine | None = None) -> None:
        """Use this engine, or the one found. Raises ContainerError when there is none."""
        self._engine = Engine(engine_socket()) if engine is None else engine
        self._paths = EnginePaths(self._engine)
        self._image_users: dict[str, str] = {}

    async def answers(self) -> None:
        """Return if the engine answers; raises ContainerError with what to do if not."""
        await self._engine.call("GET", "/version")

    async def resolve(self, reference: str) -> Image:
        """Find an image on this machine or pull it, and pin it by its repository digest, or its id.

        Raises ImageNotFound, or ContainerError when the engine does not answer.
        """
        found = await self._inspect_image(reference)
        if found is None:
            await asyncio.to_thread(self._pull, reference)
            found = await self._inspect_image(reference)
        if found is None:
            raise ImageNotFound(f"image {reference!r} was pulled but the engine does not have it: pull it by hand")
        digest = pinned(found)
        self._image_users[digest] = (found.get("Config") or {}).get("User") or ""
        return Image(self.name, reference, digest)

    async def run(self, spec: ContainerSpec, command: Sequence[str], stdin: bytes = b"") -> Ended:
        """Run one command to its end within the limits."""
        capture = Capture(spec.limits.output_bytes)
        spec = await self._paths.seen(spec)
        container = self._command(spec, command, capture, await self._image_user(spec.image))
        return await run_to_end(container, capture, stdin=stdin, timeout_seconds=spec.limits.timeout_seconds)

    async def converse(self, spec: ContainerSpec, command: Sequence[str]) -> Conversation:
        """Start a command and keep talking to it. `limits.timeout_seconds` is not applied."""
        inbox = Inbox(spec.limits.output_bytes)
        spec = await self._paths.seen(spec)
        container = self._command(spec, command, inbox, await self._image_user(spec.image))
        return await converse_with(container, inbox)

    async def remove_leftovers(self, submission_id: str | None = None) -> int:
        """Remove the containers of one submission, or of all whose owner is gone; return how many."""
        label = OWNER_LABEL if submission_id is None else f"{SUBMISSION_LABEL}={submission_id}"
        removed = 0
        for container in await self._labelled(label):
            owner = Owner.parse(container["Labels"].get(OWNER_LABEL, ""))
            if submission_id is not None or (owner is not None and owner.is_gone):
                removed += await self._remove(container["Id"])
        remove_abandoned_folders()
        return removed

    async def remove_owned_by(self, owner: str) -> int:
        """Remove the containers that one process has started, dead or alive; return how many."""
        return sum([await self._remove(found["Id"]) for found in await self._labelled(f"{OWNER_LABEL}={owner}")])

    async def _labelled(self, label: str) -> list[Any]:
        query = {"all": "1", "filters": orjson.dumps({"label": [label]}).decode()}
        return await self._engine.call("GET", "/containers/json", query=query)

    def _pull(self, reference: str) -> None:
        pull_image(reference)

    def _command(self, spec: ContainerSpec, command: Sequence[str], output: Output, image_user: str) -> DockerCommand:
        body = describe_container(spec, command, image_user=image_user)
        return DockerCommand(self._engine, spec, command, output, body=body)

    async def _image_user(self, image: Image) -> str:
        if image.runtime != self.name:
            raise ContractError(
                f"{image.reference} was resolved for the {image.runtime} runtime: resolve it again here"
            )
        if image.digest not in self._image_users:
            found = await self._inspect_image(image.digest)
            if found is None:
                raise ImageNotFound(f"image {image.reference} ({image.digest}) was removed from this machine: pull it")
            self._image_users[image.digest] = (found.get("Config") or {}).get("User") or ""
        return self._image_users[image.digest]

    async def _inspect_image(self, reference: str) -> dict[str, Any] | None:
        try:
            return await self._engine.call("GET", f"/images/{quote(reference, safe='/:@')}/json")
        except EngineError as error:
            if error.status in (400, 404):  # a name that cannot be one, or none of ours
                return None
            raise

    async def _remove(self, container: str) -> int:
        try:
            await self._engine.call("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
        except EngineError as error:
            if error.status in (404, 409):  # gone, or being removed by somebody else
                return 0
            raise
        return 1


def pinned(found: Mapping[str, Any]) -> str:
    """Return the name that an image keeps: its digest in a registry, else its id.

    Podman knows images that were built here by a digest too, of a registry `localhost` that nobody has.
    """
    digests: list[str] = found.get("RepoDigests") or []
    return next((digest for digest in digests if not digest.startswith("localhost/")), found["Id"])
