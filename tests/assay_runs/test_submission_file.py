"""Submission files: every fault at once, each with field, value and what is allowed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.assay_runs.submission_file import MOST_FAULTS, SubmissionFile, read_submission_file
from knockem_dagster.errors import InvalidInput
from knockem_dagster.records.assays import DEFAULT_ASSAYS

VALID: dict[str, Any] = {"genome": "1\n2\n3\n", "containerImage": "additive", "userEmail": "mendel@example.org"}


def read(folder: Path | None = None, **changes: Any) -> SubmissionFile:
    content = {key: value for key, value in {**VALID, **changes}.items() if value is not ...}
    return read_submission_file(yaml.safe_dump(content).encode(), folder=folder)


def faults_of(data: bytes | None = None, *, folder: Path | None = None, **changes: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        if data is None:
            read(folder, **changes)
        else:
            read_submission_file(data, folder=folder)
    return [str(fault) for fault in refused.value.faults]


def test_minimal_file_gets_the_defaults() -> None:
    submission = read()
    assert submission.assay_types == DEFAULT_ASSAYS
    assert (submission.resolution, submission.budget, submission.error_rate) == (0.1, None, 0.02)
    assert (submission.max_fail, submission.seed, submission.container_env) == (3, 1, {})


def test_json_is_read_as_well_as_yaml() -> None:
    data = json.dumps({**VALID, "maxActive": 7, "limits": {"cpus": 0.5, "memoryMiB": 64}}).encode()
    submission = read_submission_file(data, folder=None)
    assert (submission.max_active, submission.limits.cpus, submission.limits.memory_mib) == (7, 0.5, 64)


def test_genome_may_be_a_path_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "genome.txt").write_text("4\n5\n")
    assert read(tmp_path, genome="genome.txt").genome == "4\n5\n"


def test_upload_takes_the_genome_as_it_stands() -> None:
    assert read(None, genome="genome.txt").genome == "genome.txt"


def test_six_faults_give_six_lines() -> None:
    lines = faults_of(
        genome="",
        containerImage="two words",
        assayTypes=["nulldist", "nullDist"],
        maxActive=0,
        userEmail="nobody",
        timeoutSecond=5,
    )
    assert len(lines) == 6
    for field in ("genome", "containerImage", "assayTypes", "maxActive", "userEmail", "timeoutSecond"):
        assert sum(line.startswith(field + ":") for line in lines) == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("timeoutSecond", 5, "nearest is timeoutSeconds"),
        ("maxActiv", 5, "nearest is maxActive"),
        ("maxActive", 0, "from 1"),
        ("maxActive", True, "whole number"),
        ("maxActive", "3", "whole number"),
        ("maxFail", 0, "from 1"),
        ("timeoutSeconds", float("nan"), "number from"),
        ("timeoutSeconds", -1, "number from"),
        ("assayTypes", [], "list of"),
        ("assayTypes", ["nulldist", "nulldist"], "twice"),
        ("assayTypes", ["skeletonisation"], "nearest is skeletonization"),
        ("assayTypes", [["nulldist"]], "one of"),
        ("userEmail", "someone", "e-mail"),
        ("userEmail", None, "e-mail"),
        ("containerEnv", ["A=1"], "mapping"),
        ("containerEnv", {"KNOCKEM_SEED": "1"}, "contract"),
        ("containerEnv", {"A": None}, "text"),
        ("containerEnv", {"A=B": "x"}, "names"),
        ("containerEnv", {"A": "x" * 60_000, "B": "x" * 60_000}, "at most 100000 bytes"),
        ("limits", {"memory": 5}, "memoryMiB"),
        ("limits", {"memoryMiB": 0}, "whole number"),
        ("limits", 5, "mapping"),
        ("seed", -1, "whole number"),
        ("skeletons", 1, "from 2"),
        ("toleratedUntested", 2, "from 0 to 1"),
        ("containerRuntime", "lxc", "process, docker, podman or apptainer"),
        ("containerRuntime", ["docker"], "process, docker, podman or apptainer"),
        ("containerImage", "", "image name"),
        ("containerImage", "a\0b", "image name"),
        ("containerImage", {date(2024, 1, 1): 1}, "image name"),
        ("timeoutSeconds", 10**400, "number from"),
        ("genome", "~nobody-of-that-name/genome.txt", "UTF-8"),
        ("genome", 5, "content"),
        ("genome", "no/such/file.txt", "no file"),
    ],
)
def test_fault_tells_what_is_allowed(field: str, value: Any, words: str, tmp_path: Path) -> None:
    lines = faults_of(folder=tmp_path, **{field: value})
    assert len(lines) == 1
    assert lines[0].startswith(field)
    assert words in lines[0]


def test_a_budget_is_refused_beside_assays_that_cannot_keep_it() -> None:
    ours = ["nulldist", "weighing", "setEnumeration", "prefixSkeletons"]
    assert read(assayTypes=ours, budget=500).budget == 500
    assert read(assayTypes=["screenCritical"], budget=None).budget is None
    [line] = faults_of(assayTypes=[*ours, "screenCritical", "skeletonMarkRecapture"], budget=500)
    assert line.startswith("budget: 500 is not allowed; no budget bounds screenCritical and skeletonMarkRecapture")


@pytest.mark.parametrize("missing", ["genome", "containerImage", "userEmail"])
def test_missing_key_is_named(missing: str) -> None:
    assert faults_of(**{missing: ...}) == [f"{missing}: null is not allowed; it is required"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1, 2]",
        b"just words",
        b"genome: [1, 2",
        b"genome: |\n  1\n  2\ncontainerImage: additive\nuserEm",
        json.dumps(VALID).encode()[:-12],
        b"\xff\xfe\x00",
        b"genome: a\ngenome: b\n",
        b"!!python/object/apply:os.system ['true']",
        b"[" * 5000,
    ],
)
def test_file_that_is_no_whole_mapping_is_refused(data: bytes) -> None:
    assert faults_of(data)


def test_yaml_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    [fault] = faults_of("\n".join(lines).encode())
    assert "aliases" in fault


@pytest.mark.parametrize("field", ["seed", "userEmail", "timeoutSeconds", "genome", "assayTypes"])
def test_number_too_long_to_print_is_refused(field: str) -> None:
    content = {"genome": "one", "containerImage": "additive", "userEmail": "mendel@example.org"}
    content[field] = "0x" + "f" * 6000
    [fault] = faults_of("\n".join(f"{key}: {value}" for key, value in content.items()).encode())
    assert fault.startswith(f"{field}: (int) is not allowed")


def test_more_faults_than_anyone_reads_are_cut() -> None:
    assert len(faults_of(**{f"key{number}": 1 for number in range(1000)})) == MOST_FAULTS


def test_huge_file_is_refused() -> None:
    [fault] = faults_of(b"x" * (17 << 20))
    assert "bytes" in fault


def test_digest_depends_on_every_field() -> None:
    digests = {read().digest, read(seed=2).digest, read(genome="1\n").digest, read(maxFail=1).digest}
    assert len(digests) == 4
    assert read().digest == read(seed=1).digest


@given(st.binary(max_size=200))
def test_any_bytes_give_a_submission_or_faults(data: bytes) -> None:
    try:
        read_submission_file(data, folder=None)
    except InvalidInput as refused:
        assert refused.faults


@given(
    st.dictionaries(
        st.sampled_from([*sorted(VALID), "maxActive", "limits", "assayTypes", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_any_mapping_gives_a_submission_or_faults(content: dict[str, Any]) -> None:
    try:
        read_submission_file(json.dumps(content).encode(), folder=None)
    except InvalidInput as refused:
        assert all(fault.field and fault.allowed for fault in refused.faults)
