"""How a submission comes in: validated completely, its image pinned, its sites counted, then stored. Or not at all."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import time
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.containers.runtime import EndCause
from knockem_dagster.errors import ContractError, Fault, ImageNotFound, InvalidInput
from knockem_dagster.jobs.errands import ask_workers
from knockem_dagster.jobs.organisms import organism_of
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.mapping_file import shown
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayRecord, AssayType, assay_id, with_needs
from knockem_dagster.records.genomes import GenomeRecord, variant_id, wild_type, wild_type_id
from knockem_dagster.records.record import derived_id
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.declarations import MAX_DOCUMENT_BYTES, encode_json
from knockem_dagster.stores.documents import PutNew

TIMING_COMPETITIONS = 3
MOST_WORDS = 800
"""Characters of an explanation; what an organism wrote in its last lines may be long."""
MOST_SITES = 10_000_000
"""Sites of a genome: what a knockout's bitset may weigh in a document, many times over."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What the timing competitions showed: seconds each, and what the whole submission will take."""

    seconds_each: tuple[float, ...]
    expected_competitions: int
    expected_seconds: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission ready to be stored: the submission, its wild type and its assays."""

    submission: SubmissionRecord
    genome: GenomeRecord
    assays: tuple[AssayRecord, ...]


EXAMINE, TIME_COMPETITIONS = "examine", "time competitions"
ACCEPTED: TypeAdapter[Accepted] = TypeAdapter(Accepted)
TIMING: TypeAdapter[Timing] = TypeAdapter(Timing)


def submission_id(file: SubmissionFile) -> str:
    """Return the id that a submission file determines: submitting the same file again finds the first."""
    return derived_id("submission", file.digest)


async def examine(
    platform: Platform, file: SubmissionFile, *, may_exist: bool = False, patience_seconds: float | None = None
) -> Accepted:
    """Resolve the image and count the sites; store nothing. `patience_seconds`: how long a worker may take to begin.

    Raises InvalidInput for a duplicate (unless it `may_exist`), a missing image, missing commands, and a genome without
    sites or too large to be stored; ContainerError when containers cannot be started here, whatever the submission;
    WorkersAway where it is left to workers and none does it.
    """
    id = submission_id(file)
    known = await asyncio.to_thread(platform.records.submissions.find_one, id)
    if known is not None and not may_exist:
        raise InvalidInput(
            "The same submission is there already.",
            [Fault("seed", str(file.seed), f"submission {id} has this file and seed; another seed repeats the study")],
        )
    if platform.settings.leave_to_workers:
        content = file.model_dump_json(by_alias=True).encode()
        runtime = platform.runtime_named(file.container_runtime)
        answer = await ask_workers(platform, EXAMINE, content, runtime=runtime, patience_seconds=patience_seconds)
        return ACCEPTED.validate_json(answer)
    runtime = platform.runtime_for(file.container_image, file.container_runtime)
    try:
        image = await platform.runtime(runtime).resolve(file.container_image)
    except (ImageNotFound, ContractError) as error:
        was_guessed = platform.runtime_named(file.container_runtime) == "auto" and runtime != "process"
        why = (_no_folder(platform, file.container_image) if was_guessed else "") + str(error)
        raise _cannot_run("containerImage", file.container_image, why) from error
    draft = _submission(file, id, runtime=runtime, digest=image.digest)
    genome = wild_type(id, file.genome, num_sites=0, user_email=file.user_email)
    size = len(encode_json(genome.to_document(), what="the genome"))
    if size > MAX_DOCUMENT_BYTES:
        why = f"its document is at most {MAX_DOCUMENT_BYTES} bytes of JSON, and would have {size}: a smaller genome is"
        raise _cannot_run("genome", shown(file.genome), why)
    organism = organism_of(platform, draft, genome)
    try:
        num_sites = await organism.count_sites(file.genome)
    except ContractError as error:
        field = "containerImage" if EndCause.NOT_FOUND in str(error) else "genome"
        value = file.container_image if field == "containerImage" else shown(file.genome)
        raise _cannot_run(field, value, str(error)) from error
    if num_sites > MOST_SITES:
        why = f"knockem_count_sites counts {num_sites} sites; from 1 to {MOST_SITES} are"
        raise _cannot_run("genome", shown(file.genome), why)
    unit = await organism.stated_unit()
    submission = draft.model_copy(
        update={
            "num_sites": num_sites,
            "stated_unit": unit,
            "expected_competitions": expected_competitions(file, num_sites, is_exact=unit is not None),
        }
    )
    assays = tuple(
        AssayRecord(
            id=assay_id(id, assay_type),
            submission_id=id,
            assay_type=assay_type,
            container_image=file.container_image,
            container_env=file.container_env,
            user_email=file.user_email,
        )
        for assay_type in AssayType
        if assay_type in with_needs(frozenset(file.assay_types))
    )
    return Accepted(submission, genome.model_copy(update={"num_sites": num_sites}), assays)


def _no_folder(platform: Platform, reference: str) -> str:
    """Return why a name was taken for an image's: people mistype the name of a folder, or do not name its parent."""
    roots = platform.settings.organisms
    there = sorted(path.name for root in roots for path in root.iterdir() if path.is_dir())
    near = difflib.get_close_matches(reference.rsplit("/", 1)[-1], there, n=1)
    nearest = f", the nearest name there is {near[0]}" if near else ""
    looked = ", ".join(map(str, roots)) or "KNOCKEM_ORGANISMS"
    return (
        f"no organism folder has this name below {looked}{nearest} (a folder "
        "elsewhere runs when KNOCKEM_ORGANISMS names its parent), and no image: "
    )


