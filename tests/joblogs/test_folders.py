"""Whose the reports of a folder are, by whatever path it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from knockem_dagster.joblogs.folders import reports_in


@pytest.mark.parametrize(
    ("report", "folder", "name"),
    [
        ("server/1.tar.gz", "server", "server"),
        ("server/1.tar.gz", "server/a/..", "server"),
        ("server/1.tar.gz", "server/a/b/../..", "server"),
        ("server/archives/1.tar.gz", "server/a/..", "server"),
        ("server/archives/1.tar.gz", "server/a/../archives", "server"),
        ("server/archives/1.tar.gz", "server/archives/a/..", "server"),
        ("server/1.tar.gz", "link", "link"),
        ("server/1.tar.gz", "server/../link", "link"),
        ("server/archives/1.tar.gz", "link/a/..", "server"),
    ],
)
def test_reports_are_of_the_folder_that_has_a_name(tmp_path: Path, report: str, folder: str, name: str) -> None:
    for each in ("server/a/b", "server/archives/a"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "link").symlink_to("server")
    (tmp_path / report).touch()
    [found] = reports_in(tmp_path / folder)
    assert (found.instance.name, found.name, found.archive.exists()) == (name, "1", True)
