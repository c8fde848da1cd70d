"""The compose file names settings that exist, its queue server is one that is accepted, and no service has too much."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import open_queue
from tests.services.queues import served_queue

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


@pytest.mark.parametrize("name", OURS)
def test_its_settings_exist(name: str) -> None:
    named = {each for each in SERVICES[name]["environment"] if each.startswith("KNOCKEM_")}
    assert named <= {f"KNOCKEM_{field.upper()}" for field in Settings.model_fields}


def test_its_queue_server_is_accepted_and_wants_the_password(tmp_path: Path) -> None:
    program, *options = (each.replace("${QUEUE_PASSWORD}", "a-password") for each in SERVICES["queue"]["command"])
    assert program == "valkey-server"
    told = SERVICES["daemon"]["environment"]["KNOCKEM_QUEUE_URL"]
    url = re.sub(r"\$\{QUEUE_PASSWORD:[^}]*\}", "a-password", told)
    # Preceded by a policy that is refused, so that the options decide.
    with (
        served_queue(tmp_path, "--maxmemory-policy", "allkeys-lru", *options) as address,
        open_queue(load_settings(queue_url=url.replace("queue:6379", address))) as client,
    ):
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_only_workers_have_the_docker_socket() -> None:
    have = {name for name, service in SERVICES.items() if "docker.sock" in str(service.get("volumes"))}
    assert have == {"worker"}
    beside = yaml.safe_load((DEPLOY / "compose.run-containers.yaml").read_text())["services"]
    assert {name for name, service in beside.items() if "docker.sock" in str(service)} == {"webserver", "daemon"}


def test_what_has_the_socket_runs_nothing_but_containers_and_all_else_leaves_organisms_to_it() -> None:
    worker = SERVICES["worker"]
    assert worker["command"][worker["command"].index("--runtimes") + 1] == "docker"
    for name in OURS:
        if name != "commands":
            assert SERVICES[name]["environment"]["KNOCKEM_LEAVE_TO_WORKERS"] == "true"


def test_the_commands_of_users_run_where_no_password_is_and_only_the_api_is_near() -> None:
    commands = SERVICES["commands"]
    assert commands["environment"].keys() == {"KNOCKEM_URL", "KNOCKEM_TOKEN"}
    assert "volumes" not in commands
    near = {name for name, service in SERVICES.items() if "commands" in service.get("networks", ["default"])}
    assert near == {"api", "commands"}


def test_one_port_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"front"}
    assert len(SERVICES["front"]["ports"]) == 1


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "prepare"])
def test_each_service_is_watched_restarted_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])


def test_what_the_stores_keep_is_in_named_volumes() -> None:
    volumes = yaml.safe_load(TEXT)["volumes"]
    for name in ("postgres", "documents", "queue", "objects"):
        [place] = SERVICES[name]["volumes"]
        assert place.startswith(f"{name}:/")
        assert name in volumes
