"""
Tests for L{kaproto.security.loginbooks}.
"""

from __future__ import annotations

import sys
from mmap import mmap
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security import loginbooks
from kaproto.security.loginbooks import WINDOW, Books, Table

ROWS = 4
NAMES = "abcdefg"


def small() -> Books:
    """
    @return: books with few rows, so that keys share chains and replace each other. Their secret is
        zero, so that the same keys always share the same chains.
    """
    usual, loginbooks.TABLE_MAX = loginbooks.TABLE_MAX, ROWS  # type: ignore[misc]
    try:
        return Books(mmap(-1, Books.size()))
    finally:
        loginbooks.TABLE_MAX = usual  # type: ignore[misc]


class Killed(Exception):
    """
    Stands for the death of the process.
    """


class TableTests(SynchronousTestCase):
    """
    Tests for L{Table}.
    """

    @given(st.lists(st.tuples(st.sampled_from("fsdt"), st.sampled_from(NAMES), st.integers(0, 40))))
    def test_model(self, steps: list[tuple[str, str, int]]) -> None:
        """
        A table counts each key's failed and undecided logins of the last minute, and keeps the keys
        that failed last.
        """
        books, now = small(), 1000.0
        table = books.networks
        keys = {name: books.key(name) for name in NAMES}
        failed: dict[str, list[float]] = {}
        letThrough: dict[str, list[float]] = {}
        for what, name, pause in steps:
            now += pause + 0.001
            row = table.find(keys[name])
            self.assertEqual(row is not None, name in failed)
            if what == "f":
                row = table.add(keys[name], now)
                assert row is not None
                table.fail(row, now)
                failed[name] = [*failed.pop(name, []), now]
                letThrough.setdefault(name, [])
                if len(failed) > ROWS:
                    del failed[next(iter(failed))]
            elif row is not None and what == "s":
                table.letThrough(row, now)
                letThrough[name].append(now)
            elif row is not None and what == "d" and letThrough[name]:
                table.decided(row, letThrough[name].pop(), now)
            elif row is not None:
                table.tidy(row, now)
            for each in set(failed):
                row = table.find(keys[each])
                recent, undecided = (
                    sum(int(now) - int(at) < WINDOW for at in some[each])
                    for some in (failed, letThrough)
                )
                if row is None:
                    self.assertEqual((each, recent + undecided), (name, 0))
                    del failed[each]
                else:
                    self.assertEqual(table.failures(row, now), recent)
                    self.assertEqual(table.undecided(row, now), undecided)
            for each in letThrough.keys() - failed.keys():
                del letThrough[each]
            self.assertEqual(len(table), len(failed))

    def test_freed(self) -> None:
        """
        A full table reuses the rows without counts before it replaces the key that failed longest
        ago.
        """
        books = small()
        table, keys = books.networks, {name: books.key(name) for name in NAMES}
        for time, name in enumerate("abcde"):
            table.newest(keys[name], 1000 + time)
        for name in "ed":
            row = table.find(keys[name])
            assert row is not None
            table.tidy(row, 1100)
        for time, name in enumerate("fga"):
            table.newest(keys[name], 1101 + time)
        self.assertEqual(
            [name for name in NAMES if table.find(keys[name]) is None], ["b", "d", "e"]
        )

    def test_unfailed(self) -> None:
        """
        A key that has not failed does not replace one whose failures still count.
        """
        books = small()
        for number in range(ROWS):
            books.networks.add(books.key(str(number)), 1000)
        self.assertIsNone(books.networks.add(books.key("new"), 1059 - WINDOW))
        self.assertIsNotNone(books.networks.add(books.key("new"), 1060 - WINDOW))

    def test_killed(self) -> None:
        """
        If a process is killed at any line, the others still find every row except the one it
        changed.
        """
        for line in range(1, 1000):
            books = small()
            table, old = books.networks, [books.key(name) for name in "abcd"]
            for time, key in enumerate(old):
                table.add(key, 1000 + time)
            if not self.killed(line, table, books.key("new"), old[0]):
                break
            for key in old[2:]:
                self.assertIsNotNone(table.find(key), line)
            for time in range(3 * ROWS):
                key = books.key(f"later {time}")
                row = table.add(key, 2000 + time)
                self.assertEqual(table.find(key), row)
            for time in range(2 * ROWS, 3 * ROWS):
                self.assertIsNotNone(table.find(books.key(f"later {time}")), line)
        self.assertGreater(line, 20)

    def killed(self, line: int, table: Table, new: bytes, old: bytes) -> bool:
        """
        Free one row and add two, with the process killed at a given line.

        @param line: how many lines are executed before.
        @return: C{False} if there were fewer lines.
        """
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_globals is not vars(loginbooks):
                return None
            left -= event == "line"
            if left <= 0:
                raise Killed
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            table.tidy(table.find(old) or 0, 3000)
            table.add(new, 1500)
            table.add(old, 1600)
        except Killed:
            return True
        finally:
            sys.settrace(before)
        return False
