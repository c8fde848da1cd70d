"""The spawner: a small process beside a worker that starts its commands and reports how they ended.

It exists because the kernel counts into a process's peak memory the size of whoever started it: what a
worker of 90 MB starts has "used" 90 MB. The spawner is small, so a peak is the job's own from its size
upwards. Every import that would make it larger is avoided here: not even signal or typing.

It is a child subreaper: a descendant whose own parent has ended becomes its child. So what a job leaves
behind, daemons in sessions of their own included, is seen without searching /proc, killed, and accounted to
the job before its end is reported. When its socket closes, as it does however the worker ends, it kills
everything and ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import time

from knockem_dagster.jobs.commands.messages import ENDED, READY, REFUSED, RUNNING, START, pack, unpack
from knockem_dagster.jobs.commands.starting import Refused, start

SIGKILL = 9  # importing signal makes every peak start 0.7 MB higher
PR_SET_CHILD_SUBREAPER = 36
TAIL_BYTES = 4096
PIPE_BYTES = 65536
LAST_READS = 16
"""A pipe can be made to hold this many times PIPE_BYTES."""

CHILDREN_BYTES = 1 << 16
NOBODY = -1
NOTHING = 1
"""The spawner's own standard output is /dev/null, and so is that of jobs whose output is not kept."""

LOOK_SECONDS = 1.0
"""While a long job runs, its abandoned descendants are looked for this often, lest the dead ones pile up."""

LONG_SECONDS = 0.005
"""A command that lives this long is made known to the worker, which then looks at the memory of its tree."""


class Job:
    """A started command and what its processes have used so far."""

    __slots__ = ("cpu_seconds", "exit_code", "number", "output", "peak_kib", "pid", "started", "tail")

    def __init__(self, number: int, pid: int, output: int | None) -> None:
        self.number = number
        self.pid = pid
        self.output = output
        self.started = time.monotonic()
        self.exit_code: int | None = None
        self.tail = bytearray()
        self.peak_kib = 0
        self.cpu_seconds = 0.0


