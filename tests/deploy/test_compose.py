"""The compose file names settings that exist, and its queue server is one that is accepted."""

from __future__ import annotations

from pathlib import Path

import yaml

from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import open_queue
from tests.services.queues import served_queue

SERVICES = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text())["services"]


def test_its_settings_exist() -> None:
    named = {name for name in SERVICES["daemon"]["environment"] if name.startswith("KNOCKEM_")}
    assert {"KNOCKEM_DOCUMENTS_URL", "KNOCKEM_QUEUE_URL", "KNOCKEM_OBJECTS_URL"} <= named
    assert named <= {f"KNOCKEM_{name.upper()}" for name in Settings.model_fields}


def test_its_queue_server_is_accepted_and_wants_the_password(tmp_path: Path) -> None:
    program, *options = (each.replace("${QUEUE_PASSWORD}", "a-password") for each in SERVICES["queue"]["command"])
    assert program == "valkey-server"
    url = SERVICES["daemon"]["environment"]["KNOCKEM_QUEUE_URL"].replace("${QUEUE_PASSWORD:?choose one}", "a-password")
    # Preceded by a policy that is refused, so that the options decide.
    with (
        served_queue(tmp_path, "--maxmemory-policy", "allkeys-lru", *options) as address,
        open_queue(load_settings(queue_url=url.replace("queue:6379", address))) as client,
    ):
        assert client.config_get("appendonly") == {"appendonly": "yes"}
