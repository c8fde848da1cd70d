"""What every objects store promises, on each of them: a directory, and S3 over HTTP."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import boto3
import pytest

from knockem_dagster.errors import NotFound, StoreError
from knockem_dagster.stores.objects import Objects, local_objects, make_bucket, s3_objects
from tests.services.s3 import CREDENTIALS, admitting_nobody, s3_client, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["directory", "s3", "s3 below a prefix"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "directory":
        return local_objects(tmp_path / "home" / "objects")
    request.getfixturevalue("s3_credentials")
    endpoint = request.getfixturevalue("s3")
    bucket = f"bucket-{uuid4().hex[:12]}"
    make_bucket(bucket, endpoint=endpoint)
    return s3_objects(bucket, prefix="" if request.param == "s3" else "/deep/er/", endpoint=endpoint)


@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 30_000], ids=["empty", "small", "7 MB"])
def test_an_object_comes_back_as_it_was(objects: Objects, data: bytes) -> None:
    assert objects.put("a/b", data)
    assert objects.get("a/b") == data
    found = objects.head("a/b")
    assert found is not None
    assert (found.key, found.size) == ("a/b", len(data))
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_an_object_can_be_had_as_a_file(objects: Objects, tmp_path: Path) -> None:
    data = os.urandom(12 << 20)
    objects.put("a/b", data)
    objects.fetch("a/b", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data
    objects.put("a/c", b"")
    objects.fetch("a/c", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b""
    with pytest.raises(NotFound, match="there is no object a/d"):
        objects.fetch("a/d", tmp_path / "d")


def test_a_file_can_be_stored_without_reading_it(objects: Objects, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"from disk")
    objects.put("f", file)
    assert objects.get("f") == b"from disk"
    with pytest.raises(StoreError, match="make it first"):
        objects.put("g", tmp_path / "missing")


def test_putting_again_replaces(objects: Objects) -> None:
    objects.put("a", b"first, and longer")
    before = objects.head("a")
    assert objects.put("a", b"second", content_type="text/plain")
    assert objects.get("a") == b"second"
    after = objects.head("a")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag


def test_create_only_keeps_what_is_there(objects: Objects) -> None:
    assert objects.put("a", b"first", create_only=True)
    assert not objects.put("a", b"second", create_only=True)
    assert objects.get("a") == b"first"


def test_what_is_missing_is_not_found(objects: Objects) -> None:
    objects.put("folder/object", b"x")
    for key in ("nobody", "folder", "folder/object2"):
        assert objects.head(key) is None
        assert not objects.exists(key)
        with pytest.raises(NotFound, match=f"no object {key}"):
            objects.get(key)
        with pytest.raises(NotFound, match=f"no object {key}"):
            objects.get_range(key, start=0, length=1)
        objects.delete(key)
    assert objects.exists("folder/object")


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(0, 3, b"012"), (8, 2, b"89"), (8, 9, b"89"), (10, 1, b""), (99, 9, b"")]
)
def test_ranges_end_where_the_object_ends(objects: Objects, start: int, length: int, expected: bytes) -> None:
    objects.put("digits", b"0123456789")
    assert objects.get_range("digits", start=start, length=length) == expected


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, 0), (0, -1)])
def test_a_range_that_is_none_is_refused(objects: Objects, start: int, length: int) -> None:
    objects.put("digits", b"0123456789")
    with pytest.raises(StoreError, match="start from 0, a length from 1"):
        objects.get_range("digits", start=start, length=length)


def test_listing_and_deleting_know_folders(objects: Objects) -> None:
    keys = {"a/1", "a/2", "a/b/3", "ab/4", "5"}
    for key in keys:
        objects.put(key, key.encode())
    assert {found.key for found in objects.list()} == keys
    assert {found.key for found in objects.list("a")} == {"a/1", "a/2", "a/b/3"}
    assert {found.key: found.size for found in objects.list("a/b/")} == {"a/b/3": 5}
    assert list(objects.list("nothing")) == []
    assert objects.delete_prefix("a") == 3
    assert {found.key for found in objects.list()} == {"ab/4", "5"}
    assert objects.delete_prefix("a") == 0
    objects.delete("5")
    assert {found.key for found in objects.list()} == {"ab/4"}


def test_a_long_listing_is_whole(objects: Objects) -> None:
    # Beyond a page, where making that many objects takes no time.
    keys = [f"many/{n:04}" for n in range(1005 if objects.url("many").startswith("file:") else 50)]
    for key in keys:
        objects.put(key, b"")
    assert sorted(found.key for found in objects.list("many")) == keys


@pytest.mark.parametrize("key", ["a b/ü é.yaml", "100%20.txt", "x#y", "x*y?z", "a:b+c=d&e", "...", "back\\slash", "~x"])
def test_names_that_people_give_files_work(objects: Objects, key: str) -> None:
    assert objects.put(key, b"x", create_only=True)
    assert objects.get(key) == b"x"
    assert [found.key for found in objects.list()] == [key]
    objects.delete(key)
    assert list(objects.list()) == []


@pytest.mark.parametrize(
    "key",
    ["", "/absolute", "a//b", "a/", "../a", "a/../../b", "./a", "a/.", "a\nb", "a\0b", "a#1", "a#1/b", "x" * 300,
     "/".join(["x" * 200] * 5)],
)  # fmt: skip
def test_what_is_no_key_is_refused_everywhere(objects: Objects, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: objects.put(key, b"x"),
        lambda: objects.get(key),
        lambda: objects.get_range(key, start=0, length=1),
        lambda: objects.head(key),
        lambda: objects.delete(key),
        lambda: objects.url(key),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="key"):
            call()
    if key not in {"", "a/"}:
        with pytest.raises(StoreError, match="key"):
            objects.list(key)
        with pytest.raises(StoreError, match="key"):
            objects.delete_prefix(key)
    assert list(objects.list()) == []


def test_deleting_everything_needs_a_folders_name(objects: Objects) -> None:
    objects.put("a", b"x")
    with pytest.raises(StoreError, match="key"):
        objects.delete_prefix("")
    assert objects.exists("a")


def test_of_several_creators_one_succeeds(tmp_path: Path) -> None:
    objects = local_objects(tmp_path)
    start = threading.Barrier(8)

    def create(n: int) -> bool:
        start.wait()
        return objects.put("contested", str(n).encode() * 100_000, create_only=True)

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert objects.get("contested") == str(created.index(True)).encode() * 100_000


def test_readers_see_whole_objects_while_writers_replace_them(tmp_path: Path) -> None:
    objects = local_objects(tmp_path)
    versions = {letter * 300_000 for letter in (b"a", b"b")}
    objects.put("page", next(iter(versions)))

    def write(content: bytes) -> None:
        for _ in range(40):
            objects.put("page", content)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, content) for content in versions]
        seen = set()
        while not all(writer.done() for writer in writers):
            seen.add(objects.get("page"))
    assert seen <= versions


def test_a_directory_is_its_owners_alone(tmp_path: Path) -> None:
    local_objects(tmp_path / "home" / "objects").put("a/b", b"x")
    assert stat.S_IMODE((tmp_path / "home" / "objects").stat().st_mode) == 0o700


def test_a_url_of_a_file_opens(tmp_path: Path) -> None:
    objects = local_objects(tmp_path / "ä folder")
    objects.put("a b/100%.txt", b"x")
    with urlopen(objects.url("a b/100%.txt")) as opened:
        assert opened.read() == b"x"


@pytest.mark.parametrize("size", [200_000, 20_000_000])
def test_a_full_disk_leaves_the_former_object(tmp_path: Path, size: int) -> None:
    objects = local_objects(tmp_path)
    objects.put("a/kept", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for key in ("a/kept", "a/new"):
            with pytest.raises(StoreError, match="nothing was changed"):
                objects.put(key, b"x" * size)
        with pytest.raises(StoreError, match="nothing was changed"):
            objects.put("a/new", b"x" * size, create_only=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert objects.get("a/kept") == b"before"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["kept"]


def test_a_writer_killed_in_the_middle_leaves_whole_objects(tmp_path: Path) -> None:
    objects = local_objects(tmp_path)
    script = """
