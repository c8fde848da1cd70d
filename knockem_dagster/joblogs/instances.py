"""Instances: the servers, or folders of reports, whose job logs are taken in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import InstanceRecord, ReportRecord, ReportState
from knockem_dagster.records.record import derived_id

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance, its reports by state, jobs in the lake, and when its last good report was made (s since 1970)."""

    instance: InstanceRecord
    reports: dict[ReportState, int]
    jobs: int
    last_generated: float | None


def local_instance(records: Records, name: str) -> InstanceRecord:
    """Return the instance of this name, registered now if there is none; a UUID is its id, too.

    Raises InvalidInput for a name that is none.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        allowed = f"1 to {_LONGEST_NAME} characters that can be printed; `--instance NAME` gives another"
        raise InvalidInput("The instance cannot be registered.", [Fault("its name", repr(name[:200]), allowed)])
    instance = InstanceRecord(id=_id_of(name), name=name)
    records.job_log_instances.add(instance)
    return records.job_log_instances.get(instance.id)


def reports_of(records: Records, instance: str) -> list[ReportRecord]:
    """Return the reports of an instance, in the order of their arrival."""
    return sorted(records.job_log_reports.find({"instanceId": instance}), key=lambda each: each.datetime)


def view_instances(records: Records) -> list[InstanceView]:
    """Return all instances, by name."""
    found = sorted(records.job_log_instances.find({}), key=lambda each: each.name)
    return [_view(instance, reports_of(records, instance.id)) for instance in found]


def _view(instance: InstanceRecord, reports: Sequence[ReportRecord]) -> InstanceView:
    good = [each for each in reports if each.state is ReportState.LOADED]
    return InstanceView(
        instance,
        {state: sum(each.state is state for each in reports) for state in ReportState},
        sum(each.jobs for each in good),
        max((each.generated for each in good if each.generated is not None), default=None),
    )


def _id_of(name: str) -> str:
    try:
        return str(UUID(name))
    except ValueError:
        return derived_id("jobLogInstance", name)
