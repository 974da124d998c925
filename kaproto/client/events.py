"""
A stream of events from a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from kaproto.errors import ConnectionClosed, LocalProtocolError
from kaproto.wire.programs import CloseReason

__all__ = ["EVENTS_MAX", "EventStream"]

EVENTS_MAX: Final = 1000
"""
The most events that a stream buffers until they are read.
"""

_T = TypeVar("_T")


class EventStream(Generic[_T]):
    """
    The events since the stream was created, in order.

    C{async for event in stream} ends when this client stops the stream or closes the connection.
    It raises the reason when the connection ends in any other way.
    """

    def __init__(self, stopped: Callable[[], object], most: int = EVENTS_MAX) -> None:
        """
        @param stopped: called when no more events are wanted.
        @param most: the most events to keep.
        """
        self._stopped = stopped
        self._most = most
        self._events: deque[_T] = deque()
        self._waiting: deque[Deferred[_T]] = deque()
        self._end: Exception | None = None
        self._wanted = True

    def put(self, event: _T) -> None:
        """
        Add an event.  If the buffer is full, drop the event, and end the stream with an error after
        the buffered events.
        """
        if self._end is not None:
            return
        if self._waiting:
            self._waiting.popleft().callback(event)
        elif len(self._events) < self._most:
            self._events.append(event)
        else:
            self._finish(
                LocalProtocolError(
                    f"more than {self._most} events were waiting to be read; read them faster"
                )
            )

    def end(self, reason: Exception, *, wanted: bool = True) -> None:
        """
        End the stream after the buffered events.

        @param reason: why it ends.
        @param wanted: whether more events were expected, so that the end is an error.
        """
        if self._end is None:
            self._end, self._wanted = reason, wanted
            while self._waiting:
                self._waiting.popleft().errback(reason)

    def stop(self) -> None:
        """
        Stop the stream, and tell the server to send no more events.  The buffered events can still
        be read.
        """
        self._finish(ConnectionClosed("the stream was stopped", CloseReason.CLIENT), wanted=False)

    def _finish(self, reason: Exception, *, wanted: bool = True) -> None:
        if self._end is None:
            self.end(reason, wanted=wanted)
            self._stopped()

    def next(self) -> Deferred[_T]:
        """
        @return: fires with the next event; fails with the reason when the stream has ended.  It can
            be cancelled.
        """
        if self._events:
            return succeed(self._events.popleft())
        if self._end is not None:
            return fail(self._end)
        waiting: Deferred[_T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def __aiter__(self) -> EventStream[_T]:
        return self

    async def __anext__(self) -> _T:
        try:
            return await self.next()
        except Exception as reason:
            if reason is self._end and not self._wanted:
                raise StopAsyncIteration from None
            raise
