"""
Measures what a process uses, as the kernel reports it.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Meter", "Sample", "fileCount", "sample"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """
    One measurement of a process.

    @ivar at: when, on the monotonic clock.
    @ivar resident: its resident memory in KiB.
    @ivar files: its open files.
    @ivar processor: the processor time it has used, in seconds.
    """

    at: float
    resident: int
    files: int
    processor: float


def _residentKiB(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    return int(found[1]) if found is not None else 0


def fileCount(pid: int) -> int:
    """
    @return: how many files a process has open.
    """
    return len(os.listdir(f"/proc/{pid}/fd"))


def _processorSeconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def sample(pid: int) -> Sample:
    """
    @return: a measurement of a process.
    """
    return Sample(time.monotonic(), _residentKiB(pid), fileCount(pid), _processorSeconds(pid))


class Meter:
    """
    Measures a process before, during and after an attack.

    @ivar before: the first measurement.
    @ivar last: the latest measurement.
    @ivar residentMax: the most resident memory, in KiB.
    @ivar filesMax: the most open files.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.last = sample(pid)
        self.residentMax = self.before.resident
        self.filesMax = self.before.files

    def look(self) -> None:
        """
        Measure again.  After the process has ended, keep the last measurement.
        """
        with suppress(FileNotFoundError, ProcessLookupError):
            self.last = sample(self._pid)
            self.residentMax = max(self.residentMax, self.last.resident)
            self.filesMax = max(self.filesMax, self.last.files)

    @property
    def growth(self) -> int:
        """
        The most memory beyond that of the first measurement, in KiB.
        """
        return self.residentMax - self.before.resident

    @property
    def share(self) -> float:
        """
        The fraction of one processor used between the first measurement and the latest.
        """
        elapsed = self.last.at - self.before.at
        return (self.last.processor - self.before.processor) / elapsed if elapsed else 0.0
