"""The stores and runtimes that runs, commands and sensors work with, opened from the settings when first used."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from functools import cached_property
from typing import Literal

from knockem_dagster.containers.runtime import Runtime, RuntimeName
from knockem_dagster.containers.runtimes import open_runtime, runtime_for_image
from knockem_dagster.errors import NotOffered
from knockem_dagster.records.catalog import COLLECTIONS, Records
from knockem_dagster.settings import RUNTIMES, Settings
from knockem_dagster.stores.objects import Objects
from knockem_dagster.stores.opening import open_documents, open_objects
from knockem_dagster.stores.queue_connection import embedded_queue_answers


class Platform:
    """Everything a submission needs, by the settings. Nothing opens before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runtimes: dict[RuntimeName, Runtime] = {}
        self._offered = frozenset(RUNTIMES)

    @cached_property
    def records(self) -> Records:
        """The record."""
        return Records(open_documents(self.settings, COLLECTIONS))

    @cached_property
    def objects(self) -> Objects:
        """The object store."""
        return open_objects(self.settings)

    @property
    def has_queue(self) -> bool:
        """Whether there is a queue to work on: a served one is named, or `up` runs the embedded one."""
        return self.settings.queue_url is not None or embedded_queue_answers(self.settings)

    def runtime(self, name: RuntimeName) -> Runtime:
        """Return the runtime with this name. Raises NotOffered where it may not be used here, or ContainerError."""
        if name not in self._offered:
            offered = ", ".join(sorted(self._offered))
            raise NotOffered(f"Nothing runs as {name} here: this worker offers {offered}.")
        if name not in self._runtimes:
            self._runtimes[name] = open_runtime(name, organisms=self.settings.organisms)
        return self._runtimes[name]

    def offering(self, runtimes: Collection[str]) -> Platform:
        """Return this platform as it does what others leave to it: by no other runtimes than these, and itself."""
        limited = copy(self)
        limited.settings = self.settings.model_copy(update={"leave_to_workers": False})
        limited._offered = self._offered.intersection(runtimes)
        return limited

    def runtime_named(self, name: Literal["auto", RuntimeName]) -> Literal["auto", RuntimeName]:
        """Return the runtime that is named, else the one set; `auto` where that is left to the image."""
        return self.settings.runtime if name == "auto" else name

    def runtime_for(self, image: str, name: Literal["auto", RuntimeName] = "auto") -> RuntimeName:
        """Tell which runtime an image is for: the one named or set, process for a folder, or what runs images here."""
        named = self.runtime_named(name)
        if named != "auto":
            return named
        return runtime_for_image(image, organisms=self.settings.organisms, among=self._offered)

    def close(self) -> None:
        """Release the stores, if they were opened."""
        if "records" in self.__dict__:
            self.records.close()
