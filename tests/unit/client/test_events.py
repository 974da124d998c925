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
        Create a stream with room for two events.
        """
        self.stops = 0
        self.stream: EventStream[int] = EventStream(self.stopped, most=2)
        self.taken: list[int] = []

    def stopped(self) -> None:
        """
        Count a call of the stop function.
        """
        self.stops += 1

    async def take(self) -> None:
        """
        Record events until there are no more.
        """
        async for event in self.stream:
            self.taken.append(event)

    def test_next(self) -> None:
        """
        Events arrive in order, no matter whether C{put} or C{next} is called first.
        """
        self.stream.put(1)
        self.stream.put(2)
        waiting = [self.stream.next() for _ in range(4)]
        self.stream.put(3)
        self.stream.put(4)
        self.assertEqual([self.successResultOf(each) for each in waiting], [1, 2, 3, 4])

    def test_cancelled(self) -> None:
        """
        A cancelled C{next} takes no event.
        """
        first, second = self.stream.next(), self.stream.next()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.stream.put(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_iteration(self) -> None:
        """
        A loop gets events as they arrive.
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
        After C{stop}, only earlier events are delivered, and the stop function is called once.
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
        After C{end}, the reason is raised once the earlier events have been delivered.
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
        C{end} also raises the reason in callers that are waiting.
        """
        looping, waiting = Deferred.fromCoroutine(self.take()), self.stream.next()
        self.stream.end(ZeroDivisionError())
        self.failureResultOf(looping, ZeroDivisionError)
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_endedQuietly(self) -> None:
        """
        A regular end finishes a loop, and raises the reason in a waiting C{next}.
        """
        looping, waiting = Deferred.fromCoroutine(self.take()), self.stream.next()
        self.stream.end(ConnectionClosed("closed"), wanted=False)
        self.assertIsNone(self.successResultOf(looping))
        self.failureResultOf(waiting, ConnectionClosed)

    def test_tooMany(self) -> None:
        """
        A consumer that is too slow gets the events that there was room for, and then an error.
        """
        for event in range(5):
            self.stream.put(event)
        self.assertEqual(self.stops, 1)
        looping = Deferred.fromCoroutine(self.take())
        error = self.failureResultOf(looping, LocalProtocolError).value
        self.assertIn("more than 2 events", str(error))
        self.assertEqual(self.taken, [0, 1])
