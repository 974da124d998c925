"""
The records of logins, in one block of memory that several processes may share.

There are three tables of L{TABLE_MAX} rows: networks, user names, and the pairs of both that have
logged in.  A table is a set of columns.  Its keys are keyed hashes, because a user name may be a
password that was typed into the wrong field.  A key's remainder is its place in the index:
C{first[remainder]} is the number of a row plus one, C{next[row]} the same for the next row in that
chain, and 0 marks the end.

Each row counts logins per second, in a ring of L{WINDOW} counters.  A login that was let through
counts as undecided, in its second, until it fails or succeeds.  So the undecided logins of a killed
process expire after a minute.

Hold L{Books.lock} to read or write.  A single write adds a row to the index or removes it, so a
process that is killed halfway leaves at most one unreachable row, which is reused in time.
"""

from __future__ import annotations

import os
import threading
from hashlib import blake2b
from math import inf
from mmap import mmap
from typing import Final, Protocol

__all__ = ["TABLE_MAX", "WINDOW", "Books", "Lock", "Table"]

WINDOW: Final = 60
"""
Seconds for which a failure counts.
"""

TABLE_MAX: Final = 4096
"""
The rows of each table.  In a full table, a new row replaces the one renewed longest ago.
"""

_KEY: Final = 16
_NUMBER: Final = 8
_COUNTER: Final = 4
_LINK: Final = 2
_NONE: Final = memoryview(bytes(WINDOW * _COUNTER)).cast("I")
_ROW: Final = _KEY + 4 * _NUMBER + 2 * WINDOW * _COUNTER + 2 * _LINK
_UNUSED: Final = -1.0


class Table:
    """
    One table.  All times are monotonic seconds.

    @ivar renewed: a column: the time of the latest failure or login.
    @ivar turn: a column: the time at which the latest login was let through.
    @ivar held: a column: the latest time at which a login had to wait because others had failed.
    """

    def __init__(self, memory: mmap, at: int) -> None:
        """
        @param memory: the memory of all tables.  A new table consists of zeros.
        @param at: the offset at which this table begins.
        """
        end = at

        def column(size: int, rows: int) -> memoryview:
            nonlocal end
            begin, end = end, end + size * rows
            return memoryview(memory)[begin:end]

        rows = TABLE_MAX
        self._used = column(_NUMBER, 1).cast("Q")
        self.renewed = column(_NUMBER, rows).cast("d")
        self.turn = column(_NUMBER, rows).cast("d")
        self.held = column(_NUMBER, rows).cast("d")
        self._second = column(_NUMBER, rows).cast("Q")
        self._failed = column(_COUNTER, WINDOW * rows).cast("I")
        self._undecided = column(_COUNTER, WINDOW * rows).cast("I")
        self._keys = column(_KEY, rows)
        self._first = column(_LINK, rows).cast("H")
        self._next = column(_LINK, rows).cast("H")
        self._byAge: list[tuple[float, int]] = []

    def __len__(self) -> int:
        """
        @return: how many rows are in use.
        """
        return sum(each != _UNUSED for each in self.renewed[: self._used[0]])

    def _key(self, row: int) -> slice:
        return slice(row * _KEY, (row + 1) * _KEY)

    def _chain(self, key: bytes | memoryview) -> int:
        return int.from_bytes(key[:_NUMBER]) % len(self._first)

    def find(self, key: bytes) -> int | None:
        """
        @return: the row of a key; C{None} if it has none.
        """
        link = self._first[self._chain(key)]
        while link and self._keys[self._key(link - 1)] != key:
            link = self._next[link - 1]
        return link - 1 if link else None

    def add(self, key: bytes, renewed: float) -> int | None:
        """
        Find the row of a key, or add one.  When the table is full, the new row replaces the oldest.

        @param renewed: the time of the key's latest failure or login; without either, L{WINDOW}
            seconds ago, so that any row with one replaces it first.
        @return: the row; C{None} if all rows are newer.
        """
        row = self.find(key)
        if row is None:
            row = self._room(renewed)
            if row is None:
                return None
            self.turn[row] = self.held[row] = -inf
            counters = slice(row * WINDOW, (row + 1) * WINDOW)
            self._failed[counters] = self._undecided[counters] = _NONE
            self.renewed[row] = renewed
            self._keys[self._key(row)] = key
            chain = self._chain(key)
            self._next[row] = self._first[chain]
            self._first[chain] = row + 1
        self.renewed[row] = max(renewed, self.renewed[row])
        return row

    def newest(self, key: bytes, now: float) -> int:
        """
        @return: the row of a key that failed or logged in now; it is added if there is none.
        """
        row = self.add(key, now)
        assert row is not None, "no row is newer"
        return row

    def _room(self, renewed: float) -> int | None:
        if self._used[0] < len(self.renewed):
            self._used[0] += 1
            return self._used[0] - 1
        # Sorting is slow, so the rows are sorted once by age, and taken from the oldest.  Rows that
        # were renewed since then are skipped.  L{tidy} appends the rows that it frees.
        while not self._byAge or self.renewed[self._byAge[-1][1]] != self._byAge[-1][0]:
            if self._byAge:
                self._byAge.pop()
            else:
                self._byAge = sorted(
                    ((age, row) for row, age in enumerate(self.renewed)), reverse=True
                )
        age, row = self._byAge[-1]
        if age > renewed:
            return None
        self._unlink(row)
        return row

    def _unlink(self, row: int) -> None:
        """
        Remove a row from its chain, if it is in it.
        """
        chain = self._chain(self._keys[self._key(row)])
        links, at = self._first, chain
        while links[at] not in (0, row + 1):
            links, at = self._next, links[at] - 1
        if links[at]:
            links[at] = self._next[row]

    def _advance(self, row: int, now: float) -> int:
        """
        Clear the counters of the seconds that have passed since the last call.

        @return: the index of the row's first counter.
        """
        second, last = int(now), self._second[row]
        first = row * WINDOW
        for each in range(max(last, second - WINDOW) + 1, second + 1):
            place = first + each % WINDOW
            self._failed[place] = self._undecided[place] = 0
        self._second[row] = max(last, second)
        return first

    def failures(self, row: int, now: float) -> int:
        """
        @return: how many logins have failed within L{WINDOW}.
        """
        first = self._advance(row, now)
        return sum(self._failed[first : first + WINDOW])

    def undecided(self, row: int, now: float) -> int:
        """
        @return: how many logins were let through within L{WINDOW} and are not decided yet.
        """
        first = self._advance(row, now)
        return sum(self._undecided[first : first + WINDOW])

    def letThrough(self, row: int, now: float) -> None:
        """
        Count a login as undecided.
        """
        self._undecided[self._advance(row, now) + int(now) % WINDOW] += 1

    def decided(self, row: int, since: float, now: float) -> None:
        """
        A login that was let through at the time C{since} is no longer undecided.
        """
        place = self._advance(row, now) + int(since) % WINDOW
        if int(now) - int(since) < WINDOW and self._undecided[place]:
            self._undecided[place] -= 1

    def fail(self, row: int, now: float) -> None:
        """
        Count a failure.
        """
        self._failed[self._advance(row, now) + int(now) % WINDOW] += 1

    def tidy(self, row: int, now: float) -> None:
        """
        Free a row whose counters are all zero.
        """
        if not self.failures(row, now) and not self.undecided(row, now):
            self._unlink(row)
            self.renewed[row] = _UNUSED
            if self._byAge:
                self._byAge.append((_UNUSED, row))


