"""
How many clients each worker has, in memory that all of them share.

Each process has a row that it alone writes, so there is nothing to lock: to learn how many clients
there are in all, add up the rows.  A worker first writes that it has one more, and then adds up;
of two that do so at the same moment, at least one sees the other's.  So there are never more
clients than C{--max-clients}.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Final

import attrs

from kaproto.limits import Limits

__all__ = ["Elsewhere", "SharedCounts", "shareOfGuesses"]

_FIELDS: Final = 2
_PLACES, _NUMBERED = range(_FIELDS)
_BYTES: Final = 8


class SharedCounts:
    """
    The rows.  They survive the process that writes one.
    """

    def __init__(self, rows: int, descriptor: int) -> None:
        """
        @param descriptor: a file in memory, see L{create}.
        """
        self.rows = rows
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, rows * _FIELDS * _BYTES)
        self._cells = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, rows: int) -> SharedCounts:
        """
        @return: rows of zeros, in a file in memory that processes can be handed.
        """
        descriptor = os.memfd_create("kaserver-counts", 0)
        os.ftruncate(descriptor, rows * _FIELDS * _BYTES)
        return cls(rows, descriptor)

    def close(self) -> None:
        """
        Give the memory back, for this process.
        """
        self._cells.release()
        self._map.close()
        os.close(self.descriptor)

    def __len__(self) -> int:
        """
        @return: how many clients there are in all.
        """
        return sum(self._cells[_PLACES::_FIELDS])

    def set(self, row: int, places: int) -> None:
        """
        @param places: how many clients the process has that writes this row.
        """
        self._cells[row * _FIELDS + _PLACES] = places

    def of(self, row: int) -> int:
        """
        @return: how many clients the process has that writes a row.
        """
        return self._cells[row * _FIELDS + _PLACES]

    def clear(self, row: int) -> int:
        """
        The process that wrote this row has ended.

        @return: how many clients it had.
        """
        clients = self.of(row)
        self.set(row, 0)
        return clients

    def numbers(self, row: int) -> Iterator[int]:
        """
        Number connections, so that no two of all processes have one number.  A process that takes
        another's place goes on where that has ended.

        @return: C{rows + row}, C{2 * rows + row} and so on: the remainder says which row it is.
        """
        cell = row * _FIELDS + _NUMBERED
        while True:
            self._cells[cell] += 1
            yield self._cells[cell] * self.rows + row

    def rowOf(self, number: int) -> int:
        """
        @param number: a connection's.
        @return: the row of the process that has it.
        """
        return number % self.rows


def shareOfGuesses(limits: Limits, processes: int) -> Limits:
    """
    Processes do not tell each other of failed logins.  Each allows its part of the guesses, and
    lets logins wait as many times longer as there are processes, so that all together allow no more
    than one process would.

    @return: the limits of one process's login queue.
    """
    return attrs.evolve(
        limits,
        loginGuesses=max(1, limits.loginGuesses // processes),
        failureDelay=limits.failureDelay * processes,
    )


class Elsewhere:
    """
    The clients of the other processes, as L{kaproto.rpc.clients.Clients} counts them.

    @ivar processes: how many processes share what is not counted together.
    """

    def __init__(self, counts: SharedCounts, row: int, processes: int, room: int) -> None:
        """
        @param row: this process's own.
        @param room: clients that this process has files for; 0 for any number.
        """
        self.processes = processes
        self._counts = counts
        self._row = row
        self._room = room

    def others(self, here: int, most: int) -> int:
        """
        Say how many clients this process has, and learn how many the others have.

        @param most: how many there may be in all; 0 for any number.
        @return: how many there are elsewhere.  If this process has no room for all that there may
            be, places that it can never have count as taken.
        """
        self._counts.set(self._row, here)
        others = len(self._counts) - here
        return max(others, most - self._room) if self._room else others
