"""The launcher finds its checkout, its Python and its environment, and leaves the caller's words alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.checkout import Checkout, base_python, make_checkout, python_only


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = make_checkout(tmp_path / "a path  with spaces & 'quotes'")
    made.pretend_installed()
    return made


def test_arguments_and_the_current_directory_reach_the_package_unchanged(checkout: Checkout, tmp_path: Path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    arguments = ["submit", "my file.yaml", "", "*", "$HOME", "--wait"]
    started = checkout.start(*arguments, directory=elsewhere)
    assert started.arguments == arguments
    assert started.directory == str(elsewhere)
    assert started.prefix == str(checkout.venv)
    assert started.home == str(checkout.root / ".knockem")


def test_modules_of_the_callers_directory_are_not_imported(checkout: Checkout, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('this json.py is not ours')")
    started = checkout.start(directory=elsewhere)
    assert started.path[0] == str(checkout.root)
    assert str(elsewhere) not in started.path


def test_a_symbolic_link_to_the_launcher_works(checkout: Checkout, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    first = tmp_path / "bin" / "first"
    first.symlink_to(checkout.launcher)
    second = tmp_path / "bin" / "second"
    second.symlink_to("first")
    assert checkout.start(launcher=second).prefix == str(checkout.venv)


def test_the_launcher_found_on_path_or_given_to_sh_works(checkout: Checkout):
    for command in (["knockem"], ["sh", "knockem"]):
        environment = checkout.environment(PATH=f"{checkout.root}:{os.environ['PATH']}")
        done = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_given_home_counts_from_the_callers_directory(checkout: Checkout, tmp_path: Path):
    assert checkout.start(KNOCKEM_HOME="data").home == str(tmp_path / "data")
    assert checkout.start(KNOCKEM_HOME="/data").home == "/data"


def test_too_old_pythons_are_named_with_what_is_needed(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    path = python_only(tmp_path / "bin", python3="echo 3.9", python3_12="echo broken >&2; exit 127")
    done = checkout.run("demo", PATH=path)
    assert done.returncode == 1
    assert "Python 3.11, 3.12, 3.13 or 3.14 is needed" in done.stderr
    assert f"{path}/python3 is Python 3.9" in done.stderr
    assert not checkout.venv.exists()


def test_no_python_at_all_is_said(tmp_path: Path):
    done = make_checkout(tmp_path / "checkout").run("demo", PATH=python_only(tmp_path / "bin"))
    assert done.returncode == 1
    assert "no Python at all" in done.stderr


def test_a_newer_python_is_found_behind_an_old_and_a_broken_one(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    path = python_only(
        tmp_path / "bin", python3="echo 3.8", python3_13="exit 127", python3_12=f"exec '{base_python()}' \"$@\"",
        uv='case $1 in --version) ;; *) exit 0 ;; esac',
    )  # fmt: skip
    assert checkout.start(PATH=path).prefix == str(checkout.venv)


def test_a_lone_launcher_says_what_is_missing(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout.root / "requirements.lock").unlink()
    done = checkout.run()
    assert done.returncode == 1
    assert "requirements.lock is missing" in done.stderr


def test_a_read_only_checkout_uses_the_users_own_folders(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    checksum = subprocess.run(
        ["cksum"], input=(checkout.root / "requirements.lock").read_bytes(), capture_output=True, check=True
    )
    home = Path(checkout.environment()["HOME"])
    own = home / ".cache/knockem" / f"venv-{checksum.stdout.split()[0].decode()}"
    checkout.pretend_installed(own)
    launcher = _without_write_permission(checkout, tmp_path)
    started = checkout.start(launcher=launcher)
    assert started.prefix == str(own)
    assert started.home == str(home / ".local/share/knockem")
    assert not checkout.venv.exists()


def test_a_read_only_checkout_that_is_installed_is_used_as_it_is(checkout: Checkout, tmp_path: Path):
    assert checkout.start(launcher=_without_write_permission(checkout, tmp_path)).prefix == str(checkout.venv)


def _without_write_permission(checkout: Checkout, folder: Path) -> Path:
    """Make the checkout read-only and return a launcher for it; root is stripped of its right to write anyway."""
    for path in (checkout.root, checkout.venv):
        if path.exists():
            path.chmod(0o555)
    if os.geteuid() != 0:
        return checkout.launcher
    if shutil.which("setpriv") is None:
        pytest.skip("root can write everywhere, and setpriv, which would take that right away, is not installed")
    wrapper = folder / "as-somebody"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-all --inh-caps=-all "{checkout.launcher}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper
