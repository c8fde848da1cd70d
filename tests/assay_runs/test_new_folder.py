"""Folders of results appear at once, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from knockem_dagster.assay_runs.new_folder import new_folder
from knockem_dagster.errors import StoreError


def test_a_folder_appears_only_when_all_of_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with new_folder(folder) as content:
        (content / "table").write_text("values")
        assert not folder.exists()
    assert (folder / "table").read_text() == "values"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as content:
        (content / "table").write_text("half of it")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"cannot write .*/file/out: .*; free or permit the place"),
        new_folder(tmp_path / "file" / "out"),
    ):
        pass
