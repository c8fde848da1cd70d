"""Whatever is killed, filled up or taken away: a submission ends with the same tables, and nothing is done twice.

KNOCKEM_TEST_KILLS sets how often the campaign kills (5; the full campaign is 50), KNOCKEM_TEST_SEED what and when.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from knockem_dagster.containers.runtimes import has_engine
from tests.end_to_end.campaign import Campaign
from tests.end_to_end.homes import SECONDS_EACH, SLOW_SERVING, Home, set_pace, until

KILLS = int(os.environ.get("KNOCKEM_TEST_KILLS", "5"))
SEED = int(os.environ.get("KNOCKEM_TEST_SEED", "1"))
CONTAINER_KILLS = 5
CANCEL_SECONDS = 10.0
DISK = "24m"
SLOW_IMAGE = "knockem/slow-for-tests"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7_200)]

MakeHome = Callable[..., Home]
Tables = dict[str, bytes]


@pytest.fixture
def make_home(tmp_path: Path) -> Iterator[MakeHome]:
    """Make homes of which nothing is left running."""
    homes: list[Home] = []

    def make(name: str, **options: object) -> Home:
        homes.append(Home.make(tmp_path / name, **options))  # type: ignore[arg-type]
        return homes[-1]

    yield make
    for home in homes:
        home.destroy()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Tables]]:
    """Give the tables of the study with some seed, run without any disturbance in a home of its own."""
    home = Home.make(tmp_path_factory.mktemp("undisturbed") / "reference")
    known: dict[int, Tables] = {}

    def tables_of(seed: int) -> Tables:
        if seed not in known:
            known[seed] = home.tables(home.complete(seed=seed, containerEnv={"EXPLICIT_MODE": Campaign.mode(seed)}))
        return known[seed]

    yield tables_of
    home.destroy()


@pytest.fixture(scope="module")
def slow_image(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """The slow organism as an image; skips where there is no engine."""
    if not has_engine():
        pytest.skip("no container engine answers here")
    request.getfixturevalue("organism_images")
    context = tmp_path_factory.mktemp("image")
    (context / "knockem_serve").write_text(SLOW_SERVING)
    (context / "knockem_serve").chmod(0o755)
    (context / "seconds_each").write_text(str(SECONDS_EACH))
    (context / "Dockerfile").write_text(
        "FROM knockem/explicit\nCOPY knockem_serve /usr/local/bin/knockem_serve\nCOPY seconds_each /usr/seconds_each\n"
    )
    _docker("build", "--tag", SLOW_IMAGE, str(context))
    return SLOW_IMAGE


def test_killed_processes_change_nothing(make_home: MakeHome, undisturbed: Callable[[int], Tables]) -> None:
    home = make_home("bombarded", seconds_each=SECONDS_EACH)
    campaign = Campaign(home, random.Random(SEED))
    campaign.run(KILLS)
    assert campaign.blows.total() == KILLS
    assert home.down() == 0
    assert home.processes() == {}
    studies = home.submissions()
    assert_nothing_ran_twice(home)
    assert ids_of(home, "competitionAttempts") == ids_of(home, "competitionAttemptResults")
    for id, submission in studies.items():
        assert submission["state"] == "completed"
        assert home.tables(id) == undisturbed(submission["seed"]), f"seed {submission['seed']}"


def test_a_study_killed_while_it_weighs_and_enumerates_ends_like_another(make_home: MakeHome) -> None:
    """What these assays ask rests on thousands of earlier answers: a killed run must come to the same questions."""
    noisy = {"assayTypes": None, "containerEnv": {"EXPLICIT_MODE": "wright-fisher"}, "resolution": 0.3}
    calm, struck = make_home("calm"), make_home("struck", seconds_each=0.003)
    undisturbed = calm.tables(calm.complete(**noisy))
    id = struck.submit(**noisy)
    for number in (60, 300, 700):  # amid the null, the weighing and the enumeration
        run = struck.start("resume", id, "--wait")
        until(lambda number=number: struck.num_results() >= number, f"{number} results")
        assert run.poll() is None, "the study was over before it was struck"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        until(lambda: struck.submissions()[id]["lease"]["until"] < time.time(), "the lease of the dead to end")
    done = struck.command("resume", id, "--wait")
    assert done.returncode == 0, done.stderr
    assert struck.tables(id) == undisturbed
    assert_nothing_ran_twice(struck)


@pytest.mark.docker
def test_killed_containers_change_nothing(
    make_home: MakeHome, slow_image: str, undisturbed: Callable[[int], Tables]
) -> None:
    home = make_home("home")
    id = home.submit(containerImage=slow_image, containerRuntime="docker")
    moments = random.Random(SEED)
    run = home.start("resume", id, "--wait")
    for _ in range(CONTAINER_KILLS):
        until(lambda: run.poll() is not None or containers_of(id), "a container")
        assert run.poll() is None, "the submission was over before its containers were killed"
        time.sleep(moments.uniform(0.0, 0.8))
        for container in containers_of(id):
            subprocess.run(["docker", "kill", container], capture_output=True, check=False)
    assert run.wait(240) == 0
    assert measured(home.tables(id)) == measured(undisturbed(1))
    assert_nothing_ran_twice(home)
    outcomes = Counter(result["outcome"] for result in home.documents_of("competitionAttemptResults"))
    assert outcomes["lost"] > 0
    assert containers_of(id) == []


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    make_home: MakeHome, undisturbed: Callable[[int], Tables]
) -> None:
    home = make_home("home", seconds_each=SECONDS_EACH)
    with small_disk(home.path):
        id = home.submit()
        run = home.start("resume", id, "--wait")
        until(lambda: len(home.documents_of("competitionResults")) > 50, "some results")
        ballast = fill(home.path)
        assert run.wait(120) == 1
        said = (home.folder / "output").read_text()
        assert "the disk is full: free some space" in said
        assert "Traceback" not in said
        assert_nothing_ran_twice(home)
        for content in (home.tables(id) if home.documents_of("assayResults") else {}).values():
            assert pq.read_table(io.BytesIO(content)).num_rows > 0
        ballast.unlink()
        set_pace(home.folder, 0.0)
        resumed = home.command("resume", id, "--wait")
        assert resumed.returncode == 0, resumed.stderr
        assert home.tables(id) == undisturbed(1)
        assert_nothing_ran_twice(home)
        home.destroy()


@pytest.mark.parametrize("runtime", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_cancel_ends_all_containers_within_seconds(
    make_home: MakeHome, runtime: str, request: pytest.FixtureRequest
) -> None:
    home = make_home("home", seconds_each=0.5)
    image = "slow" if runtime == "process" else request.getfixturevalue("slow_image")
    id = home.submit(containerImage=image, containerRuntime=runtime, skeletons=50)
    run = home.start("resume", id, "--wait")

    def containers() -> object:
        return home.serving_processes() if runtime == "process" else containers_of(id)

    until(lambda: containers() and home.documents_of("competitionResults"), "a container at work")
    began = time.monotonic()
    canceled = home.command("cancel", id)
    assert canceled.returncode == 0, canceled.stderr
    until(lambda: not containers(), "the containers to be gone", seconds=CANCEL_SECONDS)
    assert time.monotonic() - began < CANCEL_SECONDS
    assert run.wait(60) == 1
    assert containers() == []
    assert home.submissions()[id]["state"] == "canceled"
    until(home.nothing_is_under_way, "Dagster to notice")


def test_purge_leaves_the_id_in_no_file_whether_or_not_up_runs(make_home: MakeHome) -> None:
    home = make_home("home")
    home.up()
    stays, goes = home.submit(seed=1), home.submit(seed=2)
    until(home.is_finished, "both submissions to be completed")
    before = home.tables(stays)
    assert files_with(home, goes), "the search itself must be able to find something"
    purged = home.command("purge", "--yes", goes)
    assert purged.returncode == 0, purged.stderr
    assert goes in purged.stdout
    until(lambda: not files_with(home, goes), f"{goes} to be in no file", seconds=20)
    assert files_with(home, stays)
    assert home.tables(stays) == before
    assert home.down() == 0
    assert files_with(home, goes) == []
    assert home.processes() == {}
    assert home.command("report", stays).returncode == 0
    assert files_with(home, stays)
    purged = home.command("purge", "--yes", stays)
    assert purged.returncode == 0, purged.stderr
    assert files_with(home, stays) == []


def test_without_its_truth_every_table_is_the_same(make_home: MakeHome, undisturbed: Callable[[int], Tables]) -> None:
    silent = make_home("silent", tells_truth=False)
    id = silent.complete(seed=1)
    assert measured(silent.tables(id)) == measured(undisturbed(1))
    assert not list(silent.data.rglob("truth.json"))


def measured(tables: Tables) -> Tables:
    """Return the tables but for that which names the organism and its digest: another organism did the same work."""
    return {name: content for name, content in tables.items() if name != "study.parquet"}


def assert_nothing_ran_twice(home: Home) -> None:
    """Check that each answer comes from exactly one success, and that nothing was tried after it was recorded."""
    results = {result["id"]: result for result in home.documents_of("competitionResults")}
    attempts = home.documents_of("competitionAttempts")
    ended = {result["id"]: result for result in home.documents_of("competitionAttemptResults")}
    late = [each for each in attempts if each["competitionId"] in results and is_after(each, results)]
    assert late == []
    succeeded = Counter(result["competitionId"] for result in ended.values() if result["outcome"] == "succeeded")
    assert succeeded == dict.fromkeys(results, 1)
    assert all(result["competitionAttemptId"] in ended for result in results.values())


def ids_of(home: Home, collection: str) -> set[str]:
    """Return the ids of all documents of a collection."""
    return {document["id"] for document in home.documents_of(collection)}


def is_after(attempt: dict[str, str], results: dict[str, dict[str, str]]) -> bool:
    """Tell whether an attempt began after its competition's result was recorded."""
    return attempt["datetime"] > results[attempt["competitionId"]]["datetime"]


def containers_of(submission_id: str) -> list[str]:
    """Return the containers of a submission that run now."""
    found = _docker("ps", "--quiet", "--filter", f"label=knockem.submission={submission_id}")
    return found.split()


def files_with(home: Home, text: str) -> list[str]:
    """Return the files below the home that hold a text."""
    found: list[str] = []
    for path in home.path.rglob("*"):
        try:
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path.relative_to(home.path)))
        except FileNotFoundError:
            continue
    return found


@contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Mount a small file system at a folder; skips where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system of a folder to the last byte with one file; return that file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
