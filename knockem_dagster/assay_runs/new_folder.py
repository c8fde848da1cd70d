"""A folder of results that is there completely or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from knockem_dagster.errors import KnockemError, StoreError


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Give a place to write to; what is there at the end becomes `folder`, which must be new or empty.

    Raises KnockemError when the folder holds something, StoreError when it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise KnockemError(f"{folder} is there already and not an empty folder; name another one.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
            content = Path(unfinished) / "content"
            content.mkdir()
            yield content
            content.rename(folder)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error}; free or permit the place, or name another") from error
