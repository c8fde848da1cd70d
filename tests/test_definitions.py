"""Dagster's own folder: made and configured where it is ours, left alone where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest

from knockem_dagster.definitions import (
    OUR_MARK,
    ROOT,
    daemon_is_running,
    dagster_instance,
    prepare_dagster_home,
)
from knockem_dagster.errors import SettingsError
from knockem_dagster.settings import Settings, load_settings

OURS = (ROOT / "deploy" / "dagster.yaml").read_bytes()
SERVED = ROOT / "deploy" / "dagster-served.yaml"


@pytest.fixture(autouse=True)
def no_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", environment="testing")


def test_folder_below_home_is_made_with_our_configuration(settings: Settings) -> None:
    home = prepare_dagster_home(settings)
    assert home == settings.folder / "dagster"
    assert (home / "dagster.yaml").read_bytes() == OURS
    assert home.stat().st_mode & 0o077 == 0


def test_older_configuration_of_ours_is_written_anew(settings: Settings) -> None:
    configuration = prepare_dagster_home(settings) / "dagster.yaml"
    configuration.write_bytes(OUR_MARK + b", as it was once\ntelemetry:\n  enabled: true\n")
    prepare_dagster_home(settings)
    assert configuration.read_bytes() == OURS


def test_configuration_of_the_user_is_kept(settings: Settings) -> None:
    configuration = prepare_dagster_home(settings) / "dagster.yaml"
    configuration.write_text("telemetry:\n  enabled: false\n")
    prepare_dagster_home(settings)
    assert configuration.read_text() == "telemetry:\n  enabled: false\n"


def test_link_to_the_served_configuration_is_kept(settings: Settings) -> None:
    home = settings.folder / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").symlink_to(SERVED)
    prepare_dagster_home(settings)
    assert (home / "dagster.yaml").readlink() == SERVED


def test_served_configuration_does_not_bear_our_mark() -> None:
    assert OURS.startswith(OUR_MARK)
    assert not SERVED.read_bytes().startswith(OUR_MARK)


def test_dagster_home_that_is_set_is_used_and_not_written_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(chosen))
    assert prepare_dagster_home(settings) == chosen
    assert list(chosen.iterdir()) == []
    (chosen / "dagster.yaml").write_bytes(OUR_MARK + b"\ntelemetry:\n  enabled: false\n")
    with dagster_instance(settings) as instance:
        assert instance.root_directory == str(chosen)
    assert not daemon_is_running(settings)
    assert not settings.folder.exists()
    assert (chosen / "dagster.yaml").read_bytes() != OURS


@pytest.mark.parametrize("chosen", ["relative", "/no/such/folder"])
def test_dagster_home_that_is_no_folder_is_an_error_that_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", chosen)
    with pytest.raises(SettingsError, match=f"DAGSTER_HOME is {chosen}"), dagster_instance(settings):
        pass


def test_homes_follow_one_another_in_one_process(tmp_path: Path) -> None:
    for name in ("one", "two"):
        settings = load_settings(home=tmp_path / name, environment="testing")
        with dagster_instance(settings) as instance:
            assert isinstance(instance, dg.DagsterInstance)
            assert instance.root_directory == os.environ["DAGSTER_HOME"] == str(settings.folder / "dagster")
    assert "DAGSTER_HOME" not in os.environ
