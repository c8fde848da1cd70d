"""Removing an instance and all that came of its job logs. Dagster's own storage is the caller's part."""

from __future__ import annotations

from dataclasses import dataclass

from knockem_dagster.joblogs.instances import view_instance
from knockem_dagster.joblogs.served import ServedMarts
from knockem_dagster.joblogs.wanted import discard, keys_of
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import InstanceRecord
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects


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
    records: Records, objects: Objects, instance: InstanceRecord, *, served: ServedMarts | None = None
) -> None:
    """Remove an instance: all that came of it, also from the copy `served`, then itself.

    What is interrupted can be done again. What others keep from being erased from the store's files is erased by
    upkeep.
    """
    instances = records.job_log_instances
    instances.patch(instance.id, Patch(set={"unwanted": now()}, unset=("tokenDigest",)))
    discard(records, objects, instance.id)
    if served is not None:
        served.remove(instance.id)
    records.documents.delete(instances.name, {"_id": instance.id})
    records.documents.erase_deleted()
