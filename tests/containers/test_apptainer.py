"""The apptainer runtime where there is none: what it would be asked, what an image is, what is said.

The common suite runs over it where apptainer is on PATH and KNOCKEM_TEST_APPTAINER_IMAGE names an image with sh,
coreutils and python3.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from knockem_dagster.containers.apptainer import SHUT_IN, command_line, digest_of, file_of
from knockem_dagster.containers.runtime import ContainerSpec, Image, Mount
from knockem_dagster.containers.runtimes import open_runtime
from knockem_dagster.errors import ContainerError, ImageNotFound


def test_a_command_is_run_shut_in_with_its_mounts() -> None:
    mounts = [Mount(Path("/a/genomes"), "/k/genomes"), Mount(Path("/a/result"), "/k/result", writable=True)]
    spec = ContainerSpec(Image("apptainer", "organism.sif", "sha256:0"), mounts=mounts)
    line = command_line(Path("/images/organism.sif"), spec, ["knockem_apply_knockout", "1", "2"])
    image = line.index("/images/organism.sif")
    assert line[:2] == ["apptainer", "exec"] and set(SHUT_IN) <= set(line[2:image])
    assert line[line.index("--network") + 1] == "none"
    assert {"--bind=/a/genomes:/k/genomes:ro", "--bind=/a/result:/k/result:rw"} <= set(line[2:image])
    assert line[image + 1 :] == ["knockem_apply_knockout", "1", "2"]


def test_the_digest_of_an_image_is_over_its_content(tmp_path: Path) -> None:
    file, folder = tmp_path / "organism.sif", tmp_path / "sandbox"
    file.write_bytes(b"content")
    folder.mkdir()
    (folder / "command").write_text("first")
    assert digest_of(str(file)) == f"sha256:{hashlib.sha256(b'content').hexdigest()}"
    before = digest_of(str(folder))
    (folder / "command").write_text("second")
    assert before != digest_of(str(folder))
    with pytest.raises(ImageNotFound, match="no-such"):
        digest_of(str(tmp_path / "no-such.sif"))


def test_an_image_of_a_registry_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path))
    first, second = file_of("docker://some/organism:1"), file_of("docker://some/organism:2")
    assert first != second and first.parent == second.parent == tmp_path / "knockem"


@pytest.mark.skipif(shutil.which("apptainer") is not None, reason="apptainer is here")
def test_without_apptainer_it_is_said_what_is_missing() -> None:
    with pytest.raises(ContainerError, match="not on PATH"):
        open_runtime("apptainer", organisms=[])
