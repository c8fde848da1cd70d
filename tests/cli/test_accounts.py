"""`user` and `token`: who may use the HTTP API, added, listed and revoked at the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from knockem_dagster.accounts.tokens import MOST_DAYS, token_record
from knockem_dagster.cli.main import app
from knockem_dagster.records.accounts import Scope
from knockem_dagster.stores.documents import Patch
from tests.services.command_line import environment_of
from tests.services.job_play import record_in

ALICE, BOB = "alice@example.org", "bob@example.org"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with two users."""
    home = tmp_path / "home"
    for address in (ALICE, BOB):
        assert run("user", "add", address, home=home).exit_code == 0
    return home


def run(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment_of(home))


def listed(home: Path, *arguments: str) -> list[dict[str, object]]:
    return json.loads(run(*arguments, "--json", home=home).stdout)


def new_token(home: Path, *arguments: str) -> str:
    made = run("token", "add", *arguments, home=home)
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def test_users_are_added_and_listed_with_their_limits(tmp_path: Path) -> None:
    home = tmp_path / "home"
    limits = ("--active-jobs", "12000", "--cpu-hours", "1.5")
    added = run("user", "add", BOB, *limits, home=home)
    assert (added.exit_code, f"./knockem token add {BOB}" in added.stdout) == (0, True)
    assert run("user", "add", ALICE, "--stored-bytes", "0", home=home).exit_code == 0
    heading, *rows = run("user", "list", home=home).stdout.splitlines()
    assert heading.split() == ["user", "active", "jobs", "CPU", "hours", "stored", "bytes"]
    assert [row.split() for row in rows] == [
        [ALICE, "no", "limit", "no", "limit", "0"],
        [BOB, "12,000", "1.5", "no", "limit"],
    ]
    assert listed(home, "user", "list") == [
        {"userEmail": ALICE, "quotas": {"activeJobs": None, "cpuHours": None, "storedBytes": 0}},
        {"userEmail": BOB, "quotas": {"activeJobs": 12000, "cpuHours": 1.5, "storedBytes": None}},
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("user", "add", "carol"), 1, "somebody@somewhere"),
        (("user", "add", ALICE), 1, "already"),
        (("user", "add", "carol@example.org", "--active-jobs", "-1"), 2, "--active-jobs"),
        (
            ("user", "add", "carol@example.org", "--active-jobs", str(1 << 60)),
            1,
            "--active-jobs: 1152921504606846976 is",
        ),
        (("user", "add", "carol@example.org", "--cpu-hours", "nan"), 1, "--cpu-hours: NaN is"),
        (("token", "add", "carol@example.org"), 1, "./knockem user add carol@example.org"),
        (("token", "add", ALICE, "--scope", "king"), 2, "--scope"),
        (("token", "add", ALICE, "--days", "0"), 2, "--days"),
        (("token", "add", ALICE, "--days", str(MOST_DAYS + 1)), 2, "--days"),
        (("token", "list", "carol@example.org"), 1, "no user 'carol@example.org'"),
        (("token", "revoke", "nothing"), 1, "There is no token 'nothing'"),
    ],
)
def test_what_cannot_be_is_explained_and_changes_nothing(
    home: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    refused = run(*arguments, home=home)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert words in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert [each["userEmail"] for each in listed(home, "user", "list")] == [ALICE, BOB]
    assert listed(home, "token", "list") == []


def test_a_token_is_all_of_the_answer_and_told_once(home: Path) -> None:
    made = run("token", "add", ALICE, "--scope", "worker", "--days", "3", "--label", "[bold]node[/]", home=home)
    token = made.stdout.strip()
    until = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    assert f"of scope worker is in force until {until}" in made.stderr
    with record_in(home) as platform:
        record = token_record(platform.records, token)
    assert record is not None
    assert (record.user_email, record.scope, record.for_all) == (ALICE, Scope.WORKER, False)
    shown = run("token", "list", home=home).stdout
    heading, row = (line.split() for line in shown.splitlines())
    assert heading == ["token", "user", "scope", "label", "until", "state"]
    assert row == [record.id[:8], ALICE, "worker", "[bold]node[/]", until, "in", "force"]
    assert listed(home, "token", "list") == [
        {
            "id": record.id,
            "userEmail": ALICE,
            "scope": "worker",
            "label": "[bold]node[/]",
            "expires": record.expires,
            "revoked": None,
        }
    ]
    assert token not in shown + json.dumps(listed(home, "token", "list"))


def test_what_is_done_is_told_to_programs(home: Path) -> None:
    def done(*arguments: str) -> dict[str, object]:
        return json.loads(run(*arguments, "--json", home=home).stdout)

    quotas = {"activeJobs": 3, "cpuHours": None, "storedBytes": None}
    carol = "carol@example.org"
    assert done("user", "add", carol, "--active-jobs", "3") == {"userEmail": carol, "quotas": quotas}
    made = done("token", "add", carol)
    token = made.pop("token")
    assert [made] == listed(home, "token", "list")
    with record_in(home) as platform:
        assert token_record(platform.records, str(token)) is not None
    assert done("token", "revoke", str(made["id"]))["revoked"] is not None


def test_tokens_are_listed_the_newest_first_of_all_or_of_one_user(home: Path) -> None:
    for address in (ALICE, BOB, ALICE):
        new_token(home, address)
    assert [each["userEmail"] for each in listed(home, "token", "list")] == [ALICE, BOB, ALICE]
    assert [each["userEmail"] for each in listed(home, "token", "list", BOB)] == [BOB]
    first, _, last = (each["id"] for each in reversed(listed(home, "token", "list")))
    assert [each["id"] for each in listed(home, "token", "list", ALICE)] == [last, first]


def test_a_token_for_all_is_one_for_all(home: Path) -> None:
    token = new_token(home, ALICE, "--scope", "worker", "--for-all")
    with record_in(home) as platform:
        record = token_record(platform.records, token)
        assert record is not None and record.for_all


def test_a_token_is_revoked_by_its_id_or_by_itself(home: Path) -> None:
    by_itself, by_id = new_token(home, ALICE), new_token(home, ALICE)
    newest = str(listed(home, "token", "list")[0]["id"])
    for given in (by_itself, newest[:8]):
        revoked = run("token", "revoke", given, home=home)
        assert (revoked.exit_code, f"of {ALICE} is revoked" in revoked.stdout) == (0, True), revoked.output
        assert given == newest[:8] or given not in revoked.output
    with record_in(home) as platform:
        assert [token_record(platform.records, token) for token in (by_itself, by_id)] == [None, None]
    assert run("token", "list", home=home).stdout.count("revoked") == 2
    assert None not in [each["revoked"] for each in listed(home, "token", "list")]
    before = listed(home, "token", "list")
    assert run("token", "revoke", by_itself, home=home).exit_code == 0
    assert listed(home, "token", "list") == before, "twice is once"


def test_too_little_of_an_id_revokes_nothing(home: Path) -> None:
    new_token(home, ALICE)
    [id] = (str(each["id"]) for each in listed(home, "token", "list"))
    for given in ("", id[:3]):
        refused = run("token", "revoke", given, home=home)
        assert (refused.exit_code, "at least 4 characters" in refused.stderr) == (1, True)
    assert [each["revoked"] for each in listed(home, "token", "list")] == [None]


def test_a_token_whose_days_are_over_is_expired(home: Path) -> None:
    token = new_token(home, ALICE)
    with record_in(home) as platform:
        record = token_record(platform.records, token)
        assert record is not None
        platform.records.tokens.patch(record.id, Patch(set={"expires": "2020-01-01T00:00:00+00:00"}))
    assert run("token", "list", home=home).stdout.splitlines()[1].split()[-2:] == ["2020-01-01", "expired"]
