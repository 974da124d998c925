"""
Tests for L{kaproto.workers.sharedbooks}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.guessing import GuessLimit
from kaproto.security.loginbooks import WINDOW
from kaproto.workers.sharedbooks import createBooks, sharedBooks

HERE = "192.0.2.1"


class SharedBooksTests(SynchronousTestCase):
    """
    Tests for two workers with the same books, with ten guesses per minute and one second between
    turns.
    """

    def setUp(self) -> None:
        """
        Create both workers' limits.
        """
        descriptor = createBooks()
        self.books = [sharedBooks(os.dup(descriptor)), sharedBooks(descriptor)]
        self.one, self.two = (GuessLimit(books=each) for each in self.books)

    def attack(self, worker: GuessLimit, times: int, now: float) -> None:
        """
        Fail logins with different names, none of which has to wait.
        """
        for number in range(times):
            attempt = worker.enter(HERE, f"guess {number}", now)
            self.assertTrue(attempt.granted)
            worker.failed(attempt, now)

    def later(self, begin: float, seconds: int) -> list[float]:
        """
        Fail every login whose turn comes, at either worker.

        @return: the times of these turns.
        """
        granted = []
        for step in range(seconds * 100 + 1):
            now = begin + step / 100
            for worker in (self.one, self.two):
                for attempt in worker.turns(now):
                    granted.append(round(now, 2))
                    worker.failed(attempt, now)
        return granted

    def test_failures(self) -> None:
        """
        Failures at both workers are added up.  Further logins wait for turns, one per second, and
        after a minute without failures they no longer wait.  The wait is reported once.
        """
        self.attack(self.one, 5, 1000)
        self.attack(self.two, 5, 1000)
        waiting = [each.enter(HERE, "x", 1000) for each in (self.one, self.two) for _ in range(3)]
        self.assertEqual([each.granted for each in waiting], [False] * 6)
        self.assertEqual([each.held for each in waiting], [[f"network {HERE}"]] + [[]] * 5)
        self.assertEqual(self.later(1000, 10), [1001, 1002, 1003, 1004, 1005, 1006])
        self.attack(self.two, 10, 1006 + WINDOW)

    def test_hurry(self) -> None:
        """
        If more logins wait than have turns in 100 seconds, turns come faster at both workers, so
        that none waits longer.
        """
        self.attack(self.one, 10, 1000)
        for each in (self.one, self.two):
            for _ in range(100):
                each.enter(HERE, "x", 1000)
        granted = self.later(1000, 100)
        self.assertEqual((len(granted), granted[-1]), (200, 1100))
        for begin in range(1000, 1100, 10):
            self.assertIn(sum(begin < each <= begin + 10 for each in granted), range(15, 26))

    def test_known(self) -> None:
        """
        A user who has logged in at one worker is known at the others, and at workers started later.
        """
        self.one.succeeded(self.one.enter(HERE, "alice", 1000), 1000)
        self.attack(self.one, 10, 1000)
        self.assertFalse(self.two.enter(HERE, "bob", 1000).granted)
        self.assertTrue(self.two.enter(HERE, "alice", 1000).granted)
        self.assertTrue(GuessLimit(books=self.books[1]).enter(HERE, "alice", 1000).granted)

    def test_crowd(self) -> None:
        """
        Pending logins at one worker count at the other until they succeed; those of a killed worker
        count for one minute.
        """
        crowd = [self.one.enter(HERE, f"user {number}", 1000) for number in range(10)]
        waits = self.two.enter(HERE, "alice", 1000)
        self.assertFalse(waits.granted)
        for each in crowd[5:]:
            self.one.succeeded(each, 1000)
        self.assertEqual(self.two.turns(1001), [waits])
        self.two.succeeded(waits, 1001)
        self.attack(self.two, 5, 1001)
        for now in (1001, 999.9 + WINDOW):
            waits = self.two.enter(HERE, "bob", now)
            self.assertFalse(waits.granted)
            self.two.failed(waits, now)
        self.attack(self.two, 5, 1000 + WINDOW)

    def test_lock(self) -> None:
        """
        Only one worker holds the lock at a time, and the end of a worker releases it.
        """
        one, two = (each.lock for each in self.books)
        self.assertTrue(one.acquire())
        self.assertFalse(two.acquire())
        one.release()
        self.assertTrue(two.acquire())
        self.assertFalse(one.acquire())
        self.two = self.one
        del two, self.books[1]
        self.assertTrue(one.acquire())
        one.release()
