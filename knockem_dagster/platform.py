"""The stores and runtimes that runs, commands and sensors work with, opened from the settings when first used."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from functools import cached_property

from knockem_dagster.containers.runtime import Runtime, RuntimeName
from knockem_dagster.containers.runtimes import open_runtime, runtime_for_image
from knockem_dagster.errors import ContainerError
from knockem_dagster.records.catalog import COLLECTIONS, Records
from knockem_dagster.settings import Settings
from knockem_dagster.stores.objects import Objects
from knockem_dagster.stores.opening import open_documents, open_objects
from knockem_dagster.stores.queue_connection import embedded_queue_answers


class Platform:
    """Everything a submission needs, by the settings. Nothing opens before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runtimes: dict[RuntimeName, Runtime] = {}
        self._offered: Collection[str] | None = None

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
        """Return the runtime with this name. Raises ContainerError when it cannot be used here."""
        if self._offered is not None and name not in self._offered:
            offered = ", ".join(sorted(self._offered))
            raise ContainerError(f"Nothing runs as {name} here: this worker offers {offered}.")
        if name not in self._runtimes:
            self._runtimes[name] = open_runtime(name, organisms=self.settings.organisms)
        return self._runtimes[name]

    def offering(self, runtimes: Collection[str]) -> Platform:
        """Return this platform as it does what others leave to it: by no other runtimes than these, and itself."""
        limited = copy(self)
        limited.settings = self.settings.model_copy(update={"leave_to_workers": False})
        limited._offered = runtimes
        return limited

    def runtime_for(self, image: str) -> RuntimeName:
        """Tell which runtime an image is for: the one set, process for an organism folder, or what runs images."""
        if self.settings.runtime != "auto":
            return self.settings.runtime
        return runtime_for_image(image, organisms=self.settings.organisms)

    def close(self) -> None:
        """Release the stores, if they were opened."""
        if "records" in self.__dict__:
            self.records.close()
