"""Which jobs that completed must run again for the sake of files: what they read has changed since, or is gone.

As make has it, a file has changed if it was written after the job that reads it had begun; nothing is kept of contents.
Where the folder of a job is not there, this machine knows nothing of its files, and they are taken to be as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import id_at
from knockem_dagster.records.jobs import JobRecord, ResultRecord

_FILES = "files/"


@dataclass(frozen=True, slots=True)
class FilesOfJobs:
    """The files that jobs read, by the reader's id; and the job that makes a file, by the file's id."""

    read: Mapping[str, frozenset[str]]
    makers: Mapping[str, str]
    paths: Mapping[str, str]

    @classmethod
    def of(cls, records: Records, workflow: str) -> FilesOfJobs:
        """Read those of a workflow."""
        where = {"workflowId": workflow}
        read: dict[str, set[str]] = defaultdict(set)
        for edge in records.needs.find(where):
            if edge.target.startswith(_FILES):
                read[id_at(edge.origin)].add(id_at(edge.target))
        makers = {id_at(edge.target): id_at(edge.origin) for edge in records.produces.find(where)}
        paths = {file.id: file.path for file in records.files.find(where)}
        return cls({job: frozenset(files) for job, files in read.items()}, makers, paths)

    def is_changed(self, job: JobRecord, result: ResultRecord) -> bool:
        """Tell whether anything that a job reads was written after it had begun."""
        began = datetime.fromisoformat(result.datetime).timestamp() - (result.wall_seconds or 0.0)
        return any(_written(path) > began for file, path in self._visible(job) if self.makers.get(file) != job.id)

    def makers_of_missing(self, job: JobRecord) -> set[str]:
        """Return the jobs that make what a job reads and that is not there any more."""
        return {self.makers[file] for file, path in self._visible(job) if file in self.makers and _is_gone(path)}

    def _visible(self, job: JobRecord) -> Iterator[tuple[str, Path]]:
        if job.folder is not None and not _is_gone(Path(job.folder)):
            for file in self.read.get(job.id, ()):
                yield file, Path(job.folder, self.paths[file])


def _written(path: Path) -> float:
    """Return when a file was written (seconds since the epoch); 0 where that cannot be seen."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_gone(path: Path) -> bool:
    """Tell whether a file is certainly not there."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def changed_jobs(records: Records, files: FilesOfJobs, jobs: Mapping[str, JobRecord]) -> set[str]:
    """Return those of these jobs, which completed, that have read what has changed since."""
    results = records.results.get_many([id for id in jobs if id in files.read])
    return {id for id, result in results.items() if files.is_changed(jobs[id], result)}
