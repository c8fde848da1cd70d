"""Whether what one job writes can be read by another, where workers are on several machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from knockem_dagster.errors import Fault
from knockem_dagster.jobs.queue_views import Worker
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import refused
from knockem_dagster.jobs.work_messages import OVER_HTTP


def check_sharing(graph: JobGraph, workers: Mapping[str, Worker]) -> None:
    """Make sure that files pass from job to job when commands run in the folders in which their workers were started.

    Asked are the workers that are there now. On one machine files pass, and where a path is absolute nothing is known.
    Raises InvalidInput with every file that would not.
    """
    said = [worker.description for worker in workers.values()]
    hosts = sorted({each["host"].removesuffix(OVER_HTTP) for each in said if "command" in each.get("runtimes", ())})
    if len(hosts) < 2:
        return
    makers = {name: job for job, each in graph.jobs.items() for name in each.files.outputs}
    readers = {name: job for job, each in graph.jobs.items() for name in each.files.inputs if name in makers}
    allowed = f"a folder is needed that all workers share: they are on {', '.join(hosts)}, each in a folder of its own"
    faults = [
        Fault(f"files.{name}", f"made by {makers[name]}, read by {job}", allowed)
        for name, job in readers.items()
        if not PurePath(graph.files[name].path).is_absolute()
    ]
    if faults:
        raise refused(faults)
