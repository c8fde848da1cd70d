"""Folders that dead processes left behind: removed by whoever comes, also by several at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from knockem_dagster.containers.owners import FOLDER_PREFIX, SEPARATOR, current_owner, remove_abandoned_folders

FOLDERS = 300


@pytest.fixture
def abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return folders of a process that has ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = replace(current_owner(), pid=ended.pid)
    folders = [tmp_path / f"{FOLDER_PREFIX}{owner}{SEPARATOR}{number}" for number in range(FOLDERS)]
    for folder in folders:
        folder.mkdir()
        (folder / "genome").touch()
    return folders


def test_several_at_once_remove_what_is_abandoned(abandoned: list[Path]) -> None:
    with ThreadPoolExecutor(8) as threads:
        removed = [done.result() for done in [threads.submit(remove_abandoned_folders) for _ in range(8)]]
    assert sum(removed) == FOLDERS
    assert not any(folder.exists() for folder in abandoned)


def test_links_and_what_others_use_are_left(abandoned: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / f"{FOLDER_PREFIX}{current_owner()}{SEPARATOR}x"
    mine.mkdir()
    elsewhere, link = tmp_path / "elsewhere", abandoned[0].with_name(f"{abandoned[0].name}link")
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    assert remove_abandoned_folders() == FOLDERS
    assert mine.exists() and elsewhere.exists() and link.is_symlink()
