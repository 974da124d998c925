"""
Tests for L{kaproto.security.loginqueue}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.limits import Limits
from kaproto.security.loginbooks import Books
from kaproto.security.loginqueue import ITurn, LoginQueue

HERE = "192.0.2.1"


class StuckLock:
    """
    A lock that another process may hold.
    """

    isFree = True

    def acquire(self) -> bool:
        """
        @return: whether the lock is free.
        """
        return self.isFree

    def release(self) -> None:
        """
        Do nothing.
        """


class LoginQueueTests(SynchronousTestCase):
    """
    Tests for L{LoginQueue}. The rules themselves are tested with L{kaproto.security.guessing}.
    """

    def setUp(self) -> None:
        """
        Create a queue that allows two guesses.
        """
        self.clock = Clock()
        self.limits = Limits(loginGuesses=2, failureDelay=1)
        self.queue = LoginQueue(self.clock, lambda: self.limits)

    def enter(self, user: str = "alice") -> Deferred[ITurn]:
        """
        Begin a login.
        """
        return self.queue.enter(HERE, user)

    def attack(self) -> None:
        """
        Fail twice.
        """
        for user in "ab":
            self.successResultOf(self.enter(user)).failed()

    def test_atOnce(self) -> None:
        """
        A login that need not wait is granted at once, and leaves no timer behind.
        """
        for outcome in ("succeeded", "forget", "failed", "failed"):
            turn = self.successResultOf(self.enter())
            self.assertEqual(turn.known, outcome != "succeeded")
            turn.answered()
            getattr(turn, outcome)()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turns(self) -> None:
        """
        Held logins are granted one after another, each after the answer to the previous one.
        """
        self.attack()
        first, second = self.enter("x"), self.enter("y")
        self.assertNoResult(first)
        self.clock.advance(1)
        turn = self.successResultOf(first)
        self.clock.advance(5)
        self.assertNoResult(second)
        turn.answered()
        self.clock.advance(0)
        self.successResultOf(second).succeeded()
        turn.failed()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limits(self) -> None:
        """
        Changed limits apply to the next login.
        """
        self.attack()
        self.limits = Limits(loginGuesses=3)
        self.successResultOf(self.enter())

    def test_cancel(self) -> None:
        """
        A cancelled login makes room for the next.
        """
        self.attack()
        first, second = self.enter("x"), self.enter("y")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.clock.advance(1)
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nested(self) -> None:
        """
        A login that ends in its own callback lets the next one through.
        """
        self.limits = Limits(loginGuesses=2, failureDelay=0)
        self.attack()
        order: list[str] = []

        def fail(turn: ITurn, user: str) -> None:
            order.append(user)
            turn.failed()

        for user in "xyz":
            self.enter(user).addCallback(fail, user)
        self.clock.pump([0] * 5)
        self.assertEqual(order, ["x", "y", "z"])

    def test_busy(self) -> None:
        """
        While another process holds the lock, new logins wait, outcomes are kept for later, and a
        login that is cancelled does not count as a failure.
        """
        lock = StuckLock()
        self.queue = LoginQueue(self.clock, lambda: self.limits, Books(lock=lock))
        turn = self.successResultOf(self.enter("before"))
        lock.isFree = False
        waits, leaves = self.enter("x"), self.enter("y")
        turn.failed()
        leaves.cancel()
        self.failureResultOf(leaves, CancelledError)
        self.clock.pump([0.02] * 10)
        self.assertNoResult(waits)
        lock.isFree = True
        self.clock.advance(0.02)
        self.successResultOf(waits).failed()
        self.assertNoResult(self.enter("z"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_fault(self) -> None:
        """
        A step that raises an error does not stop the logins after it.
        """

        def step(now: float) -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.queue.happens, step)
        self.successResultOf(self.enter())

    def test_leavesInTurn(self) -> None:
        """
        When two logins are granted at once and the callback of the first cancels the second, the
        second fails with L{CancelledError}.
        """
        lock = StuckLock()
        self.queue = LoginQueue(self.clock, lambda: self.limits, Books(lock=lock))
        first = [self.successResultOf(self.enter(user)) for user in "ab"]
        waiting = [self.enter(user) for user in "xy"]
        waiting[0].addCallback(lambda _: waiting[1].cancel())
        lock.isFree = False
        for turn in first:
            turn.succeeded()
        lock.isFree = True
        self.clock.advance(0.02)
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_log(self) -> None:
        """
        The first held login logs one line, with the reason and the flags that control it.
        """
        self.attack()
        with capturedLogs() as events:
            for user in "xyz":
                self.enter(user)
        (event,) = events
        text = event["log_format"].format(**event)
        self.assertIn(f"network {HERE}: 2 logins failed within 60 s (--auth-guesses)", text)
        self.assertIn("1 s apart (--auth-delay)", text)
