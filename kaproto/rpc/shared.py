"""
What a connection needs of its factory and of its protocol.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.limits import Limits

__all__ = ["Hooks", "Shared", "SharedByConnections"]


class Shared(Protocol):
    """
    What the parts of a connection need of its factory.

    @ivar clock: schedules timeouts.
    @ivar limits: the timeouts, among others.
    """

    clock: IReactorTime
    limits: Limits


class SharedByConnections(Shared, Protocol):
    """
    What a L{kaproto.rpc.connection.Connection} needs of its factory.

    @ivar roundTrips: where latencies are counted.
    @ivar tcpKeepAlive: which peers the kernel watches.
    """

    roundTrips: Histogram
    tcpKeepAlive: TCPKeepAlive


class Hooks(Protocol):
    """
    What a L{kaproto.rpc.connection.Connection} calls on its protocol.
    """

    def connectionOpened(self) -> None:
        """
        The connection is open.
        """

    def connectionClosed(self, reason: Exception, /) -> None:
        """
        The connection has ended.
        """
