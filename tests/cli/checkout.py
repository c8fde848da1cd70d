"""A small checkout around the real launcher: its package only says how it was started."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

SAYS_HOW_IT_WAS_STARTED = """
import json, os, sys
json.dump({"arguments": sys.argv[1:], "directory": os.getcwd(), "prefix": sys.prefix,
           "home": os.environ["KNOCKEM_HOME"], "path": sys.path}, sys.stdout)
"""


@dataclass(frozen=True)
class Started:
    """What the package of a checkout said about its start."""

    arguments: list[str]
    directory: str
    prefix: str
    home: str
    path: list[str]


@dataclass(frozen=True)
class Checkout:
    """A folder with the launcher, a lock and a package."""

    root: Path

    @property
    def launcher(self) -> Path:
        return self.root / "knockem"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a user with a home of their own, with `changes`."""
        home = self.root.parent / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": str(home), **changes}

    def run(self, *arguments: str, directory: Path | None = None, launcher: Path | None = None, **changes: str):
        """Run the launcher to its end."""
        return subprocess.run(
            [launcher or self.launcher, *arguments],
            cwd=directory or self.root.parent,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self, *arguments: str, **options) -> Started:
        """Run the launcher and return what the package said."""
        process = self.run(*arguments, **options)
        assert process.returncode == 0, process.stderr
        return Started(**json.loads(process.stdout))

    def pretend_installed(self, venv_folder: Path | None = None) -> None:
        """Make a finished environment without packages."""
        folder = venv_folder or self.venv
        venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
        (folder / "knockem").write_text(f"{folder}\n")
        shutil.copy(self.root / "requirements.lock", folder / "requirements.lock")


def make_checkout(folder: Path, lock: str = "# nothing is needed\n") -> Checkout:
    """Make a checkout in `folder`, not yet installed."""
    package = folder / "knockem_dagster"
    (package / "cli").mkdir(parents=True)
    shutil.copy(ROOT / "knockem", folder / "knockem")
    shutil.copy(ROOT / "knockem_dagster/cli/installation.py", package / "cli/installation.py")
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SAYS_HOW_IT_WAS_STARTED)
    (folder / "requirements.lock").write_text(lock)
    return Checkout(folder)


def write_wheel(folder: Path, name: str = "tiny") -> str:
    """Write the wheel of a package with one empty module and return the lock that wants it, from `folder` only."""
    folder.mkdir(parents=True, exist_ok=True)
    information = f"{name}-1.0.dist-info"
    contents = {
        f"{name}.py": "",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for path, text in contents.items()
    ]
    contents[f"{information}/RECORD"] = "\n".join([*record, f"{information}/RECORD,,", ""])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"--no-index\n--find-links {folder.as_uri()}\n{name}==1.0 --hash=sha256:{digest}\n"


def write_script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def python_only(folder: Path, **scripts: str) -> str:
    """Return a PATH with the tools of a bare machine and these scripts; python3_12 is the name of python3.12."""
    folder.mkdir(parents=True)
    for tool in ("sh", "cmp", "cksum", "readlink", "cat", "sleep"):
        found = shutil.which(tool)
        assert found is not None, f"{tool} is missing on this machine"
        (folder / tool).symlink_to(found)
    for name, text in scripts.items():
        write_script(folder / name.replace("_", "."), text)
    return str(folder)


def base_python() -> Path:
    """The interpreter this environment was made from."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()
