"""
A process under measurement: starts it, waits until it listens, reads its cost, stops it.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Measured", "Others", "freePort", "processorTime", "raiseFileLimit"]

START_DEADLINE = 30.0
STOP_DEADLINE = 5.0


class Measured:
    """
    A server's process, including all its threads and children.

    @ivar pid: its process id.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        environment: dict[str, str] | None = None,
        user: str | None = None,
        folder: Path | None = None,
    ) -> None:
        """
        Start the process.

        @param command: the program and its arguments.
        @param log: the file that gets its output.
        @param environment: variables to set, besides those of this process.
        @param user: the user to run as; by default this process's.
        @param folder: the directory to run in.
        """
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                user=user,
                extra_groups=[] if user else None,
                cwd=folder,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        """
        @return: this object, whose process is stopped at the end of the block.
        """
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """
        Stop the process.

        @param kind: not used.
        @param error: not used.
        @param where: not used.
        """
        self.stop()

    def waitListening(self, port: int) -> None:
        """
        Wait until it accepts connections.

        @param port: its port, on the loopback address.
        @raise RuntimeError: if it ends, or does not listen within L{START_DEADLINE} seconds.
        """
        deadline = time.monotonic() + START_DEADLINE
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with status {self._process.returncode}{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"it does not listen after {START_DEADLINE:g} s{self.tail()}"
                    ) from None
                time.sleep(0.05)
            else:
                return

    def tail(self) -> str:
        """
        Get the end of its output, for an error message.

        @return: a few lines, or nothing.
        """
        lines = self.log.read_text(errors="replace").splitlines()[-5:]
        return "".join(f"\n    {line}" for line in lines)

    def alive(self) -> bool:
        """
        Check whether it still runs.

        @return: L{True} if so.
        """
        return self._process.poll() is None

    def all(self) -> list[int]:
        """
        Find its child processes, and theirs in turn.

        @return: their process ids, its own first.
        """
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text().split())
        return found

    def cpu(self) -> float:
        """
        Get the processor time that it and its children have used so far.

        @return: seconds, see L{processorTime}.
        """
        return sum(map(processorTime, self.all()))

    def memory(self) -> int:
        """
        Get the resident memory, including its children's.

        @return: bytes.
        """
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.all()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> list[int]:
        """
        Count open files, which shows how clients are distributed.

        @return: the number for this process, then for each of its children.
        """
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.all()]

    def stop(self) -> None:
        """
        Stop it; kill it if it takes more than L{STOP_DEADLINE} seconds.
        """
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def processorTime(pid: int) -> float:
    """
    Get the processor time of a process, in user and in system mode, for all threads that it has or
    had.

    The process's CPU clock counts nanoseconds; C{/proc/PID/stat}, the fallback, counts the same
    time in hundredths of a second.

    @param pid: the process.
    @return: seconds.
    """
    try:
        # The id of a process's CPU clock, as clock_getcpuclockid(3) computes it.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others:
    """
    The processor time used outside the measurement, since this object was created.
    """

    def __init__(self) -> None:
        """
        Start counting.
        """
        self._busy, self._begun = self._now(), time.monotonic()

    def processor(self, accounted: float) -> float:
        """
        Get the processor time that other processes used, or that the hypervisor took.

        @param accounted: seconds that the processes of the measurement used in the same time.
        @return: the share of one processor.  C{/proc/stat} counts hundredths of a second and may
            include the kernel's network processing, so a few hundredths mean nothing.
        """
        elapsed = time.monotonic() - self._begun
        return max(0.0, self._now() - self._busy - accounted) / elapsed

    @staticmethod
    def _now() -> float:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _idle, _wait, hard, soft, stolen = map(int, line.split()[1:9])
        ticks = user + nice + system + hard + soft + stolen
        return ticks / os.sysconf("SC_CLK_TCK")


def freePort() -> int:
    """
    Find a free port of the loopback address.

    @return: the port's number.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raiseFileLimit(wanted: int) -> int:
    """
    Raise the limit on open files for this process and its children.

    @param wanted: the number needed.
    @return: the number allowed now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
