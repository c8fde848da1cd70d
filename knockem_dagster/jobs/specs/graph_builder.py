"""From a workflow file to its graph, or to every fault of it: unknown names, several producers, circles, idle actions.

A job waits for those it names (`depends_on`), and for those that make a file or user data that it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Protocol, TypeVar

from pydantic import ValidationError

from knockem_dagster.errors import Fault
from knockem_dagster.jobs.specs.edges import with_edges
from knockem_dagster.jobs.specs.expansion import Expanded, expanded_files, expanded_jobs, expanded_user_data
from knockem_dagster.jobs.specs.job_graph import (
    Direction,
    GraphJob,
    JobGraph,
    Kind,
    Links,
    Reference,
    TriggeredAction,
    references_in,
    with_defaults,
)
from knockem_dagster.jobs.specs.patterns import Matcher, NotAPattern
from knockem_dagster.jobs.specs.reading import faults_of, refused
from knockem_dagster.jobs.specs.workflow_spec import ActionSpec, JobSpec, SlurmSchedulerSpec, WorkflowSpec
from knockem_dagster.mapping_file import one_line, shown

MOST_DEPENDENCIES = 2_000_000
"""Pairs of jobs of which one waits for the other. A job between two large stages makes far fewer."""
MOST_BYTES_OF_A_COMMAND = 100_000
MOST_BYTES_OF_AN_ENVIRONMENT = 1_000_000
"""Linux takes 131,071 of one argument or one variable with its name, and two million of all together (execve(2))."""
_SHOWN_OF_A_CIRCLE = 10
_JOB_TRIGGERS = ("on_jobs_ready", "on_jobs_complete")
_OPTIONS_OF_THEIR_OWN = frozenset({"partition", "nodes", "walltime", "time", "mem", "gres", "name", "job-name"})
_LINKS: tuple[tuple[Kind, Direction, str, str], ...] = (
    ("files", "input", "input_files", "input_file_regexes"),
    ("files", "output", "output_files", "output_file_regexes"),
    ("user_data", "input", "input_user_data", "input_user_data_regexes"),
    ("user_data", "output", "output_user_data", "output_user_data_regexes"),
)
"""What a job may be linked with, and the fields that name it, by names and by patterns."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Part = TypeVar("Part", bound=_Named)
Linked = dict[Kind, Links]
Makers = Mapping[Kind, Mapping[str, str]]


def graph_of(spec: WorkflowSpec) -> JobGraph:
    """Return the graph of a workflow file. Raises InvalidInput with every fault: nothing of it is to be stored."""
    builder = _Builder(spec)
    graph = builder.build()
    if builder.faults:
        raise refused(builder.faults)
    return graph


