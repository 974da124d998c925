"""
The interface of transports, the identity of their peers, and the fast ways to write and close.
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
Connections that a port accepts in one turn of the reactor; Twisted may change the number by 20.
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
    @return: the peer, with the fields that the transport knows.
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
    @return: C{None} for other transports, and if the kernel does not know.
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

    @return: a TCP or UNIX connection; C{None} if there is neither.
    """
    while not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport


def tlsOf(transport: object | None) -> object | None:
    """
    Look under any wrappers for the TLS layer.

    @return: the layer; C{None} without TLS.
    """
    # Twisted's wrappers provide the interfaces of the transports that they wrap, so the lowest of
    # those that provide this one is the TLS layer itself.
    found: object | None = None
    while transport is not None:
        if ISSLTransport.providedBy(transport):
            found = transport
        transport = getattr(transport, "transport", None)
    return found


def hasUnread(transport: StreamTransport) -> bool | None:
    """
    Check the socket for bytes, or an end of file, that this process has not read yet.

    @return: C{None} if the socket is unknown, because this is not Twisted's own transport.
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
    @return: whether one of Twisted's own transports has bytes that the kernel has not taken yet.
    """
    connection = connectionOf(transport)
    return connection is not None and bool(
        connection.dataBuffer or getattr(connection, "_tempDataBuffer", None)
    )


def paceAccepts(transport: StreamTransport, clock: IReactorTime) -> None:
    """
    Accept a burst of connections in small groups, so that it does not delay connected clients.

    While connections are waiting, Twisted's port accepts 100 in one turn of the reactor, 120 in the
    next, then 140 and so on, and each turn lasts until all of these are served.

    @param transport: a connection that has just been accepted.
    @param clock: the reactor.
    """
    port = getattr(transport, "server", None)
    if isinstance(port, Port) and port.numberAccepts > ACCEPTS:
        port.numberAccepts = ACCEPTS
        # The port overwrites this number after each group.
        clock.callLater(0, setattr, port, "numberAccepts", ACCEPTS)


def endWriting(transport: StreamTransport) -> None:
    """
    Close the sending direction after everything written has been sent, and keep reading until the
    peer closes.  If both directions were closed, a peer that is writing could be killed by
    C{SIGPIPE} before it has read our last message.

    With TLS, C{loseConnection} does this: it sends a close_notify and waits for the peer's.
    Transports other than Twisted's may be unable to close one direction, so both are closed.
    """
    transport.resumeProducing()
    if isinstance(transport, Connection) and not transport.TLS and transport.connected:
        transport.loseWriteConnection()
    else:
        transport.loseConnection()


def closeIfSent(transport: StreamTransport) -> bool:
    """
    Close both directions if the kernel has taken everything that was written; the peer can still
    read it.

    @return: whether the connection was closed; C{False} for transports other than Twisted's own.
    """
    connection = connectionOf(transport)
    if connection is None or unsent(connection):
        return False
    connection.loseConnection()
    return True


class DirectWriter:
    """
    A transport with its own implementation of L{writeNow}.
    """

    def writeNow(self, data: bytes | memoryview, /) -> None:
        """
        Write bytes, without waiting for the reactor if that is safe.  The caller may overwrite them
        afterwards.
        """
        raise NotImplementedError


def writeNow(transport: StreamTransport, data: bytes | memoryview, header: bytes = b"") -> None:
    """
    Write bytes, without waiting for the reactor if that is safe.  Bytes that cannot be sent at once
    are copied.

    C{transport.write} on an idle connection makes the reactor wait until the socket is writable,
    which costs three more system calls than C{send} alone.  On Twisted's plain transports, if
    the buffer is empty, this sends the bytes at once.  A L{DirectWriter}, such as kaproto's TLS
    layer, encrypts them first.  On all other transports this calls C{transport.write}.

    @param header: bytes to send before C{data}, in the same system call, without joining the two.
    """
    sent = 0
    if isinstance(transport, Connection):
        # An AttributeError means that this version of Twisted has its buffer elsewhere.
        try:
            if not (
                transport.dataBuffer
                or transport._tempDataBuffer
                or transport.TLS
                or not transport.connected
            ):
                socket = transport.socket
                sent = socket.sendmsg((header, data)) if header else socket.send(data)
        except (AttributeError, OSError):
            pass
    elif isinstance(transport, DirectWriter):
        transport.writeNow(header + data if header else data)
        return
    sent -= len(header)
    # If this is negative, the rest of the header is left to send, otherwise perhaps some data.
    if sent < 0:
        transport.write(header[sent:] + data)
    elif sent < len(data):
        transport.write(bytes(data[sent:]))
