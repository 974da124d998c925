"""
A protocol without a role, for tests of what servers and clients share.
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
Any message.
"""


class PlainConnection(Connection):
    """
    A connection that passes every message to its protocol.

    @ivar server: the factory's shared state.
    """

    def __init__(
        self, transport: StreamTransport, hooks: Hooks, shared: SharedByConnections
    ) -> None:
        super().__init__(transport, hooks, shared)
        self.server = shared

    def start(self) -> None:
        """
        Wait for messages.
        """

    def messageReceived(self, message: Message) -> None:
        """
        Pass a message on.
        """
        cast(Plain, self.hooks).messageReceived(message)


class Plain(KeepAliveProtocol, isBase=True):
    """
    A protocol that records messages and reasons.
    """

    _kaprotoConnection = PlainConnection

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.reasons: list[Exception] = []

    def messageReceived(self, message: Message) -> None:
        """
        Record a message.
        """
        self.messages.append(message)

    def connectionClosed(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.reasons.append(reason)


class ProtocolTestCase(ClockTestCase):
    """
    Base class for tests of one end of a connection.
    """

    def plain(self, protocol: type[KeepAliveProtocol] = Plain) -> Wire[Plain]:
        """
        Connect a L{Plain} protocol; the test plays its peer.
        """
        factory = KeepAliveFactory(cast(IReactorTime, self.clock))
        factory.protocol = protocol
        return self.wire(cast(Plain, factory.buildProtocol(None)))

    def untilPinged(self, wire: Wire[Plain]) -> None:
        """
        Advance the clock just until the next ping.
        """
        for _tick in range(200):
            self.clock.advance(1 / 64)
            if wire.taken() == PING:
                return
        self.fail("no ping came")

    def reasonOf(self, wire: Wire[Plain]) -> Exception:
        """
        Lose the connection of a protocol that is closing.

        @return: the only reason that it got.
        """
        self.assertTrue(wire.closing)
        wire.lose()
        (reason,) = wire.protocol.reasons
        return reason


def keepsKeepAlive(header: Header) -> bool:
    """
    @return: whether a message is keepalive, which is intercepted and not forwarded.
    """
    return header[1] == KEEPALIVE_PROGRAM
