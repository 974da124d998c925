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
    A lock that another process may have.
    """

    isFree = True

    def acquire(self) -> bool:
        """
        @return: whether it does not.
        """
        return self.isFree

    def release(self) -> None:
        """
        Let it have it.
        """


class LoginQueueTests(SynchronousTestCase):
    """
    Tests for L{LoginQueue}.  L{kaproto.security.guessing} has its own.
    """

    def setUp(self) -> None:
        """
        Make one.
        """
        self.clock = Clock()
        self.limits = Limits(loginGuesses=2, failureDelay=1)
        self.queue = LoginQueue(self.clock, lambda: self.limits)

    def enter(self, user: str = "alice") -> Deferred[ITurn]:
        """
        Want to log in.
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
        Those who need not wait do not, and leave nothing behind.
        """
        for outcome in ("succeeded", "forget", "failed", "failed"):
            turn = self.successResultOf(self.enter())
            self.assertEqual(turn.known, outcome != "succeeded")
            turn.answered()
            getattr(turn, outcome)()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turns(self) -> None:
        """
        The others have their turn one after another.  The next one waits for the answer to the one
        before.
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
        Limits that change hold for those who come then.
        """
        self.attack()
        self.limits = Limits(loginGuesses=3)
        self.successResultOf(self.enter())

    def test_cancel(self) -> None:
        """
        Who leaves makes room.
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
        What happens in somebody's turn may let the next one through.
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
        While another process keeps the books to itself, logins wait, and what happens is noted;
        who leaves meanwhile has not failed.
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
        A step that raises an error leaves the queue to the logins after it.
        """

        def step(now: float) -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.queue.happens, step)
        self.successResultOf(self.enter())

    def test_leavesInTurn(self) -> None:
        """
        Who leaves because of what comes of another login, just when its own turn has come, has it
        no more.
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
        One line says what they wait for, and which flags matter.
        """
        self.attack()
        with capturedLogs() as events:
            for user in "xyz":
                self.enter(user)
        (event,) = events
        text = event["log_format"].format(**event)
        self.assertIn(f"network {HERE}: 2 logins failed within 60 s (--auth-guesses)", text)
        self.assertIn("1 s apart (--auth-delay)", text)
