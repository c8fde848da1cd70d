"""Workflow files: one content in three formats, and every fault of keys and values at once."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import yaml

from knockem_dagster.errors import InvalidInput
from knockem_dagster.jobs.specs.reading import MOST_FAULTS, WORKFLOW, read_workflow_file, spec_of
from knockem_dagster.jobs.specs.workflow_spec import WorkflowSpec

JOB = {"name": "a", "command": "true"}


def faults_of(content: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        spec_of(content)
    return [str(fault) for fault in refused.value.faults]


def fault_of(data: bytes, name: str) -> str:
    with pytest.raises(InvalidInput) as refused:
        read_workflow_file(data, name=name)
    [fault] = refused.value.faults
    return str(fault)


def requirement(**changes: Any) -> dict[str, Any]:
    needs = {"name": "r", "num_cpus": 1, "memory": "1g", **changes}
    return {"name": "w", "jobs": [JOB], "resource_requirements": [needs]}


JSON5 = b"""{
  name: 'w', // a remark
  env: {N: 1},
  jobs: [{name: 'a', command: 'true',}, {name: 'b', command: 'true', depends_on: ['a']},],
}"""


def test_three_formats_of_one_workflow_are_read_alike() -> None:
    content = {"name": "w", "env": {"N": "1"}, "jobs": [JOB, {**JOB, "name": "b", "depends_on": ["a"]}]}
    read = [
        read_workflow_file(yaml.safe_dump(content).encode(), name="w.yaml"),
        read_workflow_file(json.dumps(content).encode(), name="w.json"),
        read_workflow_file(JSON5, name="w.JSON5"),
    ]
    assert read[0] == read[1] == read[2] == WorkflowSpec.model_validate(content)


BASE_60 = b"""
name: w
jobs:
- {name: "j_{i}", command: "true", parameters: {i: 1:10}}
slurm_schedulers:
- {name: s, account: yes, walltime: 01:30:00}
"""


def test_yaml_values_that_older_yaml_takes_for_numbers_of_base_60_are_text() -> None:
    spec = read_workflow_file(BASE_60, name="w.yml")
    assert spec.jobs[0].parameters == {"i": "1:10"}
    assert spec.slurm_schedulers is not None
    assert (spec.slurm_schedulers[0].account, spec.slurm_schedulers[0].walltime) == ("yes", "01:30:00")


def test_parameters_may_be_lists_and_numbers() -> None:
    spec = spec_of({"name": "w", "jobs": [{**JOB, "parameters": {"a": [1, 2.5, "x,y", "007"], "b": 3}}]})
    assert spec.jobs[0].parameters == {"a": (1, Decimal("2.5"), "x,y", "007"), "b": "3"}
    for wrong in (None, True, [None], [["a"]], [float("nan")], {}):
        content = {"name": "w", "jobs": [{**JOB, "parameters": {"a": wrong}}]}
        assert any("texts and numbers are" in fault for fault in faults_of(content)), wrong


@pytest.mark.parametrize("data", [10**30, float("nan"), {"a": [{"b": -(1 << 64)}]}, {1: 2}, {"a": {1, 2}}])
def test_user_data_is_json_that_every_store_holds(data: Any) -> None:
    assert faults_of({"name": "w", "jobs": [JOB], "user_data": [{"name": "u", "data": data}]})


def test_exit_codes_are_those_of_processes() -> None:
    handlers = [{"name": "h", "rules": [{"exit_codes": [256, -1, 10**30]}]}]
    assert len(faults_of({"name": "w", "jobs": [JOB], "failure_handlers": handlers})) == 3


@pytest.mark.parametrize(
    ("text", "mib"), [("512m", 512), ("2g", 2048), ("1T", 1 << 20), ("1000k", 1), ("1048577", 2), ("4 GiB", 4096)]
)
def test_memory_is_rounded_up_to_mebibytes(text: str, mib: int) -> None:
    requirements = spec_of(requirement(memory=text)).resource_requirements
    assert requirements is not None
    assert requirements[0].memory == mib


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT30M", 1800.0), ("P1DT2H", 93600.0), ("PT0.5S", 0.5), ("P0DT1H", 3600.0)]
)
def test_runtimes_are_iso_durations(text: str, seconds: float) -> None:
    requirements = spec_of(requirement(runtime=text)).resource_requirements
    assert requirements is not None
    assert requirements[0].runtime == seconds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": "2q"}, "with k, m, g or t"),
        ({"memory": "0"}, "more than nothing"),
        ({"memory": "99999999t"}, "no more than a pebibyte"),
        ({"runtime": "3h"}, "ISO 8601"),
        ({"runtime": "-PT1H"}, "ISO 8601"),
        ({"runtime": "PT0S"}, "above 0"),
        ({"runtime": "P9999D"}, "up to P366D"),
        ({"num_cpus": 0}, "greater than 0"),
        ({"num_gpus": -1}, "greater than or equal to 0"),
        ({"cpus": 3}, "the nearest is num_cpus"),
    ],
)
def test_impossible_requirements_are_refused(changes: dict[str, Any], words: str) -> None:
    [fault] = faults_of(requirement(**changes))
    assert fault.startswith("resource_requirements[0].")
    assert words in fault


def test_keys_of_earlier_versions_and_keys_without_values_are_read() -> None:
    earlier = {**JOB, "blocked_by_job_names": ["b"], "resource_requirements_name": "r", "invocation_script": None}
    other = {"name": "b", "command": "true", "cancel_on_blocking_job_failure": None}
    spec = spec_of({"name": "w", "jobs": [earlier, other]})
    assert (spec.jobs[0].depends_on, spec.jobs[0].resource_requirements) == (("b",), "r")
    assert spec.jobs[1].cancel_on_blocking_job_failure is False
    [fault] = faults_of({"name": "w", "jobs": [{**JOB, "depends_on": ["b"], "blocked_by_job_names": ["c"]}]})
    assert fault.startswith("jobs[0].blocked_by_job_names")


def test_every_fault_is_told_at_once() -> None:
    content = {
        "nam": "w",
        "jobs": [{"name": "a", "comand": "x", "priority": "high"}, {"name": "", "command": "x", "env": {"A B": "1"}}],
        "files": [{"name": "f", "path": "a\0b"}],
        "actions": [{"trigger_type": "on_monday", "action_type": "run_commands"}],
    }
    fields = {fault.partition(":")[0] for fault in faults_of(content)}
    assert {"name", "nam", "jobs[0].command", "jobs[0].comand", "jobs[0].priority", "jobs[1].name"} <= fields
    assert {"files[0].path", "actions[0].trigger_type"} <= fields
    assert any(field.startswith("jobs[1].env") for field in fields)


def test_a_workflow_without_jobs_is_none() -> None:
    assert faults_of({"name": "w", "jobs": []}) == ["jobs: [] is not allowed; at least one is needed"]


def test_of_many_faults_the_first_are_told() -> None:
    faults = faults_of({"name": "w", "jobs": [{"name": "a"}] * 1000})
    assert len(faults) == MOST_FAULTS


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"name w", "w.kdl", "YAML, JSON or JSON5"),
        (b"{name: 'w', jobs: [", "w.json5", "JSON5"),
        (b"[" * 10_000, "w.json5", "nesting level"),
        (b"[" * 10_000 + b"]" * 10_000, "w.json", "recursion"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "w.json", "recursion"),
        (b"a: " + b"[" * 10_000, "w.yaml", "recursion"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "w.json", "within one another"),
        (b"a: " + b"[" * 100 + b"]" * 100, "w.yaml", "within one another"),
        (b"{a: " + b"[" * 64 + b"]" * 64 + b"}", "w.json5", "nesting level"),
        (b"x" * (WORKFLOW.most_bytes + 1), "w.yaml", "a smaller file"),
        (b"\xff", "w.json", "UTF-8"),
        (b"- 1", "w.yaml", "such as name and jobs"),
    ],
)
def test_what_cannot_be_read_is_one_fault(data: bytes, name: str, words: str) -> None:
    assert words in fault_of(data, name)


def variables(**values: Any) -> dict[str, Any]:
    return {
        "name": "w",
        "variables": values,
        "jobs": [{"name": "j_{i}", "command": "x {root}", "parameters": {"i": "1:{n}"}}],
    }


def test_variables_are_filled_in_everywhere_before_parameters() -> None:
    spec = spec_of(variables(root="/data", n=4))
    assert spec.jobs[0].command == "x /data"
    assert spec.jobs[0].parameters == {"i": "1:4"}
    assert spec.jobs[0].name == "j_{i}"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"root": "/data"}, "{n}: "),
        ({"root": "/data", "n": 1, "i": 2}, "a parameter has that name"),
        ({"root": "{n}/x", "n": 1}, "put them together where used"),
        ({"root": ["a"], "n": 1}, "text is"),
        ({"root": "/data", "n": 1, "a-b": "x"}, "letters, digits and underscores"),
    ],
)
def test_variables_that_are_unknown_or_not_plain_are_refused(values: dict[str, Any], words: str) -> None:
    [fault] = faults_of(variables(**values))
    assert words in fault
