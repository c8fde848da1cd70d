"""A process that takes job logs in, to be killed at any moment: a folder of reports, all their marts, and all anew.

    python -m benchmarks.ingest_process HOME FOLDER [--sweeping]

It says `begun` when it begins to, `computed` when the first marts of all are there.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

from knockem_dagster.joblogs import ledger as ledgers
from knockem_dagster.joblogs.folders import reports_in
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings

BEGUN, COMPUTED = "begun", "computed"
ANOTHER_PARSER = "another"


def receive_all(platform: Platform, folder: Path) -> list[str]:
    """Store all reports of a folder; return the instances."""
    ledger = Ledger(platform.records, platform.objects)
    instances: dict[str, None] = {}
    for found in reports_in(folder):
        instance = local_instance(platform.records, found.instance.name).id
        ledger.receive(instance, found.name, found.archive, found.read_metadata())
        instances[instance] = None
    return list(instances)


def take_in(platform: Platform, folder: Path) -> list[str]:
    """Store all reports of a folder and compute the marts; return the instances."""
    instances, marts = receive_all(platform, folder), Marts(platform.records, platform.objects)
    for instance in instances:
        marts.refresh(instance)
    return instances


def main() -> None:
    """Take a folder in, compute its marts again, then read all as another parser, and sweep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sweeping", action="store_true")
    chosen = parser.parse_args()
    platform = Platform(load_settings(home=chosen.home, documents_url=None, queue_url=None))
    marts = Marts(platform.records, platform.objects)
    print(BEGUN, flush=True)
    instances = take_in(platform, chosen.folder)
    print(COMPUTED, flush=True)
    for instance in instances:
        marts.refresh(instance, again=True)
    ledgers.PARSER_VERSION = ANOTHER_PARSER
    for instance in instances:
        marts.refresh(instance)
        if chosen.sweeping:
            marts.sweep(older=timedelta(0))
    platform.close()


if __name__ == "__main__":
    main()
