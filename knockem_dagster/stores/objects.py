"""The objects store: bytes under keys, in a directory or in S3, through obstore.

An object appears whole or not at all. Keys are relative paths with slashes; what an object is and its digest are
kept in documents. What does not belong here: which keys exist and who may read them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from knockem_dagster.stores.object_keys import UNFINISHED, check_key, files_below

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Config

_SECONDS_TO_RETRY = 30
_COPIED_AT_ONCE = 1 << 20
_START = datetime(1970, 1, 1, tzinfo=UTC)
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
        check_key(key)
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
        check_key(key)
        with self._explained(f"read {key}"), _missing(key):
            return bytes(obstore.get(self._store, key).bytes())

    def fetch(self, key: str, path: Path) -> None:
        """Write an object's content to a file, a part at a time; NotFound if there is none."""
        check_key(key)
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
        check_key(key)
        return None if self._root is None else self._root / key

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Return at most `length` bytes from `start`, fewer (or none) at the end; NotFound if there is no object."""
        check_key(key)
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
        check_key(key)
        with self._explained(f"look up {key}"), suppress(FileNotFoundError):
            return _stored(obstore.head(self._store, key))
        return None

    def exists(self, key: str) -> bool:
        """Tell whether there is an object under this key."""
        return self.head(key) is not None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Iterate, in no particular order, over the objects below a folder, or over all.

        Files that can be no objects are left out: `no_objects` tells of them.
        """
        if prefix:
            check_key(prefix.removesuffix("/"))
        return self._stream(prefix)

    def no_objects(self, prefix: str) -> Sequence[str]:
        """Return the paths of what is below a folder and can be no object: its name is no key's, or it is a link to
        where it is. A bucket has none.
        """
        check_key(prefix.removesuffix("/"))
        if (root := self._root) is None:
            return []
        with self._explained(f"list {prefix}"):
            return sorted(key for key, known in files_below(root, prefix) if known is None)

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below a folder."""
        folder = prefix.removesuffix("/")
        check_key(folder)
        with self._explained(f"list {prefix}"):
            if (top := self.path(folder)) is None:
                found = obstore.list_with_delimiter(self._store, prefix=folder)["common_prefixes"]
                return sorted(each.removeprefix(f"{folder}/").removesuffix("/") for each in found)
            return sorted(each.name for each in top.iterdir() if each.is_dir()) if top.is_dir() else []

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        check_key(key)
        with self._explained(f"remove {key}"), suppress(FileNotFoundError):
            try:
                obstore.delete(self._store, key)
            except GenericError:
                if self.exists(key):
                    raise  # otherwise it is a folder of objects, and not one itself

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object below a folder and return their number."""
        check_key(prefix.removesuffix("/"))
        keys = [stored.key for stored in self.list(prefix)]
        for key in keys:
            self.delete(key)
        return len(keys)

    def delete_no_objects(self, prefix: str, *, which: Callable[[str], bool]) -> None:
        """Remove what is below a folder and is no object, under such paths: what `no_objects` tells of, folders that
        are empty, and what was being written, mostly by processes that were killed amid it.

        Whoever is still writing it gets a StoreError. A bucket shows nothing of what is unfinished.
        """
        if (root := self._root) is None:
            return
        paths, empty = [root / path for path in self.no_objects(prefix)], list[Path]()
        with self._explained(f"remove what is no object below {prefix}"):
            for folder, folders, names in os.walk(root / prefix.removesuffix("/")):
                paths += [Path(folder) / name for name in names if UNFINISHED.search(name)]
                empty += [] if folders or names else [Path(folder)]
            for path in paths:
                if which(_text(UNFINISHED.sub("", path.relative_to(root).as_posix()))):
                    _remove(path)
                    _remove_empty_folders(path.parent, root)
            for path in empty:
                if which(_text(path.relative_to(root).as_posix())):
                    _remove_empty_folders(path, root)

    def url(self, key: str) -> str:
        """Return where an object is: a file:// or s3:// URL."""
        check_key(key)
        return f"{self._base_url}/{key if self._is_s3 else quote(key)}"

    @property
    def _is_s3(self) -> bool:
        return isinstance(self._store, S3Store)

    @property
    def _root(self) -> Path | None:
        """The folder that keys are below; None for a bucket."""
        return Path(str(self._store.prefix)) if isinstance(self._store, LocalStore) else None

    def _stream(self, prefix: str) -> Iterator[StoredObject]:
        with self._explained(f"list {prefix or 'all objects'}"):
            if (root := self._root) is not None:
                # One file that can be no object would end the store's own listing.
                yield from (_as_stored(key, known) for key, known in files_below(root, prefix) if known is not None)
                return
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _text(path: str) -> str:
    """Return a path as text, whatever its bytes are."""
    return os.fsencode(path).decode(errors="replace")


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


@contextmanager
def _missing(key: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"there is no object {key}; list the folder above it to see what there is") from error


def _stored(found: ObjectMeta) -> StoredObject:
    return StoredObject(found["path"], found["size"], found["last_modified"], found["e_tag"])


def _as_stored(key: str, known: os.stat_result) -> StoredObject:
    """Return what `head` does."""
    modified = known.st_mtime_ns // 1000
    etag = f'"{known.st_ino:x}-{modified:x}-{known.st_size:x}"'
    return StoredObject(key, known.st_size, _START + timedelta(microseconds=modified), etag)


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
