"""
Tests for L{kaproto.waiting}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from kaproto.waiting import Waiting


class WaitingTests(SynchronousTestCase):
    """
    Tests for L{Waiting}.
    """

    def test_all(self) -> None:
        """
        All waiting Deferreds fire once; one created in a callback waits for the next result.
        """
        waiting: Waiting[int] = Waiting()
        first, second = waiting.wait(), waiting.wait()
        later = []
        first.addCallback(lambda _result: later.append(waiting.wait()))
        self.assertEqual(len(waiting), 2)
        waiting.fire(5)
        self.assertEqual(self.successResultOf(second), 5)
        self.assertNoResult(later[0])
        error = ValueError("never")
        waiting.fail(error)
        self.assertIs(self.failureResultOf(later[0]).value, error)
        self.assertEqual(len(waiting), 0)

    def test_cancelled(self) -> None:
        """
        A cancelled Deferred does not get the result, even if another's callback cancels it while
        the result is delivered.
        """
        waiting: Waiting[int] = Waiting()
        first, second, third = (waiting.wait() for _ in range(3))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(len(waiting), 2)
        first.addCallback(lambda _result: third.cancel())
        waiting.fire(5)
        self.failureResultOf(third, CancelledError)
