"""
Tests for L{kaproto.security.hashing}.
"""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kaproto.security import hashing
from kaproto.security.hashing import THREADS, offReactor


class WithoutReactorTests(SynchronousTestCase):
    """
    L{offReactor} where no reactor runs.
    """

    def test_atOnce(self) -> None:
        """
        The function is called at once.
        """
        self.assertEqual(self.successResultOf(offReactor(int, "7")), 7)
        self.failureResultOf(offReactor(int, "seven"), ValueError)


class OffReactorTests(TestCase):
    """
    L{offReactor} where the reactor runs.
    """

    timeout = 10

    def setUp(self) -> None:
        """
        Have work that waits.
        """
        self.go = threading.Event()
        self.begun: list[Any] = []
        self.addCleanup(self.go.set)

    async def start(self) -> None:
        """
        Wait until the reactor runs.
        """
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0)

    def work(self, which: object) -> object:
        """
        Wait in a thread, without end if need be.
        """
        self.begun.append((which, threading.current_thread()))
        self.go.wait(8)
        return which

    async def test_threads(self) -> None:
        """
        Functions run in threads, a few at once and the others after them, in their order.
        """
        await self.start()
        self.go.set()
        jobs = [offReactor(self.work, number) for number in range(3 * THREADS)]
        self.assertEqual(await gatherResults(jobs), list(range(3 * THREADS)))
        self.assertNotIn(threading.current_thread(), [thread for _which, thread in self.begun])
        with self.assertRaises(ValueError):
            await offReactor(int, "seven")

    async def test_cancelled(self) -> None:
        """
        Who is cancelled waits no more.  A function that has not begun is never called; one that
        has keeps its thread busy until it ends, so that no more than L{THREADS} are.
        """
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await self.start()
        running = [offReactor(self.work, number) for number in range(THREADS)]
        while len(self.begun) < THREADS:
            await deferLater(reactor, 0.001)
        waiting = [offReactor(self.work, "cancelled"), offReactor(self.work, "last")]
        for job in (*running, waiting[0]):
            job.cancel()
            job.addErrback(lambda failure: failure.trap(CancelledError))
        self.assertEqual(hashing._slots.tokens, 0)
        self.assertIsInstance(waiting[1], Deferred)
        self.go.set()
        self.assertEqual(await waiting[1], "last")
        names = [which for which, _thread in self.begun]
        self.assertEqual(sorted(map(str, names)), ["0", "1", "last"])
