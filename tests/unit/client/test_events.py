"""
Tests for L{kaproto.client.events}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client.events import EventStream
from kaproto.errors import ConnectionClosed, LocalProtocolError


class EventStreamTests(SynchronousTestCase):
    """
    Tests for L{EventStream}.
    """

    def setUp(self) -> None:
        """
        Make a stream that holds two events.
        """
        self.stops = 0
        self.stream: EventStream[int] = EventStream(self.stopped, most=2)
        self.taken: list[int] = []

    def stopped(self) -> None:
        """
        Note that nobody wants more events.
        """
        self.stops += 1

    async def take(self) -> None:
        """
        Take events until there are no more.
        """
        async for event in self.stream:
            self.taken.append(event)

    def test_next(self) -> None:
        """
        Events come in order, whether they or those who wait were first.
        """
        self.stream.put(1)
        self.stream.put(2)
        waiting = [self.stream.next() for _ in range(4)]
        self.stream.put(3)
        self.stream.put(4)
        self.assertEqual([self.successResultOf(each) for each in waiting], [1, 2, 3, 4])

    def test_cancelled(self) -> None:
        """
        Who gives up waiting takes no event from others.
        """
        first, second = self.stream.next(), self.stream.next()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.stream.put(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_iteration(self) -> None:
        """
        A loop takes events as they come.
        """
        looping = Deferred.fromCoroutine(self.take())
        for event in range(5):
            self.stream.put(event)
        self.assertEqual(self.taken, [0, 1, 2, 3, 4])
        self.assertNoResult(looping)
        self.stream.stop()
        self.assertIsNone(self.successResultOf(looping))

    def test_stopped(self) -> None:
        """
        After a stop there are those events that came before, once.
        """
        self.stream.put(1)
        self.stream.stop()
        self.stream.put(2)
        self.stream.stop()
        self.assertEqual(self.stops, 1)
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.take())))
        self.assertEqual(self.taken, [1])
        self.failureResultOf(self.stream.next(), ConnectionClosed)

    def test_ended(self) -> None:
        """
        A stream that ends otherwise raises the reason, after the events that came before.
        """
        reason = ZeroDivisionError()
        self.stream.put(1)
        self.stream.end(reason)
        self.stream.end(ValueError())
        self.stream.stop()
        self.assertEqual(self.stops, 0)
        looping = Deferred.fromCoroutine(self.take())
        self.assertIs(self.failureResultOf(looping).value, reason)
        self.assertEqual(self.taken, [1])

    def test_endedWhileWaiting(self) -> None:
        """
        Those who wait hear of the end as well.
        """
        looping, waiting = Deferred.fromCoroutine(self.take()), self.stream.next()
        self.stream.end(ZeroDivisionError())
        self.failureResultOf(looping, ZeroDivisionError)
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_endedQuietly(self) -> None:
        """
        An end that is as it should be ends a loop, and is an error to who wants one more.
        """
        looping, waiting = Deferred.fromCoroutine(self.take()), self.stream.next()
        self.stream.end(ConnectionClosed("closed"), wanted=False)
        self.assertIsNone(self.successResultOf(looping))
        self.failureResultOf(waiting, ConnectionClosed)

    def test_tooMany(self) -> None:
        """
        Who takes no events gets those that there is room for, and then an error.
        """
        for event in range(5):
            self.stream.put(event)
        self.assertEqual(self.stops, 1)
        looping = Deferred.fromCoroutine(self.take())
        error = self.failureResultOf(looping, LocalProtocolError).value
        self.assertIn("more than 2 events", str(error))
        self.assertEqual(self.taken, [0, 1])