def _cannot_run(field: str, value: str, why: str) -> InvalidInput:
    shortened = why if len(why) <= MOST_WORDS else f"{why[: MOST_WORDS // 2]} ... {why[-MOST_WORDS // 2 :]}"
    return InvalidInput("The submission cannot run.", [Fault(field, value, shortened)])


def store(platform: Platform, accepted: Accepted) -> SubmissionRecord:
    """Store an examined submission; the submission itself last, so that nobody sees half of it.

    Where somebody stored the same one meanwhile, that one is returned.
    """
    operations = [
        PutNew(record.collection.name, record.to_document())
        for record in (accepted.genome, *accepted.assays, accepted.submission)
    ]
    stored = platform.records.documents.bulk(operations)
    return accepted.submission if stored[-1] else platform.records.submissions.get(accepted.submission.id)


async def time_competitions(platform: Platform, accepted: Accepted) -> Timing:
    """Run a few competitions of random knockouts, unrecorded, and extrapolate.

    Raises InvalidInput when none of them gives a result, WorkersAway where it is left to workers and none does it.
    """
    if platform.settings.leave_to_workers:
        content = ACCEPTED.dump_json(accepted, by_alias=True)
        runtime = accepted.submission.container_runtime
        return TIMING.validate_json(await ask_workers(platform, TIME_COMPETITIONS, content, runtime=runtime))
    submission, genome = accepted.submission, accepted.genome
    organism = organism_of(platform, submission, genome)
    rng = np.random.default_rng(submission.seed)
    outcomes: list[AttemptOutcome] = []
    seconds: list[float] = []
    serving = await organism.serve()
    try:
        for number in range(TIMING_COMPETITIONS):
            attempt = _timing_attempt(genome, rng, number)
            began = time.monotonic()
            if serving is None:
                outcomes.append(await organism.compete(attempt))
            else:
                await serving.ask([attempt])
                outcomes.extend(await serving.answers())
            seconds.append(time.monotonic() - began)
    finally:
        if serving is not None:
            await serving.end()
    if not any(ended.counts for ended in outcomes):
        told = next((ended for ended in outcomes if ended.outcome is not Outcome.LOST), outcomes[0])
        why = (
            f"none of {TIMING_COMPETITIONS} trial competitions gave a result. The first: {told.outcome.value}, in "
            f"{told.command}: {told.tail.strip()[-300:] or 'it said nothing'}. `./knockem check` tries each command."
        )
        raise _cannot_run("containerImage", submission.container_image, why)
    slots = max(1, min(submission.max_active, platform.settings.cpus))
    number = submission.expected_competitions or 0
    return Timing(tuple(seconds), number, number * float(np.median(seconds)) / slots)


def _timing_attempt(genome: GenomeRecord, rng: np.random.Generator, number: int) -> Attempt:
    num_sites = genome.num_sites
    dose = max(1, num_sites // 4)
    knockout = KnockoutSet.of(rng.choice(num_sites, size=dose, replace=False), num_sites)
    return Attempt(
        id=derived_id(genome.submission_id, "timing", number),
        competition_id=derived_id(genome.submission_id, "timing competition", number),
        assay_id=derived_id(genome.submission_id, "timing assay"),
        submission_id=genome.submission_id,
        alpha=GenomeVariant(genome.id, KnockoutSet.none(num_sites)),
        beta=GenomeVariant(variant_id(genome.submission_id, knockout.to_bytes()), knockout),
        seed=number,
    )


def expected_competitions(asked: SubmissionFile | SubmissionRecord, num_sites: int, *, is_exact: bool) -> int:
    """Return about how many competitions will be asked, where a tenth of the sites is functional."""
    each = {
        AssayType.NULLDIST: 100,
        AssayType.SCREEN_CRITICAL: num_sites,
        AssayType.DOSE_CALIBRATION: min(250, num_sites),
        AssayType.DOSE_TITRATION: 5_000,
        AssayType.SKELETONIZATION: asked.skeletons * num_sites,
        AssayType.JACKKNIFE_KNOCKOUT: asked.skeletons * max(1, num_sites // 10),
        AssayType.WEIGHING: num_sites // 2 if is_exact else 500 + round(5 * num_sites * (0.1 / asked.resolution) ** 2),
        AssayType.SET_ENUMERATION: 2 * num_sites if is_exact else 5 * num_sites,
        AssayType.PREFIX_SKELETONS: round(
            asked.skeletons * num_sites * (0.25 if is_exact else 2 * (0.4 / asked.skeleton_resolution) ** 1.5)
        ),
    }
    wanted = with_needs(frozenset(asked.assay_types))
    expected = sum(number for assay_type, number in each.items() if assay_type in wanted)
    return expected if asked.budget is None else min(expected, asked.budget)


def _submission(file: SubmissionFile, id: str, *, runtime: str, digest: str) -> SubmissionRecord:
    return SubmissionRecord.model_validate(
        {
            **{name: getattr(file, name) for name in _COPIED},
            "id": id,
            "assay_ids": [assay_id(id, assay_type) for assay_type in file.assay_types],
            "genome_id": wild_type_id(id),
            "container_runtime": runtime,
            "image_digest": digest,
            "num_sites": 0,
            "content_digest": file.digest,
        }
    )


_COPIED = tuple(
    name
    for name in SubmissionFile.model_fields
    if name in SubmissionRecord.model_fields and name != "container_runtime"
)


def content_digest(data: bytes) -> str:
    """Return the SHA-256 of an upload."""
    return hashlib.sha256(data).hexdigest()
