"""The example organisms keep the container contract: their commands, run directly as a launcher would."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
ORGANISMS = ROOT / "deploy" / "organisms"
KNOCKEM_PACKAGE = ROOT / "knockem_dagster" / "containers" / "knockem_package"
DEMO_GENOME = (ORGANISMS / "explicit" / "demo_genome.json").read_text()
ADDITIVE_GENOME = (ORGANISMS / "additive" / "genome.txt").read_text()

SMALL: dict[str, Any] = {
    "sites": 8,
    "effects": {"0": 1.5, "2": 0.6, "5": 0.7, "7": -2.0},
    "sets": [{"sites": [1, 2], "penalty": 0.9}, {"sites": [3, 4, 5], "penalty": 1.25}],
}


def environment(organism: str, **settings: str) -> dict[str, str]:
    """A clean environment in which the organism's commands, and this interpreter's python3, are found."""
    path = os.pathsep.join([str(ORGANISMS / organism), str(Path(sys.base_prefix) / "bin"), "/usr/bin", "/bin"])
    return {"PATH": path, "PYTHONPATH": str(KNOCKEM_PACKAGE), "PYTHONDONTWRITEBYTECODE": "1", **settings}


def run(
    organism: str, command: str, *arguments: str, content: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ORGANISMS / organism / command, *arguments],
        input=content,
        env=environment(organism, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def output(organism: str, command: str, *arguments: str, content: str) -> str:
    ended = run(organism, command, *arguments, content=content)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def compete(
    organism: str, tmp_path: Path, *, alpha: str, beta: str, seed: int, attempt: str = "attempt", **settings: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any] | None]:
    """Run one competition as the contract says; return how it ended and what it reported."""
    (tmp_path / "alpha").write_text(alpha)
    (tmp_path / "beta").write_text(beta)
    result = tmp_path / "result.json"
    result.unlink(missing_ok=True)
    ended = run(
        organism,
        "knockem_compete_two",
        KNOCKEM_GENOMES=str(tmp_path),
        KNOCKEM_RESULT=str(result),
        KNOCKEM_GENOME_ID_ALPHA="alpha",
        KNOCKEM_GENOME_ID_BETA="beta",
        KNOCKEM_COMPETITION_ATTEMPT_ID=attempt,
        KNOCKEM_SEED=str(seed),
        **settings,
    )
    return ended, json.loads(result.read_text()) if result.exists() else None


class Serving:
    """A running knockem_serve, asked one request at a time."""

    def __init__(self, organism: str, **settings: str) -> None:
        self.process = subprocess.Popen(
            [ORGANISMS / organism / "knockem_serve"],
            env=environment(organism, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.asked = 0

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, op: str, **content: object) -> dict[str, Any]:
        self.asked += 1
        self.send(json.dumps({"id": f"r{self.asked}", "op": op, **content}).encode() + b"\n")
        answer = self.receive()
        assert answer.pop("id") == f"r{self.asked}"
        return answer

    def close(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def exact() -> Iterator[Serving]:
    serving = Serving("explicit", EXPLICIT_MODE="exact")
    serving.ask("genome", genome="small", content=json.dumps(SMALL))
    yield serving
    assert serving.close() == 0


@pytest.fixture(scope="module")
def wright_fisher() -> Iterator[Serving]:
    serving = Serving("explicit")
    genome = {"sites": 4, "effects": {"0": 1.0, "1": -1.0, "2": 100.0}}
    serving.ask("genome", genome="wild", content=json.dumps(genome))
    for site, name in enumerate(("loses", "wins", "dies", "neutral")):
        serving.ask("knockout", genome=name, parent="wild", sites=[site])
    yield serving
    assert serving.close() == 0


def true_effect(sites: set[int]) -> float:
    """The effect of a knockout of SMALL, from the definition in the design of the reference organism."""
    additive = sum(SMALL["effects"].get(str(site), 0) for site in sites)
    return additive + sum(entry["penalty"] for entry in SMALL["sets"] if set(entry["sites"]) <= sites)


knockouts = st.sets(st.integers(0, SMALL["sites"] - 1))


# -- the one-shot commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("organism", "genome", "sites"),
    [("explicit", DEMO_GENOME, 1000), ("unruly", DEMO_GENOME, 1000), ("additive", ADDITIVE_GENOME, 50)],
)
def test_organisms_count_sites_before_and_after_knockouts(organism: str, genome: str, sites: int) -> None:
    last = str(sites - 1)
    knocked_out = output(organism, "knockem_apply_knockout", "0", "5", last, content=genome)

    assert output(organism, "knockem_count_sites", content=genome) == f"{sites}\n"
    assert output(organism, "knockem_count_sites", content=knocked_out) == f"{sites}\n"
    assert knocked_out != genome
    assert output(organism, "knockem_apply_knockout", content=genome) == genome
    stepwise = output(organism, "knockem_apply_knockout", "5", last, content=genome)
    assert output(organism, "knockem_apply_knockout", "0", last, content=stepwise) == knocked_out


@pytest.mark.parametrize(
    "genome",
    [
        "not JSON",
        "[1, 2]",
        "{}",
        '{"sites": 0}',
        '{"sites": "8"}',
        '{"sites": 8, "effect": {}}',
        '{"sites": 8, "effects": {"8": 1}}',
        '{"sites": 8, "effects": {"-1": 1}}',
        '{"sites": 8, "effects": {"1": "much"}}',
        '{"sites": 8, "effects": {"1": NaN}}',
        '{"sites": 8, "effects": [1]}',
        '{"sites": 8, "sets": [{"sites": [1, 1], "penalty": 1}]}',
        '{"sites": 8, "sets": [{"sites": [], "penalty": 1}]}',
        '{"sites": 8, "sets": [{"sites": [9], "penalty": 1}]}',
        '{"sites": 8, "sets": [{"sites": [1]}]}',
        '{"sites": 8, "knockouts": "1ff"}',
        '{"sites": 8, "knockouts": "x"}',
    ],
)
def test_explicit_refuses_a_bad_genome_with_a_message(genome: str) -> None:
    ended = run("explicit", "knockem_count_sites", content=genome)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("genome", ["", "abc\n", "1\n\n2\n", "1 2\n"])
def test_additive_refuses_a_bad_genome_with_a_message(genome: str) -> None:
    ended = run("additive", "knockem_count_sites", content=genome)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize(("organism", "genome"), [("explicit", json.dumps(SMALL)), ("additive", "1\n" * 8)])
@pytest.mark.parametrize("site", ["8", "-1", "one", "1.5"])
def test_organisms_refuse_a_site_they_have_not(organism: str, genome: str, site: str) -> None:
    ended = run(organism, "knockem_apply_knockout", "1", site, content=genome)

    assert ended.returncode == 2
    assert "site" in ended.stderr.lower()


def test_additive_replaces_exactly_the_knocked_out_lines_whatever_their_number() -> None:
    genome = "".join(f"{line}.5\n" for line in range(10_000))
    sites = range(1, 10_000, 2)

    knocked_out = output("additive", "knockem_apply_knockout", *map(str, sites), content=genome).splitlines()

    assert knocked_out == [f"{line}.5" if line % 2 == 0 else "0" for line in range(10_000)]


def test_explicit_describes_its_truth_also_when_knocked_out() -> None:
    knocked_out = output("explicit", "knockem_apply_knockout", "0", "1", content=json.dumps(SMALL))

    truth = json.loads(output("explicit", "knockem_describe_truth", content=knocked_out))

    assert truth == {"effects": SMALL["effects"], "sets": [entry["sites"] for entry in SMALL["sets"]]}


def test_additive_has_neither_truth_nor_server() -> None:
    commands = sorted(path.name for path in (ORGANISMS / "additive").glob("knockem_*"))

    assert commands == ["knockem_apply_knockout", "knockem_compete_two", "knockem_count_sites"]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [({"EXPLICIT_MODE": "precise"}, "EXPLICIT_MODE"), ({"KNOCKEM_SEED": "x"}, "KNOCKEM_SEED"), ({}, "KNOCKEM_GENOME")],
)
def test_explicit_names_the_setting_it_cannot_use(tmp_path: Path, settings: dict[str, str], missing: str) -> None:
    (tmp_path / "wild").write_text(DEMO_GENOME)
    genomes = {"KNOCKEM_GENOMES": str(tmp_path), "KNOCKEM_GENOME_ID_ALPHA": "wild", "KNOCKEM_GENOME_ID_BETA": "wild"}

    ended = run("explicit", "knockem_compete_two", **(genomes | settings if settings else {}))

    assert ended.returncode == 2
    assert missing in ended.stderr


# -- exact competitions ------------------------------------------------------------------------------------------


@given(alpha=knockouts, beta=knockouts, seed=st.integers(0, 2**63 - 1))
def test_exact_counts_tell_the_effect_between_any_two_genomes(
    exact: Serving, alpha: set[int], beta: set[int], seed: int
) -> None:
    exact.ask("knockout", genome="alpha", parent="small", sites=sorted(alpha))
    exact.ask("knockout", genome="beta", parent="small", sites=sorted(beta))

    counts = exact.ask("compete_two", alpha="alpha", beta="beta", seed=seed)
    swapped = exact.ask("compete_two", alpha="beta", beta="alpha", seed=seed + 1)

    effect = round(true_effect(beta) - true_effect(alpha), 9)
    detected = 0 if abs(effect) < 1 else max(-4, min(4, effect))
    assert counts["updatesElapsed"] == 1
    assert counts["numAlpha"] + counts["numBeta"] == 1_000_000
    assert counts["numAlpha"] == pytest.approx(1e6 * (1 + detected / 4) / 2, abs=1.5)
    assert min(counts["numAlpha"], counts["numBeta"]) >= 1
    assert (swapped["numAlpha"], swapped["numBeta"]) == (counts["numBeta"], counts["numAlpha"])


@given(first=knockouts, second=knockouts)
def test_a_knockout_of_a_knockout_is_the_knockout_of_both(exact: Serving, first: set[int], second: set[int]) -> None:
    exact.ask("knockout", genome="both", parent="small", sites=sorted(first | second))
    exact.ask("knockout", genome="first", parent="small", sites=sorted(first))
    exact.ask("knockout", genome="stepwise", parent="first", sites=sorted(second))

    stepwise, both = (exact.ask("compete_two", alpha="small", beta=beta, seed=1) for beta in ("stepwise", "both"))

    assert stepwise == both


# -- Wright-Fisher competitions ----------------------------------------------------------------------------------


def differences(serving: Serving, beta: str, seeds: Sequence[int]) -> list[float]:
    """fracAlpha - fracBeta of the wild type against `beta`, one for each seed."""
    answers = [serving.ask("compete_two", alpha="wild", beta=beta, seed=seed) for seed in seeds]
    assert all(answer["numAlpha"] + answer["numBeta"] == 1000 for answer in answers)
    assert {answer["updatesElapsed"] for answer in answers} == {100}
    return [(answer["numAlpha"] - answer["numBeta"]) / 1000 for answer in answers]


def test_wright_fisher_has_the_noise_and_shift_of_the_reference_organism(wright_fisher: Serving) -> None:
    n = 1000
    null = differences(wright_fisher, "neutral", range(n))
    losing = differences(wright_fisher, "loses", range(n, 2 * n))
    winning = differences(wright_fisher, "wins", range(2 * n, 3 * n))

    deviation = statistics.stdev(null)
    assert deviation == pytest.approx(math.sqrt(1 - 0.999**100), abs=4 * deviation / math.sqrt(2 * n))
    assert statistics.mean(null) == pytest.approx(0, abs=4 * deviation / math.sqrt(n))
    for sign, sample in ((1, losing), (-1, winning)):
        margin = 4 * statistics.stdev(sample) / deviation / math.sqrt(n)
        assert statistics.mean(sample) / deviation == pytest.approx(sign * 2.244, abs=margin)
    false_positives = sum(difference > 2.326 * 0.309 for difference in null) / n
    assert 0.002 < false_positives < 0.015


def test_wright_fisher_ends_with_one_side_when_the_other_cannot_live(wright_fisher: Serving) -> None:
    assert differences(wright_fisher, "dies", [1, 2, 3]) == [1.0, 1.0, 1.0]


def test_wright_fisher_repeats_a_competition_by_its_seed(wright_fisher: Serving) -> None:
    seeds = [1, 2, 2**62 + 1, 2**63 - 1]
    once = differences(wright_fisher, "loses", seeds)

    assert differences(wright_fisher, "loses", seeds) == once
    assert len(set(once)) == len(seeds)


@pytest.mark.parametrize("mode", ["exact", "wright-fisher"])
def test_one_shot_and_served_competitions_agree(tmp_path: Path, mode: str) -> None:
    background = output("explicit", "knockem_apply_knockout", *map(str, range(0, 300)), content=DEMO_GENOME)
    challenger = output("explicit", "knockem_apply_knockout", *map(str, range(300, 420)), content=background)
    serving = Serving("explicit", EXPLICIT_MODE=mode)
    serving.ask("genome", genome="wild", content=DEMO_GENOME)
    serving.ask("knockout", genome="background", parent="wild", sites=list(range(0, 300)))
    serving.ask("knockout", genome="challenger", parent="background", sites=list(range(300, 420)))

    for seed in (3, 2**63 - 1):
        ended, reported = compete(
            "explicit", tmp_path, alpha=background, beta=challenger, seed=seed, EXPLICIT_MODE=mode
        )
        assert ended.returncode == 0, ended.stderr
        assert reported == serving.ask("compete_two", alpha="background", beta="challenger", seed=seed)
        assert reported is not None and reported["numAlpha"] > reported["numBeta"]
    serving.close()


# -- serving -----------------------------------------------------------------------------------------------------


def test_serving_says_hello_and_states_its_unit_only_without_noise(exact: Serving, wright_fisher: Serving) -> None:
    assert exact.ask("hello", protocol=1) == {"protocol": 1, "unit": 0.25}
    assert wright_fisher.ask("hello", protocol=1) == {"protocol": 1}


@pytest.mark.parametrize(
    "request_content",
    [
        {"op": "knockout", "genome": "bad", "parent": "small", "sites": [8]},
        {"op": "knockout", "genome": "bad", "parent": "small", "sites": [-1]},
        {"op": "knockout", "genome": "bad", "parent": "small", "sites": ["1"]},
        {"op": "knockout", "genome": "bad", "parent": "small", "sites": [1.0]},
        {"op": "knockout", "genome": "bad", "parent": "small", "sites": None},
        {"op": "knockout", "genome": "bad", "parent": "unknown", "sites": [1]},
        {"op": "genome", "genome": "bad", "content": '{"sites": 0}'},
        {"op": "genome", "genome": "bad", "content": 3},
        {"op": "compete_two", "alpha": "small", "beta": "unknown", "seed": 1},
        {"op": "compete_two", "alpha": "small", "beta": "small"},
        {"op": "dance"},
        {},
    ],
)
def test_a_bad_request_fails_alone(exact: Serving, request_content: dict[str, Any]) -> None:
    exact.send(json.dumps({"id": "bad", **request_content}).encode() + b"\n")
    answer = exact.receive()

    assert answer["id"] == "bad"
    assert answer["error"]
    assert "error" in exact.ask("count_sites", genome="bad")
    assert exact.ask("count_sites", genome="small") == {"sites": 8}


def test_serving_answers_lines_however_they_are_cut(exact: Serving) -> None:
    lines = b"".join(b'{"id": %d, "op": "count_sites", "genome": "small"}\n' % number for number in range(50))

    for start in range(0, len(lines), 333):
        exact.send(lines[start : start + 333])

    assert [exact.receive() for _ in range(50)] == [{"sites": 8, "id": number} for number in range(50)]


def test_serving_forgets_what_it_is_told_to(exact: Serving) -> None:
    exact.ask("knockout", genome="short-lived", parent="small", sites=[1])
    assert exact.ask("count_sites", genome="short-lived") == {"sites": 8}

    assert exact.ask("forget", genomes=["short-lived", "never known"]) == {}
    assert "error" in exact.ask("count_sites", genome="short-lived")


# -- additive ----------------------------------------------------------------------------------------------------


def test_additive_reports_through_the_mounted_package(tmp_path: Path) -> None:
    sites = [site for site, line in enumerate(ADDITIVE_GENOME.splitlines()) if float(line) >= 1]
    knocked_out = output("additive", "knockem_apply_knockout", *map(str, sites), content=ADDITIVE_GENOME)

    competitions = [
        compete("additive", tmp_path, alpha=ADDITIVE_GENOME, beta=beta, seed=seed)
        for beta, seed in ((knocked_out, 7), (ADDITIVE_GENOME, 7), (ADDITIVE_GENOME, 7), (ADDITIVE_GENOME, 8))
    ]

    assert [ended.returncode for ended, _ in competitions] == [0] * 4, competitions[0][0].stderr
    losing, null, null_again, other_seed = (result for _, result in competitions)
    assert losing is not None and null is not None and other_seed is not None
    assert losing["numAlpha"] > 950 and losing["numAlpha"] + losing["numBeta"] == pytest.approx(1000, abs=1)
    assert 250 < null["numAlpha"] < 750
    assert null == null_again
    assert null != other_seed
    assert all(isinstance(null[name], int) for name in ("numAlpha", "numBeta")), "fractional counts are rounded"


def test_additive_fails_when_a_genome_cannot_be_fetched(tmp_path: Path) -> None:
    ended = run(
        "additive",
        "knockem_compete_two",
        KNOCKEM_GENOMES=str(tmp_path),
        KNOCKEM_RESULT=str(tmp_path / "result.json"),
        KNOCKEM_GENOME_ID_ALPHA="missing",
        KNOCKEM_GENOME_ID_BETA="missing",
        KNOCKEM_SEED="1",
    )

    assert ended.returncode != 0
    assert "missing" in ended.stderr
    assert not (tmp_path / "result.json").exists()


# -- unruly ------------------------------------------------------------------------------------------------------


def test_unruly_has_its_troubles_at_the_stated_rates() -> None:
    n = 3000
    serving = Serving("unruly", UNRULY_SALT="rates", UNRULY_SECONDS="0")
    serving.ask("genome", genome="wild", content=DEMO_GENOME)
    answers = [serving.ask("compete_two", alpha="wild", beta="wild", seed=seed) for seed in range(n)]
    serving.close()

    def share(condition: Callable[[dict[str, Any]], bool]) -> float:
        return sum(map(condition, answers)) / n

    def nonsense(answer: dict[str, Any]) -> bool:
        beta, alpha = answer.get("numBeta", 0), answer.get("numAlpha", 1)
        malformed = not isinstance(beta, int) or beta < 0  # also NaN, which is a float
        return malformed or alpha == beta == 0 or answer.get("updatesElapsed") == 0

    assert share(lambda answer: "error" in answer) == pytest.approx(0.05, abs=0.016)
    assert share(nonsense) == pytest.approx(0.02 * 0.95, abs=0.008)
    assert share(lambda answer: answer.get("numBeta") == 0 and answer["numAlpha"] > 0) == pytest.approx(0.01, abs=0.006)
    updates = [answer["updatesElapsed"] for answer in answers if answer.get("updatesElapsed")]
    assert 32 <= min(updates) < 36 and 280 < max(updates) <= 316


def test_unruly_is_sometimes_a_hundred_times_slower() -> None:
    usual = 0.0005
    serving = Serving("unruly", UNRULY_SALT="speed", UNRULY_SECONDS=str(usual))
    serving.ask("genome", genome="wild", content=DEMO_GENOME)

    def seconds(seed: int) -> float:
        start = time.monotonic()
        serving.ask("compete_two", alpha="wild", beta="wild", seed=seed)
        return time.monotonic() - start

    times = sorted(seconds(seed) for seed in range(800))
    serving.close()

    assert times[-3] >= 100 * usual
    assert times[400] < 50 * usual


def test_unruly_attempts_at_one_competition_differ_only_in_their_troubles() -> None:
    serving = Serving("unruly", UNRULY_SECONDS="0")
    serving.ask("genome", genome="wild", content=DEMO_GENOME)
    answers = [serving.ask("compete_two", alpha="wild", beta="wild", seed=5) for _ in range(300)]
    serving.close()

    spellings = [json.dumps(answer, sort_keys=True) for answer in answers]
    usual = max(set(spellings), key=spellings.count)
    assert spellings.count(usual) > 240
    assert any("error" in answer for answer in answers)


def test_unruly_retries_help_one_shot_competitions_too(tmp_path: Path) -> None:
    outcomes: list[tuple[int, Any]] = []
    for number in range(100):
        ended, result = compete("unruly", tmp_path, alpha=DEMO_GENOME, beta=DEMO_GENOME, seed=5, attempt=f"a {number}")
        outcomes.append((ended.returncode, result))
        if len({code for code, _ in outcomes}) == 2:
            break

    assert {(code, result is None) for code, result in outcomes} == {(0, False), (1, True)}
    again, _ = compete(
        "unruly", tmp_path, alpha=DEMO_GENOME, beta=DEMO_GENOME, seed=6, attempt=f"a {len(outcomes) - 1}"
    )
    assert again.returncode == outcomes[-1][0], "an attempt fares the same whenever it is made"


# -- genomes and images ------------------------------------------------------------------------------------------


def test_the_demo_genome_is_what_draw_genome_prints() -> None:
    drawn = run("explicit", "draw_genome.py").stdout
    genome = json.loads(drawn)
    members = [site for entry in genome["sets"] for site in entry["sites"]]

    assert drawn == DEMO_GENOME
    assert (genome["sites"], len(genome["effects"]), len(genome["sets"])) == (1000, 50, 10)
    assert len(members) == len(set(members)) == 40
    assert all(0 < effect <= 0.7 for effect in genome["effects"].values())
    assert all(0.7 <= entry["penalty"] <= 1.6 for entry in genome["sets"])


def test_draw_genome_draws_what_it_is_asked_for_or_refuses() -> None:
    arguments = ["--sites", "30", "--additive", "5", "--sets", "2", "--set-size", "3"]
    genomes = [json.loads(run("explicit", "draw_genome.py", *arguments, "--seed", str(seed)).stdout) for seed in (1, 2)]

    assert [(genome["sites"], len(genome["effects"])) for genome in genomes] == [(30, 5)] * 2
    assert [[len(entry["sites"]) for entry in genome["sets"]] for genome in genomes] == [[3, 3]] * 2
    assert genomes[0] != genomes[1]
    assert run("explicit", "draw_genome.py", "--sites", "30").returncode == 2


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def images() -> None:
    """The three images, from a base of Debian packages."""
    if not engine_answers():
        pytest.skip("there is no container engine")
    if os.geteuid() != 0 or shutil.which("dpkg-deb") is None:
        pytest.skip("the base image is built from Debian packages, by root")
    for command in (["base/build.sh", "knockem/base"], ["build.sh", "knockem/base"]):
        built = subprocess.run([ORGANISMS / command[0], *command[1:]], capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr


@pytest.mark.docker
@pytest.mark.parametrize(
    ("organism", "genome", "sites"), [("explicit", DEMO_GENOME, 1000), ("additive", ADDITIVE_GENOME, 50)]
)
def test_images_work_in_a_hardened_container(images: None, organism: str, genome: str, sites: int) -> None:
    hardened = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    script = "knockem_apply_knockout 3 | knockem_count_sites && id -u"

    ended = subprocess.run(
        ["docker", "run", "--rm", "--interactive", *hardened, f"knockem/{organism}", "sh", "-c", script],
        input=genome,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.split() == [str(sites), "65534"], ended.stderr


@pytest.mark.docker
def test_the_unruly_image_serves(images: None) -> None:
    ended = subprocess.run(
        [
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--network",
            "none",
            "--read-only",
            "knockem/unruly",
            "knockem_serve",
        ],
        input='{"id": 1, "op": "hello", "protocol": 1}\n',
        capture_output=True,
        text=True,
        check=False,
    )

    assert json.loads(ended.stdout) == {"id": 1, "protocol": 1}, ended.stderr
