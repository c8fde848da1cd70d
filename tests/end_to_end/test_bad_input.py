"""Bad input at the front doors: refused with what is wrong and what is allowed, and nothing stored.

Every case goes through the command line and through the upload sensor, which must say the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from knockem_dagster.cli.main import app
from tests.containers.laboratory import BASE_IMAGE, build_base_image
from tests.services.command_line import knockem
from tests.services.organisms import (
    EAT_MEMORY,
    FLOOD,
    in_a_child,
    in_python,
    reporting,
    serving,
    write_organism,
)
from tests.services.platforms import documents_in, faults_shown, objects_in, put_upload, study, take_in_uploads

COUNT, KNOCK_OUT = "knockem_count_sites", "knockem_apply_knockout"
COMPETE, SERVE = "knockem_compete_two", "knockem_serve"
NO_SUCH_SITE = '#!/bin/sh\necho "there is no site $1 in this genome" >&2\nexit 2\n'
SMALL = {"memoryMiB": 48}


@dataclass(frozen=True)
class Refused:
    """A submission with one fault: what it changes, and what the refusal must say."""

    name: str
    field: str
    words: tuple[str, ...]
    changes: dict[str, object] = field(default_factory=dict)
    commands: dict[str, str | None] = field(default_factory=dict)


def result(updates: object = 10, alpha: object = 50, beta: object = 50) -> dict[str, str | None]:
    """Return the two ways to report this result."""
    reported = json.dumps({"updatesElapsed": updates, "numAlpha": alpha, "numBeta": beta})
    python = f"answer = {{'updatesElapsed': {updates!r}, 'numAlpha': {alpha!r}, 'numBeta': {beta!r}}}"
    return {COMPETE: reporting(reported), SERVE: serving(python.replace("nan", "float('nan')"))}


def bad_result(name: str, *words: str, **counts: object) -> list[Refused]:
    commands = result(**counts)
    return [
        Refused(f"{name}, {way}", "containerImage", ("bad result", *words), commands={command: commands[command]})
        for way, command in (("one-shot", COMPETE), ("served", SERVE))
    ]


REFUSED = [
    Refused("no sites", "genome", ("no sites", "format"), commands={COUNT: "#!/bin/sh\necho 0\n"}),
    Refused("an empty genome", "genome", ("content",), {"genome": "  "}),
    Refused(
        "sites counted in words", "genome", ("number of sites", "twelve"), commands={COUNT: "#!/bin/sh\necho twelve\n"}
    ),
    Refused("a negative number of sites", "genome", ("negative",), commands={COUNT: "#!/bin/sh\necho -3\n"}),
    Refused(
        "more sites than there can be", "genome", ("from 1 to",), commands={COUNT: "#!/bin/sh\necho 1000000000000\n"}
    ),
    Refused("sites out of range", "containerImage", ("there is no site",), commands={KNOCK_OUT: NO_SUCH_SITE}),
    Refused(
        "effects of sites out of range",
        "genome",
        ("99 is not a site", "0 to 29"),
        {"containerImage": "explicit", "genome": '{"sites": 30, "effects": {"99": 1}}'},
    ),
    Refused("a missing image", "containerImage", ("no organism folder", "tiny"), {"containerImage": "nowhere"}),
    Refused("a missing knockem_count_sites", "containerImage", (COUNT, "executable"), commands={COUNT: None}),
    Refused(
        "a missing knockem_apply_knockout", "containerImage", (KNOCK_OUT, "executable"), commands={KNOCK_OUT: None}
    ),
    Refused("a missing knockem_compete_two", "containerImage", (COMPETE, "executable"), commands={COMPETE: None}),
    *bad_result("text as a count", "numBeta", "must be a number", beta="many"),
    *bad_result("NaN as a count", "numAlpha", "finite", alpha=float("nan")),
    *bad_result("a negative count", "numAlpha", "-1", alpha=-1),
    *bad_result("both extinct", "both populations are extinct", alpha=0, beta=0),
    *bad_result("zero updates", "no updates elapsed", updates=0),
    Refused("text as a result", "containerImage", ("not JSON", "well"), commands={COMPETE: reporting("very well")}),
    Refused("no result", "containerImage", ("without reporting",), commands={COMPETE: "#!/bin/sh\ntrue\n"}),
    Refused("a failure", "containerImage", ("oh dear",), commands={COMPETE: "#!/bin/sh\necho oh dear >&2\nexit 3\n"}),
    Refused(
        "a hanging competition",
        "containerImage",
        ("timed out", COMPETE),
        {"timeoutSeconds": 0.5},
        {COMPETE: "#!/bin/sh\nexec sleep 600\n"},
    ),
    Refused(
        "a hanging served competition",
        "containerImage",
        ("timed out", "no answer within"),
        {"timeoutSeconds": 0.5},
        {SERVE: serving("time.sleep(600)")},
    ),
    Refused(
        "a hanging count",
        "genome",
        ("timed out", COUNT),
        {"timeoutSeconds": 0.5},
        {COUNT: "#!/bin/sh\nexec sleep 600\n"},
    ),
    Refused(
        "killed for its memory",
        "containerImage",
        ("out of memory",),
        {"limits": SMALL},
        {COMPETE: in_python(EAT_MEMORY)},
    ),
    Refused(
        "killed for a child's memory",
        "containerImage",
        ("out of memory",),
        {"limits": SMALL},
        {COMPETE: in_a_child(EAT_MEMORY)},
    ),
    Refused(
        "a server killed for its memory",
        "containerImage",
        ("grew past its memory",),
        {"limits": SMALL},
        {SERVE: serving(EAT_MEMORY)},
    ),
    Refused("1 GB printed while counting", "genome", ("wrote more than",), commands={COUNT: in_python(FLOOD)}),
    Refused("1 GB printed as a genome", "containerImage", ("wrote more than",), commands={KNOCK_OUT: in_python(FLOOD)}),
    Refused("1 GB printed by a server", "containerImage", ("wrote more than",), commands={SERVE: serving(FLOOD)}),
    Refused("an unknown assay type", "assayTypes", ("nearest is nulldist",), {"assayTypes": ["nullDist"]}),
    Refused("an assay type twice", "assayTypes", ("twice",), {"assayTypes": ["nulldist", "nulldist"]}),
    Refused("maxActive 0", "maxActive", ("0 is not allowed", "from 1"), {"maxActive": 0}),
    Refused("an e-mail that is none", "userEmail", ("name@example.org",), {"userEmail": "nobody"}),
    Refused("a key that is none", "timeoutSecond", ("nearest is timeoutSeconds",), {"timeoutSecond": 5}),
    Refused(
        "a name of the contract in containerEnv",
        "containerEnv.KNOCKEM_SEED",
        ("contract",),
        {"containerEnv": {"KNOCKEM_SEED": "1"}},
    ),
    Refused("half a character", "(file)", ("whole characters",), {"genome": "\ud800"}),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a folder of organisms beside the bundled ones."""
    bundled = Path(__file__).parents[2] / "deploy" / "organisms"
    (tmp_path / "organisms").mkdir()
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KNOCKEM_ORGANISMS", f"{tmp_path / 'organisms'}:{bundled}")
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where the event loop logs an error: users would see its traceback."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