class Spawner:
    """The loop: requests in, processes started and reaped, replies out."""

    def __init__(self, channel: int, mark: str) -> None:
        """`mark` is how the environment of this worker's jobs marks them, up to the job's number."""
        self._channel = channel
        self._mark = mark.encode()
        self._home = os.getcwd()  # noqa: PTH109 - pathlib would double this process
        self._pending = bytearray()
        self._replies: list[bytes] = [pack((READY, os.getpid()))]
        self._jobs: dict[int, Job] = {}
        self._unknown: dict[int, Job] = {}  # young jobs, oldest first: the worker has not heard of them yet
        self._exits: dict[int, int] = {}  # pidfd -> process
        self._leaders: dict[int, Job] = {}  # the jobs' first processes
        self._strays: dict[int, int] = {}  # descendants whose own parents have ended -> number of their job
        self._outputs: dict[int, Job] = {}
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._dropped: list[int] = []  # descriptors to close
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)

    def serve(self) -> None:
        """Work until the worker is gone, then leave nothing behind."""
        serving = True
        while serving:
            self._reply()
            requested = False
            for fd, _ in self._epoll.poll(self._pause()):
                if fd == self._channel:
                    requested = True
                elif fd in self._exits:
                    self._reap(fd)
                elif fd in self._outputs:
                    self._read(self._outputs[fd])
            if time.monotonic() >= self._next_look:
                self._adopt()
                for job in list(self._jobs.values()):
                    self._finish_if_alone(job)
            self._reply()  # before anything is started: that takes a while
            # Both last, so that no descriptor's number is used again while there are events of the old one to look at.
            while self._dropped:
                os.close(self._dropped.pop())
            serving = not requested or self._take_requests()
        self._end_everything()

    def _reply(self) -> None:
        replies = b"".join(self._replies)
        self._replies.clear()
        while replies:
            try:
                replies = replies[os.write(self._channel, replies) :]
            except (BrokenPipeError, ConnectionResetError):
                return  # the worker is gone: reading says so next

    def _pause(self) -> float:
        now = time.monotonic()
        for job in list(self._unknown.values()):
            left = job.started + LONG_SECONDS - now
            if left > 0:
                return left
            del self._unknown[job.number]
            self._replies.append(pack((RUNNING, job.number, job.pid)))
            self._reply()
        return LOOK_SECONDS if self._jobs else -1

    def _take_requests(self) -> bool:
        try:
            data = os.read(self._channel, PIPE_BYTES)
        except ConnectionResetError:
            return False
        self._pending += data
        for request in unpack(self._pending):
            if request[0] == START:
                self._start(*request[1:])
            elif request[1] in self._jobs:
                self._kill(self._jobs[request[1]])
        return bool(data)

    def _start(
        self, number: int, arguments: list[str], environment: dict[str, str], folder: str | None, keep_output: bool
    ) -> None:
        read_end, write_end = None, NOTHING
        try:
            if keep_output:
                read_end, write_end = self._open_pipe()
            pid = start(arguments, environment, folder=folder or self._home, output=write_end)
        except Refused as refused:
            if read_end is not None:
                os.close(read_end)
            self._replies.append(pack((REFUSED, number, *refused.args)))
            return
        finally:
            if write_end != NOTHING:
                os.close(write_end)
        job = self._jobs[number] = self._unknown[number] = Job(number, pid, read_end)
        if read_end is not None:
            self._outputs[read_end] = job
            self._epoll.register(read_end, select.EPOLLIN)
        self._leaders[pid] = job
        self._follow(pid)

    def _open_pipe(self) -> tuple[int, int]:
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise Refused(None, f"no pipe could be opened for its output: {error.strerror}") from None
        os.set_blocking(read_end, False)
        return read_end, write_end

    def _follow(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._exits[pidfd] = pid
        self._epoll.register(pidfd, select.EPOLLIN)

    def _reap(self, pidfd: int) -> None:
        pid = self._exits.pop(pidfd)
        job = self._leaders.get(pid)
        if job is not None:
            self._kill(job)  # those of its group: the group's number is ours until we reap
        _, status, usage = os.wait4(pid, 0)
        self._drop(pidfd)
        if job is not None:
            del self._leaders[pid]
            job.exit_code = os.waitstatus_to_exitcode(status)
        else:
            job = self._jobs.get(self._strays.pop(pid))
        if job is not None:
            job.peak_kib = max(job.peak_kib, usage.ru_maxrss)
            job.cpu_seconds += usage.ru_utime + usage.ru_stime
        self._adopt()
        if job is not None:
            self._finish_if_alone(job)

    def _adopt(self) -> None:
        """Follow the descendants that have become our children, and kill those whose job has ended.

        One that does not tell whose it is (it left its session and wiped its environment) is killed when no job runs.
        """
        self._next_look = time.monotonic() + LOOK_SECONDS
        for pid in map(int, os.pread(self._children, CHILDREN_BYTES, 0).split()):
            if pid not in self._leaders and pid not in self._strays:
                self._strays[pid] = self._job_of(pid)
                self._follow(pid)
        for pid, number in self._strays.items():
            job = self._jobs.get(number)
            waited_for = job is not None and job.exit_code is None
            if not (self._leaders if number == NOBODY else waited_for) and not kill(pid):
                self._strays[pid] = NOBODY  # another user's: it can only be left to end

    def _job_of(self, pid: int) -> int:
        """Return the number of the job that started a process: by its session, or by the mark in its environment."""
        session = os.getsid(pid)
        for job in self._jobs.values():
            if job.pid == session:
                return job.number
        for variable in environment_of(pid):
            if variable.startswith(self._mark):
                return int(variable[len(self._mark) :].partition(b"#")[0])
        return NOBODY

    def _kill(self, job: Job) -> None:
        if job.exit_code is None:
            try:
                os.killpg(job.pid, SIGKILL)
            except PermissionError:  # another user's, by a set-user-id program: it can only be waited for
                return

    def _finish_if_alone(self, job: Job) -> None:
        if job.exit_code is not None and job.number not in self._strays.values():
            self._finish(job)

    def _finish(self, job: Job) -> None:
        for _ in range(LAST_READS):
            self._read(job)
        self._close_output(job)
        del self._jobs[job.number]
        self._unknown.pop(job.number, None)
        wall_seconds = time.monotonic() - job.started
        tail = bytes(job.tail[-TAIL_BYTES:])
        self._replies.append(
            pack((ENDED, job.number, job.exit_code, tail, job.peak_kib << 10, job.cpu_seconds, wall_seconds))
        )

    def _read(self, job: Job) -> None:
        """Read what a pipe can hold, and keep the end of it."""
        if job.output is None:
            return
        try:
            data = os.read(job.output, PIPE_BYTES)
        except BlockingIOError:
            return
        job.tail += data[-TAIL_BYTES:]
        if len(job.tail) > 2 * TAIL_BYTES:
            del job.tail[:-TAIL_BYTES]
        if not data:
            self._close_output(job)

    def _close_output(self, job: Job) -> None:
        if job.output is not None:
            del self._outputs[job.output]
            self._drop(job.output)
            job.output = None

    def _drop(self, fd: int) -> None:
        # Closing is not enough: a child that is just being executed may still hold it, and the events would go on.
        self._epoll.unregister(fd)
        self._dropped.append(fd)

    def _end_everything(self) -> None:
        """Kill and reap until there is no child left; descendants become children as their parents end."""
        for job in self._jobs.values():
            self._kill(job)
        while True:
            for pid in os.pread(self._children, CHILDREN_BYTES, 0).split():
                kill(int(pid))
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                return


def environment_of(pid: int) -> list[bytes]:
    """Return the variables a process was started with; none when it has ended or is another user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return file.read().split(b"\0")
    except OSError:
        return []


def kill(pid: int) -> bool:
    """Send SIGKILL to a child of ours; False when we may not."""
    try:
        os.kill(pid, SIGKILL)
    except PermissionError:
        return False
    return True


def main(mark: str) -> None:
    """Become a spawner on the socket at standard input. `mark` is as for Spawner."""
    if os.fork():  # the copy has only those pages it uses from here on: a megabyte and a half less
        os._exit(0)
    channel = os.dup(0)  # not inheritable, unlike 0
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, NOTHING)
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    Spawner(channel, mark).serve()
