"""The assets of the published procedures (Moreno 2024): as in `knockout`, each is one assay."""

from assets.checks import sites_decided
from assets.knockout import null_distribution
from assets.submission_steps import assay_asset
from knockem_dagster.records.assays import AssayType
from knockem_dagster.reports import figures

screen = assay_asset(
    AssayType.SCREEN_CRITICAL,
    deps=[null_distribution],
    description="Every site knocked out alone, at a controlled false discovery rate.",
)

calibration = assay_asset(
    AssayType.DOSE_CALIBRATION,
    deps=[null_distribution, screen],
    description="A smear of doses, to see where knockouts begin to be detected.",
    draw=lambda _, finding: figures.dose_response(calibration=finding.table),
)

titration = assay_asset(
    AssayType.DOSE_TITRATION,
    deps=[calibration],
    description="Random knockouts at the calibrated doses: the share that is detected.",
    draw=lambda _, finding: figures.dose_response(titration=finding.table),
)

skeletons = assay_asset(
    AssayType.SKELETONIZATION,
    deps=[null_distribution],
    description="What is left when no further site can be knocked out without a detectable loss, several times.",
    checks=[sites_decided],
    draw=lambda _, finding: figures.skeleton_composition(finding.table),
)

jackknife = assay_asset(
    AssayType.JACKKNIFE_KNOCKOUT,
    deps=[skeletons],
    description="Each site a skeleton kept, knocked out on top of it.",
)
