"""The objects store: bytes under keys, in a directory or in S3, through obstore.

An object appears whole or not at all. Keys are relative paths with slashes; what an object is and its digest are
kept in documents. What does not belong here: which keys exist and who may read them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, S3Store

from knockem_dagster.errors import NotFound, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Config

# The directory store itself hides names that end like this: they are objects being written.
_UNFINISHED = re.compile(r"#\d+$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_MAX_NAME_BYTES = 240  # file systems allow 255, and an object being written needs a few more than its name
_MAX_KEY_BYTES = 900  # S3 allows 1024, the store's own prefix included
_SECONDS_TO_RETRY = 30
_COPIED_AT_ONCE = 1 << 20
_FIRST_REGION = {"us-east-1", "aws-global"}  # S3's names for it, the latter where the environment names none


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store knows of an object without reading it: size in bytes, time of the last change, entity tag."""

    key: str
    size: int
    modified: datetime
    etag: str | None


class Objects:
    """Bytes under keys. Safe to use from several threads and processes.

    Every method raises StoreError for a key that is none, or when the store cannot be reached or refuses.
    """

    def __init__(self, store: LocalStore | S3Store, *, base_url: str) -> None:
        """Wrap an opened store whose keys continue `base_url`; see local_objects and s3_objects."""
        self._store = store
        self._base_url = base_url.rstrip("/")

    def put(self, key: str, data: bytes | Path, *, create_only: bool = False, content_type: str | None = None) -> bool:
        """Store bytes, or the content of a file, under a key, replacing what is there.

        With `create_only` an existing object stays as it is and the answer is False. The content type is kept
        by S3 and ignored by a directory.
        """
        _check_key(key)
        with self._explained(f"write {key}"):
            try:
                obstore.put(
                    self._store,
                    key,
                    data,
                    mode="create" if create_only else "overwrite",
                    attributes={"Content-Type": content_type} if content_type and self._is_s3 else None,
                )
            except AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> bytes:
        """Return an object's content; NotFound if there is none."""
        _check_key(key)
        with self._explained(f"read {key}"), _missing(key):
            return bytes(obstore.get(self._store, key).bytes())

    def fetch(self, key: str, path: Path) -> None:
        """Write an object's content to a file, a part at a time; NotFound if there is none."""
        _check_key(key)
        with self._explained(f"read {key}"):
            with _missing(key):
                parts = obstore.get(self._store, key)
                there = self.path(key)
                source = there.open("rb") if there is not None else None
            with source or nullcontext(), path.open("wb") as file:
                if source is None:
                    file.writelines(parts)
                else:  # in a tenth of the time that parts take
                    shutil.copyfileobj(source, file, _COPIED_AT_ONCE)

    def path(self, key: str) -> Path | None:
        """Return the file that an object is, there or not; None where objects are no files here."""
        _check_key(key)
        return Path(str(self._store.prefix)) / key if isinstance(self._store, LocalStore) else None

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Return at most `length` bytes from `start`, fewer (or none) at the end; NotFound if there is no object."""
        _check_key(key)
        if start < 0 or length < 1:
            raise StoreError(f"cannot read {length} bytes from {start} of {key}: give a start from 0, a length from 1")
        with self._explained(f"read {key}"), _missing(key):
            try:
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
            except GenericError:
                if start >= obstore.head(self._store, key)["size"]:
                    return b""
                raise

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object, or None if there is none."""
        _check_key(key)
        with self._explained(f"look up {key}"), suppress(FileNotFoundError):
            return _stored(obstore.head(self._store, key))
        return None

    def exists(self, key: str) -> bool:
        """Tell whether there is an object under this key."""
        return self.head(key) is not None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Iterate, in no particular order, over the objects below a folder, or over all."""
        if prefix:
            _check_key(prefix.removesuffix("/"))
        return self._stream(prefix)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        _check_key(key)
        with self._explained(f"remove {key}"), suppress(FileNotFoundError):
            try:
                obstore.delete(self._store, key)
            except GenericError:
                if self.exists(key):
                    raise  # otherwise it is a folder of objects, and not one itself

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object below a folder and return their number."""
        _check_key(prefix.removesuffix("/"))
        keys = [stored.key for stored in self.list(prefix)]
        for key in keys:
            self.delete(key)
        return len(keys)

    def delete_unfinished(self, prefix: str, *, which: Callable[[str], bool]) -> None:
        """Remove what was being written below a folder under such keys, mostly by processes that were killed amid it.

        Whoever is still writing it gets a StoreError. A bucket shows nothing of what is unfinished.
        """
        if (top := self.path(prefix.removesuffix("/"))) is None:
            return
        root = Path(str(self._store.prefix))
        with self._explained(f"remove what is unfinished below {prefix}"):
            for folder, _, names in os.walk(top):
                for path in (Path(folder) / name for name in names if _UNFINISHED.search(name)):
                    if which(_UNFINISHED.sub("", path.relative_to(root).as_posix())):
                        path.unlink(missing_ok=True)
                        _remove_empty_folders(path.parent, root)

    def url(self, key: str) -> str:
        """Return where an object is: a file:// or s3:// URL."""
        _check_key(key)
        return f"{self._base_url}/{key if self._is_s3 else quote(key)}"

    @property
    def _is_s3(self) -> bool:
        return isinstance(self._store, S3Store)

    def _stream(self, prefix: str) -> Iterator[StoredObject]:
        with self._explained(f"list {prefix or 'all objects'}"):
            for page in obstore.list(self._store, prefix=prefix or None):
                for found in page:
                    yield _stored(found)

    @contextmanager
    def _explained(self, deed: str) -> Generator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise StoreError(f"cannot {deed} in {self._base_url}: {_advice(error)}") from error


