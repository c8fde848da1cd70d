"""Where the output of the services of `up` is kept, and how something is taken out of it."""

from __future__ import annotations

import mmap
from pathlib import Path

from knockem_dagster.settings import Settings


def log_folder(settings: Settings) -> Path:
    """Return the folder of the services' logs."""
    return settings.folder / "logs"


def blot_out(settings: Settings, text: str) -> None:
    """Overwrite a text wherever it stands in the logs, letter for letter: the services go on appending to the files."""
    wanted = text.encode()
    for path in log_folder(settings).glob("*.log"):
        if not path.stat().st_size:
            continue
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            at = content.find(wanted)
            while at >= 0:
                content[at : at + len(wanted)] = b"x" * len(wanted)
                at = content.find(wanted, at)
