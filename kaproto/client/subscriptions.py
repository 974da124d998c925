"""
Distributes the events of a connection to the streams that were registered for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

from kaproto.client.events import EVENTS_MAX, EventStream

__all__ = ["Numbered", "Subscriptions"]


class Numbered(Protocol):
    """
    An event that names the registration it belongs to.
    """

    @property
    def callback(self) -> int:
        """
        The server's number for the registration.
        """


_Wire = TypeVar("_Wire", bound=Numbered)
_Event = TypeVar("_Event")


class Subscriptions(Generic[_Wire, _Event]):
    """
    The streams of one kind of event.
    """

    def __init__(
        self, convert: Callable[[_Wire], _Event], deregister: Callable[[int], Deferred[None]]
    ) -> None:
        """
        @param convert: converts an event on the wire to one for the application.
        @param deregister: tells the server that a registration is no longer needed.
        """
        self._convert = convert
        self._deregister = deregister
        self._streams: dict[int, EventStream[_Event]] = {}
        self._registering = 0
        self._early: list[_Wire] = []

    async def subscribe(self, registered: Awaitable[int]) -> EventStream[_Event]:
        """
        @param registered: results in the number of a new registration, once the server has replied.
        @return: its stream of events.
        """
        self._registering += 1
        try:
            number = await registered
        finally:
            self._registering -= 1
        stream: EventStream[_Event] = EventStream(partial(self._stopped, number))
        self._streams[number] = stream
        early, self._early = self._early, []
        for event in early:
            self.received(event)
        return stream

    def _stopped(self, number: int) -> None:
        del self._streams[number]
        # No more events are wanted, so errors do not matter.
        self._deregister(number).addErrback(lambda _failure: None)

    def received(self, event: _Wire) -> None:
        """
        Add an event to its stream.
        """
        stream = self._streams.get(event.callback)
        if stream is not None:
            stream.put(self._convert(event))
        elif self._registering and len(self._early) < EVENTS_MAX:
            # The server may send an event before its reply to the registration.
            self._early.append(event)

    def end(self, reason: Exception, *, wanted: bool) -> None:
        """
        End all streams.

        @param reason: why they end.
        @param wanted: whether more events were expected, so that the end is an error.
        """
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(reason, wanted=wanted)
