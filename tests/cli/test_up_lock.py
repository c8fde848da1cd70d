"""`up` is alone with its folder, and others know at once whether it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from knockem_dagster.cli.up_lock import is_up, only_one
from knockem_dagster.errors import KnockemError
from knockem_dagster.settings import load_settings
from tests.services.command_line import environment_of


def test_a_second_one_is_refused_and_told_where_the_first_is(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, environment="production")
    assert not is_up(settings)
    with only_one(settings) as note:
        note.write("http://here")
        note.flush()
        assert is_up(settings)
        with pytest.raises(KnockemError, match=r"runs already for .*: http://here"), only_one(settings):
            pass
    assert not is_up(settings)


def test_the_lock_dies_with_a_holder_that_is_killed(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, environment="testing")
    settings.folder.mkdir(parents=True)
    hold = (
        "from knockem_dagster.cli.up_lock import only_one\n"
        "from knockem_dagster.settings import load_settings\n"
        "with only_one(load_settings()): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], env=environment_of(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_up(settings)
        holder.kill()
        holder.wait()
    assert not is_up(settings)
