"""
The number of clients of each worker, in memory that all workers share.

Each process has a row that it alone writes, so no lock is needed; the sum of the rows is the number
of all clients.  A worker first counts a new client in its own row, and then adds up all rows.  If
two workers do so at the same moment, at least one of them counts the other's new client.  So there
are never more clients than C{--max-clients}.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Final

__all__ = ["Elsewhere", "SharedCounts"]

_FIELDS: Final = 2
_PLACES, _NUMBERED = range(_FIELDS)
_BYTES: Final = 8


class SharedCounts:
    """
    The rows.  A row survives the process that writes it.
    """

    def __init__(self, rows: int, descriptor: int) -> None:
        """
        @param descriptor: the descriptor of the file in memory, see L{create}.
        """
        self.rows = rows
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, rows * _FIELDS * _BYTES)
        self._cells = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, rows: int) -> SharedCounts:
        """
        @return: rows of zeros, in a new file in memory that can be passed to other processes.
        """
        descriptor = os.memfd_create("kaserver-counts", 0)
        os.ftruncate(descriptor, rows * _FIELDS * _BYTES)
        return cls(rows, descriptor)

    def close(self) -> None:
        """
        Unmap the memory in this process.
        """
        self._cells.release()
        self._map.close()
        os.close(self.descriptor)

    def __len__(self) -> int:
        """
        @return: the number of clients of all processes.
        """
        return sum(self._cells[_PLACES::_FIELDS])

    def set(self, row: int, places: int) -> None:
        """
        @param places: the number of clients of the process that writes this row.
        """
        self._cells[row * _FIELDS + _PLACES] = places

    def of(self, row: int) -> int:
        """
        @return: the number of clients in a row.
        """
        return self._cells[row * _FIELDS + _PLACES]

    def clear(self, row: int) -> int:
        """
        Set the row of a process that has ended to zero.

        @return: the number of clients that it had.
        """
        clients = self.of(row)
        self.set(row, 0)
        return clients

    def numbers(self, row: int) -> Iterator[int]:
        """
        Number connections uniquely among all processes.  A process that takes over a row continues
        its numbers.

        @return: C{rows + row}, C{2 * rows + row} and so on: the remainder is the row.
        """
        cell = row * _FIELDS + _NUMBERED
        while True:
            self._cells[cell] += 1
            yield self._cells[cell] * self.rows + row

    def rowOf(self, number: int) -> int:
        """
        @param number: a connection's number.
        @return: the row of its process.
        """
        return number % self.rows


class Elsewhere:
    """
    Counts the clients of the other processes, for L{kaproto.rpc.clients.Clients}.

    @ivar processes: the number of processes.  Limits that are not counted jointly are divided by
        it.
    """

    def __init__(self, counts: SharedCounts, row: int, processes: int, room: int) -> None:
        """
        @param row: this process's own row.
        @param room: the most clients that this process's open-file limit allows; 0 for any number.
        """
        self.processes = processes
        self._counts = counts
        self._row = row
        self._room = room

    def others(self, here: int, most: int) -> int:
        """
        Publish the number of clients of this process, and return that of the others.

        @param most: the limit for all processes together; 0 for none.
        @return: the number of clients of other processes.  If this process has room for fewer
            clients than C{most}, it is at least the difference, so that C{most} minus the result
            never exceeds the room.
        """
        self._counts.set(self._row, here)
        others = len(self._counts) - here
        return max(others, most - self._room) if self._room else others