class Lock(Protocol):
    """
    A lock that several processes may share.
    """

    def acquire(self) -> bool:
        """
        @return: whether this process got the lock; C{False} if a stopped process holds it.
        """

    def release(self) -> None:
        """
        Let others acquire the lock.
        """


class Books:
    """
    The records of failed and successful logins.

    @ivar lock: must be held to read or write.
    @ivar networks: networks from which logins have failed, or are not decided yet.
    @ivar names: user names with more than one failed login.
    @ivar pairs: pairs of a network and a user name that have logged in.
    """

    def __init__(self, memory: mmap | None = None, lock: Lock | None = None) -> None:
        """
        @param memory: L{size} bytes that L{prepare} has set up; by default this process's own.
        @param lock: by default this process's own.
        """
        if memory is None:
            memory = self.prepare(mmap(-1, self.size()))
        self.lock: Lock = threading.Lock() if lock is None else lock
        self._secret = memory[:_KEY]
        tables = range(_KEY, self.size(), _NUMBER + TABLE_MAX * _ROW)
        self.networks, self.names, self.pairs = (Table(memory, at) for at in tables[:3])
        end = tables[3] + TABLE_MAX * _NUMBER
        self._onceAt = memoryview(memory)[tables[3] : end].cast("d")
        self._once = memoryview(memory)[end:]

    @staticmethod
    def prepare(memory: mmap) -> mmap:
        """
        @param memory: L{size} zeros.
        @return: the same memory, ready for new books.
        """
        memory[:_KEY] = os.urandom(_KEY)
        return memory

    @staticmethod
    def size() -> int:
        """
        @return: the size of the records in bytes.  Pages that were never written use no memory.
        """
        return _KEY + 3 * (_NUMBER + TABLE_MAX * _ROW) + TABLE_MAX * (_KEY + _NUMBER)

    def key(self, *what: str) -> bytes:
        """
        @return: the key of a network, a name or a pair.
        """
        text = "\0".join(what).encode()
        return blake2b(text, digest_size=_KEY, key=self._secret).digest()

    def failedBefore(self, name: bytes, now: float) -> float | None:
        """
        Record that a user name failed.  Only a name that fails twice gets a row in L{names}, so
        invented names cannot fill that table.  First failures are in an array, in which each key
        has one place, by its remainder, and replaces the key that was there.

        @return: the time of its previous failure, if that was within L{WINDOW}.
        """
        place = int.from_bytes(name) % len(self._onceAt)
        key = self._once[place * _KEY : (place + 1) * _KEY]
        known, before = key == name, self._onceAt[place]
        key[:], self._onceAt[place] = name, now
        return before if known and now - before < WINDOW else None
