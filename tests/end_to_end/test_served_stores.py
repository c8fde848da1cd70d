"""A whole study on served stores: MongoDB for the documents, S3 for the objects."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.services.command_line import knockem, tiny_submission
from tests.services.mongodb import mongodb_server
from tests.services.s3 import CREDENTIALS, make_bucket, s3_server

pytestmark = pytest.mark.slow


def test_study_runs_and_is_purged_on_mongodb_and_s3(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "mongodb").mkdir()
    with mongodb_server(tmp_path / "mongodb") as mongodb, s3_server() as s3:
        make_bucket(s3, "study-testing")
        name = f"knockem_{uuid4().hex[:8]}"
        served = {
            "KNOCKEM_DOCUMENTS_URL": f"{mongodb.url.rstrip('/')}/{name}",
            "KNOCKEM_OBJECTS_URL": "s3://study/prefix",
            "KNOCKEM_S3_ENDPOINT": s3,
            **CREDENTIALS,
        }
        file = tiny_submission(tmp_path / "study")
        submitted = knockem("submit", file, "--wait", "--json", home=home, **served)
        assert submitted.returncode == 0, submitted.stderr
        id = json.loads(submitted.stdout)["id"]
        assert json.loads(knockem("status", id, "--json", home=home, **served).stdout)["state"] == "completed"
        assert knockem("report", id, home=home, **served).stdout.startswith("s3://study-testing/prefix/")
        exported = knockem("export", id, tmp_path / "exported", home=home, **served)
        assert exported.returncode == 0, exported.stderr
        assert (tmp_path / "exported" / "estimates.csv").is_file()
        purged = knockem("purge", id, "--yes", home=home, **served)
        assert purged.returncode == 0, purged.stderr
        assert json.loads(knockem("list", "--json", home=home, **served).stdout) == []
