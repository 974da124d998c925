"""
What kaproto needs of a transport, and who is at its other end.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, ISSLTransport
from twisted.internet.tcp import Connection, Port

from kaproto.peer import Peer
from kaproto.unixpeer import unixCredentials

__all__ = ["ACCEPTS", "StreamTransport", "hasUnread", "identify", "paceAccepts", "writeNow"]

ACCEPTS: Final = 8
"""
How many connections a port is held to accept in one turn of the reactor; it may be 20 more.
"""


class StreamTransport(Protocol):
    """
    The slice of Twisted's TCP, TLS and UNIX transports that a connection uses: see
    L{twisted.internet.interfaces.ITCPTransport}, L{twisted.internet.interfaces.IConsumer} and
    L{twisted.internet.interfaces.IPushProducer}.
    """

    def write(self, data: bytes, /) -> None:
        """
        Send, as soon as the peer takes it.
        """

    def loseConnection(self) -> None:
        """
        Close once everything has been sent.
        """

    def abortConnection(self) -> None:
        """
        Close at once.
        """

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """

    def resumeProducing(self) -> None:
        """
        Read on.
        """

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:
        """
        Say whom to tell when the buffer is full, or empty again.
        """

    def unregisterProducer(self) -> None:
        """
        Tell nobody any more.
        """

    def getPeer(self) -> IAddress:
        """
        Say where the peer connected from.
        """


def identify(transport: StreamTransport) -> Peer:
    """
    @return: what the transport tells of the peer.
    """
    address = transport.getPeer()
    if ISSLTransport.providedBy(transport):
        return Peer(address, "tls")
    if isinstance(address, UNIXAddress):
        return Peer(address, "unix", unixCredentials=unixCredentials(transport))
    return Peer(address, "tcp")


def hasUnread(transport: StreamTransport) -> bool | None:
    """
    Whether something has come from the peer, be it the end, that this process has not read.

    @return: C{None} if that cannot be told: it can of Twisted's own connections, and of TLS or
        another protocol over these.
    """
    connection: object = transport
    while not isinstance(connection, Connection):
        connection = getattr(connection, "transport", None)
        if connection is None:
            return None
    if not connection.connected:
        return False
    try:
        connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except ConnectionError:
        return True
    except OSError:
        return False
    return True


def paceAccepts(transport: StreamTransport, clock: IReactorTime) -> None:
    """
    See to it that those who are there already do not have to wait for a crowd that comes.

    A port of Twisted's accepts 20 more connections per turn of the reactor for as long as more are
    waiting, beginning with 100, and each turn lasts as long as it takes to serve all of them.

    @param transport: one that has just been accepted.
    @param clock: the reactor.
    """
    port = getattr(transport, "server", None)
    if isinstance(port, Port) and port.numberAccepts > ACCEPTS:
        port.numberAccepts = ACCEPTS
        # At the end of this turn it sets its own number.
        clock.callLater(0, setattr, port, "numberAccepts", ACCEPTS)


def writeNow(transport: StreamTransport, data: bytes) -> None:
    """
    Write a few bytes, past the reactor where that is safe.

    C{transport.write} on an idle connection has the reactor wait for the socket to be writable,
    which costs three more system calls than the C{send} itself.  On a plain connection of
    Twisted's own with nothing waiting to be sent, the bytes can be sent at once.  With anything
    else, TLS first of all, whose plain text must never get to the socket, this is
    C{transport.write}.
    """
    if (
        isinstance(transport, Connection)
        and not transport.TLS
        and transport.connected
        and not transport.dataBuffer
        and getattr(transport, "_tempDataBuffer", None) == []
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)
