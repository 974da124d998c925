"""
A sensor feed: an RPC program of its own number, and a server for it.

A client may ask for the latest reading of a sensor, and subscribe to every new one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from twisted.internet.interfaces import IReactorTime

from kaproto import KeepAlive, KeepAliveServerFactory, KeepAliveServerProtocol, Mandatory
from kaproto.errors import RemoteError
from kaproto.program import ErrorCode, ErrorDomain, Packer, Program, Unpacker, procedure

FEED: Final = 0x66656564
LATEST: Final = 1
SUBSCRIBE: Final = 2
READING: Final = 3


class Reading(NamedTuple):
    """
    What a sensor measured.
    """

    sensor: str
    value: int

    def packed(self) -> bytes:
        """
        Make XDR of it.
        """
        return Packer().string(self.sensor).int32(self.value).packed()

    @classmethod
    def unpacked(cls, payload: bytes) -> Reading:
        """
        Read it from XDR.
        """
        unpacker = Unpacker(payload)
        return cls(unpacker.string(), unpacker.int32())


class FeedConnection(KeepAliveServerProtocol):
    """
    A client, and whether it has subscribed.
    """

    subscribed = False


class FeedProgram(Program):
    """
    What clients can call.
    """

    number = FEED

    def __init__(self) -> None:
        self.latest: dict[str, Reading] = {}

    @procedure(LATEST)
    def answerLatest(self, connection: FeedConnection, payload: bytes) -> bytes:
        """
        Answer with the latest reading of one sensor.
        """
        sensor = Unpacker(payload).string()
        if sensor not in self.latest:
            raise RemoteError(ErrorCode.OPERATION_FAILED, ErrorDomain.NONE, f"no sensor {sensor}")
        return self.latest[sensor].packed()

    @procedure(SUBSCRIBE)
    def subscribe(self, connection: FeedConnection, payload: bytes) -> bytes:
        """
        Send this client every reading from now on.
        """
        connection.subscribed = True
        return b""


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
        Send a reading to whoever has subscribed.  Who is too slow to read it misses it.
        """
        self.program.latest[reading.sensor] = reading
        for each in self.connections:
            if isinstance(each, FeedConnection) and each.subscribed and not each.congested:
                each.sendEvent(FEED, READING, reading.packed())
