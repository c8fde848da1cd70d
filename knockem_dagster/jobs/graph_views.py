"""The graph of a workflow as people can take it in: single jobs while they are few, else groups of like ones.

Jobs are alike whose names differ in digits only and that stand at the same level, behind equally long chains; where
that makes too many groups, whatever their level.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import id_at
from knockem_dagster.records.jobs import JobRecord
from knockem_dagster.stores.paging import pages

MOST_SINGLE = 40
"""Jobs that are shown one by one."""
MOST_NODES = 120
MOST_JOBS = 50_000
"""Jobs whose graph is worked out; it takes seconds, and their edges are many more."""
_DIGITS = re.compile(r"\d+")
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class GraphNode:
    """Some jobs: how they are called, at which level they stand (0 for those that wait for nothing), and their ids."""

    name: str
    level: int
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphView:
    """The nodes of a graph, by level, and which waits for which: pairs of their places, the one waited for first."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[int, int], ...]


def view_graph(records: Records, workflow: str) -> GraphView | None:
    """Return the graph of a workflow, which never changes; None where it is too large to be worked out."""
    jobs: list[JobRecord] = []
    for page in pages(records.jobs.find({"workflowId": workflow}, sort=[("name", 1)]), _PAGE):
        jobs += page
        if len(jobs) > MOST_JOBS:
            return None
    blockers: dict[str, list[str]] = {job.id: [] for job in jobs}
    for edge in records.blocks.find({"workflowId": workflow}):
        blockers[id_at(edge.target)].append(id_at(edge.origin))
    return graph_view([(job.id, job.name) for job in jobs], blockers)


def graph_view(jobs: Sequence[tuple[str, str]], blockers: Mapping[str, Sequence[str]]) -> GraphView:
    """Return the graph of jobs, given by id and name."""
    levels = _levels(blockers)
    if len(jobs) <= MOST_SINGLE:
        return _grouped(jobs, blockers, {id: (name, levels[id]) for id, name in jobs})
    alike = {id: (_DIGITS.sub("#", name), levels[id]) for id, name in jobs}
    if len(set(alike.values())) > MOST_NODES:  # a long chain, say: then one node, at its first level
        first: dict[str, int] = {}
        for name, level in alike.values():
            first[name] = min(level, first.get(name, level))
        alike = {id: (name, first[name]) for id, (name, _) in alike.items()}
    return _grouped(jobs, blockers, alike)


def _grouped(
    jobs: Sequence[tuple[str, str]], blockers: Mapping[str, Sequence[str]], groups: Mapping[str, tuple[str, int]]
) -> GraphView:
    """Return the graph in which those jobs are one node that have the same name and level in `groups`."""
    members: dict[tuple[str, int], list[str]] = defaultdict(list)
    names = dict(jobs)
    for id, _ in jobs:
        members[groups[id]].append(id)
    columns = {level: column for column, level in enumerate(sorted({level for _, level in members}))}
    nodes = [
        GraphNode(names[ids[0]] if len(ids) == 1 else name, columns[level], tuple(ids))
        for (name, level), ids in sorted(members.items(), key=lambda each: (each[0][1], each[0][0]))
    ]
    place = {id: number for number, node in enumerate(nodes) for id in node.jobs}
    edges = {(place[blocker], place[id]) for id, found in blockers.items() for blocker in found}
    return GraphView(tuple(nodes), tuple(sorted((origin, target) for origin, target in edges if origin != target)))


def states_of(view: GraphView, states: Mapping[str, str]) -> list[dict[str, int]]:
    """Return for each node how many of its jobs are in which state."""
    return [dict(Counter(states[id] for id in node.jobs if id in states)) for node in view.nodes]


def _levels(blockers: Mapping[str, Iterable[str]]) -> dict[str, int]:
    levels: dict[str, int] = {}
    for id in TopologicalSorter(blockers).static_order():
        levels[id] = 1 + max((levels[each] for each in blockers.get(id, ())), default=-1)
    return levels
