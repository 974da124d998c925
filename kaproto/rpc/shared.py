"""
The parts of a factory and of a protocol that a connection uses.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from kaproto.interfaces import IProgram
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.limits import Limits
from kaproto.records.journal import Journal
from kaproto.rpc.clients import Clients
from kaproto.rpc.policycheck import PolicyCheck
from kaproto.security.admission import AccessControl
from kaproto.security.loginqueue import ILoginQueue

__all__ = ["Hooks", "Shared", "SharedByConnections", "SharedByServer"]


class Shared(Protocol):
    """
    The part of the factory that the objects of a connection use.

    @ivar clock: schedules timeouts.
    @ivar limits: the timeouts and other limits.
    """

    clock: IReactorTime
    limits: Limits


class SharedByConnections(Shared, Protocol):
    """
    The part of the factory that a L{kaproto.rpc.connection.Connection} uses.

    @ivar roundTrips: the histogram of latencies.
    @ivar tcpKeepAlive: which peers the kernel watches.
    """

    roundTrips: Histogram
    tcpKeepAlive: TCPKeepAlive


class SharedByServer(SharedByConnections, Protocol):
    """
    The part of the factory that a L{kaproto.rpc.serverconnection.ServerConnection} uses.

    @ivar policyCheck: asks the policy whether a client may open, and how it is pinged.
    @ivar programs: the programs that can be called, by number.
    @ivar accessControl: who may connect.
    @ivar clients: the connected clients.
    @ivar loginQueue: decides when a client's password may be checked.
    @ivar journal: counts and logs events.
    @ivar startsOpen: whether connections are open without C{CONNECT_OPEN}.
    """

    policyCheck: PolicyCheck
    programs: dict[int, IProgram]
    accessControl: AccessControl
    clients: Clients[Any, Any]
    loginQueue: ILoginQueue
    journal: Journal
    startsOpen: bool


class Hooks(Protocol):
    """
    The methods of the protocol that a L{kaproto.rpc.connection.Connection} calls.
    """

    def connectionOpened(self) -> None:
        """
        The connection is open.
        """

    def connectionClosed(self, reason: Exception, /) -> None:
        """
        The connection has ended.
        """
