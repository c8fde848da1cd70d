"""Going round the submissions in a state, a part of them at each tick: a tick stays short however many wait.

Also what Dagster knows of the runs of such a part, asked of it in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from knockem_dagster.records.submissions import State, SubmissionRecord, SubmissionRepository
from resources.names import SUBMISSION_TAG

START = "-"
"""Where a round begins: before every id, which are hexadecimal. Dagster does not store an empty cursor."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some submissions of a round, in the order of their ids, and where the next part goes on."""

    submissions: tuple[SubmissionRecord, ...]
    end: str


def next_part(repository: SubmissionRepository, state: State, *, after: str, most: int) -> Part:
    """Return the next submissions in this state; the round begins again after its last."""
    where = {"state": state.value, "_id": {"$gt": after}}
    found = tuple(repository.find(where, sort=[("_id", 1)], limit=most))
    return Part(found, end=found[-1].id if len(found) == most else START)


def runs_of_each(instance: dg.DagsterInstance, ids: Sequence[str]) -> dict[str, list[dg.RunRecord]]:
    """Return the runs of each submission, newest first: those asked for by us, and those started in the UI."""
    found: dict[str, list[dg.RunRecord]] = {id: [] for id in ids}
    if not ids:
        return found
    records = {
        record.storage_id: record
        for tag in (SUBMISSION_TAG, PARTITION_NAME_TAG)
        for record in instance.get_run_records(dg.RunsFilter(tags={tag: list(ids)}))
    }
    for storage_id in sorted(records, reverse=True):
        id = submission_of(records[storage_id].dagster_run)
        if id in found:
            found[id].append(records[storage_id])
    return found


def submission_of(run: dg.DagsterRun) -> str | None:
    """Return the id of the submission that a run is for, None for a run of something else."""
    return run.tags.get(SUBMISSION_TAG) or run.tags.get(PARTITION_NAME_TAG)
