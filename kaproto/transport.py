"""
The transports that connections use, and the peers at their other ends.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, ISSLTransport
from twisted.internet.tcp import Connection, Port

from kaproto.peer import Peer, UnixCredentials

__all__ = [
    "ACCEPTS",
    "DirectWriter",
    "StreamTransport",
    "closeIfSent",
    "connectionOf",
    "endWriting",
    "hasUnread",
    "identify",
    "paceAccepts",
    "programOf",
    "tlsOf",
    "unixCredentials",
    "unsent",
    "writeNow",
]

ACCEPTS: Final = 8
"""
How many connections a port accepts in one turn of the reactor, give or take Twisted's own 20.
"""

_UCRED: Final = struct.Struct("iII")
"""
C{struct ucred}: process, user and group.
"""


class StreamTransport(Protocol):
    """
    The methods of Twisted's TCP, TLS and UNIX transports that a connection uses: see
    L{twisted.internet.interfaces.ITCPTransport}, L{twisted.internet.interfaces.IConsumer} and
    L{twisted.internet.interfaces.IPushProducer}.
    """

    def write(self, data: bytes, /) -> None:
        """
        Send bytes, or buffer them until the peer reads.
        """

    def loseConnection(self) -> None:
        """
        Close the connection after everything written has been sent.
        """

    def abortConnection(self) -> None:
        """
        Close the connection at once.
        """

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """

    def resumeProducing(self) -> None:
        """
        Start reading again.
        """

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:
        """
        Pause this producer while the send buffer is full.
        """

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """

    def getPeer(self) -> IAddress:
        """
        @return: the peer's address.
        """


def identify(transport: StreamTransport) -> Peer:
    """
    @return: the peer, as far as its transport identifies it.
    """
    address = transport.getPeer()
    if tlsOf(transport) is not None:
        return Peer(address, "tls")
    if isinstance(address, UNIXAddress):
        credentials = unixCredentials(transport)
        program = None if credentials is None else programOf(credentials.pid)
        return Peer(address, "unix", unixCredentials=credentials, program=program)
    return Peer(address, "tcp")


def unixCredentials(transport: object) -> UnixCredentials | None:
    """
    Ask the kernel which process connected to a UNIX socket (C{SO_PEERCRED}).

    @param transport: any transport of Twisted's.
    @return: C{None} for other transports, and where the kernel does not tell.
    """
    getHandle = getattr(transport, "getHandle", None)
    handle = None if getHandle is None else getHandle()
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
        return None
    try:
        data = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except (AttributeError, OSError):
        return None
    return UnixCredentials(*_UCRED.unpack(data))


def programOf(pid: int) -> str | None:
    """
    Look up the name of a process on this machine.

    @return: the name of its main thread, up to 15 bytes, which the process may have chosen;
        C{None} if it is gone, in another PID namespace, or hidden from this process.
    """
    try:
        comm = Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return None
    return comm.removesuffix(b"\n").decode("utf-8", "backslashreplace")


def connectionOf(transport: object) -> Connection | None:
    """
    Look under TLS and any other wrappers for Twisted's own transport, which has the socket.

    @return: a TCP or UNIX connection, C{None} where there is neither.
    """
    while not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport


def tlsOf(transport: object | None) -> object | None:
    """
    Look under any wrappers for the TLS layer.

    @return: the layer, C{None} without TLS.
    """
    # A wrapper of Twisted's provides what its transport does, so the lowest is the layer itself.
    found: object | None = None
    while transport is not None:
        if ISSLTransport.providedBy(transport):
            found = transport
        transport = getattr(transport, "transport", None)
    return found


def hasUnread(transport: StreamTransport) -> bool | None:
    """
    Look into the socket for bytes of the peer's, or its end, that this process has not read.

    @return: C{None} if this is no transport of Twisted's, whose socket can be looked into.
    """
    connection = connectionOf(transport)
    if connection is None:
        return None
    if not connection.connected:
        return False
    try:
        connection.socket.recv(1, socket.MSG_PEEK)
    except ConnectionError:
        return True
    except OSError:
        return False
    return True


def unsent(transport: object) -> bool:
    """
    @return: whether a transport of Twisted's own has bytes that the kernel has not taken yet.
    """
    connection = connectionOf(transport)
    return connection is not None and bool(
        connection.dataBuffer or getattr(connection, "_tempDataBuffer", None)
    )


def paceAccepts(transport: StreamTransport, clock: IReactorTime) -> None:
    """
    Accept a crowd in small groups, so that clients who are connected do not wait for it.

    While more connections are waiting, a port of Twisted's accepts 20 more in each turn of the
    reactor than in the one before, starting at 100, and each turn lasts until all are served.

    @param transport: a connection that has just been accepted.
    @param clock: the reactor.
    """
    port = getattr(transport, "server", None)
    if isinstance(port, Port) and port.numberAccepts > ACCEPTS:
        port.numberAccepts = ACCEPTS
        # The port sets its own number again when it has accepted this group.
        clock.callLater(0, setattr, port, "numberAccepts", ACCEPTS)


def endWriting(transport: StreamTransport) -> None:
    """
    Close this end after everything written has been sent, and go on reading until the peer closes
    the other.  A process that writes to a connection whose other end is closed dies of C{SIGPIPE}
    if it is not prepared, before it has read why.

    With TLS that is what C{loseConnection} does: it sends a close_notify and waits for the peer's.
    A transport that is not Twisted's own may have no way to close one end, and closes both.
    """
    transport.resumeProducing()
    if isinstance(transport, Connection) and not transport.TLS and transport.connected:
        transport.loseWriteConnection()
    else:
        transport.loseConnection()


def closeIfSent(transport: StreamTransport) -> bool:
    """
    Close both ends if the kernel has taken everything that was written; the peer can still read it.

    @return: whether it has, as far as can be seen: C{False} for a transport not of Twisted's own.
    """
    connection = connectionOf(transport)
    if connection is None or unsent(connection):
        return False
    connection.loseConnection()
    return True


class DirectWriter:
    """
    A transport that has its own way to do what L{writeNow} does.
    """

    def writeNow(self, data: bytes | memoryview, /) -> None:
        """
        Write bytes, without waiting for the reactor where that is safe.  They are not kept.
        """
        raise NotImplementedError


def writeNow(transport: StreamTransport, data: bytes | memoryview) -> None:
    """
    Write bytes, without waiting for the reactor where that is safe.  What cannot be sent at once is
    copied.

    C{transport.write} on an idle connection makes the reactor wait until the socket is writable,
    which costs three system calls more than the C{send} itself.  On a plain transport of Twisted's
    with an empty buffer the bytes are sent at once.  A L{DirectWriter}, as kaproto's TLS layer is,
    encrypts them first.  On any other transport this is C{transport.write}.
    """
    sent = 0
    if isinstance(transport, Connection):
        # An AttributeError means that this Twisted keeps waiting bytes somewhere else.
        try:
            if not (
                transport.dataBuffer
                or transport._tempDataBuffer
                or transport.TLS
                or not transport.connected
            ):
                sent = transport.socket.send(data)
        except (AttributeError, OSError):
            pass
    elif isinstance(transport, DirectWriter):
        transport.writeNow(data)
        return
    if sent < len(data):
        transport.write(bytes(data[sent:]))
