"""
Tests for L{kaproto.security.hashing}.
"""

from __future__ import annotations

import threading

from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kaproto.security.hashing import THREADS, offReactor


class WithoutReactorTests(SynchronousTestCase):
    """
    Tests for L{offReactor} while no reactor is running.
    """

    def test_atOnce(self) -> None:
        """
        The function is called at once.
        """
        self.assertEqual(self.successResultOf(offReactor(int, "7")), 7)
        self.failureResultOf(offReactor(int, "seven"), ValueError)


class OffReactorTests(TestCase):
    """
    Tests for L{offReactor} while the reactor is running.
    """

    timeout = 10

    def setUp(self) -> None:
        """
        Create an event that the threads' work waits for.
        """
        self.go = threading.Event()
        self.begun: list[object] = []
        self.threads: set[threading.Thread] = set()
        self.addCleanup(self.go.set)

    async def start(self) -> None:
        """
        Wait until the reactor runs.
        """
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0)

    async def untilBegun(self, count: int) -> None:
        """
        Wait until C{count} functions have been called.
        """
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        while len(self.begun) < count:
            await deferLater(reactor, 0.001)

    def work(self, which: object) -> object:
        """
        Record the call and the thread, then wait for C{go}.
        """
        self.begun.append(which)
        self.threads.add(threading.current_thread())
        self.go.wait(8)
        return which

    async def test_threads(self) -> None:
        """
        Functions run in threads, and their results and errors arrive in the Deferreds.
        """
        await self.start()
        self.go.set()
        jobs = [offReactor(self.work, number) for number in range(3 * THREADS)]
        self.assertEqual(await gatherResults(jobs), list(range(3 * THREADS)))
        self.assertNotIn(threading.current_thread(), self.threads)
        with self.assertRaises(ValueError):
            await offReactor(int, "seven")

    async def test_cancelled(self) -> None:
        """
        A cancelled Deferred fails at once. Its function is not called if it has not begun;
        otherwise it occupies its thread until it returns.
        """
        await self.start()
        running = [offReactor(self.work, number) for number in range(THREADS)]
        await self.untilBegun(THREADS)
        waiting = [offReactor(self.work, "cancelled"), offReactor(self.work, "last")]
        for job in (*running, waiting[0]):
            job.cancel()
            job.addErrback(lambda failure: failure.trap(CancelledError))
        self.assertEqual(len(self.begun), THREADS)
        self.assertNoResult(waiting[1])
        self.go.set()
        self.assertEqual(await waiting[1], "last")
        self.assertEqual(sorted(map(str, self.begun)), ["0", "1", "last"])

    async def test_strangers(self) -> None:
        """
        Work for strangers leaves one thread free for others, even after it is cancelled.
        """
        await self.start()
        jobs = [offReactor(self.work, f"stranger {n}", stranger=True) for n in range(5)]
        await self.untilBegun(THREADS - 1)
        ours = offReactor(self.work, "ours")
        await self.untilBegun(THREADS)
        self.assertEqual(self.begun, ["stranger 0", "ours"])
        for job in jobs[:3]:
            job.cancel()
            job.addErrback(lambda failure: failure.trap(CancelledError))
        # The first cannot be stopped, and still occupies the strangers' thread.
        later = offReactor(self.work, "ours, later")
        self.go.set()
        await gatherResults([ours, later, *jobs[3:]])
        self.assertEqual(
            sorted(self.begun), ["ours", "ours, later", "stranger 0", "stranger 3", "stranger 4"]
        )
