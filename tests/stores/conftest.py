"""Every store there is, so that one suite runs on all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from knockem_dagster.stores.documents import Documents
from tests.services.document_stores import DocumentsAddress, Processes
from tests.services.mongodb import MongoServer, mongodb_server

STAND_IN_CANNOT = "the stand-in for MongoDB (nx-27017) cannot: {}; set KNOCKEM_TEST_MONGODB to test a real server"


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with mongodb_server(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    started = Processes(3)
    yield started
    started.close()


@pytest.fixture(params=["sqlite", "mongodb"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentsAddress]:
    """An empty documents store. Tests marked stand_in_cannot(reason) skip where only the stand-in is there."""
    if request.param == "sqlite":
        yield DocumentsAddress(path=tmp_path / "home" / "documents.sqlite")
        return
    server: MongoServer = request.getfixturevalue("mongodb")
    marker = request.node.get_closest_marker("stand_in_cannot")
    if server.stand_in and marker is not None:
        pytest.skip(STAND_IN_CANNOT.format(marker.args[0]))
    database = f"knockem_test_{uuid4().hex[:12]}"
    yield DocumentsAddress(url=server.url, database=database, stand_in=server.stand_in)
    server.drop(database)


@pytest.fixture
def documents(address: DocumentsAddress) -> Iterator[Documents]:
    opened = address.open()
    yield opened
    opened.close()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stand_in_cannot(reason): MongoDB does it, its stand-in does not")
