"""
A sensor feed: an RPC program with its own number, and a server for it.

A client can get the latest reading of a sensor, and subscribe to new readings.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime

from kaproto import KeepAlive, KeepAliveServerFactory, KeepAliveServerProtocol, Mandatory
from kaproto.errors import RemoteError
from kaproto.program import Program, pack, procedure

FEED: Final = 0x66656564
LATEST: Final = 1
SUBSCRIBE: Final = 2
READING: Final = 3


@attrs.frozen
class Reading:
    """
    A reading of a sensor, as a struct in XDR.
    """

    sensor: str
    value: int


class FeedError(IntEnum):
    """
    The feed's error codes, in its own error domain.
    """

    NO_SENSOR = 1


class FeedConnection(KeepAliveServerProtocol):
    """
    A connection from a client that may have subscribed.
    """

    subscribed = False


class FeedProgram(Program):
    """
    The procedures that clients can call.
    """

    number = FEED

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}

    @procedure(LATEST, arguments=str, result=Reading)
    def latest(self, connection: FeedConnection, sensor: str) -> Reading:
        """
        Return the latest reading of one sensor.
        """
        if sensor not in self.readings:
            raise RemoteError(FeedError.NO_SENSOR, FEED, "there is no such sensor")
        return self.readings[sensor]

    @procedure(SUBSCRIBE, arguments=None)
    def subscribe(self, connection: FeedConnection) -> None:
        """
        Send this client every new reading.
        """
        connection.subscribed = True


class FeedFactory(KeepAliveServerFactory):
    """
    Serves the feed to clients that answer pings.
    """

    protocol = FeedConnection

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self.program = FeedProgram()
        policy = Mandatory(KeepAlive(interval=2, count=3))
        super().__init__(policy, programs=[self.program], clock=clock)

    def publish(self, reading: Reading) -> None:
        """
        Send a reading to every subscriber, except those that are behind with reading.
        """
        self.program.readings[reading.sensor] = reading
        for each in self.connections:
            if isinstance(each, FeedConnection) and each.subscribed and not each.congested:
                each.sendEvent(FEED, READING, pack(reading))
