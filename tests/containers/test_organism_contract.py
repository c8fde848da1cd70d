"""The contract's one-shot commands, over both runtimes: every way a competition can end is told apart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.contract_environment import PACKAGE_SOURCE
from knockem_dagster.containers.knocked_out_contents import KnockedOutContents
from knockem_dagster.containers.results import parse_result, read_result_file
from knockem_dagster.containers.runtime import ContainerSpec, Limits
from knockem_dagster.containers.truth import parse_truth
from knockem_dagster.errors import BadResult, ContractError
from knockem_dagster.knockout.competitions import Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from tests.containers.laboratory import EAT_MEMORY, SITES, Laboratory, attempt, variant, with_limits

EXAMPLES = Path(__file__).parents[2] / "deploy" / "organisms"
WILD_TYPE = "abcdefgh"
KNOCK_OUT = """
    #!/usr/bin/env python3
    import os, sys
    content = list(sys.stdin.read())
    for site in sys.argv[1:]:
        content[int(site)] = "_"
    sys.stdout.write("".join(content))
"""


def competing(laboratory: Laboratory, script: str, *, limits: Limits | None = None, **others: str) -> Organism:
    commands = {"knockem_apply_knockout": KNOCK_OUT, **others, "knockem_compete_two": script}
    spec = laboratory.organism(limits=limits, submission_id="submission-1", **commands)
    return Organism(laboratory.runtime, spec, wild_type=WILD_TYPE)


def outcome_of(laboratory: Laboratory, script: str, limits: Limits | None = None) -> AttemptOutcome:
    return asyncio.run(competing(laboratory, script, limits=limits).compete(attempt(beta=())))


REPORT = """
    set -e
    alpha=$(python3 -m knockem.cli fetch-genome "$KNOCKEM_GENOME_ID_ALPHA")
    beta=$(python3 -m knockem.cli fetch-genome "$KNOCKEM_GENOME_ID_BETA")
    echo "$alpha against $beta, $(env | grep ^KNOCKEM_ | sort)" >&2
    python3 -m knockem.cli report-competition 100 600.4 399.6
    python3 -m knockem.cli cleanup-genome "$KNOCKEM_GENOME_ID_BETA"
