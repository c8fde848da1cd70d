"""Removing an instance and all that came of its job logs. Dagster's own storage is the caller's part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from knockem_dagster.joblogs.instances import view_instance
from knockem_dagster.joblogs.served import ServedMarts
from knockem_dagster.joblogs.wanted import STORED, discard, instances_stored, keys_of
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import MARTS_ID, InstanceRecord, RemovalRecord, ReportRecord
from knockem_dagster.records.record import derived_id, now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects

_STRAY = ""
"""The name of an instance that is there only while a stray is swept: nobody else's."""


@dataclass(frozen=True, slots=True)
class InstanceRemoval:
    """What removing an instance takes away: reports, jobs in use, objects."""

    reports: int
    jobs: int
    objects: int


def plan_removal(records: Records, objects: Objects, instance: InstanceRecord) -> InstanceRemoval:
    """Tell what `remove_instance` will take away."""
    view = view_instance(records, instance)
    return InstanceRemoval(sum(view.reports.values()), view.jobs, len(keys_of(objects, instance.id)))


def remove_instance(
    records: Records,
    objects: Objects,
    instance: InstanceRecord,
    *,
    served: ServedMarts | None = None,
    forget: Callable[[str], None] | None = None,
) -> None:
    """Remove an instance: all that came of it, also from the copy `served`, what `forget` removes, at last itself.

    What is interrupted can be done again: until all else is gone the instance is there, and marked as unwanted. What
    others keep from being erased from the store's files is erased by upkeep.
    """
    records.job_log_removals.add(RemovalRecord(id=_removal_id(instance.id)))
    records.job_log_instances.patch(instance.id, Patch(set={"unwanted": now()}, unset=("tokenDigest",)))
    discard(records, objects, instance.id)
    if served is not None:
        served.remove(instance.id)
    if forget is not None:
        forget(instance.id)
    _remove_record(records, instance.id)


def remove_strays(records: Records, objects: Objects, reports: Iterable[ReportRecord]) -> int:
    """Remove what came back of removed instances: what those had in work who were killed after the removal.

    Of all objects and marts, and of these `reports`. Returns how many instances that was of. What lies in DROPS is not
    taken in yet, and stays.
    """
    swept = 0
    for id in _strays(records, objects, reports):
        # Until all is gone nobody can register it, and store anything.
        stray = InstanceRecord(id=id, name=_STRAY, unwanted=now())
        if records.job_log_instances.add(stray) or records.job_log_instances.get(id).name == _STRAY:
            discard(records, objects, id, folders=(STORED,))
            _remove_record(records, id)
            swept += 1
    return swept


def removed(records: Records, ids: Collection[str]) -> set[str]:
    """Return those of these ids that are of instances that were removed, and are not there again.

    What is missing for another reason, say because a setting is wrong, is none of them.
    """
    gone = set(ids) - records.job_log_instances.get_many(list(ids)).keys()
    told = records.job_log_removals.get_many([_removal_id(id) for id in gone])
    return {id for id in gone if _removal_id(id) in told}


def _strays(records: Records, objects: Objects, reports: Iterable[ReportRecord]) -> list[str]:
    """Return the ids of what is there of removed instances, and of strays whose sweeper was killed."""
    marts = records.job_log_marts.find_one(MARTS_ID)
    found = {*instances_stored(objects), *(report.instance_id for report in reports)}
    found |= set() if marts is None else {*marts.in_use, *marts.jobs, *marts.left}
    begun = {each.id for each in records.job_log_instances.find({"name": _STRAY})}
    return sorted(removed(records, found) | begun)


def _removal_id(instance: str) -> str:
    return derived_id("jobLogRemoval", instance)


def _remove_record(records: Records, instance: str) -> None:
    records.documents.delete(records.job_log_instances.name, {"_id": instance})
    records.documents.erase_deleted()
