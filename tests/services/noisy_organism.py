"""An organism with noise that answers thousands of competitions a second, and studies of it without Dagster.

Its genome is one effect a line, in detection thresholds; losing all of SET costs PENALTY.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from knockem_dagster.assay_runs.study import Study
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.knockout.score_model import threshold_drift
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType, with_needs
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.settings import load_settings
from tests.services.organisms import in_python, write_organism

EFFECTS = {3: 0.6, 11: 0.5, 17: 0.3, 28: 0.25, 35: 0.2}
SET, PENALTY = (5, 20), 1.5
NUM_SITES = 40
GENOME = "".join(f"{EFFECTS.get(site, 0.0)}\n" for site in range(NUM_SITES))
NAME = "noisy"
ORDER = (
    AssayType.NULLDIST,
    AssayType.SKELETONIZATION,
    AssayType.JACKKNIFE_KNOCKOUT,
    AssayType.WEIGHING,
    AssayType.SET_ENUMERATION,
    AssayType.PREFIX_SKELETONS,
)
MOODY = "moody"
"""The same organism, which refuses one attempt of fifty: the next attempt at the same competition may succeed."""
_NOISE = 0.3

_SERVE = in_python(
    "import json, math, random, sys",
    "gone, effects = {}, []",
    "MOODY = sys.argv[0].rsplit('/', 2)[-2] == 'moody'",
    "def cost(name):",
    "    lost = gone[name]",
    f"    penalty = {PENALTY!r} if all(site in lost for site in {SET!r}) else 0.0",
    "    return penalty + sum(effects[site] for site in lost)",
    "for line in sys.stdin:",
    "    request = json.loads(line)",
    "    answer = {'id': request.get('id')}",
    "    if request['op'] == 'hello':",
    "        answer['protocol'] = 1",
    "    elif request['op'] == 'genome':",
    "        effects[:] = [float(text) for text in request['content'].split()]",
    "        gone[request['genome']] = frozenset()",
    "    elif request['op'] == 'knockout':",
    "        gone[request['genome']] = gone[request['parent']].union(request['sites'])",
    "    elif request['op'] == 'compete_two' and MOODY and random.Random(request['id']).random() < 0.02:",
    "        answer['error'] = 'in no mood'",
    "    elif request['op'] == 'compete_two':",
    f"        drift = {threshold_drift(_NOISE, 0.01)!r} * (cost(request['beta']) - cost(request['alpha']))",
    f"        angle = math.asin(math.tanh(drift)) + {_NOISE} * random.Random(request['seed']).gauss(0, 1)",
    "        score = math.sin(max(-math.pi / 2, min(math.pi / 2, angle)))",
    "        alpha = round(500_000 * (1 + score))",
    "        answer |= {'updatesElapsed': 1, 'numAlpha': alpha, 'numBeta': 1_000_000 - alpha}",
    "    print(json.dumps(answer), flush=True)",
)


def write_noisy_organisms(folder: Path) -> None:
    """Write the folders of the organism and of the moody one."""
    for name in (NAME, MOODY):
        write_organism(folder / name, {"knockem_serve": _SERVE})


def carry_through(platform: Platform, id: str) -> SubmissionRecord:
    """Run a submission to its end, but for its report, and return it."""
    with SubmissionRun(platform, id, name=f"test {os.getpid()}") as run:
        study = Study(run)
        wanted = with_needs(frozenset(run.submission.assay_types))
        for assay_type in ORDER:
            if assay_type in wanted:
                study.find(assay_type)
        study.write_estimates()
        run.complete()
    return platform.records.submissions.get(id)


if __name__ == "__main__":
    opened = Platform(load_settings(home=Path(sys.argv[1])))
    carry_through(opened, sys.argv[2])
    opened.close()