def _remove_empty_folders(folder: Path, root: Path) -> None:
    with suppress(OSError):  # one is not empty, or gone
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def local_objects(folder: Path) -> Objects:
    """Open a directory, made 0700 if missing, as an objects store; StoreError if that is impossible."""
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {folder} for objects: {error.strerror}; make the folder above writable, or "
                         "choose another with KNOCKEM_HOME") from error  # fmt: skip
    return Objects(LocalStore(folder, automatic_cleanup=True), base_url=folder.as_uri())


def s3_objects(bucket: str, *, prefix: str = "", endpoint: str | None = None) -> Objects:
    """Open an S3 bucket, or the part of it below a prefix; StoreError if it cannot be listed.

    Credentials and region come from the environment (AWS_ACCESS_KEY_ID and so on) or the machine's role.
    `endpoint` is the http(s) address of a server other than Amazon's.
    """
    prefix = prefix.strip("/")
    config: S3Config = {"endpoint": endpoint} if endpoint else {}
    store = S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={"allow_http": (endpoint or "").startswith("http://")},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=_SECONDS_TO_RETRY)},
    )
    objects = Objects(store, base_url=f"s3://{bucket}/{prefix}")
    # A missing bucket would otherwise look like a missing object at every later read.
    next(objects.list(), None)
    return objects


def make_bucket(name: str, *, endpoint: str | None = None) -> None:
    """Make an S3 bucket in the region of the environment, unless it is there; `endpoint` as for s3_objects.

    Raises StoreError where it cannot be made, or belongs to somebody who does not let us in.
    """
    import boto3  # here, because importing it slows every command down
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with closing(boto3.client("s3", endpoint_url=endpoint)) as client:
            try:
                client.head_bucket(Bucket=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                    raise
                region = client.meta.region_name
                # The first region is the one that may not be named.
                where = {} if region in _FIRST_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                client.create_bucket(Bucket=name, **where)
    except (BotoCoreError, ClientError) as error:
        raise StoreError(
            f"the bucket {name} can be neither used nor made: correct credentials and region, or, where it may be "
            f"somebody else's, name another ({error})"
        ) from error


def _check_key(key: str) -> None:
    names = key.split("/")
    if not all(names) or any(name in {".", ".."} for name in names):
        raise StoreError(f"{key!r} is not an object key: write a relative path without empty, '.' or '..' parts")
    if _UNPRINTABLE.search(key) or any(_UNFINISHED.search(name) for name in names):
        raise StoreError(f"{key!r} is not an object key: leave out control characters and '#' before final digits")
    longest = max(len(name.encode(errors="replace")) for name in names)
    if longest > _MAX_NAME_BYTES or len(key.encode(errors="replace")) > _MAX_KEY_BYTES:
        raise StoreError(f"{key[:60]!r}... is too long for an object key: at most {_MAX_NAME_BYTES} bytes between "
                         f"slashes and {_MAX_KEY_BYTES} in all")  # fmt: skip


@contextmanager
def _missing(key: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"there is no object {key}; list the folder above it to see what there is") from error


def _stored(found: ObjectMeta) -> StoredObject:
    return StoredObject(found["path"], found["size"], found["last_modified"], found["e_tag"])


def _advice(error: Exception) -> str:
    cause = str(error).partition("\n")[0]
    match error:
        case FileNotFoundError():
            return f"the file or bucket does not exist: make it first ({cause})"
        case PermissionError() | PermissionDeniedError() | UnauthenticatedError():
            return f"access is refused: correct permissions or credentials ({cause})"
        case InvalidPathError():
            return f"a file there has a name that is not printable text: rename it ({cause})"
        case _:
            return f"check free space, permissions and connection, then repeat; nothing was changed ({cause})"
