"""Settings: defaults, every variable, and what is said about bad values."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from knockem_dagster.containers.names import RESERVED_NAMES
from knockem_dagster.errors import SettingsError
from knockem_dagster.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("KNOCKEM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_variables_everything_is_embedded_in_the_current_directory(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == settings.folder == tmp_path / ".knockem"
    assert (settings.environment, settings.runtime, settings.port) == ("production", "auto", 3000)
    assert (settings.documents_url, settings.queue_url) == (None, None)
    assert (settings.objects_url, settings.s3_endpoint) == (None, None)
    assert (settings.cpus, settings.lease_seconds, settings.keep_runs_days) == (os.cpu_count(), 15, 30)
    assert all(folder.is_dir() for folder in settings.organisms)


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    values = {
        "home": "~/somewhere",
        "environment": "staging",
        "sandbox": "mine-2",
        "documents_url": "mongodb://user:secret@host:27017/name",
        "queue_url": "redis://user:secret@host:6379/0",
        "objects_url": "s3://bucket/prefix",
        "s3_endpoint": "http://127.0.0.1:9000",
        "warehouse_url": "postgresql://user:secret@host:5432/name",
        "runtime": "process",
        "organisms": f"one{os.pathsep}{tmp_path / 'two'}",
        "cpus": "3",
        "leave_to_workers": "true",
        "lease_seconds": "2.5",
        "port": "8080",
        "api_host": "0.0.0.0",
        "api_port": "8081",
        "ui_url": "/dagster/",
        "nodes": "nodes.yaml",
        "url": "https://knockem.example.org",
        "token": "knockem_secret",
        "keep_runs_days": "7",
    }
    assert values.keys() == Settings.model_fields.keys()
    for name, value in values.items():
        monkeypatch.setenv(f"KNOCKEM_{name.upper()}", value)
    settings = load_settings()
    assert settings.home == Path("~/somewhere").expanduser()
    assert settings.organisms == (tmp_path / "one", tmp_path / "two")
    assert (settings.cpus, settings.lease_seconds, settings.port, settings.keep_runs_days) == (3, 2.5, 8080, 7)
    assert settings.api_port == 8081
    stores = ("documents_url", "queue_url", "objects_url", "s3_endpoint", "warehouse_url", "url", "token")
    unchanged = ("environment", "sandbox", *stores, "runtime")
    assert {name: getattr(settings, name) for name in unchanged} == {name: values[name] for name in unchanged}
    assert "secret" not in repr(settings)


def test_arguments_win_over_variables_and_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKEM_RUNTIME", "docker")
    monkeypatch.setenv("KNOCKEM_PORT", "")
    settings = load_settings(runtime="process")
    assert (settings.runtime, settings.port) == ("process", 3000)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("KNOCKEM_ENVIRONMENT", "prod", "production, staging or testing"),
        ("KNOCKEM_SANDBOX", "mine", "only with KNOCKEM_ENVIRONMENT=staging"),
        ("KNOCKEM_OBJECTS_URL", "gs://bucket", "s3://bucket/prefix"),
        ("KNOCKEM_OBJECTS_URL", "s3:///prefix", "s3://bucket/prefix"),
        ("KNOCKEM_S3_ENDPOINT", "localhost:9000", "http://"),
        ("KNOCKEM_RUNTIME", "lxc", "docker, podman, apptainer, process"),
        ("KNOCKEM_ORGANISMS", "/no/such/folder", "each must exist"),
        ("KNOCKEM_CPUS", "0", "a whole number from 1"),
        ("KNOCKEM_CPUS", "two", "a whole number from 1"),
        ("KNOCKEM_LEASE_SECONDS", "nan", "above 0"),
        ("KNOCKEM_LEASE_SECONDS", "-1", "above 0"),
        ("KNOCKEM_PORT", "70000", "1 to 65535"),
        ("KNOCKEM_KEEP_RUNS_DAYS", "0", "a whole number from 1"),
    ],
)
def test_a_bad_value_is_named_with_its_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    _, *faults = str(refused.value).splitlines()
    assert len(faults) == 1
    assert f"{variable}: {value!r} is not allowed" in faults[0]
    assert allowed in faults[0]


@pytest.mark.parametrize("url", ["mysql://user:secret@host", "secret", "mongodb://user:pass/secret@host"])
def test_all_bad_values_are_named_at_once_and_no_password_is_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KNOCKEM_DOCUMENTS_URL", url)
    monkeypatch.setenv("KNOCKEM_PORT", "http")
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "prod")
    monkeypatch.setenv("KNOCKEM_SANDBOX", "mine")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert len(str(refused.value).splitlines()) == 4
    assert "mongodb://" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6379/3",
        "redis://:secret@host/",
        "rediss://user:s%2Fecret@[::1]:6380/0?ssl_ca_certs=/ca.pem",
        "unix:///run/queue.sock?db=2",
    ],
)
def test_addresses_of_queue_servers(url: str) -> None:
    assert load_settings(queue_url=url).queue_url == url


@pytest.mark.parametrize(
    "url",
    [
        "secret",
        "http://secret@host",
        "redis:///secret",
        "redis://host/secret",
        "redis://host:secret/",
        "redis://user:secret/more@host",
        "redis://user:1?secret@host",
        "redis://user:1#secret@host",
        "unix://secret",
        "unix://user:more/secret@/queue.sock",
    ],
)
def test_other_addresses_of_queue_servers_are_refused_unseen(url: str) -> None:
    with pytest.raises(SettingsError, match=r"KNOCKEM_QUEUE_URL: this value .hidden. is not allowed") as refused:
        load_settings(queue_url=url)
    assert "redis://user:password@host:port/0" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("url", ["secret", "http://secret@host", "postgresql://user:pass/secret@host/name"])
def test_other_addresses_of_warehouses_are_refused_unseen(url: str) -> None:
    with pytest.raises(SettingsError, match=r"KNOCKEM_WAREHOUSE_URL: this value .hidden. is not allowed") as refused:
        load_settings(warehouse_url=url)
    assert "secret" not in str(refused.value)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(SettingsError, match="KNOCKEM_COLOUR"):
        load_settings(colour="red")


def test_settings_use_no_name_of_the_container_contract() -> None:
    assert len(RESERVED_NAMES) == 12
    assert RESERVED_NAMES.isdisjoint(f"KNOCKEM_{name.upper()}" for name in Settings.model_fields)


def test_the_readme_has_every_setting_in_its_table() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    listed = re.findall(r"^\| `KNOCKEM_([A-Z0-9_]+)` \|", readme, re.MULTILINE)
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


def test_settings_are_described_and_do_not_change() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1