class _Builder:
    """Resolves the names of a workflow, and collects its faults."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self._spec, self.faults = with_edges(spec)
        self._partial: list[object] = []
        self._jobs = self._expanded_by_name("jobs", expanded_jobs(self._spec))
        self._files = self._expanded_by_name("files", expanded_files(self._spec))
        self._user_data = self._expanded_by_name("user_data", expanded_user_data(self._spec))
        self._requirements = self._by_name("resource_requirements", spec.resource_requirements)
        self._handlers = self._by_name("failure_handlers", spec.failure_handlers)
        self._schedulers = self._by_name("slurm_schedulers", spec.slurm_schedulers)
        self._job_names = Matcher(list(self._jobs))
        self._linkable: dict[Kind, Matcher] = {
            "files": Matcher(list(self._files)),
            "user_data": Matcher(list(self._user_data)),
        }

    def build(self) -> JobGraph:
        """Return the graph; it is whole when there are no faults."""
        linked = {name: self._links_of(job) for name, job in self._jobs.items()}
        makers: Makers = {kind: self._makers(kind, linked) for kind in self._linkable}
        blockers = self._all_blockers(linked, makers)
        for job in self._jobs.values():
            self._check_choices(job)
        self._check_order(blockers)
        self._check_slurm_defaults()
        for name, text in (self._spec.env or {}).items():
            self._check_references(f"env.{name}", [text])
        graph = JobGraph(
            spec=self._spec,
            jobs={
                name: GraphJob(job, linked[name]["files"], linked[name]["user_data"], blockers[name])
                for name, job in self._jobs.items()
            },
            files=self._files,
            user_data=self._user_data,
            requirements=self._requirements,
            handlers=self._handlers,
            schedulers=self._schedulers,
            actions=[self._action(f"actions[{n}]", each, makers) for n, each in enumerate(self._spec.actions or ())],
        )
        if not self.faults:
            self._check_sizes(graph)
        return graph

    def _fault(self, place: str, value: object, allowed: str) -> None:
        self.faults.append(Fault(one_line(place), shown(value), allowed))

    def _by_name(self, kind: str, parts: Sequence[Part] | None) -> dict[str, Part]:
        for name, number in Counter(part.name for part in parts or ()).items():
            if number > 1:
                self._fault(kind, name, f"it stands there {number:,} times, and names are unique")
        return {part.name: part for part in parts or ()}

    def _expanded_by_name(self, kind: str, expanded: Expanded[Part]) -> dict[str, Part]:
        """Return the parts of a kind by name; where some could not be expanded, no other name is known to be wrong."""
        found = self._by_name(kind, expanded.parts)
        if expanded.faults:
            self.faults += expanded.faults
            self._partial.append(found)
        return found

    def _links_of(self, job: JobSpec) -> Linked:
        """Return what a job reads and writes, by fields, patterns and references in its command."""
        texts = {"command": job.command, "invocation_script": job.invocation_script or ""}
        texts |= {f"env.{name}": text for name, text in (job.env or {}).items()}
        references = [(place, each) for place, text in texts.items() for each in references_in(text)]
        found: dict[tuple[Kind, Direction], dict[str, None]] = {}
        for kind, direction, names, patterns in _LINKS:
            there = self._files if kind == "files" else self._user_data
            linked: list[str] = []
            if named := getattr(job, names):
                linked += self._known(f"{job.name}.{names}", named, there)
            for place, each in references:
                if (each.kind, each.direction) == (kind, direction):
                    linked += self._known(f"{job.name}.{place}", [each.name], there)
            if sought := getattr(job, patterns):
                linked += self._matched(f"{job.name}.{patterns}", sought, self._linkable[kind])
            found[kind, direction] = dict.fromkeys(linked)
        return {
            kind: Links(tuple(found[kind, "input"]), tuple(found[kind, "output"])) for kind in ("files", "user_data")
        }

    def _known(self, place: str, names: Iterable[str], there: Mapping[str, object]) -> list[str]:
        """Return those names that are there; others are faults."""
        known: list[str] = []
        for name in dict.fromkeys(names):
            if name in there:
                known.append(name)
            elif not any(there is each for each in self._partial):
                self._fault(place, name, "there is nothing of that name")
        return known

    def _matched(self, place: str, patterns: Sequence[str] | None, names: Matcher) -> list[str]:
        """Return the names in which any pattern is found; one that is in none is a fault."""
        matched: list[str] = []
        for pattern in patterns or ():
            try:
                found = names.matches(pattern)
            except NotAPattern as error:
                self._fault(place, pattern, str(error))
                continue
            if not found and not self._partial:
                self._fault(place, pattern, "a pattern that is found in a name is")
            matched += found
        return matched

    def _makers(self, kind: Kind, linked: Mapping[str, Linked]) -> dict[str, str]:
        """Return which job makes each file or user data."""
        makers: dict[str, str] = {}
        for job, links in linked.items():
            for name in links[kind].outputs:
                if name in makers:
                    self._fault(f"{kind}.{name}", [makers[name], job], "one job that makes it is")
                makers[name] = job
        return makers

    def _all_blockers(self, linked: Mapping[str, Linked], makers: Makers) -> dict[str, tuple[str, ...]]:
        """Return for which others each job waits; of none, once they are too many."""
        blockers: dict[str, tuple[str, ...]] = {}
        left = MOST_DEPENDENCIES
        for name, job in self._jobs.items():
            blockers[name] = self._blockers_of(job, linked[name], makers)
            left -= len(blockers[name])
            if left < 0:
                allowed = f"at most {MOST_DEPENDENCIES:,} are: put a job between stages that all of one wait for"
                self._fault("depends_on", "too many dependencies", allowed)
                return dict.fromkeys(self._jobs, ())
        return blockers

    def _blockers_of(self, job: JobSpec, links: Linked, makers: Makers) -> tuple[str, ...]:
        named = self._known(f"{job.name}.depends_on", job.depends_on or (), self._jobs)
        matched = self._matched(f"{job.name}.depends_on_regexes", job.depends_on_regexes, self._job_names)
        blockers = dict.fromkeys([*named, *(name for name in matched if name != job.name)])
        for kind, by_name in makers.items():
            blockers.update(dict.fromkeys(by_name[name] for name in links[kind].inputs if name in by_name))
        return tuple(blockers)

    def _check_choices(self, job: JobSpec) -> None:
        for name, there in (
            ("resource_requirements", self._requirements),
            ("failure_handler", self._handlers),
            ("scheduler", self._schedulers),
        ):
            chosen: str | None = getattr(job, name)
            if chosen is not None:
                self._known(f"{job.name}.{name}", [chosen], there)

    def _check_order(self, blockers: Mapping[str, Sequence[str]]) -> None:
        """Make sure that an order of jobs exists."""
        try:
            TopologicalSorter(blockers).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            told = " -> ".join(circle[:_SHOWN_OF_A_CIRCLE]) + (" -> ..." if len(circle) > _SHOWN_OF_A_CIRCLE else "")
            self.faults.append(Fault("depends_on", told, "jobs that do not wait for one another in a circle are"))

    def _check_slurm_defaults(self) -> None:
        defaults = self._spec.slurm_defaults or {}
        for name in (each for each in defaults if each in _OPTIONS_OF_THEIR_OWN):
            self._fault(f"slurm_defaults.{name}", name, "it is an option of a scheduler, under slurm_schedulers")
        usable = {name: value for name, value in defaults.items() if name not in _OPTIONS_OF_THEIR_OWN}
        try:
            with_defaults(SlurmSchedulerSpec(name="any"), usable)
        except ValidationError as error:
            self.faults += faults_of(error, at="slurm_defaults", part=SlurmSchedulerSpec)

    def _check_references(self, place: str, texts: Iterable[str]) -> list[Reference]:
        """Make sure that what these texts name is there; return it."""
        references = [reference for text in texts for reference in references_in(text)]
        for kind, there in (("files", self._files), ("user_data", self._user_data)):
            self._known(place, [each.name for each in references if each.kind == kind], there)
        return references

    def _check_sizes(self, graph: JobGraph) -> None:
        """Make sure that every command can be run: what it is given is bounded on Linux."""
        ids = dict.fromkeys(self._user_data, "0" * 36)
        shared = self._spec.env or {}
        for name, job in graph.jobs.items():
            command = graph.with_references(f"{job.spec.invocation_script or ''} {job.spec.command}", ids)
            self._check_size(f"{name}.command", command)
            environment = {
                key: graph.with_references(text, ids) for key, text in (shared | (job.spec.env or {})).items()
            }
            for key, text in environment.items():
                self._check_size(f"{name}.env.{key}", text)
            self._check_size(f"{name}.env", "".join(environment.values()), MOST_BYTES_OF_AN_ENVIRONMENT)
        for number, action in enumerate(graph.actions):
            self._check_size(f"actions[{number}].commands", "\n".join(action.spec.commands or ()))

    def _check_size(self, place: str, text: str, most: int = MOST_BYTES_OF_A_COMMAND) -> None:
        if len(text.encode()) > most:
            self._fault(place, text, f"at most {most:,} bytes are: put it in a file")

    def _action(self, place: str, action: ActionSpec, makers: Makers) -> TriggeredAction:
        jobs = self._known(f"{place}.jobs", action.jobs or (), self._jobs)
        jobs += self._matched(f"{place}.job_name_regexes", action.job_name_regexes, self._job_names)
        waits = action.trigger_type in _JOB_TRIGGERS
        if waits and not (action.jobs or action.job_name_regexes):
            self._fault(f"{place}.jobs", None, f"{action.trigger_type} needs jobs, or job_name_regexes")
        if not waits and (action.jobs or action.job_name_regexes):
            self._fault(f"{place}.jobs", action.jobs, f"{action.trigger_type} waits for no jobs: leave them out")
        if action.action_type == "run_commands" and not action.commands:
            self._fault(f"{place}.commands", None, "run_commands needs at least one command")
        if action.action_type == "schedule_nodes":
            if action.scheduler is None:
                self._fault(f"{place}.scheduler", None, "schedule_nodes needs a scheduler")
            elif action.scheduler_type != "local":
                self._known(f"{place}.scheduler", [action.scheduler], self._schedulers)
        read = self._check_references(f"{place}.commands", action.commands or ())
        made_by = [makers[each.kind][each.name] for each in read if each.name in makers[each.kind]]
        if made_by and action.trigger_type == "on_workflow_start":
            self._fault(f"{place}.commands", made_by[0], "what no job makes is: all jobs wait for this action")
        return TriggeredAction(action, tuple(dict.fromkeys(jobs)), tuple(dict.fromkeys(made_by)))