def submit(home: Path, data: bytes, *options: str) -> tuple[int, str]:
    """Submit a file on the command line, in this process; return the exit code and all that was printed."""
    path = home.parent / "study.json"
    path.write_bytes(data)
    ended = CliRunner().invoke(app, ["submit", str(path), *options])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise AssertionError("a traceback would be shown") from ended.exception
    assert "Traceback" not in ended.output
    return ended.exit_code, ended.output


def refused(home: Path, data: bytes) -> list[str]:
    """Submit a bad file through both doors; return its faults, which are the same, when nothing was stored."""
    code, output = submit(home, data)
    assert code == 1, output
    assert documents_in(home) == {}
    assert objects_in(home) == []
    key = put_upload(home, data)
    with dg.DagsterInstance.ephemeral() as instance:
        [event] = take_in_uploads(home, instance)
    assert "REFUSED" in (event.description or "")
    assert documents_in(home) == {"uploads": 1}
    assert objects_in(home) == [key]
    faults = faults_shown(event)
    assert output.startswith("knockem: ")
    assert output.partition("\n")[2].rstrip() == "\n".join(f"  {fault}" for fault in faults)
    return faults


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_submission_is_refused_with_what_is_wrong(case: Refused, home: Path, tmp_path: Path) -> None:
    write_organism(tmp_path / "organisms" / "tiny", case.commands)
    [fault] = refused(home, json.dumps(study(**case.changes)).encode())
    assert fault.startswith(f"{case.field}: ")
    assert all(word in fault for word in case.words), fault
    assert len(fault) < 1200


