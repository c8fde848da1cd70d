"""Removing an instance: nothing of it is left, whoever is at work for it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import Conflict, NotFound
from knockem_dagster.joblogs.instances import instance_called, local_instance, register
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.removal import plan_removal, remove_instance
from knockem_dagster.joblogs.wanted import keys_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import QuarantineValue
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects
from tests.services.job_play import record_in
from tests.services.joblogs import REAL

SERVER = "our server"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


def send(platform: Platform, instance: str) -> None:
    Ledger(platform.records, platform.objects).receive(instance, "0", REAL[0], REAL[0].with_name("0.json").read_bytes())


def is_gone(platform: Platform, instance: str) -> bool:
    records = platform.records
    return (
        not keys_of(platform.objects, instance)
        and not list(records.job_log_reports.find({"instanceId": instance}))
        and all(instance not in str(each) for each in records.job_log_marts.find({}))
    )


def test_all_of_an_instance_is_removed_and_nothing_of_others(platform: Platform) -> None:
    marts = Marts(platform.records, platform.objects)
    ids = [local_instance(platform.records, name).id for name in (SERVER, "another")]
    for id in ids:
        send(platform, id)
        marts.refresh(id)
    platform.objects.put(f"uploads/joblogs/{SERVER}/archives/7.json", b"{}")
    platform.objects.put("uploads/joblogs/another/archives/7.json", b"{}")
    gone = instance_called(platform.records, SERVER)
    plan = plan_removal(platform.records, platform.objects, gone)
    assert (plan.reports, plan.jobs) in {(1, 98), (1, 1970)}
    remove_instance(platform.records, platform.objects, gone)
    assert is_gone(platform, gone.id) and not is_gone(platform, ids[1])
    assert platform.objects.exists("uploads/joblogs/another/archives/7.json")
    assert set(marts.in_use()) == {ids[1]}


def test_what_somebody_was_writing_who_was_killed_is_removed_too(platform: Platform) -> None:
    ids = [local_instance(platform.records, name).id for name in (SERVER, "another")]
    halves: list[Path] = []
    for id in ids:
        send(platform, id)
        for key in (*keys_of(platform.objects, id), f"joblogs/marts/{id}/0/jobs.parquet"):
            path = platform.objects.path(key)
            assert path is not None, "objects are files here"
            halves.append(path.with_name(f"{path.name}#1"))  # as the store calls what is not whole yet
            halves[-1].parent.mkdir(parents=True, exist_ok=True)
            halves[-1].write_bytes(b"half of it")
    remove_instance(platform.records, platform.objects, instance_called(platform.records, SERVER))
    left = [path for path in platform.settings.home.rglob("*") if ids[0] in path.parts]
    assert left == []
    assert [path.exists() for path in halves] == [ids[1] in path.parts for path in halves]


def test_one_that_is_being_removed_takes_nothing_in(platform: Platform) -> None:
    instance = local_instance(platform.records, SERVER)
    platform.records.job_log_instances.patch(instance.id, Patch(set={"unwanted": now()}))
    with pytest.raises(Conflict, match="being removed"):
        send(platform, instance.id)
    with pytest.raises(Conflict, match="being removed"):
        local_instance(platform.records, SERVER)
    with pytest.raises(Conflict, match="being removed"):
        register(platform.records, SERVER)
    remove_instance(platform.records, platform.objects, instance)
    assert local_instance(platform.records, SERVER).unwanted is None


@pytest.mark.parametrize("at", range(1, 13))
def test_what_is_stored_while_an_instance_is_removed_is_taken_back(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    instance = local_instance(platform.records, SERVER)
    left = at
    put = Objects.put

    def until_then(self: Objects, *given: Any, **more: Any) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            remove_instance(platform.records, platform.objects, instance)
        return put(self, *given, **more)

    monkeypatch.setattr(Objects, "put", until_then)
    try:
        send(platform, instance.id)
        Marts(platform.records, platform.objects).refresh(instance.id)
    except NotFound:
        assert left <= 0
        assert is_gone(platform, instance.id)
    else:
        assert left > 0
        assert at > 8


def test_what_is_refused_while_an_instance_is_removed_is_not_noted(platform: Platform) -> None:
    instance = local_instance(platform.records, SERVER)
    remove_instance(platform.records, platform.objects, instance)
    with pytest.raises(NotFound):
        Ledger(platform.records, platform.objects).refuse(instance.id, "0", QuarantineValue(what="x", remedy="y"))
    assert is_gone(platform, instance.id)