"""


def test_scripts_written_for_the_command_line_run_unchanged(laboratory: Laboratory) -> None:
    organism = competing(laboratory, REPORT)
    ended = asyncio.run(organism.compete(attempt(alpha=(2,), beta=(2, 5))))
    assert ended.outcome is Outcome.SUCCEEDED, ended.tail
    assert ended.counts == Counts(100, 600, 400)
    assert "ab_defgh against ab_de_gh" in ended.tail
    for line in (
        "KNOCKEM_ASSAY_ID=assay-1",
        "KNOCKEM_COMPETITION_ID=competition-of-attempt-1",
        "KNOCKEM_COMPETITION_ATTEMPT_ID=attempt-1",
        "KNOCKEM_GENOME_ID_ALPHA=genome-2",
        "KNOCKEM_GENOME_ID_BETA=genome-2-5",
        "KNOCKEM_NUM_KNOCKOUT_SITES=2",
        "KNOCKEM_SUBMISSION_ID=submission-1",
        f"KNOCKEM_SEED={2**62 + 1}",
    ):
        assert line in ended.tail.splitlines()[0] + ended.tail


def test_an_image_without_python_reads_and_writes_files(laboratory: Laboratory) -> None:
    ended = outcome_of(
        laboratory,
        """
        updates=$(wc -c <"$KNOCKEM_GENOMES/$KNOCKEM_GENOME_ID_BETA")
        echo "{\\"updatesElapsed\\": $updates, \\"numAlpha\\": 7, \\"numBeta\\": 0}" >"$KNOCKEM_RESULT"
        """,
    )
    assert ended.counts == Counts(8, 7, 0), ended.tail


BAD_ENDS = [
    ("echo something went wrong; exit 7", Outcome.FAILED, "something went wrong"),
    ("true", Outcome.BAD_RESULT, "without reporting"),
    ("mkfifo $KNOCKEM_RESULT", Outcome.BAD_RESULT, "not a plain file"),
    ("ln -s /etc/hostname $KNOCKEM_RESULT", Outcome.BAD_RESULT, "cannot be read"),
    ("python3 -m knockem.cli report-competition 100 nan 3", Outcome.FAILED, "NUM_ALPHA"),
]
BAD_REPORTS = [
    ("echo nonsense >$KNOCKEM_RESULT", Outcome.BAD_RESULT, "not JSON"),
    ("echo '[1, 2]' >$KNOCKEM_RESULT", Outcome.BAD_RESULT, "JSON object"),
    ("head -c 1000000 /dev/zero >$KNOCKEM_RESULT", Outcome.BAD_RESULT, "larger than"),
    ("python3 -m knockem.cli report-competition 100 -1 3", Outcome.FAILED, "NUM_ALPHA"),
    ("python3 -m knockem.cli report-competition many 1 3", Outcome.FAILED, "UPDATES"),
    ("python3 -m knockem.cli report-competition 100 0.2 0", Outcome.BAD_RESULT, "both populations are extinct"),
    ("python3 -m knockem.cli report-competition 0 10 10", Outcome.BAD_RESULT, "no updates"),
    ("python3 -m knockem.cli fetch-genome unknown", Outcome.FAILED, "the genomes are: genome"),
]


@pytest.mark.parametrize(("script", "outcome", "told"), BAD_ENDS)
def test_every_bad_end_is_told_apart(laboratory: Laboratory, script: str, outcome: Outcome, told: str) -> None:
    ended = outcome_of(laboratory, script)
    assert (ended.outcome, ended.counts) == (outcome, None)
    assert told in ended.tail
    assert ended.command == "knockem_compete_two"


@pytest.mark.parametrize(("script", "outcome", "told"), BAD_REPORTS)
def test_every_bad_report_is_told_apart(processes: Laboratory, script: str, outcome: Outcome, told: str) -> None:
    ended = outcome_of(processes, script)
    assert (ended.outcome, ended.counts) == (outcome, None)
    assert told in ended.tail


def test_a_competition_that_hangs_timed_out(laboratory: Laboratory) -> None:
    ended = outcome_of(laboratory, "echo thinking; sleep 600", Limits(timeout_seconds=2))
    assert ended.outcome is Outcome.TIMED_OUT
    assert "thinking" in ended.tail


def test_a_competition_whose_child_is_killed_for_memory_says_so_even_with_a_result(laboratory: Laboratory) -> None:
    script = f'python3 -c "{EAT_MEMORY}"; python3 -m knockem.cli report-competition 1 1 1'
    ended = outcome_of(laboratory, script, Limits(memory_mib=64, timeout_seconds=30))
    assert ended.outcome is Outcome.OUT_OF_MEMORY


def test_a_failing_knockout_fails_the_attempt_and_is_named(laboratory: Laboratory) -> None:
    organism = competing(laboratory, REPORT, knockem_apply_knockout="echo no such site >&2; exit 4")
    ended = asyncio.run(organism.compete(attempt()))
    assert (ended.outcome, ended.command, ended.exit_code) == (Outcome.FAILED, "knockem_apply_knockout", 4)
    assert "no such site" in ended.tail


def test_a_missing_command_fails_the_attempt_and_is_named(laboratory: Laboratory) -> None:
    spec = laboratory.organism(other="true")
    ended = asyncio.run(Organism(laboratory.runtime, spec, wild_type=WILD_TYPE).compete(attempt(beta=())))
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, 127)
    assert "knockem_compete_two" in ended.tail


def test_a_background_is_knocked_out_once(processes: Laboratory) -> None:
    counted = processes.organisms / "calls"
    knock_out = KNOCK_OUT + f"    open({str(counted)!r}, 'a').write('x')\n"
    organism = competing(processes, REPORT, knockem_apply_knockout=knock_out)

    async def compete() -> list[AttemptOutcome]:
        attempts = [attempt(f"attempt-{n}", alpha=(1, 2), beta=(1, 2)) for n in range(3)]
        return list(await asyncio.gather(*map(organism.compete, attempts)))

    assert all(ended.outcome is Outcome.SUCCEEDED for ended in asyncio.run(compete()))
    assert counted.read_text() == "x"


def test_a_cut_genome_is_never_used(laboratory: Laboratory) -> None:
    organism = competing(laboratory, REPORT, knockem_apply_knockout="yes | head -c 100000")
    organism.specification = with_limits(organism.specification, output_bytes=1000)
    assert asyncio.run(organism.compete(attempt())).outcome is Outcome.FAILED
    with pytest.raises(ContractError, match="wrote more than"):
        asyncio.run(organism.apply_knockout(WILD_TYPE, [1]))


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo many", "must print the number of sites"),
        ("echo -3", "negative"),
        ("true", "must print the number of sites"),
        ("echo 0", "a genome with no sites"),
        ("echo 5; echo oops >&2; exit 1", "oops"),
        ("sleep 600", "timed out"),
    ],
)
def test_a_bad_count_is_a_clear_error(processes: Laboratory, script: str, told: str) -> None:
    spec = processes.organism(limits=Limits(timeout_seconds=1), knockem_count_sites=script)
    with pytest.raises(ContractError, match=told):
        asyncio.run(Organism(processes.runtime, spec).count_sites(WILD_TYPE))


def test_sites_are_counted_knocked_out_and_described(laboratory: Laboratory) -> None:
    spec = laboratory.organism(
        knockem_count_sites="wc -c",
        knockem_apply_knockout=KNOCK_OUT,
        knockem_describe_truth="""echo '{"effects": {"3": 0.5}, "sets": [[1, 2]]}'""",
    )
    organism = Organism(laboratory.runtime, spec)

    async def ask() -> None:
        assert await organism.count_sites(WILD_TYPE) == SITES
        assert await organism.apply_knockout(WILD_TYPE, [0, 7]) == "_bcdefg_"
        truth = await organism.describe_truth(WILD_TYPE, SITES)
        assert truth is not None
        assert (truth.effects, truth.sets) == ({3: 0.5}, [[1, 2]])
        with pytest.raises(ContractError, match="site 3"):
            await organism.describe_truth(WILD_TYPE, 3)

    asyncio.run(ask())


def test_an_organism_without_truth_tells_none(laboratory: Laboratory) -> None:
    spec = laboratory.organism(other="true")
    assert asyncio.run(Organism(laboratory.runtime, spec).describe_truth(WILD_TYPE, SITES)) is None


def test_a_genome_id_cannot_leave_its_folder(processes: Laboratory) -> None:
    organism = competing(processes, REPORT)
    escaping = GenomeVariant("../../escaped", variant((1,)).knockout)
    given = attempt()
    bad = Attempt(given.id, given.competition_id, given.assay_id, given.submission_id, given.alpha, escaping, 1)
    with pytest.raises(ContractError, match="cannot name a genome"):
        asyncio.run(organism.compete(bad))


@pytest.mark.parametrize(
    "fields",
    [
        {"updatesElapsed": "many", "numAlpha": 1, "numBeta": 1},
        {"updatesElapsed": 1, "numAlpha": True, "numBeta": 1},
        {"updatesElapsed": 1, "numAlpha": -1, "numBeta": 1},
        {"updatesElapsed": 1, "numAlpha": float("nan"), "numBeta": 1},
        {"updatesElapsed": float("inf"), "numAlpha": 1, "numBeta": 1},
        {"updatesElapsed": -1, "numAlpha": 1, "numBeta": 1},
        {"updatesElapsed": 0, "numAlpha": 1, "numBeta": 1},
        {"updatesElapsed": 1, "numAlpha": 0, "numBeta": 0},
        {"updatesElapsed": 1, "numAlpha": 1e300, "numBeta": 0},
        {"updatesElapsed": 1, "numAlpha": 1},
    ],
)
def test_a_bad_result_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadResult):
        parse_result(fields)


@given(st.binary(max_size=60))
def test_whatever_a_container_writes_is_a_result_or_a_bad_one(content: bytes) -> None:
    try:
        counts = parse_result(content)
    except BadResult:
        return
    assert counts.updates_elapsed > 0 and counts.num_alpha + counts.num_beta > 0


def test_nan_as_python_writes_it_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"updatesElapsed": 1, "numAlpha": NaN, "numBeta": 1}')
    with pytest.raises(BadResult, match="numAlpha must be a finite number"):
        read_result_file(tmp_path / "result.json")


@pytest.mark.parametrize(
    "output",
    [b"", b"[]", b'{"effects": {}}', b'{"effects": {"x": 1}, "sets": []}', b'{"effects": {"1": "big"}, "sets": []}',
     b'{"effects": {"1": NaN}, "sets": []}', b'{"effects": {}, "sets": [[-1]]}', b'{"effects": {}, "sets": [["1"]]}'],
)  # fmt: skip
def test_a_truth_that_is_none_is_refused(output: bytes) -> None:
    with pytest.raises(ContractError, match="knockem_describe_truth"):
        parse_truth(output, num_sites=SITES)


def test_kept_contents_are_bounded_and_the_last_used_stay() -> None:
    kept = KnockedOutContents(most=2)
    kept.keep(1, b"one")
    kept.keep(2, b"two")
    assert kept.get(1) == b"one"
    kept.keep(3, b"three")
    assert (kept.get(1), kept.get(2), kept.get(3)) == (b"one", None, b"three")


def test_the_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_SOURCE), "KNOCKEM_RESULT": str(tmp_path / "result")}
    command = [sys.executable, "-m", "knockem.cli", "report-competition"]
    refused = subprocess.run([*command, "1", "2", "x"], env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "NUM_BETA" in refused.stderr
    subprocess.run([*command, "1.5", "2.5", "3"], env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert read_result_file(tmp_path / "result") == Counts(1.5, 2, 3)


def test_the_environment_of_the_submission_reaches_every_command(laboratory: Laboratory) -> None:
    spec = laboratory.organism(knockem_count_sites="echo $GIVEN", knockem_compete_two=REPORT)
    spec = ContainerSpec(spec.image, {**spec.environment, "GIVEN": "41"}, spec.limits, spec.mounts)
    assert asyncio.run(Organism(laboratory.runtime, spec).count_sites(WILD_TYPE)) == 41


@pytest.mark.parametrize(
    ("name", "genome", "serves"), [("additive", "genome.txt", False), ("explicit", "demo_genome.json", True)]
)
def test_the_example_organisms_take_part(laboratory: Laboratory, name: str, genome: str, serves: bool) -> None:
    content = (EXAMPLES / name / genome).read_text()
    commands = {path.name: path for path in (EXAMPLES / name).iterdir() if path.is_file()}
    spec = laboratory.organism(**{command: path.read_text() for command, path in commands.items()})
    organism = Organism(laboratory.runtime, spec, wild_type=content)

    async def compete() -> list[AttemptOutcome]:
        sites = await organism.count_sites(content)
        none, some = KnockoutSet.none(sites), KnockoutSet.of(range(sites // 2), sites)
        asked = replace(attempt(), alpha=GenomeVariant("whole", none), beta=GenomeVariant("half", some))
        outcomes = [await organism.compete(asked)]
        serving = await organism.serve()
        assert (serving is not None) == serves
        if serving is not None:
            await serving.ask([asked])
            outcomes += await serving.answers()
            await serving.end()
        return outcomes

    outcomes = asyncio.run(compete())
    assert all(ended.outcome is Outcome.SUCCEEDED for ended in outcomes), outcomes
    assert len({ended.counts for ended in outcomes}) == 1
    assert outcomes[0].counts is not None and outcomes[0].counts.num_alpha > outcomes[0].counts.num_beta
