"""The job that tries an image from the launchpad."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from benchmarks.workplace import Workplace
from knockem_dagster.definitions import build_definitions
from resources.platform import PlatformResource
from tests.services.organisms import GENOME, NUM_SITES, write_organism


def tried(tmp_path: Path, **config: object) -> dg.ExecuteInProcessResult:
    """Run the job as the launchpad does, with what a user typed."""
    definitions = build_definitions(resource_overrides={"platform": PlatformResource(home=str(tmp_path / "home"))})
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("try_image").execute_in_process(
            run_config={"image": "tiny", "genome": GENOME, **config}, instance=instance, raise_on_error=False
        )


@pytest.fixture(autouse=True)
def organisms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "organisms"
    folder.mkdir()
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(folder))
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    return folder


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Return what the ops show of their commands, by name."""
    shown: dict[str, object] = {}
    for event in result.all_events:
        if event.is_successful_output:
            shown |= {name: value.value for name, value in event.step_output_data.metadata.items()}
    return shown


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.step_key or "": event.step_failure_data.error_display_string
        + str(event.step_failure_data.user_failure_data)
        for event in result.all_events
        if event.is_step_failure
    }


def test_working_image_passes_every_step(tmp_path: Path, organisms: Path) -> None:
    write_organism(organisms / "tiny")
    result = tried(tmp_path, sites=[0, 3])
    assert result.success
    shown = metadata(result)
    assert shown["sites"] == NUM_SITES
    assert str(shown["knocked-out genome"]).split() == ["0", "1", "1", "0", *["1"] * (NUM_SITES - 4)]
    assert (shown["updates elapsed"], shown["alpha"], shown["beta"]) == (10.0, 50, 50)


def test_a_run_that_leaves_organisms_to_workers_has_every_step_from_one(
    tmp_path: Path, organisms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_organism(organisms / "tiny")
    monkeypatch.setenv("KNOCKEM_LEAVE_TO_WORKERS", "true")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", "")
    with Workplace(tmp_path, lease_seconds=2.0, KNOCKEM_ORGANISMS=str(organisms)) as workplace:
        workplace.start_server()
        workplace.start_worker("--cpus", "1")
        result = tried(tmp_path, sites=[0, 3])
        shown = metadata(result)
        assert (shown["sites"], shown["updates elapsed"]) == (NUM_SITES, 10.0)
        [(step, told)] = failures(tried(tmp_path, image="nowhere", runtime="process")).items()
    assert step == "count_sites"
    assert "there is no organism folder 'nowhere'" in told


@pytest.mark.parametrize(
    ("missing", "step"),
    [
        ("knockem_count_sites", "count_sites"),
        ("knockem_apply_knockout", "apply_knockout"),
        ("knockem_compete_two", "compete_two"),
    ],
)
def test_missing_command_fails_its_step_and_is_named(tmp_path: Path, organisms: Path, missing: str, step: str) -> None:
    write_organism(organisms / "tiny", {missing: None})
    result = tried(tmp_path)
    assert not result.success
    [(failed, told)] = failures(result).items()
    assert failed == step
    assert f"{missing} is not in" in told


@pytest.mark.parametrize(
    ("config", "step", "words"),
    [
        ({"sites": [NUM_SITES]}, "apply_knockout", f"run from 0 to {NUM_SITES - 1}"),
        ({"sites": [-1]}, "apply_knockout", f"run from 0 to {NUM_SITES - 1}"),
        ({"image": "nowhere", "runtime": "process"}, "count_sites", "there is no organism folder 'nowhere'"),
        ({"genome": ""}, "count_sites", "no sites"),
    ],
)
def test_bad_input_of_the_launchpad_is_explained(
    tmp_path: Path, organisms: Path, config: dict[str, object], step: str, words: str
) -> None:
    write_organism(organisms / "tiny")
    result = tried(tmp_path, **config)
    [(failed, told)] = failures(result).items()
    assert failed == step
    assert words in told
