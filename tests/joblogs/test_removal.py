"""Removing an instance: nothing of it is left, whoever is at work for it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import Conflict, NotFound, StoreError
from knockem_dagster.joblogs.folders import DROPS
from knockem_dagster.joblogs.instances import instance_called, local_instance, register
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.removal import plan_removal, remove_instance, remove_strays
from knockem_dagster.joblogs.wanted import keys_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import InstanceRecord, QuarantineValue
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
    assert (plan.reports, plan.jobs) in {(1, 98), (1, 1940)}
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


@pytest.mark.parametrize("odd", ["a\nb.tar.gz", "\udcff.tar.gz", "itself"])
def test_an_odd_file_among_the_drops_is_in_nobodys_way_and_goes_with_its_instance(platform: Platform, odd: str) -> None:
    records, objects = platform.records, platform.objects
    instances = [local_instance(records, name) for name in (SERVER, "another")]
    drop = objects.path(f"{DROPS}{SERVER}/archives/0.json")
    assert drop is not None
    drop.parent.mkdir(parents=True)
    if odd == "itself":
        (drop.parent / odd).symlink_to(odd)
    else:
        (drop.parent / odd).touch()
    assert plan_removal(records, objects, instances[1]).objects == 0
    remove_instance(records, objects, instances[1])
    assert [path.name for path in drop.parent.iterdir()] == [odd]
    remove_instance(records, objects, instances[0])
    assert not drop.parent.parent.exists()


def test_an_instance_is_there_until_all_else_is_gone(platform: Platform) -> None:
    instance = local_instance(platform.records, SERVER)
    send(platform, instance.id)

    def fail(id: str) -> None:
        assert is_gone(platform, id)
        raise StoreError("the database is locked")

    with pytest.raises(StoreError):
        remove_instance(platform.records, platform.objects, instance, forget=fail)
    found = instance_called(platform.records, SERVER)
    assert found.unwanted is not None
    forgotten: list[str] = []
    remove_instance(platform.records, platform.objects, found, forget=forgotten.append)
    assert forgotten == [instance.id]
    assert platform.records.job_log_instances.find_one(instance.id) is None


def came_back(platform: Platform) -> str:
    """Remove an instance of which somebody stores all there can be, and is killed before looking again."""
    removed, other = (local_instance(platform.records, name) for name in (SERVER, "another"))
    marts = Marts(platform.records, platform.objects)
    for id in (removed.id, other.id):
        send(platform, id)
        marts.refresh(id)
    documents = platform.records.documents
    kept = {name: list(documents.find(name, {})) for name in (platform.records.job_log_reports.name, "jobLogMarts")}
    objects = {key: platform.objects.get(key) for key in keys_of(platform.objects, removed.id)}
    remove_instance(platform.records, platform.objects, removed)
    documents.delete("jobLogMarts", {})
    for name, found in kept.items():
        for document in found:
            documents.put_new(name, document)
    for key, content in objects.items():
        platform.objects.put(key, content)
    assert not is_gone(platform, removed.id)
    return removed.id


def test_what_one_who_was_killed_stored_of_a_removed_instance_is_swept(platform: Platform) -> None:
    records, objects = platform.records, platform.objects
    id = came_back(platform)
    others = [each for each in objects.list() if id not in each.key]
    objects.put(f"{DROPS}{SERVER}/archives/7.json", b"{}")
    assert remove_strays(records, objects, list(records.job_log_reports.find({}))) == 1
    assert [each.key for each in objects.list() if id in each.key] == []
    assert [each.name for each in records.job_log_instances.find({})] == ["another"]
    assert objects.exists(f"{DROPS}{SERVER}/archives/7.json"), "which is to be taken in yet"
    assert {each.key for each in others} <= {each.key for each in objects.list()}
    assert (
        [each.instance_id for each in records.job_log_reports.find({})]
        == list(Marts(records, objects).in_use())
        != [id]
    )
    assert remove_strays(records, objects, []) == 0


def test_what_came_back_of_a_removed_instance_that_is_there_again_stays(platform: Platform) -> None:
    id = came_back(platform)
    local_instance(platform.records, SERVER)
    reports = list(platform.records.job_log_reports.find({}))
    assert remove_strays(platform.records, platform.objects, reports) == 0
    assert not is_gone(platform, id)


def test_what_is_missing_from_a_record_that_knows_of_no_removal_stays(platform: Platform) -> None:
    """As where a setting names another database: archives are not lost by that."""
    instance = local_instance(platform.records, SERVER)
    send(platform, instance.id)
    platform.records.documents.delete("jobLogInstances", {})
    assert remove_strays(platform.records, platform.objects, list(platform.records.job_log_reports.find({}))) == 0
    assert keys_of(platform.objects, instance.id)


def test_a_sweep_that_was_killed_is_ended_by_the_next(platform: Platform) -> None:
    id = came_back(platform)
    platform.records.job_log_instances.add(InstanceRecord(id=id, name="", unwanted=now()))
    with pytest.raises(Conflict):
        local_instance(platform.records, SERVER)
    assert remove_strays(platform.records, platform.objects, []) == 1
    assert is_gone(platform, id) and local_instance(platform.records, SERVER).id == id
