"""Instances: the servers, or folders of reports, whose job logs are taken in."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from knockem_dagster.accounts.tokens import digest_of, new_token
from knockem_dagster.errors import Conflict, Fault, InvalidInput
from knockem_dagster.joblogs.folders import instance_id
from knockem_dagster.joblogs.wanted import check_wanted
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import MARTS_ID, InstanceRecord, ReportRecord, ReportState
from knockem_dagster.stores.documents import Patch

PLATFORM = "this platform"
"""The name of the instance whose jobs are the platform's own."""
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance, its reports by state, its jobs in the marts, and when its last good report was made (s since 1970).

    `usual_interval`: the median of the seconds between good reports; None where there are fewer than two.
    """

    instance: InstanceRecord
    reports: dict[ReportState, int]
    jobs: int
    last_generated: float | None
    usual_interval: float | None

    @property
    def is_late(self) -> bool:
        """Whether the last good report is older than twice the usual interval; the platform's own jobs have none."""
        if self.last_generated is None or self.usual_interval is None or self.instance.name == PLATFORM:
            return False
        return time.time() - self.last_generated > 2 * self.usual_interval


def local_instance(records: Records, name: str) -> InstanceRecord:
    """Return the instance of this name, registered now if there is none; a UUID is its id, too.

    Raises InvalidInput for a name that is none, Conflict while it is being removed.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        allowed = f"1 to {_LONGEST_NAME} characters that can be printed; `--instance NAME` gives another"
        raise InvalidInput("The instance cannot be registered.", [Fault("its name", repr(name[:200]), allowed)])
    instance = InstanceRecord(id=instance_id(name), name=name)
    records.job_log_instances.add(instance)
    check_wanted(records, instance.id)
    return records.job_log_instances.get(instance.id)


def register(records: Records, name: str) -> tuple[InstanceRecord, str]:
    """Return the instance of this name and a token by which it, and nobody else, uploads; told nowhere else.

    Raises InvalidInput for a name that is none, Conflict where the instance has a token.
    """
    instance, token = local_instance(records, name), new_token()
    where = {"_id": instance.id, "tokenDigest": None}
    with_token = records.documents.claim(
        records.job_log_instances.name, where, Patch(set={"tokenDigest": digest_of(token)})
    )
    if with_token is None:
        raise Conflict(
            f"The instance {name} has a token, which was told when it was registered; "
            f"`./knockem joblogs revoke {instance.id}` ends it, and the instance can be registered again."
        )
    return InstanceRecord.from_document(with_token), token


def revoke(records: Records, instance: InstanceRecord) -> InstanceRecord:
    """Let an instance upload nothing any more; what it has sent stays."""
    return records.job_log_instances.patch(instance.id, Patch(unset=("tokenDigest",))) or instance


def instance_by(records: Records, id: str, token: str) -> InstanceRecord | None:
    """Return the instance with this id whose token this is; None where there is none."""
    instance = records.job_log_instances.find_one(id)
    digest = None if instance is None else instance.token_digest
    return instance if digest is not None and hmac.compare_digest(digest, digest_of(token)) else None


def instance_called(records: Records, given: str) -> InstanceRecord:
    """Return the instance of this name, id, or beginning of an id. Raises NotFound."""
    named = next(records.job_log_instances.find({"name": given}, limit=1), None)
    return named or records.job_log_instances.starting_with(given, what="instance", listing="joblogs list")


def reports_of(records: Records, instance: str) -> list[ReportRecord]:
    """Return the reports of an instance, in the order of their arrival."""
    return sorted(records.job_log_reports.find({"instanceId": instance}), key=lambda each: each.datetime)


def told_of(reports: Sequence[ReportRecord]) -> str:
    """Return what is another text whenever anything became of any of these reports."""
    parts = sorted((each.id, each.digest, each.state, each.parser_version, str(each.quarantine)) for each in reports)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def view_instances(records: Records) -> list[InstanceView]:
    """Return all instances, by name."""
    found = sorted(records.job_log_instances.find({}), key=lambda each: each.name)
    return [view_instance(records, instance) for instance in found]


def view_instance(records: Records, instance: InstanceRecord) -> InstanceView:
    """Return an instance with what became of its reports."""
    reports, marts = reports_of(records, instance.id), records.job_log_marts.find_one(MARTS_ID)
    good = [each for each in reports if each.state is ReportState.LOADED]
    told = sum(each.jobs for each in good)  # until there are marts: each job as often as it is told of
    made = sorted(each.generated for each in good if each.generated is not None)
    return InstanceView(
        instance,
        {state: sum(each.state is state for each in reports) for state in ReportState},
        told if marts is None else marts.jobs.get(instance.id, told),
        made[-1] if made else None,
        median(later - earlier for earlier, later in pairwise(made)) if len(made) > 1 else None,
    )
