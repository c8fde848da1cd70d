"""Job logs over HTTP: Galaxy's uploader, our own way, and what must be refused."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import requests

from knockem_dagster.joblogs.ledger import Ledger, archive_key
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.joblogs import ReportState
from tests.services.api_server import ADMINISTRATOR, ApiServer
from tests.services.joblogs import REAL
from tests.services.uploads import form_of, raw_request, reports_path

GALAXY = "usegalaxy.example.org"
PAGE = Path(__file__).parents[3] / "docs" / "job-logs.md"
INSTANCE = "73963672-455e-5e8d-a714-71ad52a4de27"


def reports_in(**states: int) -> dict[str, int]:
    """Return how many reports are in each state."""
    return {state.value: states.get(state.value, 0) for state in ReportState}


def upload_as_galaxy(url: str, instance: str, key: str, folder: Path) -> list[int]:
    """Make the requests that Galaxy's scripts/grt/upload.py makes; return what was answered."""
    headers = {"AUTHORIZATION": f"{instance}:{key}"}
    there = requests.post(f"{url}/api/whoami", headers=headers).json()["uploaded_reports"]
    answered: list[int] = []
    for name in sorted(path.name.removesuffix(".json") for path in folder.glob("*.json")):
        if name not in there:
            with (folder / f"{name}.json").open("rb") as meta, (folder / f"{name}.tar.gz").open("rb") as data:
                sent = requests.post(
                    f"{url}/api/v2/upload",
                    files={"meta": meta, "data": data},
                    headers=headers,
                    data={"identifier": name},
                )
            answered.append(sent.status_code)
    return answered


def test_galaxys_uploader_sends_each_report_once(api: ApiServer, instance: dict[str, str], tmp_path: Path) -> None:
    for number, archive in enumerate(REAL):
        (tmp_path / f"{number}.08.tar.gz").symlink_to(archive)
        (tmp_path / f"{number}.08.json").symlink_to(archive.with_name(archive.name.replace(".tar.gz", ".json")))
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == [201, 201]
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == []
    ledger = Ledger(api.platform.records, api.platform.objects)
    loaded = ledger.read_all(instance["id"])
    assert sorted(report.jobs for report in loaded) == [98, 1970]
    for report in loaded:
        stored = api.platform.objects.get(archive_key(report))
        assert hashlib.sha256(stored).hexdigest() == report.archive_digest
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == []


def test_galaxys_uploader_sends_nothing_that_is_in_use_by_another_name_or_was_dismissed(
    api: ApiServer, instance: dict[str, str], tmp_path: Path
) -> None:
    for name in ("a", "twin"):
        (tmp_path / f"{name}.tar.gz").symlink_to(REAL[0])
        (tmp_path / f"{name}.json").symlink_to(REAL[0].with_name("0.json"))
    (tmp_path / "bad.tar.gz").symlink_to(REAL[1])
    (tmp_path / "bad.json").write_text("{}")
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == [201, 201, 201]
    ledger = Ledger(api.platform.records, api.platform.objects)
    read = {each.name: each for each in ledger.read_all(instance["id"])}
    assert [read[name].state for name in ("a", "bad", "twin")] == ["loaded", "quarantined", "quarantined"]
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == [200], "the bad one"
    for name in ("bad", "twin"):
        ledger.dismiss(read[name])
    assert upload_as_galaxy(api.url, instance["id"], instance["token"], tmp_path) == []
    client = api.client(token=instance["token"])
    told = {
        each["name"]: (each["state"], each["quarantine"]) for each in client.get(reports_path(instance)).json()["items"]
    }
    assert told == {"a": ("loaded", None), "bad": ("dismissed", None), "twin": ("dismissed", None)}