def test_six_faults_give_the_same_six_lines_at_both_doors(home: Path) -> None:
    changes = {
        "genome": "",
        "containerImage": "two words",
        "assayTypes": ["nulldist", "nullDist"],
        "maxActive": 0,
        "userEmail": "nobody",
        "timeoutSecond": 5,
    }
    faults = refused(home, json.dumps(study(**changes)).encode())
    assert len(faults) == 6
    assert all("\n" not in fault for fault in faults)
    for field_name in ("genome", "containerImage", "assayTypes", "maxActive", "userEmail", "timeoutSecond"):
        assert sum(fault.startswith(f"{field_name}: ") for fault in faults) == 1


def test_yaml_bomb_is_refused_before_it_unfolds(home: Path) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    [fault] = refused(home, "\n".join(lines).encode())
    assert fault.startswith("(file): ")
    assert "aliases" in fault


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_half_a_file_is_refused(home: Path, tmp_path: Path, kept: float) -> None:
    write_organism(tmp_path / "organisms" / "tiny")
    whole = json.dumps(study(), indent=1).encode()
    [fault] = refused(home, whole[: int(kept * len(whole))])
    assert fault.startswith("(file): ")
    assert "whole" in fault


def test_same_file_twice_is_refused_and_names_the_first(home: Path, tmp_path: Path) -> None:
    write_organism(tmp_path / "organisms" / "tiny")
    data = json.dumps(study()).encode()
    code, first = submit(home, data)
    assert code == 0, first
    id = first.split()[-1]
    before = documents_in(home)
    code, second = submit(home, data)
    assert code == 1
    assert id in second
    assert "another seed" in second
    put_upload(home, data)
    with dg.DagsterInstance.ephemeral() as instance:
        [event] = take_in_uploads(home, instance)
    assert id in faults_shown(event)[0]
    assert documents_in(home) == {**before, "uploads": 1}


def test_file_that_is_not_there_is_named(home: Path) -> None:
    ended = CliRunner().invoke(app, ["submit", str(home.parent / "missing.yaml")])
    assert ended.exit_code == 1
    assert "missing.yaml cannot be read" in ended.output


def test_refusal_of_the_real_command_has_exit_code_1_and_no_traceback(home: Path) -> None:
    path = home.parent / "study.json"
    path.write_text(json.dumps(study(maxActive=0)))
    ended = knockem("submit", path, home=home)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "knockem: The submission has 1 fault:",
        "  maxActive: 0 is not allowed; a whole number from 1 to 100000 is",
    ]
    assert documents_in(home) == {}


DOCKER = [
    Refused("no commands", "containerImage", (COUNT, "not found"), commands=dict.fromkeys((COUNT, KNOCK_OUT, COMPETE))),
    Refused("a negative count", "containerImage", ("bad result", "-1"), commands={COMPETE: result(beta=-1)[COMPETE]}),
    Refused(
        "a hanging competition",
        "containerImage",
        ("timed out",),
        {"timeoutSeconds": 2},
        {COMPETE: "#!/bin/sh\nexec sleep 600\n"},
    ),
    Refused(
        "killed for a child's memory",
        "containerImage",
        ("out of memory",),
        {"limits": SMALL},
        {COMPETE: in_a_child(EAT_MEMORY)},
    ),
]


@pytest.mark.docker
def test_missing_image_is_refused(home: Path, engine: None) -> None:
    [fault] = refused(home, json.dumps(study(containerImage="knockem/nowhere:1", containerRuntime="docker")).encode())
    assert fault.startswith("containerImage: knockem/nowhere:1 ")


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("case", DOCKER, ids=lambda case: case.name)
def test_bad_image_is_refused(case: Refused, home: Path, tmp_path: Path, engine: None) -> None:
    folder = write_organism(tmp_path / "image", case.commands)
    (folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nCOPY . /usr/local/bin/\n")
    tag = f"knockem-test/{tmp_path.name.lower().strip('_')}"
    subprocess.run(["docker", "build", "-q", "-t", tag, folder], env=LEGACY_BUILDER, check=True, capture_output=True)
    try:
        changes = {"containerImage": tag, "containerRuntime": "docker", **case.changes}
        [fault] = refused(home, json.dumps(study(**changes)).encode())
    finally:
        subprocess.run(["docker", "image", "rm", "-f", tag], check=False, capture_output=True)
    assert fault.startswith(f"{case.field}: ")
    assert all(word in fault for word in case.words), fault


LEGACY_BUILDER = {"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture(scope="module")
def engine() -> None:
    """Skip where there is no container engine."""
    try:
        reason = build_base_image()
    except FileNotFoundError:
        reason = "no docker command"
    if reason is not None:
        pytest.skip(reason)
