"""Which store the settings name, and that environments stay apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from knockem_dagster.errors import StoreError
from knockem_dagster.settings import load_settings
from knockem_dagster.stores.mongo_documents import MongoDocuments
from knockem_dagster.stores.opening import open_documents, open_objects
from tests.services.document_stores import COLLECTIONS
from tests.services.mongodb import MongoServer
from tests.services.s3 import CREDENTIALS, make_bucket, s3_server


def test_embedded_stores_are_below_home_and_production_alone_is_at_its_top(tmp_path: Path) -> None:
    for environment, folder in (("production", "."), ("staging", "staging"), ("testing", "testing")):
        settings = load_settings(home=tmp_path, environment=environment)
        documents = open_documents(settings, COLLECTIONS)
        assert documents.put_new("plain", {"_id": "1", "environment": environment})
        documents.close()
        assert open_objects(settings).put("a", environment.encode(), create_only=True)
        assert (tmp_path / folder / "documents.sqlite").is_file()
        assert (tmp_path / folder / "objects" / "a").read_text() == environment


def test_environments_have_databases_of_their_own_on_one_server(mongodb: MongoServer, tmp_path: Path) -> None:
    url = f"{mongodb.url.rstrip('/')}/opening"
    for environment in ("testing", "staging"):
        settings = load_settings(home=tmp_path, documents_url=url, environment=environment)
        documents = open_documents(settings, COLLECTIONS)
        assert isinstance(documents, MongoDocuments)
        assert documents.put_new("plain", {"_id": "1", "environment": environment})
        documents.close()
        mongodb.drop(f"opening_{environment}")


def test_environments_have_buckets_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as endpoint:
        make_bucket(endpoint, "knockem-testing")
        address = {"home": tmp_path, "objects_url": "s3://knockem/some/prefix", "s3_endpoint": endpoint}
        objects = open_objects(load_settings(environment="testing", **address))
        assert objects.url("a") == "s3://knockem-testing/some/prefix/a"
        with pytest.raises(StoreError, match="s3://knockem/"):
            open_objects(load_settings(environment="production", **address))


def test_a_url_that_is_none_is_reported_without_its_password(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, documents_url="mongodb://user:secret@host:port/")
    with pytest.raises(StoreError, match="KNOCKEM_DOCUMENTS_URL is not a MongoDB URL") as refused:
        open_documents(settings, COLLECTIONS)
    assert "secret" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named_without_the_password(tmp_path: Path) -> None:
    url = "mongodb://user:secret@127.0.0.1:9/?serverSelectionTimeoutMS=50"
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9 cannot be used: no server answers: start it") as refused:
        open_documents(load_settings(home=tmp_path, documents_url=url), COLLECTIONS)
    assert "secret" not in str(refused.value)