import sys, pathlib
from knockem_dagster.stores.objects import local_objects
objects = local_objects(pathlib.Path(sys.argv[1]))
for n in range(10_000):
    objects.put(f"a/{n}", bytes([n % 256]) * 4_000_000)
    print(n, flush=True)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, tmp_path]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        writer.kill()
    found = list(objects.list())
    assert len(found) >= 3
    for each in found:
        assert objects.get(each.key) == bytes([int(each.key.removeprefix("a/"))]) * 4_000_000


def test_a_directory_that_cannot_be_made_is_reported() -> None:
    with pytest.raises(StoreError, match="KNOCKEM_HOME"):
        local_objects(Path("/proc/nothing/objects"))


NO_OBJECTS = {
    "control character": (b"a\nb", None),
    "no UTF-8": (b"bad\xff", None),
    "too long": (b"x" * 250, None),
    "link to itself": (b"itself", "itself"),
    "link to where it is": (b"here", "."),
    "link to above": (b"above", "../.."),
}


@pytest.mark.parametrize(("name", "leads_to"), NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_what_can_be_no_object_is_told_and_holds_up_no_listing(
    tmp_path: Path, name: bytes, leads_to: str | None
) -> None:
    objects, odd = local_objects(tmp_path), f"a/b/{os.fsdecode(name)}"
    objects.put("a/b/1", b"1")
    objects.put("a/c/2", b"2")
    if leads_to is None:
        (tmp_path / odd).touch()
    else:
        (tmp_path / odd).symlink_to(leads_to)
    assert {found.key for found in objects.list()} == {found.key for found in objects.list("a")} == {"a/b/1", "a/c/2"}
    assert list(objects.no_objects("a")) == list(objects.no_objects("a/b/")) == [odd]
    assert not objects.no_objects("a/c") and not objects.no_objects("nothing")
    objects.delete_no_objects("a", which=lambda path: path.startswith("a/c/"))
    assert list(objects.no_objects("a")) == [odd]
    objects.delete_no_objects("a", which=lambda path: path.startswith("a/b/"))
    assert not objects.no_objects("a") and len(list(objects.list())) == 2


def test_what_is_below_a_folder_with_a_name_that_is_none_goes_with_it(tmp_path: Path) -> None:
    objects, folder = local_objects(tmp_path), tmp_path / "a" / "b\n"
    folder.mkdir(parents=True)
    (folder / "1").touch()
    assert (list(objects.list()), list(objects.no_objects("a"))) == ([], ["a/b\n"])
    objects.delete_no_objects("a", which=lambda _: True)
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_and_what_leads_nowhere_is_nothing(tmp_path: Path) -> None:
    objects, elsewhere = local_objects(tmp_path / "objects"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1").touch()
    (tmp_path / "objects/folder").symlink_to(elsewhere)
    (tmp_path / "objects/file").symlink_to(elsewhere / "1")
    (tmp_path / "objects/nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "objects/pipe")
    assert {found.key for found in objects.list()} == {"folder/1", "file"}


def test_what_is_listed_is_what_is_looked_up(objects: Objects) -> None:
    objects.put("a/b", b"text")
    [listed] = objects.list("a")
    found = objects.head("a/b")
    assert found is not None and (found.key, found.size, found.etag) == (listed.key, listed.size, listed.etag)
    assert abs(found.modified - listed.modified) < timedelta(seconds=1), "a bucket's listing tells more of it"


def test_folders_right_below_one_are_told(objects: Objects) -> None:
    for key in ("a/1", "a/b/2", "a/b/3/4", "a/c/5", "d/6"):
        objects.put(key, b"")
    assert (list(objects.folders("a")), list(objects.folders("a/b/"))) == (["b", "c"], ["3"])
    assert not objects.folders("a/c") and not objects.folders("nothing")


@pytest.mark.usefixtures("s3_credentials")
class TestS3:
    def test_a_missing_bucket_is_reported_on_opening(self, s3: str) -> None:
        with pytest.raises(StoreError, match="s3://nobodys-bucket"):
            s3_objects("nobodys-bucket", endpoint=s3)

    def test_content_type_and_url_are_kept(self, s3: str) -> None:
        make_bucket("typed", endpoint=s3)
        objects = s3_objects("typed", prefix="deep", endpoint=s3)
        objects.put("a/report.html", b"<p>", content_type="text/html")
        assert objects.url("a/report.html") == "s3://typed/deep/a/report.html"
        client = boto3.client("s3", endpoint_url=s3)
        found = client.get_object(Bucket="typed", Key="deep/a/report.html")
        assert (found["ContentType"], found["Body"].read()) == ("text/html", b"<p>")
        client.close()

    @pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
    def test_a_bucket_is_made_once_in_the_region_of_the_environment(
        self, s3: str, monkeypatch: pytest.MonkeyPatch, region: str
    ) -> None:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        name = f"made-in-{region}"
        make_bucket(name, endpoint=s3)
        s3_objects(name, endpoint=s3).put("a", b"kept")
        make_bucket(name, endpoint=s3)
        assert s3_objects(name, endpoint=s3).get("a") == b"kept"
        with s3_client(s3) as client:
            said = client.get_bucket_location(Bucket=name)["LocationConstraint"]
        assert (said or "us-east-1") == region

    def test_a_bucket_that_may_not_be_used_is_not_taken_for_ours(self, s3: str) -> None:
        make_bucket("somebodys", endpoint=s3)
        with admitting_nobody(s3), pytest.raises(StoreError, match=r"somebodys can be neither .*403"):
            make_bucket("somebodys", endpoint=s3)
