"""
Tests for L{kaproto.app.memory}.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.memory import WORTHWHILE, MemoryTrimmer, trimMemory


class MemoryTests(SynchronousTestCase):
    """
    Tests for L{MemoryTrimmer} and L{trimMemory}.
    """

    def test_when(self) -> None:
        """
        Memory is returned once at least as many connections have ended as are still open.
        """
        done: list[int] = []
        trimmer = MemoryTrimmer(lambda: done.append(1))
        for present, ended, times in [
            (0, 0, 0),
            (0, WORTHWHILE - 1, 0),
            (0, WORTHWHILE, 1),
            (0, 2 * WORTHWHILE - 1, 1),
            (5000, 5099, 1),
            (4999, 5099, 2),
            (0, 5099, 2),
            (0, 10_000, 3),
        ]:
            trimmer.look(present, ended)
            self.assertEqual(len(done), times, (present, ended))

    def test_trim(self) -> None:
        """
        L{trimMemory} calls the C library's C{malloc_trim}, if it has one.
        """
        asked: list[int] = []
        self.patch(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=asked.append))
        trimMemory()
        self.assertEqual(asked, [0])
        self.patch(ctypes, "CDLL", lambda _name: SimpleNamespace())
        trimMemory()
        self.assertEqual(asked, [0])

    def test_real(self) -> None:
        """
        L{trimMemory} raises nothing with the C library of this machine.
        """
        trimMemory()
