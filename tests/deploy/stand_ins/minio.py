"""`minio server FOLDER`: an S3 server, moto's, that writes down what it is told, and is told it again at its start."""

import json
import os
import sys
import time
from pathlib import Path

folder = Path(sys.argv[2])
log, partial = folder / "requests", folder / "requests.partial"
os.environ |= {"MOTO_ENABLE_RECORDING": "True", "MOTO_RECORDER_FILEPATH": str(log)}

import requests  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402


def changes(line: str) -> bool:
    """Tell whether a line is a whole request (the last may be cut) that changes something."""
    try:
        return json.loads(line)["method"] not in ("GET", "HEAD")
    except ValueError:
        return False


lines = log.read_text().splitlines() if log.exists() else []
partial.write_text("".join(f"{line}\n" for line in lines if changes(line)))
partial.replace(log)
server = ThreadedMotoServer("0.0.0.0", port=9000, verbose=False)
server.start()
answer = requests.post(
    "http://127.0.0.1:9000/moto-api/recorder/replay-recording",
    json={"target_host": "http://127.0.0.1:9000"},
    timeout=300,
)
answer.raise_for_status()
Path("/tmp/ready").touch()
while True:
    time.sleep(3600)
