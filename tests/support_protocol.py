"""
One end of a connection that takes part in nothing, for tests of what both ends share.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IReactorTime

from kaproto.rpc.connection import Connection
from kaproto.rpc.protocol import KeepAliveFactory, KeepAliveProtocol
from kaproto.rpc.shared import Hooks, SharedByConnections
from kaproto.transport import StreamTransport
from kaproto.wire.filter import Header
from kaproto.wire.message import (
    PING,
    Message,
)
from kaproto.wire.programs import KEEPALIVE_PROGRAM
from tests.support import ClockTestCase, Wire, call

__all__ = ["HELLO", "Plain", "ProtocolTestCase", "keepsKeepAlive"]

HELLO = call(1, b"hello")
"""
A message.
"""


class PlainConnection(Connection):
    """
    A connection that gives its protocol every message.

    @ivar server: its factory.
    """

    def __init__(
        self, transport: StreamTransport, hooks: Hooks, shared: SharedByConnections
    ) -> None:
        super().__init__(transport, hooks, shared)
        self.server = shared

    def start(self) -> None:
        """
        Wait for what comes.
        """

    def messageReceived(self, message: Message) -> None:
        """
        Remember a message.
        """
        cast(Plain, self.hooks).messageReceived(message)


class Plain(KeepAliveProtocol, isBase=True):
    """
    An end that remembers what happens to it.
    """

    _kaprotoConnection = PlainConnection

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.reasons: list[Exception] = []

    def messageReceived(self, message: Message) -> None:
        """
        Remember a message.
        """
        self.messages.append(message)

    def connectionClosed(self, reason: Exception) -> None:
        """
        Remember the reason.
        """
        self.reasons.append(reason)


class ProtocolTestCase(ClockTestCase):
    """
    A test of one end.
    """

    def plain(self, protocol: type[KeepAliveProtocol] = Plain) -> Wire[Plain]:
        """
        Connect an end to the test.
        """
        factory = KeepAliveFactory(cast(IReactorTime, self.clock))
        factory.protocol = protocol
        return self.wire(cast(Plain, factory.buildProtocol(None)))

    def untilPinged(self, wire: Wire[Plain]) -> None:
        """
        Let time pass until the next ping, and no longer.
        """
        for _tick in range(200):
            self.clock.advance(1 / 64)
            if wire.taken() == PING:
                return
        self.fail("no ping came")

    def reasonOf(self, wire: Wire[Plain]) -> Exception:
        """
        Have an end that is closing be closed.

        @return: the one reason it was told.
        """
        self.assertTrue(wire.closing)
        wire.lose()
        (reason,) = wire.protocol.reasons
        return reason


def keepsKeepAlive(header: Header) -> bool:
    """
    @return: whether a message is for the end itself and not to be relayed.
    """
    return header[1] == KEEPALIVE_PROGRAM
