"""The rules of the house: what may import what, how modules look, and what a checkout may not contain."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("knockem_dagster", "assets", "resources", "sensors")
MOUNTED = ROOT / "knockem_dagster/containers/knockem_package"  # put into containers, where nothing else of ours is
MAX_LINES = 400

# Of the parts of knockem_dagster, what each may import; errors and settings are free for all but these two.
# A name with a dot permits that module only.
EVERYTHING = ("",)
OF_JOBS = ("errors", "settings", "mapping_file", "knockout", "stores", "records", "containers", "platform", "reports")
MAY_IMPORT = {
    "errors": (),
    "settings": ("errors",),
    "mapping_file": ("errors",),
    "knockout": ("errors",),
    "stores": ("errors", "settings"),
    "containers": ("errors", "settings", "knockout"),
    "records": ("errors", "settings", "stores", "knockout", "containers.attempts"),
    "reports": ("errors", "settings", "knockout", "records.tables"),
    "platform": ("errors", "settings", "stores", "records", "containers"),
    "jobs": OF_JOBS,
    "assay_runs": (*OF_JOBS, "jobs"),
    "joblogs": ("errors", "accounts", "settings", "stores", "records", "containers.attempts", "jobs", "reports"),
    "twins": ("errors", "settings", "stores", "records", "jobs", "reports"),
    "experiments": ("errors", "settings", "stores", "records", "jobs", "reports"),
    "accounts": ("errors", "settings", "mapping_file", "stores", "records"),
    "nodes": (
        "errors",
        "settings",
        "mapping_file",
        "stores",
        "records",
        "platform",
        "jobs",
        "accounts",
    ),
    "api": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": ("cli",),
    "definitions": EVERYTHING,
}
# Of the packages beside it, what each may import; and only definitions.py looks from inside knockem_dagster out.
PACKAGE_MAY_IMPORT = {
    "knockem_dagster": (),
    "resources": ("knockem_dagster", "dagster"),
    "assets": ("knockem_dagster", "dagster", "resources"),
    "sensors": ("knockem_dagster", "dagster", "resources", "assets"),
}
OUTSIDE = ("dagster", "assets", "resources", "sensors")

# Folders of tests that are not named after a part of the product.
TEST_FOLDERS = {"services", "end_to_end"}


def modules() -> list[Path]:
    return [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports_of(path: Path, nodes: Iterator[ast.AST] | None = None) -> Iterator[str]:
    """The dotted names a module imports anywhere in it; `from a import b` gives a.b where that is a module, else a."""
    for node in nodes or ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = dotted(path).split(".")[: None if path.name == "__init__.py" else -1]
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]) if node.level else node.module
            )
            for alias in node.names:
                name = f"{base}.{alias.name}".replace("..", ".")
                place = ROOT / name.replace(".", "/")
                yield name if place.with_suffix(".py").exists() or place.is_dir() else str(base).rstrip(".")


def is_within(name: str, permitted: tuple[str, ...]) -> bool:
    return any(permit in ("", name) or name.startswith(f"{permit}.") for permit in permitted)


def test_imports_point_one_way():
    faults: list[str] = []
    for path in modules():
        package, _, inner = dotted(path).partition(".")
        part = inner.partition(".")[0]
        for name in imports_of(path):
            to_package, _, to_inner = name.partition(".")
            if to_package == package == "knockem_dagster":
                permitted = MAY_IMPORT.get(part, ())
                if to_inner and to_inner.partition(".")[0] != part and not is_within(to_inner, permitted):
                    faults.append(f"{dotted(path)} imports {name}, but {part} may import only {permitted}")
            elif to_package in (*PACKAGES, *OUTSIDE) and to_package != package and inner != "definitions":
                if to_package not in PACKAGE_MAY_IMPORT[package]:
                    faults.append(
                        f"{dotted(path)} imports {name}, but {package} may import only {PACKAGE_MAY_IMPORT[package]}"
                    )
            elif to_package.startswith("dagster_") and package == "knockem_dagster" and inner != "definitions":
                faults.append(f"{dotted(path)} imports {name}; only definitions.py knows Dagster")
    assert not faults, "\n".join(faults)


def test_every_part_has_a_rule():
    parts = {dotted(path).split(".")[1] for path in modules() if dotted(path).startswith("knockem_dagster.")}
    assert parts <= MAY_IMPORT.keys(), "say in MAY_IMPORT what the new part may import"


def test_imports_have_no_circles():
    graph = {dotted(path): set(imports_of(path, iter(tree_of(path).body))) - {dotted(path)} for path in modules()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert graph.keys() <= set(order)


def test_the_package_mounted_into_containers_needs_the_standard_library_only():
    names = {name.split(".")[0] for path in MOUNTED.rglob("*.py") for name in imports_of(path)}
    assert names & {*PACKAGES, *OUTSIDE} == set()


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_says_what_belongs_in_it_and_fits_in_the_head(path: Path):
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(tree_of(path)), "the module has no docstring"
    lines = text.count("\n")
    assert lines <= MAX_LINES, f"{lines} lines: split it by idea"


def test_tests_mirror_the_tree():
    homes = [ROOT / "knockem_dagster", ROOT]
    for folder in {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}:
        if folder.parts and folder.parts[0] not in TEST_FOLDERS:
            assert any((home / folder).is_dir() for home in homes), f"tests/{folder} tests no folder of the product"


def test_every_part_is_tested():
    tested = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    parts = {path.parent.name for path in (ROOT / "knockem_dagster").glob("*/*.py") if path.name != "__init__.py"}
    assert parts <= tested


def kept_files() -> list[Path]:
    """What is, or would be, committed: as git sees it, or without git everything but hidden and made folders."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
        return [path for path in files if path.is_file()]
    made = {".git", ".venv", ".knockem", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]


# Spelled with brackets, so that this file does not contain what it looks for.
MACHINE_PATHS = r"/wor[k]/(main|lab|shared)\b|/roo[t]/|/hom[e]/[a-z]+/|/opt/(whee[l]s|pyp[i])|/User[s]/"
PACKAGE_HOSTS = r"pyp[i]\.org|pythonhoste[d]\.org|npmj[s]\.(org|com)|anacond[a]\.org|nodesourc[e]\.com"
FORBIDDEN = re.compile(f"{MACHINE_PATHS}|{PACKAGE_HOSTS}")


def test_no_file_names_a_machine_or_a_package_host():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in kept_files()
        if b"\0" not in (data := path.read_bytes())
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1)
        if (match := FORBIDDEN.search(line))
    ]
    assert not found, "\n".join(found)


def test_no_large_file_is_kept():
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size}" for path in kept_files() if path.stat().st_size > 2_000_000
    ]
    assert not large, "\n".join(large)
