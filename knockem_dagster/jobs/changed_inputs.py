"""Which jobs that completed must run again for the sake of what they read: it has changed since, or is gone.

Files are compared with the marks of them that a worker made before the job began. User data have changed if they were
given other data after it had begun. Where the folder of a job is not there, this machine knows nothing of its files,
and they are taken to be as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from knockem_dagster.jobs.file_marks import is_changed
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import FileRecord, UserDataRecord, id_at, place_of
from knockem_dagster.records.jobs import JobRecord, ResultRecord


@dataclass(frozen=True, slots=True)
class InputsOfJobs:
    """What jobs read, by the reader's id; and, by what is read, its maker, a file's path and the time of new user data.

    Files and user data are named as edges do: "collection/id".
    """

    read: Mapping[str, frozenset[str]]
    makers: Mapping[str, str]
    paths: Mapping[str, str]
    changes: Mapping[str, float]

    @classmethod
    def of(cls, records: Records, workflow: str) -> InputsOfJobs:
        """Read those of a workflow."""
        where = {"workflowId": workflow}
        read: dict[str, set[str]] = defaultdict(set)
        for edge in records.needs.find(where):
            read[id_at(edge.origin)].add(edge.target)
        made = [*records.produces.find(where), *records.stores.find(where)]
        makers = {edge.target: id_at(edge.origin) for edge in made}
        paths = {place_of(FileRecord, file.id): file.path for file in records.files.find(where)}
        changes = {
            place_of(UserDataRecord, data.id): _seconds(data.changed)
            for data in records.user_data.find(where)
            if data.changed is not None
        }
        return cls({job: frozenset(places) for job, places in read.items()}, makers, paths, changes)

    def changed(self, records: Records, jobs: Mapping[str, JobRecord]) -> set[str]:
        """Return those of these jobs, which completed, that have read what has changed since."""
        results = records.results.get_many([id for id in jobs if id in self.read])
        return {id for id, result in results.items() if self._is_changed(jobs[id], result)}

    def makers_of_missing(self, job: JobRecord) -> set[str]:
        """Return the jobs that make a file that a job reads and that is not there any more."""
        return {self.makers[place] for place, path in self._visible(job) if place in self.makers and _is_gone(path)}

    def _is_changed(self, job: JobRecord, result: ResultRecord) -> bool:
        return self._has_changed_data(job, result) or _has_changed_files(job, result)

    def _has_changed_data(self, job: JobRecord, result: ResultRecord) -> bool:
        changes = (self.changes.get(place, 0.0) for place in self.read[job.id] if self.makers.get(place) != job.id)
        return result.began is not None and any(when > _seconds(result.began) for when in changes)

    def _visible(self, job: JobRecord) -> Iterator[tuple[str, Path]]:
        folder = _folder_of(job)
        if folder is not None:
            for place in self.read.get(job.id, frozenset()) & self.paths.keys():
                yield place, folder / self.paths[place]


def _has_changed_files(job: JobRecord, result: ResultRecord) -> bool:
    folder = _folder_of(job)
    if folder is None or len(result.marks) != len(job.reads):  # nothing was marked in results of earlier versions
        return False
    return any(is_changed(folder / path, mark) for path, mark in zip(job.reads, result.marks, strict=True))


def _folder_of(job: JobRecord) -> Path | None:
    """Return where a job ran, if this machine sees it."""
    return None if job.folder is None or _is_gone(Path(job.folder)) else Path(job.folder)


def _is_gone(path: Path) -> bool:
    """Tell whether a file is certainly not there."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()
