"""A job of the campaign of faults: it writes when it starts and ends, and takes the places that its caps leave.

A place is a locked file, which the kernel frees in the moment in which the job, killed or not, and all it left behind
is gone. Run as a script, by an interpreter without site-packages:

    timed_job.py FOLDER JOB WORKFLOW MAX_ACTIVE CPUS SECONDS[,SECONDS AGAIN] EXIT_CODE LEAVES_A_DAEMON
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

LOG = "log"


def write(folder: str, *words: object) -> None:
    """Append a line to the log of all jobs, in one piece."""
    line = " ".join(map(str, words)) + "\n"
    log = os.open(f"{folder}/{LOG}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)


def take_place(folder: str, of: str, cap: int) -> bool:
    """Take one of so many places until this process and its children are gone; False when none is free."""
    for number in range(cap):
        place = os.open(f"{folder}/{of}-{number}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(place)
        else:
            return True
    return False


def length(folder: str, job: str, seconds: str) -> float:
    """Return how long to work: that may be less for a job that was begun before."""
    first, _, again = seconds.partition(",")
    if not again:
        return float(first)
    with open(f"{folder}/{LOG}") as log:  # noqa: PTH123 - pathlib would make every job slower to start
        starts = sum(line.startswith(f"start {job} ") for line in log)
    return float(first if starts == 1 else again)


def main(arguments: list[str]) -> int:
    """Work: sleep."""
    folder, job, workflow, max_active, cpus, seconds, code, daemon = arguments
    worker = os.environ["KNOCKEM_OWNER"].partition("#")[0]
    write(folder, "start", job, workflow, worker, time.monotonic_ns())
    for of, cap in ((workflow, max_active), (f"worker-{worker}", cpus)):
        if not take_place(folder, of, int(cap)):
            write(folder, "beyond", job, of, worker, time.monotonic_ns())
    if daemon == "1" and os.fork() == 0:
        os.setsid()
        time.sleep(1000)
    time.sleep(length(folder, job, seconds))
    write(folder, "end", job, workflow, worker, time.monotonic_ns())
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
