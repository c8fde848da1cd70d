"""A purged submission is taken out of the services' logs under the hands of those who write them."""

from __future__ import annotations

from pathlib import Path

from knockem_dagster.cli.service_logs import blot_out, log_folder
from knockem_dagster.settings import load_settings

ID = "11111111-2222-5333-8444-555555555555"


def test_every_occurrence_is_overwritten_and_writers_go_on_where_they_were(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    log_folder(settings).mkdir(parents=True)
    (log_folder(settings) / "empty.log").touch()
    (log_folder(settings) / "daemon.old.log").write_text(f"{ID}")
    path = log_folder(settings) / "daemon.log"
    with path.open("a") as writer:
        writer.write(f"run of {ID}: {ID}{ID}\n")
        writer.flush()
        blot_out(settings, ID)
        writer.write("next line\n")
    blank = "x" * len(ID)
    assert path.read_text() == f"run of {blank}: {blank}{blank}\nnext line\n"
    assert (log_folder(settings) / "daemon.old.log").read_text() == blank


def test_without_logs_there_is_nothing_to_do(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    blot_out(settings, ID)
    assert not log_folder(settings).exists()
