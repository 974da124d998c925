"""
What is remembered of logins, in one piece of memory that several processes may share.

There are three tables of L{TABLE_MAX} rows: networks, user names, and the pairs of both that have
logged in.  A table is a set of columns.  Keys are keyed hashes: a name may be a password typed into
the wrong field.  A table is indexed by the remainder of the key: C{first[remainder]} is the number
of a row plus one, C{next[row]} that of the next row with the same remainder, and 0 is the end.

Logins are counted by the second, in a ring of L{WINDOW} counters for each row.  One that has been
let through counts as undecided in its second until it has failed or succeeded.  So
the undecided logins of a process that was killed are forgotten after a minute, and nobody has to
clean up.

Hold L{Books.lock} to read or write.  A process that is killed in the middle leaves at worst one row
that nobody finds, because one write adds a row to the index or removes it.  That row is used again
when it is the oldest.
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
The rows of each table.  A full table of networks or names drops the one whose last failure is the
oldest; the table of known pairs, the one whose last login is the oldest.
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
    Networks, names, or pairs.  All times are monotonic seconds.

    @ivar renewed: a column: when the row last failed or logged in.
    @ivar turn: a column: when the last login was let through.
    @ivar held: a column: when a login last had to wait because others had failed.
    """

    def __init__(self, memory: mmap, at: int) -> None:
        """
        @param memory: has zeros at first.
        @param at: where the table begins there.
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
        @return: the row of a key, if there is one.
        """
        link = self._first[self._chain(key)]
        while link and self._keys[self._key(link - 1)] != key:
            link = self._next[link - 1]
        return link - 1 if link else None

    def add(self, key: bytes, renewed: float) -> int | None:
        """
        @param renewed: when it failed or logged in; for one that has not, L{WINDOW} ago, when a
            failure would count no more.
        @return: the row of a key, which is added if it is not there; C{None} if that would push
            out a newer one.
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
        @return: the row of a key that has failed or logged in just now.
        """
        row = self.add(key, now)
        assert row is not None, "no row is newer"
        return row

    def _room(self, renewed: float) -> int | None:
        if self._used[0] < len(self.renewed):
            self._used[0] += 1
            return self._used[0] - 1
        # Sorting takes long, so the order is kept and read from its old end, where L{tidy} adds the
        # rows that it frees.  Rows that are newer now than they were then are skipped.
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
        Take a row out of its chain, if it is there.
        """
        chain = self._chain(self._keys[self._key(row)])
        links, at = self._first, chain
        while links[at] not in (0, row + 1):
            links, at = self._next, links[at] - 1
        if links[at]:
            links[at] = self._next[row]

    def _advance(self, row: int, now: float) -> int:
        """
        Clear the counters of seconds that have passed since somebody last looked.

        @return: where the row's counters begin.
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
        @return: how many logins were let through within L{WINDOW} and may fail.
        """
        first = self._advance(row, now)
        return sum(self._undecided[first : first + WINDOW])

    def letThrough(self, row: int, now: float) -> None:
        """
        Count a login that may fail.
        """
        self._undecided[self._advance(row, now) + int(now) % WINDOW] += 1

    def decided(self, row: int, since: float, now: float) -> None:
        """
        Stop counting a login that was let through.
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
        Free a row that counts nothing.
        """
        if not self.failures(row, now) and not self.undecided(row, now):
            self._unlink(row)
            self.renewed[row] = _UNUSED
            if self._byAge:
                self._byAge.append((_UNUSED, row))


class Lock(Protocol):
    """
    Keeps other processes out.
    """

    def acquire(self) -> bool:
        """
        @return: whether this process holds the lock now.  It does not if another one was stopped
            while it held it.
        """

    def release(self) -> None:
        """
        Let other processes take it.
        """


class Books:
    """
    All that is remembered.

    @ivar lock: hold it to read or write.
    @ivar networks: those where logins have failed or may fail.
    @ivar names: user names that have failed more than once.
    @ivar pairs: pairs of network and name that have logged in.
    """

    def __init__(self, memory: mmap | None = None, lock: Lock | None = None) -> None:
        """
        @param memory: L{size} bytes, set up by L{prepare}; by default, of this process alone.
        @param lock: keeps other processes out.
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
        @return: the same, for a new set of books.
        """
        memory[:_KEY] = os.urandom(_KEY)
        return memory

    @staticmethod
    def size() -> int:
        """
        @return: how many bytes the books take; those never written take no memory.
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
        Note that a name failed, so that a second failure is noticed.  Names that are made up and
        fail once each so cannot fill the table of names that fail repeatedly.  Each key has one
        place in an array, by its remainder, and overwrites what was there.

        @return: when it failed before, if that still counts.
        """
        place = int.from_bytes(name) % len(self._onceAt)
        key = self._once[place * _KEY : (place + 1) * _KEY]
        known, before = key == name, self._onceAt[place]
        key[:], self._onceAt[place] = name, now
        return before if known and now - before < WINDOW else None
