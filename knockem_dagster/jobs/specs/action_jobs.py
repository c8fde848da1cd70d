"""Actions that run commands, as jobs beside the others: what each waits for, and what waits for it.

An action that fails spoils nothing: what waits for it goes on. Names cannot clash with those of other jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from knockem_dagster.jobs.specs.job_graph import GraphJob, JobGraph, Links, TriggeredAction
from knockem_dagster.jobs.specs.workflow_spec import ActionSpec, JobSpec


def jobs_with_actions(graph: JobGraph) -> Mapping[str, GraphJob]:
    """Return all jobs of a workflow by name, those included that run its actions.

    What begins with the workflow comes before all jobs that wait for nothing; what ends with it after all others.
    """
    names = [action_name(number, each.spec) for number, each in enumerate(graph.actions)]
    actions = {_unlike(name, graph.jobs): each for name, each in zip(names, graph.actions, strict=True) if each.is_job}
    first = tuple(name for name, each in actions.items() if each.spec.trigger_type == "on_workflow_start")
    jobs = {
        name: job if job.blockers or not first else replace(job, blockers=first) for name, job in graph.jobs.items()
    }
    found = dict(jobs)
    for name, action in actions.items():
        blockers = [*action.made_by, *_blockers(action, jobs)]
        if action.spec.trigger_type == "on_workflow_complete":
            blockers += [each for each in actions if actions[each].spec.trigger_type != "on_workflow_complete"]
        spec = JobSpec(name=name, command=action_command(action.spec))
        found[name] = GraphJob(spec, Links(), Links(), tuple(dict.fromkeys(blockers)), is_action=True)
    return found


def action_name(number: int, action: ActionSpec) -> str:
    """Return what the action of this number is called."""
    return f"action {number}: {action.trigger_type}"


def action_command(action: ActionSpec) -> str:
    """Return the commands of an action as one, which the first that fails ends."""
    return "\n".join(["set -e", *(action.commands or ())])


def _blockers(action: TriggeredAction, jobs: Mapping[str, GraphJob]) -> Iterable[str]:
    match action.spec.trigger_type:
        case "on_jobs_complete":
            return action.jobs
        case "on_jobs_ready":
            return [blocker for name in action.jobs for blocker in jobs[name].blockers]
        case "on_workflow_complete":
            waited_for = {blocker for job in jobs.values() for blocker in job.blockers}
            return [name for name in jobs if name not in waited_for]
        case _:
            return ()


def _unlike(name: str, others: Mapping[str, object]) -> str:
    while name in others:
        name += "'"
    return name
