"""Uploads of job logs as nobody should make them: refused, nothing of them is in use, and others are answered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import requests

from knockem_dagster.api.http import report_form
from knockem_dagster.api.http.job_logs import MOST_AT_ONCE
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.wanted import keys_of
from tests.services.api_server import ApiServer
from tests.services.joblogs import JOBS, REAL, report_of
from tests.services.uploads import assert_nothing_arrived, form_of, raw_request, reports_path, stored_of
from tests.services.waiting import until


@pytest.mark.parametrize("key", ["", "{id}", "{id}:", "{id}:knockem_wrong", "{id}:{other}", "Bearer {other}", ":{own}"])
def test_without_the_instances_own_key_nothing_is_taken_in(
    api: ApiServer, instance: dict[str, str], another: dict[str, str], key: str
) -> None:
    given = key.format(id=instance["id"], own=instance["token"], other=another["token"])
    headers = {"Authorization": given} if given else {}
    paths = ("/api/v2/upload", reports_path(instance))
    assert [requests.post(api.url + path, headers=headers, files=form_of(REAL[0])).status_code for path in paths] == [
        401,
        401,
    ]
    for each in (instance, another):
        assert_nothing_arrived(api, each)


def test_ten_gigabytes_are_refused_when_they_are_announced(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    with raw_request(api, instance, length=10 << 30) as connection:
        assert b" 413 " in connection.recv(4096)
        assert sender.get(reports_path(instance)).is_success, "who is silent then holds up nobody"
        [told] = sender.get(reports_path(instance)).json()["items"]
    assert told["name"] == "large" and f"{report_form.MOST_BYTES:,} bytes" in told["quarantine"]
    assert_nothing_arrived(api, instance)


def test_what_announces_nothing_is_not_read_beyond_the_limit(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_form, "MOST_BYTES", 1 << 20)
    sent = itertools.count()

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'
        while next(sent) < 10_000:
            yield bytes(1 << 16)

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    with suppress(httpx.WriteError):  # the server may close before it all came
        assert sender.post(reports_path(instance), content=endless(), headers=kind).status_code == 413
    until(lambda: sender.get(reports_path(instance)).json()["items"], "the refusal to be told")
    assert_nothing_arrived(api, instance)


def test_who_sends_a_byte_at_a_time_has_not_for_ever(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_form, "MOST_SECONDS", 1.0)
    with raw_request(api, instance, length=1 << 30) as connection:
        connection.settimeout(0.05)

        def answer() -> bytes:
            connection.sendall(b"x")
            assert sender.get(reports_path(instance)).is_success, "others are answered meanwhile"
            with suppress(TimeoutError):
                return connection.recv(4096)
            return b""

        assert b" 408 " in until(answer, "it to be refused")

        def is_closed() -> bool:
            try:
                answer()
            except ConnectionError:
                return True
            return False

        until(is_closed, "the connection to be closed", look_seconds=0.2)
    [told] = sender.get(reports_path(instance)).json()["items"]
    assert told["state"] == "quarantined" and "silent" in told["quarantine"]
    assert_nothing_arrived(api, instance)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\x", "\0", "0.tar.gz#1"])
def test_what_files_are_called_is_of_no_meaning(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str], name: str
) -> None:
    form = {part: (name, content) for part, (_, content) in form_of(REAL[0]).items()}
    assert sender.post(reports_path(instance), files=form).status_code == 201
    assert stored_of(api, instance) == {"raw"}
    assert all(
        key.startswith(f"joblogs/raw/{instance['id']}/0/") for key in keys_of(api.platform.objects, instance["id"])
    )


def test_bombs_are_stored_and_never_unpacked(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str], tmp_path: Path
) -> None:
    bomb = report_of(tmp_path, {"jobs": JOBS, "params": b"1\tname\tvalue\n" * (14 << 20)})
    metadata = bomb.metadata.model_dump_json(by_alias=True).encode()
    said = b" " * (17 << 20) + metadata
    for name, described in (("bomb", metadata), ("said", said)):
        form = {"identifier": ("", name.encode()), "meta": ("x", described), "data": ("x", bomb.archive.read_bytes())}
        assert sender.post(reports_path(instance), files=form).status_code == 201
    Marts(api.platform.records, api.platform.objects).refresh(instance["id"])
    told = {each["name"]: each["quarantine"] for each in sender.get(reports_path(instance)).json()["items"]}
    assert "more than 100 times as large" in told["bomb"] and "The metadata have 16,777,217 bytes" in told["said"]
    assert stored_of(api, instance) == {"raw"}
    assert sender.get(f"/v1/jobLogs/instances/{instance['id']}/tables/tools").json()["rows"] == []


def test_what_is_cut_off_leaves_nothing(api: ApiServer, sender: httpx.Client, instance: dict[str, str]) -> None:
    with raw_request(api, instance, length=1 << 20):
        pass
    assert sender.get(reports_path(instance)).json()["items"] == []
    assert list(api.platform.objects.list(f"joblogs/raw/{instance['id']}")) == []


def test_who_is_slow_is_refused_and_holds_up_nobody(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_form, "SILENT_SECONDS", 0.5)
    answers: list[bytes] = []
    connections = [raw_request(api, instance, length=1 << 20) for _ in range(3)]
    waiting = [threading.Thread(target=lambda each=each: answers.append(each.recv(4096))) for each in connections]
    for thread in waiting:
        thread.start()
    assert sender.post(reports_path(instance), files=form_of(REAL[0])).status_code == 201
    for thread in waiting:
        thread.join()
    for connection in connections:
        connection.close()
    assert all(b" 408 " in answer for answer in answers) and len(answers) == 3
    assert sender.post(reports_path(instance), files=form_of(REAL[0])).status_code == 201


def test_four_reports_of_an_instance_may_be_on_their_way(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    connections = [raw_request(api, instance, length=1 << 20) for _ in range(MOST_AT_ONCE)]

    def is_refused() -> bool:
        connections.append(raw_request(api, instance, length=1 << 20))  # the one asked for next may have come before
        return sender.post(reports_path(instance), files=form_of(REAL[0])).status_code == 429

    try:
        until(is_refused, "all to be there")
    finally:
        for connection in connections:
            connection.close()
    until(lambda: sender.post(reports_path(instance), files=form_of(REAL[0])).is_success, "them to be gone")
