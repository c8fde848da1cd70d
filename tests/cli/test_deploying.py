"""`deploy init` writes secrets that only their owner may read, once; `revise` keeps them; `prepare` may be repeated."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from knockem_dagster.accounts.tokens import new_token
from tests.services.command_line import ROOT, knockem
from tests.services.s3 import CREDENTIALS, s3_client, s3_server

COMPOSE = shutil.which("docker-compose")
COMPOSE_FILES = [ROOT / "deploy" / name for name in ("compose.yaml", "compose.run-containers.yaml")]


def variables_of(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_all_that_the_compose_files_demand_is_written_for_the_owner_alone(tmp_path: Path) -> None:
    made = knockem("deploy", "init", tmp_path, home=tmp_path / "home")
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    demanded = {name for file in COMPOSE_FILES for name in re.findall(r"\$\{(\w+):\?", file.read_text())}
    variables = variables_of(tmp_path)
    assert demanded <= variables.keys()
    assert all(variables[name] for name in demanded)


def told_login(said: str) -> tuple[str, str]:
    [user, password] = re.findall(r"^(?:user|password)\s+(\S+)$", said, re.MULTILINE)
    return user, password


def login_is(folder: Path, user: str, password: str) -> bool:
    """Tell whether these are checked as nginx does: {SSHA} is the base64 of SHA-1(password, salt), salt."""
    name, hashed = variables_of(folder)["LOGIN"].split(":{SSHA}")
    kept = base64.b64decode(hashed)
    return (name, hashlib.sha1(password.encode() + kept[20:]).digest()) == (user, kept[:20])


def test_what_is_advised_brings_up_the_deployment_whose_secrets_were_made(tmp_path: Path) -> None:
    """Wherever they are: compose itself reads the files that it is advised to."""
    beside, apart = tmp_path / "be side", tmp_path / "a part"
    shutil.copytree(ROOT / "deploy", beside)
    apart.mkdir()
    for folder in (beside, apart):
        (folder / ".env").unlink(missing_ok=True)
        told = knockem("deploy", "init", folder, home=tmp_path / "home").stderr
        advised = shlex.split(told.splitlines()[-1].removeprefix("Start it with: "))
        assert advised[:2] == ["docker", "compose"] and advised[-3:] == ["up", "--build", "--detach"]
        if COMPOSE is None:
            pytest.skip("docker-compose is not here")
        shown = subprocess.run([COMPOSE, *advised[2:-3], "config"], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        assert variables_of(folder)["QUEUE_PASSWORD"] in shown.stdout


def test_the_password_is_told_once_and_not_kept_and_secrets_are_made_anew_only_on_demand(tmp_path: Path) -> None:
    made = knockem("deploy", "init", tmp_path, home=tmp_path / "home")
    user, password = told_login(made.stdout)
    assert login_is(tmp_path, user, password)
    before, text = variables_of(tmp_path), (tmp_path / ".env").read_text()
    assert password not in text
    refused = knockem("deploy", "init", tmp_path, home=tmp_path / "home")
    assert refused.returncode == 1
    assert "--again" in refused.stderr
    assert (tmp_path / ".env").read_text() == text
    assert knockem("deploy", "init", tmp_path, "--again", home=tmp_path / "home").returncode == 0
    changed = {name for name, value in variables_of(tmp_path).items() if value != before[name]}
    assert changed == {name for name in before if name.endswith("PASSWORD")} | {"LOGIN", "COMMANDS_TOKEN"}


def test_a_new_commit_and_a_new_login_are_noted_beside_the_old_secrets(tmp_path: Path) -> None:
    missing = knockem("deploy", "revise", tmp_path, home=tmp_path / "home")
    assert missing.returncode == 1
    assert "deploy init" in missing.stderr
    knockem("deploy", "init", tmp_path, home=tmp_path / "home")
    path = tmp_path / ".env"
    before = path.read_text()
    path.write_text(re.sub("REVISION=.*", "REVISION=0000000", before))
    assert knockem("deploy", "revise", tmp_path, home=tmp_path / "home").returncode == 0
    assert path.read_text() == before
    told = told_login(knockem("deploy", "login", tmp_path, home=tmp_path / "home").stdout)
    assert login_is(tmp_path, *told)
    answered = knockem("deploy", "login", tmp_path, "--json", home=tmp_path / "home").stdout
    assert login_is(tmp_path, **json.loads(answered))
    assert re.sub("LOGIN=.*", "", path.read_text()) == re.sub("LOGIN=.*", "", before)


def test_a_token_that_is_missing_is_added_on_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# COMMANDS_TOKEN= is for `commands`\nREVISION=0000000\nPORT=3000")
    for _ in range(2):
        assert knockem("deploy", "revise", tmp_path, home=tmp_path / "home").returncode == 0
    [comment, revision, port, token] = (tmp_path / ".env").read_text().splitlines()
    assert (comment, port) == ("# COMMANDS_TOKEN= is for `commands`", "PORT=3000")
    assert revision.startswith("REVISION=") and "0000000" not in revision
    assert token.startswith("COMMANDS_TOKEN=knockem_")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = knockem("deploy", "init", tmp_path / "nowhere", home=tmp_path / "home")
    assert refused.returncode == 1
    assert f"{tmp_path / 'nowhere'}" in refused.stderr
    assert "password" not in refused.stdout


def test_the_bucket_is_made_once_and_found_again(tmp_path: Path) -> None:
    token, name = new_token(), f"knockem-{uuid4().hex[:8]}"
    with s3_server() as endpoint:
        for _ in range(2):
            prepared = knockem(
                *("deploy", "prepare"),
                home=tmp_path,
                KNOCKEM_OBJECTS_URL=f"s3://{name}/here",
                KNOCKEM_S3_ENDPOINT=endpoint,
                KNOCKEM_TOKEN=token,
                **CREDENTIALS,
            )
            assert prepared.returncode == 0, prepared.stderr
        with s3_client(endpoint) as client:
            buckets = client.list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets if bucket["Name"].startswith(name)] == [f"{name}-testing"]
    assert list(tmp_path.rglob("runs.db"))
    listed = knockem("token", "list", "--json", home=tmp_path)
    [admitted] = json.loads(listed.stdout)
    assert (admitted["scope"], admitted["label"]) == ("worker", "the service commands")
    assert token not in listed.stdout


def test_what_compose_mounts_is_there(tmp_path: Path) -> None:
    for service in yaml.safe_load(COMPOSE_FILES[0].read_text())["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / "deploy" / volume.split(":")[0]).is_file()
