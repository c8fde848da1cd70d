"""Whether an instance is still wanted: nothing of one that is being removed is left, whoever is at work for it.

Who stores anything of an instance looks, when it is stored, whether the instance is still wanted, and otherwise removes
all of it once more. So it does not matter whether they or the removal come last.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from knockem_dagster.errors import Conflict, NotFound
from knockem_dagster.joblogs.folders import DROPS, instance_id, instance_of_drop
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import MARTS_ID
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects

STORED = "joblogs/"
"""Where all that came of job logs is; what is in DROPS did not come yet."""


def check_wanted(records: Records, instance: str) -> None:
    """Raise NotFound where there is no such instance, Conflict where it is being removed."""
    if (found := records.job_log_instances.find_one(instance)) is None:
        raise NotFound(f"There is no instance {instance}.")
    if found.unwanted is not None:
        raise Conflict(f"The instance {found.name} is being removed.")


@contextmanager
def while_wanted(records: Records, objects: Objects, instance: str) -> Generator[None]:
    """Let something of an instance be stored; remove all of it again if the instance was removed meanwhile.

    Raises what `check_wanted` raises, before and afterwards.
    """
    check_wanted(records, instance)
    try:
        yield
    finally:
        try:
            check_wanted(records, instance)
        except (NotFound, Conflict):
            discard(records, objects, instance)
            raise


def discard(records: Records, objects: Objects, instance: str, *, folders: Sequence[str] = (STORED, DROPS)) -> None:
    """Remove all that came of an instance's job logs: what is counted first, then documents, then objects."""
    records.job_log_marts.patch(MARTS_ID, Patch(unset=[f"{field}.{instance}" for field in ("inUse", "jobs", "left")]))
    records.documents.delete(records.job_log_reports.name, {"instanceId": instance})
    for key in keys_of(objects, instance, folders=folders):
        objects.delete(key)
    for folder in folders:
        objects.delete_no_objects(folder, which=lambda key: _is_of(key, instance))


def keys_of(objects: Objects, instance: str, *, folders: Sequence[str] = (STORED, DROPS)) -> list[str]:
    """Return the keys of all objects of an instance."""
    stored = (entry.key for folder in folders for entry in objects.list(folder))
    return [key for key in stored if _is_of(key, instance)]


def instances_stored(objects: Objects) -> set[str]:
    """Return the ids of the instances of which there is any object, or a folder for one."""
    found: set[str] = set()
    for of_each in (f"{STORED}raw", f"{STORED}marts", *_tables(objects)):
        found.update(objects.folders(of_each))
    return {name for name in found if instance_id(name) == name}


def _tables(objects: Objects) -> Iterator[str]:
    """Yield the folders of the lake: for each parser, one for each kind of row."""
    lake = f"{STORED}lake"
    for parser in objects.folders(lake):
        yield from (f"{lake}/{parser}/{table}" for table in objects.folders(f"{lake}/{parser}"))


def _is_of(key: str, instance: str) -> bool:
    return instance in key.split("/") or instance_of_drop(key) == instance
