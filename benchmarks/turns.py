"""
Runs twistd, and records each long turn of the reactor.

    python -P benchmarks/turns.py FILE [twistd's arguments]

A turn is the reactor's work between two polls of its file descriptors: timers, then reads and
writes.  No other client is served during a turn.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from twisted.internet import epollreactor
from twisted.scripts import twistd

__all__ = ["WORTH_WRITING", "longestTurn"]

WORTH_WRITING: Final = 0.002
"""
The shortest turn that is recorded, in seconds.
"""


class TimedPoller:
    """
    An C{epoll} that measures the time between two polls.
    """

    def __init__(self, size: int, file: Path) -> None:
        """
        @param size: as for C{epoll}.
        @param file: the file to write long turns to.
        """
        self._poller = select.epoll(size)
        self.register, self.unregister = self._poller.register, self._poller.unregister
        self.modify = self._poller.modify
        self._begun = time.monotonic()
        self._events = 0
        self._file = file.open("w", buffering=1)

    def poll(self, timeout: float, most: int) -> Sequence[tuple[int, int]]:
        """
        Poll: this ends one turn, and the next begins when it returns.

        @param timeout: as for C{epoll.poll}.
        @param most: as for C{epoll.poll}.
        @return: the result of C{epoll.poll}.
        """
        ended = time.monotonic()
        if ended - self._begun >= WORTH_WRITING:
            self._file.write(f"{self._begun:.6f} {ended:.6f} {self._events}\n")
        events = self._poller.poll(timeout, most)
        self._begun, self._events = time.monotonic(), len(events)
        return events


def longestTurn(file: Path, since: float, until: float) -> float | None:
    """
    Find the longest recorded turn.

    @param file: the file with the record.
    @param since: ignore turns that began before this time, by C{time.monotonic}.
    @param until: ignore turns that began after this time.
    @return: its duration in seconds, 0 if no long turn was recorded; L{None} for a server whose
        turns are not recorded.
    """
    if not file.exists():
        return None
    turns = [tuple(map(float, line.split()[:2])) for line in file.read_text().splitlines()]
    return max((end - begin for begin, end in turns if since <= begin <= until), default=0.0)


if __name__ == "__main__":
    epollreactor.epoll = partial(TimedPoller, file=Path(sys.argv.pop(1)))  # type: ignore[attr-defined]
    twistd.run()