def test_what_was_sent_is_told_and_sending_it_again_changes_nothing(
    sender: httpx.Client, instance: dict[str, str]
) -> None:
    path = reports_path(instance)
    first = sender.post(path, files=form_of(REAL[0]))
    assert (first.status_code, first.json()["state"]) == (201, "received")
    [listed] = sender.get(path).json()["items"]
    assert listed == first.json()
    assert sender.post(path, files=form_of(REAL[0])).json() == first.json()
    seen = sender.get(f"/v1/jobLogs/instances/{instance['id']}").json()
    assert (seen["reports"], seen["mayUpload"]) == (reports_in(received=1), True)


def test_something_else_under_the_name_of_a_report_in_use_is_refused_and_kept(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    path = reports_path(instance)
    sender.post(path, files=form_of(REAL[0]))
    Ledger(api.platform.records, api.platform.objects).read_all(instance["id"])
    other = form_of(REAL[1]) | {"identifier": form_of(REAL[0])["identifier"]}
    refused = sender.post(path, files=other)
    assert refused.status_code == 409
    states = {each["state"]: each["quarantine"] for each in sender.get(path).json()["items"]}
    assert states == {"loaded": None, "quarantined": refused.json()["detail"]}
    assert sender.post(path, files=form_of(REAL[0])).status_code == 200


@pytest.mark.parametrize("path", ["", "/reports"])
@pytest.mark.parametrize("token", ["", "knockem_wrong"])
def test_without_the_instances_token_nothing_is_answered(
    api: ApiServer, instance: dict[str, str], path: str, token: str
) -> None:
    stranger = api.client(token=token)
    place = f"/v1/jobLogs/instances/{instance['id']}{path}"
    assert stranger.get(place).status_code == 401
    assert stranger.post(reports_path(instance), files=form_of(REAL[0])).status_code == 401
    assert list(api.platform.objects.list(f"joblogs/raw/{instance['id']}")) == []


def test_another_instances_token_permits_nothing(
    api: ApiServer, instance: dict[str, str], another: dict[str, str]
) -> None:
    assert api.client(token=another["token"]).get(reports_path(instance)).status_code == 401
    assert (
        requests.post(
            f"{api.url}/api/whoami", headers={"Authorization": f"{instance['id']}:{another['token']}"}
        ).status_code
        == 401
    )
    assert api.client(token=another["token"]).get("/v1/submissions").status_code == 401


def test_a_revoked_token_permits_nothing_and_another_can_be_had(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    administrator = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    again = administrator.post("/v1/jobLogs/instances", json={"name": GALAXY})
    assert again.status_code == 409 and instance["id"] in again.json()["detail"]
    administrator.delete(f"/v1/jobLogs/instances/{instance['id']}/token")
    assert sender.get(reports_path(instance)).status_code == 401
    new = administrator.post("/v1/jobLogs/instances", json={"name": GALAXY}).json()
    assert new["id"] == instance["id"]
    assert api.client(token=new["token"]).get(reports_path(instance)).status_code == 200


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"identifier": ("", b"../../etc/passwd")}, "letters, digits"),
        ({"identifier": ("", b"/etc/passwd")}, "letters, digits"),
        ({"identifier": ("", b"0/../../../1")}, "letters, digits"),
        ({"identifier": ("", b"0\0.tar.gz")}, "letters, digits"),
        ({"identifier": ("", b"")}, "letters, digits"),
        ({"data": None}, "without data"),
        ({"more": ("", b"x")}, "a part 'more'"),
    ],
)
def test_what_is_no_report_is_refused_and_told_in_the_quarantine(
    api: ApiServer,
    sender: httpx.Client,
    instance: dict[str, str],
    changed: dict[str, tuple[str, bytes] | None],
    why: str,
) -> None:
    form = {part: content for part, content in {**form_of(REAL[0]), **changed}.items() if content is not None}
    sent = sender.post(reports_path(instance), files=form)
    assert sent.status_code == 422 and why in sent.text
    [told] = sender.get(reports_path(instance)).json()["items"]
    assert told["state"] == "quarantined" and why in told["quarantine"]
    assert list(api.platform.objects.list(f"joblogs/raw/{instance['id']}")) == []


