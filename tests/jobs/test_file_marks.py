"""What a worker notes of the files that a job reads, and what counts as a change of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knockem_dagster.jobs import file_marks
from knockem_dagster.jobs.file_marks import GONE, UNKNOWN, is_changed, mark_files


def _write(path: Path, text: str, *, written: int) -> None:
    path.write_text(text)
    os.utime(path, (written, written))


def _mark(path: Path) -> str:
    [mark] = mark_files(path.parent, [path.name])
    return mark


def test_contents_decide_when_the_time_of_writing_is_another(tmp_path: Path) -> None:
    path = tmp_path / "genome"
    _write(path, "ACGT", written=2000)
    mark = _mark(path)
    for text, written, changed in (
        ("ACGT", 2000, False),
        ("ACGT", 3000, False),
        ("ACGA", 1000, True),
        ("", 3000, True),
    ):
        _write(path, text, written=written)
        assert is_changed(path, mark) is changed


def test_a_file_that_was_not_there_has_changed_once_it_is(tmp_path: Path) -> None:
    path = tmp_path / "late"
    assert _mark(path) == GONE
    assert not is_changed(path, GONE)
    path.touch()
    assert is_changed(path, GONE)
    mark = _mark(path)
    path.unlink()
    assert not is_changed(path, mark), "what is gone is another question"


def test_what_cannot_be_read_is_not_known_to_have_changed(tmp_path: Path) -> None:
    below = tmp_path / "file" / "below"
    below.parent.touch()
    assert _mark(below) == UNKNOWN
    assert not is_changed(tmp_path, UNKNOWN)


def test_files_beyond_what_is_read_go_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_marks, "MOST_READ", 10)
    small, large, folder = tmp_path / "small", tmp_path / "large", tmp_path / "folder"
    _write(small, "123456", written=2000)
    _write(large, "12345", written=2000)
    folder.mkdir()
    marks = mark_files(tmp_path, ["small", "large", "folder"])
    for path in (small, large, folder):
        os.utime(path, (3000, 3000))
    changed = [is_changed(path, mark) for path, mark in zip((small, large, folder), marks, strict=True)]
    assert changed == [False, True, True]


def test_what_is_no_file_is_never_read(tmp_path: Path) -> None:
    """A reader of a pipe waits for a writer."""
    pipe = tmp_path / "pipe"
    pipe.touch()
    mark = _mark(pipe)
    pipe.unlink()
    os.mkfifo(pipe)
    assert _mark(pipe)
    assert is_changed(pipe, mark)


def test_a_file_that_many_jobs_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "genome"
    _write(path, "ACGT", written=2000)
    mark = _mark(path)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it is read again")

    monkeypatch.setattr(Path, "open", opened)
    assert _mark(path) == mark
