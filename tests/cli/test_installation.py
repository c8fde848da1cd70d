"""The first run installs exactly once, whole, and says what to do when it cannot."""

from __future__ import annotations

import ast
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knockem_dagster.cli import installation
from tests.cli.checkout import ROOT, Checkout, base_python, make_checkout, python_only, write_script, write_wheel

UV = shutil.which("uv")
PYTHON = f"exec '{base_python()}' \"$@\""


def _path_for(installer: str, folder: Path) -> str:
    """A PATH with Python, and with uv or without."""
    if installer == "pip":
        return python_only(folder / "bin", python3=PYTHON)
    if UV is None:
        pytest.skip("uv is not installed")
    return python_only(folder / "bin", python3=PYTHON, uv=f"PATH='{os.environ['PATH']}' exec '{UV}' \"$@\"")


def _has_tiny(checkout: Checkout) -> bool:
    python = checkout.venv / "bin/python"
    return subprocess.run([python, "-c", "import tiny"], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_the_first_run_installs_and_the_second_only_starts(tmp_path: Path, installer: str):
    path = _path_for(installer, tmp_path)
    checkout = make_checkout(tmp_path / "a path", write_wheel(tmp_path / "wheels"))
    first = checkout.run("--help", PATH=path)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("\n") == 1
    assert f"with {installer} (first run only)" in first.stderr
    assert _has_tiny(checkout)
    second = checkout.run("--help", PATH=path)
    assert (second.returncode, second.stderr) == (0, "")


def test_a_package_with_another_hash_is_refused_and_nothing_counts_as_installed(tmp_path: Path):
    path = _path_for("uv" if UV else "pip", tmp_path)
    lock = write_wheel(tmp_path / "wheels")
    checkout = make_checkout(tmp_path / "checkout", lock[:-9] + "0" * 8 + "\n")
    done = checkout.run(PATH=path)
    assert done.returncode == 1
    assert "could not install the packages" in done.stderr
    assert "Then run the same command again" in done.stderr
    (checkout.root / "requirements.lock").write_text(lock)
    assert checkout.run(PATH=path).returncode == 0
    assert _has_tiny(checkout)


def test_a_changed_lock_replaces_what_was_installed(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout", write_wheel(tmp_path / "wheels"))
    path = _path_with(tmp_path, INSTALLS)
    checkout.start(PATH=path)
    (checkout.venv / "stale").touch()
    (checkout.root / "requirements.lock").write_text("# something else\n")
    checkout.start(PATH=path)
    assert not (checkout.venv / "stale").exists()


def test_a_moved_checkout_is_installed_anew(tmp_path: Path):
    checkout = make_checkout(tmp_path / "here")
    path = _path_with(tmp_path, INSTALLS)
    checkout.start(PATH=path)
    moved = Checkout(checkout.root.rename(tmp_path / "there"))
    done = moved.run(PATH=path)
    assert "first run only" in done.stderr
    assert (moved.venv / "knockem").read_text() == f"{moved.venv}\n"


def test_somebody_elses_environment_is_not_touched(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    checkout.venv.mkdir()
    (checkout.venv / "pyvenv.cfg").write_text("mine")
    done = checkout.run(PATH=_path_with(tmp_path, INSTALLS))
    assert done.returncode == 1
    assert "move it away or delete it" in done.stderr
    assert [entry.name for entry in checkout.venv.iterdir()] == ["pyvenv.cfg"]


# Installers that stop where a test wants them: each says that it runs, then waits to be released through a pipe.
INSTALLS = 'case "$1" in --version) exit 0 ;; esac; echo ran >>"$COUNT"'
INSTALLS_WHEN_RELEASED = f'{INSTALLS}; echo running >"$RUNNING"; cat "$RELEASE" >/dev/null'


def _path_with(folder: Path, uv: str) -> str:
    count = folder / "count"
    count.touch()
    return python_only(folder / "bin", python3=PYTHON, uv=f"COUNT='{count}'\n{uv}")


@pytest.fixture
def pipes(tmp_path: Path) -> dict[str, str]:
    names = {"RUNNING": str(tmp_path / "running"), "RELEASE": str(tmp_path / "release")}
    for name in names.values():
        os.mkfifo(name)
    return names


def _begin(checkout: Checkout, path: str, pipes: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [checkout.launcher],
        env=checkout.environment(PATH=path, **pipes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_first_runs_one_installs_and_both_start(tmp_path: Path, pipes: dict[str, str]):
    checkout = make_checkout(tmp_path / "checkout")
    path = _path_with(tmp_path, INSTALLS_WHEN_RELEASED)
    first = _begin(checkout, path, pipes)
    Path(pipes["RUNNING"]).read_text()
    second = _begin(checkout, path, pipes)
    assert second.stderr is not None
    assert "waiting for another installation" in second.stderr.readline()
    Path(pipes["RELEASE"]).write_text("go")
    for process in (first, second):
        assert '"arguments"' in process.communicate(timeout=60)[0]
        assert process.returncode == 0
    assert (tmp_path / "count").read_text() == "ran\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_ended_installation_ends_its_installer_and_the_next_run_repairs(
    tmp_path: Path, pipes: dict[str, str], number: signal.Signals
):
    if signal.getsignal(number) is signal.SIG_IGN:  # as under nohup, and what is started would ignore it too
        signal.signal(number, signal.SIG_DFL)
    checkout = make_checkout(tmp_path / "checkout")
    path = _path_with(tmp_path, INSTALLS_WHEN_RELEASED)
    first = _begin(checkout, path, pipes)
    Path(pipes["RUNNING"]).read_text()
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode == 128 + number
    with (checkout.venv / "knockem").open() as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)  # is free when nothing of the installer is left
    write_script(tmp_path / "bin/uv", f"COUNT='{tmp_path / 'count'}'\n{INSTALLS}")
    assert checkout.run(PATH=path).returncode == 0


def test_a_killed_installation_is_waited_for_and_repaired(tmp_path: Path, pipes: dict[str, str]):
    checkout = make_checkout(tmp_path / "checkout")
    path = _path_with(tmp_path, INSTALLS_WHEN_RELEASED)
    first = _begin(checkout, path, pipes)
    Path(pipes["RUNNING"]).read_text()
    first.kill()
    first.wait()
    write_script(tmp_path / "bin/uv", f"COUNT='{tmp_path / 'count'}'\n{INSTALLS}")
    second = _begin(checkout, path, pipes)
    assert second.stderr is not None
    assert "waiting for another installation" in second.stderr.readline(), "the orphaned installer still writes"
    Path(pipes["RELEASE"]).write_text("go")
    second.communicate(timeout=60)
    assert first.stdout is not None
    assert first.stderr is not None
    first.stdout.close()
    first.stderr.close()
    assert second.returncode == 0
    assert (tmp_path / "count").read_text() == "ran\nran\n"


def test_a_python_without_pip_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lock").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(installation.InstallationError, match=r"apt install python3\.\d+-venv"):
        installation.install(tmp_path / "venv", tmp_path / "lock")


def test_a_full_or_forbidden_place_is_named(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout.root / ".venv").write_text("a file where the folder should be")
    done = checkout.run(PATH=_path_with(tmp_path, INSTALLS))
    assert done.returncode == 1
    assert f"cannot install into {checkout.venv}" in done.stderr


def test_the_installation_needs_the_standard_library_only():
    tree = ast.parse((ROOT / "knockem_dagster/cli/installation.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= sys.stdlib_module_names