def test_a_refused_report_arrives_when_it_is_sent_rightly(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    with raw_request(api, instance, length=10 << 30) as connection:
        assert b" 413 " in connection.recv(4096)
    assert (
        sender.post(reports_path(instance), files=form_of(REAL[0]) | {"identifier": ("", b"large")}).status_code == 201
    )
    [report] = Ledger(api.platform.records, api.platform.objects).read_all(instance["id"])
    assert (report.name, report.state) == ("large", ReportState.LOADED)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is missing")
def test_the_examples_of_the_page_do_what_it_says(api: ApiServer, instance: dict[str, str], tmp_path: Path) -> None:
    for path in REAL[0].parent.iterdir():
        (tmp_path / path.name).symlink_to(path)
    script = "\n".join(["set -euo pipefail", *re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.M | re.S)])
    theirs = {"http://127.0.0.1:3001": api.url, "knockem_...": instance["token"], INSTANCE: instance["id"]}
    for example, real in theirs.items():
        assert example in script
        script = script.replace(example, real)
    ended = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith('"0"\n"received"\nnull\n')


def test_users_who_are_no_administrators_register_nobody(api: ApiServer) -> None:
    assert api.client().post("/v1/jobLogs/instances", json={"name": "x"}).status_code == 403
    assert api.client().get("/v1/jobLogs/instances").status_code == 403


def test_tables_are_for_the_instance_itself_and_for_administrators(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    sender.post(reports_path(instance), files=form_of(REAL[0]))
    Marts(api.platform.records, api.platform.objects).refresh(instance["id"])
    place = f"/v1/jobLogs/instances/{instance['id']}/tables"
    whole = sender.get(f"{place}/tools", params={"limit": 1000}).json()
    assert whole["number"] == len(whole["rows"]) > 10 and whole["next"] is None
    assert [column["name"] for column in whole["columns"]][:2] == ["tool", "tool_id"]
    first = sender.get(f"{place}/tools", params={"limit": 7}).json()
    second = sender.get(f"{place}/tools", params={"limit": 7, "cursor": first["next"]}).json()
    assert first["rows"] + second["rows"] == whole["rows"][:14]
    assert api.client(ADMINISTRATOR, Scope.ADMINISTRATOR).get(f"{place}/tools?limit=1000").json() == whole
    assert api.client().get(f"{place}/tools").status_code == 401
    assert sender.get(f"{place}/nothing").status_code == 404
    assert sender.get(f"{place}/versions", params={"tool": "nothing"}).status_code == 404
    assert api.client().get("/v1/jobLogs/tables/tools").json()["rows"] == []
    assert sender.get("/v1/jobLogs/tables/tools").status_code == 401


def test_what_is_recommended_is_given_as_soon_as_there_are_marts(
    api: ApiServer, sender: httpx.Client, instance: dict[str, str]
) -> None:
    place = f"/v1/jobLogs/instances/{instance['id']}/tools.yml"
    assert sender.get(place).status_code == 404
    sender.post(reports_path(instance), files=form_of(REAL[0]))
    marts = Marts(api.platform.records, api.platform.objects)
    marts.refresh(instance["id"])
    made = sender.get(place)
    assert (made.status_code, made.headers["content-type"]) == (200, "application/yaml")
    assert made.text.startswith(f'# Recommended from the jobs of "{GALAXY}"')
    marts.keep(instance["id"], marts.generation_of(instance["id"]), "tools.yml", b"tools: {}\n")
    found = sender.get(place)
    assert (found.text, found.headers["content-type"]) == ("tools: {}\n", "application/yaml")
    assert api.client().get(place).status_code == 401
    marts.refresh(instance["id"], again=True)
    assert sender.get(place).text == made.text, "what was kept was of other marts"
