"""Graphs: what waits for what, by names, files, user data and patterns; and all that makes a workflow no graph."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.errors import InvalidInput
from knockem_dagster.jobs.specs.action_jobs import jobs_with_actions
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.patterns import Matcher
from knockem_dagster.jobs.specs.reading import spec_of


def job(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": "true", **fields}


def graph(*jobs: dict[str, Any], **fields: Any) -> JobGraph:
    return graph_of(spec_of({"name": "w", "jobs": list(jobs), **fields}))


def faults(*jobs: dict[str, Any], **fields: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        graph(*jobs, **fields)
    return [str(fault) for fault in refused.value.faults]


def blockers(found: JobGraph) -> dict[str, set[str]]:
    return {name: set(each.blockers) for name, each in found.jobs.items()}


def acting(trigger: str, command: str, **fields: Any) -> dict[str, Any]:
    return {"actions": [{"trigger_type": trigger, "action_type": "run_commands", "commands": [command], **fields}]}


FILES: dict[str, Any] = {"files": [{"name": name, "path": f"/data/{name}"} for name in ("x", "y")]}


def test_jobs_wait_for_those_they_name_and_for_who_makes_what_they_read() -> None:
    found = graph(
        job("prepare", command="make ${files.output.x}"),
        job("left", command="use ${files.input.x}", output_user_data=["u"]),
        job("right", depends_on=["prepare"], output_files=["y"]),
        job("end", input_files=["y"], command="tell ${user_data.input.u}"),
        job("alone", input_files=["x"], depends_on_regexes=["^(left|right|alone)$"]),
        user_data=[{"name": "u", "data": {"rate": 0.1}}],
        **FILES,
    )
    assert blockers(found) == {
        "prepare": set(),
        "left": {"prepare"},
        "right": {"prepare"},
        "end": {"left", "right"},
        "alone": {"prepare", "left", "right"},
    }
    filled = found.with_references("use ${files.input.x} ${user_data.input.u} ${HOME}", {"u": "an id"})
    assert filled == "use /data/x an id ${HOME}"
    assert found.num_dependencies == 7


def test_files_without_a_maker_are_there_already() -> None:
    assert blockers(graph(job("a", input_files=["x"]), **FILES)) == {"a": set()}


def test_a_job_that_gathers_waits_for_every_combination() -> None:
    sweep = {"rate": "[0.1,0.01]", "seed": "1:3"}
    found = graph(
        job("run_{rate:.2f}_{seed}", output_files=["r_{rate}_{seed}"], parameters=sweep),
        job("gather", input_file_regexes=["^r_{rate}_"], use_parameters=["rate"]),
        job("again", depends_on=["run_{rate:.2f}_{seed}"], use_parameters=["rate", "seed"]),
        files=[{"name": "r_{rate}_{seed}", "path": "/r/{rate}/{seed}", "parameters": sweep}],
        parameters=sweep,
    )
    runs = {f"run_{rate}_{seed}" for rate in ("0.10", "0.01") for seed in (1, 2, 3)}
    assert set(found.jobs) == runs | {"gather", "again"}
    assert set(found.jobs["gather"].blockers) == set(found.jobs["again"].blockers) == runs
    assert found.files["r_0.01_2"].path == "/r/0.01/2"


def test_own_parameters_come_before_shared_ones() -> None:
    found = graph(job("j_{i}", use_parameters=["i"], parameters={"i": "5:6"}), parameters={"i": "1:9"})
    assert list(found.jobs) == ["j_5", "j_6"]


@pytest.mark.parametrize(
    ("jobs", "fields", "words"),
    [
        ([job("a", depends_on=["b"])], {}, "a.depends_on"),
        ([job("a", input_files=["z"])], FILES, "a.input_files"),
        ([job("a", command="${files.output.z}")], FILES, "a.command"),
        ([job("a", command="${user_data.input.z}")], {}, "a.command"),
        ([job("a", resource_requirements="big")], {}, "a.resource_requirements"),
        ([job("a", failure_handler="h")], {}, "a.failure_handler"),
        ([job("a", scheduler="s")], {}, "a.scheduler"),
        ([job("a"), job("a")], {}, "stands there 2 times"),
        ([job("a", output_files=["x"]), job("b", output_files=["x"])], FILES, 'files.x: ["a", "b"]'),
        ([job("a", depends_on=["c"]), job("b", depends_on=["a"]), job("c", depends_on=["b"])], {}, "circle"),
        ([job("a", depends_on=["a"])], {}, "a -> a"),
        ([job("a", command="${files.input.x} ${files.output.x}")], FILES, "circle"),
        ([job("a", depends_on_regexes=["^b"])], {}, "found in a name"),
        ([job("a", depends_on_regexes=["("])], {}, "a regular expression"),
        ([job("a", depends_on_regexes=["(?=a)"])], {}, "no lookahead"),
        ([job("a", depends_on_regexes=["a" * 2000])], {}, "at most 1,000 characters"),
        ([job("a", depends_on_regexes=["((a{1,100}){1,100}){1,100}"])], {}, "a regular expression"),
        ([job("a_{i}", parameters={"i": "1:2", "j": "1:3"}, parameter_mode="zip")], {}, "i has 2, j has 3"),
        ([job("a", command="x {i}", parameters={"i": "1:2"})], {}, "command differs between them"),
        ([job("a_{i:x}", parameters={"i": "1:2"})], {}, "is no format"),
        ([job("a_{i}", parameters={"i": ["\n"]})], {}, "jobs[0].name"),
        ([job("{i}", parameters={"i": ["x" * 501]})], {}, "jobs[0].name"),
        ([job("a_{i}", command="{x}", parameters={"i": "1:2", "x": ["a\0b"]})], {}, "jobs[0].command"),
        ([job("a", command="x" * 100_001)], {}, "a.command"),
        ([job("a", env={"LONG": "x" * 100_001})], {}, "a.env.LONG"),
        ([job("a", env={f"V{number}": "x" * 90_000 for number in range(12)})], {}, "a.env:"),
        ([job("a")], {"env": {"PATH_OF_X": "${files.input.nothing}"}}, "env.PATH_OF_X"),
        ([job("a")], acting("on_workflow_complete", "${files.input.nothing}"), "actions[0].commands"),
        ([job("a", output_files=["x"])], FILES | acting("on_workflow_start", "${files.input.x}"), "what no job makes"),
        ([job("a_{i}", use_parameters=["i"])], {}, "a parameter of the workflow"),
        ([job("a")], {"actions": [{"trigger_type": "on_jobs_ready", "action_type": "run_commands"}]}, "needs jobs"),
        (
            [job("a")],
            {"actions": [{"trigger_type": "on_workflow_start", "action_type": "run_commands"}]},
            "at least one command",
        ),
        (
            [job("a")],
            {"actions": [{"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "s"}]},
            "actions[0].scheduler",
        ),
        ([job("a")], {"slurm_defaults": {"nodes": "2"}}, "under slurm_schedulers"),
        ([job("a")], {"slurm_defaults": {"ntasks_per_node": "many"}}, "slurm_defaults.ntasks_per_node"),
    ],
)
def test_what_is_no_graph_is_refused_by_name(jobs: list[dict[str, Any]], fields: dict[str, Any], words: str) -> None:
    assert any(words in fault for fault in faults(*jobs, **fields))


def test_faults_of_defaults_are_told_in_their_order() -> None:
    names = ["time", "gres", "nodes", "walltime", "partition", "mem", "name"]
    told = faults(job("a"), slurm_defaults=dict.fromkeys(names, "1"))
    assert [fault.partition(" ")[0].removesuffix(":") for fault in told] == [f"slurm_defaults.{name}" for name in names]


def test_every_fault_of_the_whole_is_told_at_once() -> None:
    told = faults(
        job("a", depends_on=["nobody", "b"], scheduler="s"),
        job("b", depends_on=["a"], input_files=["z"], output_file_regexes=["["]),
        **FILES,
    )
    assert len(told) == 5


def test_what_has_no_effect_yet_is_named() -> None:
    schedulers = [{"name": "s", "account": "a"}]
    needs = [{"name": "r", "num_cpus": 1, "memory": "1g", "num_nodes": 2}]
    found = graph(
        job("a", scheduler="s"), job("b"), slurm_schedulers=schedulers, access_groups=["g"], resource_requirements=needs
    )
    assert found.without_effect(acquires_nodes=True) == ["access_groups", "num_nodes", "scheduler"]
    assert graph(job("a")).without_effect(acquires_nodes=False) == []


def scheduling(**fields: Any) -> dict[str, Any]:
    return {"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "s", **fields}


def test_actions_for_nodes_have_no_effect_where_none_are_acquired() -> None:
    found = graph(job("a"), slurm_schedulers=[{"name": "s"}], actions=[scheduling()])
    assert found.without_effect(acquires_nodes=True) == []
    assert found.without_effect(acquires_nodes=False) == ["schedule_nodes on_workflow_start"]


def test_what_is_not_read_of_schedulers_and_their_actions_is_named() -> None:
    action = scheduling(max_parallel_jobs=2, start_one_worker_per_node=True, persistent=True)
    for scheduler, defaults in (({"ntasks_per_node": 2}, {}), ({}, {"ntasks_per_node": "2"})):
        found = graph(
            job("a"), slurm_schedulers=[{"name": "s", **scheduler}], slurm_defaults=defaults, actions=[action]
        )
        assert found.without_effect(acquires_nodes=True) == [
            "max_parallel_jobs",
            "ntasks_per_node",
            "persistent",
            "start_one_worker_per_node",
        ]


@pytest.mark.parametrize(
    ("scheduler", "defaults", "expected"),
    [
        ({}, {"extra": "--nice=5", "comment": "x y"}, {"extra": "'--comment=x y' --nice=5"}),
        ({"extra": "--hold"}, {"exclusive": True, "contiguous": False}, {"extra": "--exclusive --hold"}),
        ({"account": "own"}, {"account": "a", "qos": "q"}, {"account": "own", "qos": "q"}),
        ({}, {"serialize_allocations": "false", "ntasks_per_node": "2"}, {"ntasks_per_node": 2}),
        ({}, {"serialize_allocations": "true"}, {"serialize_allocations": True}),
    ],
)
def test_defaults_are_options_of_all_schedulers(
    scheduler: dict[str, Any], defaults: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = graph(job("a"), slurm_schedulers=[{"name": "s", **scheduler}], slurm_defaults=defaults)
    usual = {"nodes": 1, "walltime": "01:00:00", "serialize_allocations": False}
    assert found.options_of(found.schedulers["s"]) == usual | expected


def test_an_action_waits_for_who_makes_what_it_reads() -> None:
    acts = acting("on_jobs_complete", "cat ${files.input.x}", jobs=["b"])
    found = jobs_with_actions(graph(job("a", output_files=["x"]), job("b"), **(FILES | acts)))
    assert set(found["action 0: on_jobs_complete"].blockers) == {"a", "b"}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("^a", ["a.1", "ab", "a"]),
        ("^a$", ["a"]),
        (r"^a\.1$", ["a.1"]),
        (r"^a\.", ["a.1"]),
        ("^a.1$", ["a.1"]),
        ("a", ["ba", "a.1", "ab", "a"]),
        ("^ab?$", ["ab", "a"]),
        ("^a|b", ["ba", "a.1", "ab", "a"]),
        ("^c", []),
    ],
)
def test_patterns_find_names_anywhere_in_their_order(pattern: str, found: list[str]) -> None:
    assert list(Matcher(["ba", "a.1", "ab", "a"]).matches(pattern)) == found


@given(st.lists(st.text("ab.-", max_size=4), unique=True), st.text("ab.-", max_size=3))
def test_a_fixed_beginning_is_found_as_its_expression_is(names: list[str], text: str) -> None:
    matcher = Matcher(names)
    assert matcher.matches(f"^{re.escape(text)}") == matcher.matches(f"^(?:{re.escape(text)})")
    assert matcher.matches(f"^{re.escape(text)}$") == matcher.matches(f"^(?:{re.escape(text)})$")


def test_many_patterns_on_many_names_are_looked_up_or_refused() -> None:
    sweep = {"i": "1:4000"}
    named = graph(job("a_{i}", parameters=sweep), job("b_{i}", depends_on_regexes=["^a_{i}$"], parameters=sweep))
    assert blockers(named)["b_7"] == {"a_7"}
    others = [job("a_{i}", parameters=sweep), job("b_{i}", depends_on_regexes=["a_{i}$"], parameters=sweep)]
    assert any("would take too long" in fault for fault in faults(*others))


def test_patterns_take_linear_time() -> None:
    """Searched with backtracking, these names would take longer than the universe is old."""
    names = [job("a" * 400 + str(number)) for number in range(50)]
    assert any("found in a name" in fault for fault in faults(*names, job("end", depends_on_regexes=["^(a+)+$"])))


def test_too_many_jobs_and_dependencies_are_refused() -> None:
    stages = [
        job("a_{i}", parameters={"i": "1:2000"}),
        job("b_{i}", depends_on_regexes=["^a_"], parameters={"i": "1:2000"}),
    ]
    assert any("at most 2,000,000 are" in fault for fault in faults(*stages))
    many = [job(f"{letter}_{{i}}", parameters={"i": "1:150000"}) for letter in "ab"]
    assert any("divide it" in fault for fault in faults(*many))


@st.composite
def layered(draw: st.DrawFn) -> dict[int, set[int]]:
    """Draw which job waits for which, each for earlier ones only."""
    number = draw(st.integers(1, 12))
    return {job: draw(st.sets(st.integers(0, job - 1), max_size=4)) if job else set() for job in range(number)}


@given(layered(), st.randoms(use_true_random=False))
def test_random_graphs_are_what_was_written_however_it_was(waits: dict[int, set[int]], random: Any) -> None:
    """Each dependency is written by name, by file, by user data or by a pattern, and jobs stand in any order."""
    jobs = {number: job(f"j{number}") for number in waits}
    files: dict[str, dict[str, str]] = {}
    user_data: dict[str, dict[str, Any]] = {}
    for waiting, found in waits.items():
        for blocker in found:
            match random.randrange(4):
                case 0:
                    jobs[waiting].setdefault("depends_on", []).append(f"j{blocker}")
                case 1:
                    jobs[waiting].setdefault("depends_on_regexes", []).append(f"^j{blocker}$")
                case 2:
                    name = f"f{blocker}"
                    files[name] = {"name": name, "path": f"/f/{name}"}
                    jobs[blocker]["output_files"] = [name]
                    jobs[waiting]["command"] += f" ${{files.input.{name}}}"
                case _:
                    name = f"u{blocker}"
                    user_data[name] = {"name": name}
                    jobs[blocker]["output_user_data"] = [name]
                    jobs[waiting].setdefault("input_user_data", []).append(name)
    order = list(jobs.values())
    random.shuffle(order)
    found = graph(*order, files=list(files.values()), user_data=list(user_data.values()))
    assert blockers(found) == {f"j{waiting}": {f"j{each}" for each in found} for waiting, found in waits.items()}
    assert len(list(TopologicalSorter(blockers(found)).static_order())) == len(waits)


def test_faults_of_edges_parameters_and_order_are_told_together() -> None:
    told = faults(
        job("a", depends_on=["b"]),
        job("b", depends_on=["a", "run_1"]),
        job("run_{i}_{k}", parameters={"i": "1:3", "k": "1:2"}, parameter_mode="zip", input_files=["nowhere"]),
        job("c", resource_requirements="unknown", input_files=["nothing"]),
        edges=[{"kind": "blocks", "from": "jobs/a", "to": "jobs/nobody"}],
        **FILES,
    )
    told_of = [each.partition(":")[0] for each in told]
    assert sorted(told_of) == [
        "c.input_files",
        "c.resource_requirements",
        "depends_on",
        "edges[0]",
        "jobs[2].parameters",
    ], "that run_1 is unknown cannot be told"
