"""Reports of job logs as they are sent over HTTP, and looking at what arrived of an instance."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from knockem_dagster.joblogs.instances import reports_of
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.wanted import keys_of
from tests.services.api_server import ApiServer


def reports_path(instance: dict[str, str]) -> str:
    return f"/v1/jobLogs/instances/{instance['id']}/reports"


def form_of(archive: Path) -> dict[str, tuple[str, bytes]]:
    name = archive.name.removesuffix(".tar.gz")
    return {
        "identifier": ("", name.encode()),
        "meta": (f"{name}.json", archive.with_name(f"{name}.json").read_bytes()),
        "data": (archive.name, archive.read_bytes()),
    }


def raw_request(api: ApiServer, instance: dict[str, str], *, length: int) -> socket.socket:
    """Begin to upload a report of so many bytes, and send its first kilobyte."""
    place = urlsplit(api.url)
    assert place.hostname is not None and place.port is not None
    head = (
        "POST /api/v2/upload HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {instance['id']}:{instance['token']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="identifier"\r\n\r\nlarge\r\n'
        '--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'
    ).encode()
    connection = socket.create_connection((place.hostname, place.port), timeout=30)
    connection.sendall(head + b"x" * 1000)
    return connection


def stored_of(api: ApiServer, instance: dict[str, str]) -> set[str]:
    """Return the folders of the object store in which anything of an instance is."""
    return {key.split("/")[1] for key in keys_of(api.platform.objects, instance["id"])}


def assert_nothing_arrived(api: ApiServer, instance: dict[str, str]) -> None:
    assert stored_of(api, instance) == set()
    assert all(not report.digest for report in reports_of(api.platform.records, instance["id"]))
    Marts(api.platform.records, api.platform.objects).refresh(instance["id"])
    assert instance["id"] not in Marts(api.platform.records, api.platform.objects).in_use()
