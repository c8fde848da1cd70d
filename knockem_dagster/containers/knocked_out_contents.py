"""Knocked-out genome contents, kept on disk within a bound: a background is asked for thousands of times."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from weakref import finalize

from knockem_dagster.containers.owners import make_private_folder


class KnockedOutContents:
    """The contents of one wild type's variants used last, a file each; gone with this object."""

    def __init__(self, *, most: int = 256) -> None:
        self._most = most
        self._files: OrderedDict[int, Path] = OrderedDict()
        self._folder: Path | None = None
        self._made = 0

    def get(self, mask: int) -> bytes | None:
        """Return the kept content without the sites of a mask (see KnockoutSet), if there is one."""
        path = self._files.get(mask)
        if path is None:
            return None
        self._files.move_to_end(mask)
        return path.read_bytes()

    def keep(self, mask: int, content: bytes) -> None:
        """Keep a content, dropping the one used longest ago when there are too many."""
        if self._folder is None:
            self._folder = make_private_folder()
            finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._made += 1
        path = self._folder / str(self._made)
        path.write_bytes(content)
        replaced = self._files.pop(mask, None)
        if replaced is not None:
            replaced.unlink()
        self._files[mask] = path
        if len(self._files) > self._most:
            self._files.popitem(last=False)[1].unlink()
