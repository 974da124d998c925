"""
The kernel's view of a connection: its delivery counters, and the kernel's own keepalive.

A peer that reads slowly answers a ping only after it has read everything that we wrote before the
ping.  The kernel's counters distinguish such a peer from a dead one.  This module reads them, on
Linux, for Twisted's TCP and UNIX transports, through TLS and any other wrapper.
"""

from __future__ import annotations

import socket
import struct
import sys
from math import ceil
from typing import Final, cast

import attrs

from kaproto.keepalive.liveness import KeepAlive
from kaproto.transport import StreamTransport, connectionOf

if sys.platform == "linux":  # pragma: no branch - tests run on Linux
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

__all__ = [
    "COUNT_MAX",
    "INTERVAL_MAX",
    "Delivery",
    "SentCounter",
    "delivery",
    "isReceiveBufferFull",
    "setKernelKeepAlive",
    "setSocketKeepAlive",
]

INTERVAL_MAX: Final = 32767
"""
The longest C{TCP_KEEPIDLE} and C{TCP_KEEPINTVL} that Linux accepts, in seconds.
"""

COUNT_MAX: Final = 127
"""
The highest C{TCP_KEEPCNT} that Linux accepts.
"""

_TCP_INFO: Final = struct.Struct("=24xI16xI4xII60xQQ")
"""
C{struct tcp_info} of C{linux/tcp.h}: C{tcpi_unacked} at offset 24, C{tcpi_last_data_sent} at 44,
C{tcpi_last_data_recv} at 52, C{tcpi_last_ack_recv} at 56, C{tcpi_bytes_acked} at 120 and
C{tcpi_bytes_received} at 128.  Linux has had them since 4.1, and only ever adds fields at the end.
"""

_SO_MEMINFO: Final = 55
"""
C{SO_MEMINFO} of C{asm-generic/socket.h}: the memory that received data occupies
(C{SK_MEMINFO_RMEM_ALLOC}) and its limit (C{SK_MEMINFO_RCVBUF}).  Linux has had it since 4.11.
"""

_MEMORY: Final = struct.Struct("II")
_FULL: Final = 4

_INT: Final = struct.Struct("i")
_INT_MAX: Final = 2**31 - 1


@attrs.frozen
class Delivery:
    """
    The delivery counters of a connection.  A counter that the kernel does not keep is C{None};
    C{acknowledged} and C{received} cover the connection's whole life and only grow.

    @ivar queued: bytes that we have written and the peer's side has not taken yet: those in the
        transport's buffer and in the kernel's send queue.  On a UNIX socket the kernel counts the
        memory that it has allocated, which is more than the bytes, and releases it only when the
        peer's program has read a whole buffer (an skb, up to 32 KiB and its overhead).
    @ivar local: whether this is a UNIX socket.  There, bytes count as taken only when the peer's
        program has read them.
    @ivar unread: bytes from the peer that this process has not read yet.  UNIX sockets only.
    @ivar unsent: the part of C{queued} that is still in the transport's buffer.
    @ivar acknowledged: bytes that the peer's kernel has acknowledged (C{tcpi_bytes_acked}); its
        program may not have read them yet.  TCP only.
    @ivar inFlight: segments sent and not acknowledged (C{tcpi_unacked}).  It is 0 while the peer's
        receive window is full: such a peer is slow, and its host is alive.  TCP only.
    @ivar received: bytes that our kernel has received (C{tcpi_bytes_received}), read or unread,
        including parts of TLS records.  TCP only.
    @ivar silence: seconds since our kernel received the latest bytes.  TCP only.
    @ivar sinceSent: seconds since our kernel sent data.  TCP only.
    @ivar sinceAcknowledged: seconds since our kernel received an acknowledgement, including those
        of window probes.  TCP only.
    """

    queued: int
    unsent: int = attrs.field(default=0, kw_only=True)
    local: bool = attrs.field(default=False, kw_only=True)
    unread: int = attrs.field(default=0, kw_only=True)
    acknowledged: int | None = None
    inFlight: int | None = None
    received: int | None = None
    silence: float | None = attrs.field(default=None, eq=False)
    sinceSent: float = attrs.field(default=0, eq=False, kw_only=True)
    sinceAcknowledged: float = attrs.field(default=0, eq=False, kw_only=True)

    @property
    def allRead(self) -> bool:
        """
        Whether the peer's program is known to have read everything that was written to it.
        """
        return self.local and not self.queued


def delivery(transport: StreamTransport) -> Delivery | None:
    """
    Read a connection's counters, with one or two system calls of about a microsecond each.

    @return: the counters; C{None} on other systems than Linux, for transports other than Twisted's
        own, and if the socket is closed.
    """
    connection = connectionOf(transport)
    if connection is None or not connection.connected or sys.platform != "linux":
        return None
    handle = connection.socket
    try:
        unsent = len(connection.dataBuffer) - connection.offset
        unsent += sum(map(len, getattr(connection, "_tempDataBuffer", ())))
        queued = unsent + _count(handle, TIOCOUTQ)
        if handle.family == socket.AF_UNIX:
            unread = _count(handle, FIONREAD)
            return Delivery(queued, unsent=unsent, local=True, unread=unread)
        info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except (OSError, ValueError):
        return None
    if len(info) < _TCP_INFO.size:
        return Delivery(queued, unsent=unsent)
    inFlight, sent, received, acked, bytesAcked, bytesReceived = _TCP_INFO.unpack(info)
    return Delivery(
        queued,
        bytesAcked,
        inFlight,
        bytesReceived,
        received / 1000,
        unsent=unsent,
        sinceSent=sent / 1000,
        sinceAcknowledged=acked / 1000,
    )


def _count(handle: socket.socket, which: int) -> int:
    (count,) = _INT.unpack(ioctl(handle, which, bytes(_INT.size)))
    return int(count)


def isReceiveBufferFull(transport: StreamTransport) -> bool:
    """
    @return: whether the peer may be unable to send because our receive buffer is full.  The window
        does not close before half the buffer's memory is in use; a quarter counts as full here.
        C{True} if the kernel does not report the memory.
    """
    connection = connectionOf(transport)
    if connection is None or not connection.connected:
        return True
    try:
        info = connection.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        used, limit = _MEMORY.unpack(info)
    except (OSError, struct.error):
        return True
    return bool(used * _FULL > limit)


class SentCounter:
    """
    Counts the bytes that a transport passes to the kernel from now on.  The kernel keeps no such
    count for UNIX sockets.

    @ivar total: the number of bytes.
    """

    def __init__(self, transport: StreamTransport) -> None:
        self.total = 0
        self._connection = connection = connectionOf(transport)
        if connection is not None:
            self._socket = connection.socket
            connection.socket = cast(socket.socket, self)

    def __getattr__(self, name: str) -> object:
        # Everything else is delegated to the connection's socket.
        return getattr(self._socket, name)

    def send(self, data: bytes) -> int:
        """
        Send, and count the bytes that the kernel accepts.

        @raise OSError: as the socket does.
        """
        sent = self._socket.send(data)
        self.total += sent
        return sent

    def stop(self) -> None:
        """
        Stop counting.
        """
        connection, self._connection = self._connection, None
        # A connection that has ended has no socket.
        if connection is not None and hasattr(connection, "socket"):
            connection.socket = self._socket


def setKernelKeepAlive(
    transport: StreamTransport, keepAlive: KeepAlive, userTimeout: float | None = None
) -> bool:
    """
    Turn the kernel's probes of a TCP peer on or off.  They detect a dead host or a cut link
    C{interval * (count + 1)} seconds after the last segment, but never a stopped program.  Linux
    sends no probes while our bytes are unacknowledged.

    @param keepAlive: C{TCP_KEEPIDLE} and C{TCP_KEEPINTVL} are the interval, rounded up to whole
        seconds from 1 to L{INTERVAL_MAX}; C{TCP_KEEPCNT} is the count, up to L{COUNT_MAX}.  A zero
        in either switches the kernel's keepalive off.
    @param userTimeout: seconds for C{TCP_USER_TIMEOUT}.  Linux then drops even a live peer that
        reads nothing for this long, and ignores the count, so by default the option is not set.
    @return: whether the connection is TCP and the kernel took all options.
    """
    connection = connectionOf(transport)
    if connection is None or not connection.connected:
        return False
    return setSocketKeepAlive(connection.socket, keepAlive, userTimeout)


def setSocketKeepAlive(
    handle: socket.socket, keepAlive: KeepAlive, userTimeout: float | None = None
) -> bool:
    """
    Like L{setKernelKeepAlive}, for a socket.  The connections that a listening socket accepts
    inherit its options.

    @return: whether the socket is TCP and the kernel took all options.
    """
    if handle.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    interval = min(max(ceil(keepAlive.interval), 1), INTERVAL_MAX)
    count = min(max(keepAlive.count, 1), COUNT_MAX)
    options = {"TCP_KEEPIDLE": interval, "TCP_KEEPINTVL": interval, "TCP_KEEPCNT": count}
    if not keepAlive.enabled:
        options.clear()
    if userTimeout is not None:
        options["TCP_USER_TIMEOUT"] = min(ceil(userTimeout * 1000), _INT_MAX)
    try:
        for name, value in options.items():
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepAlive.enabled)
    except (AttributeError, OSError):
        return False
    return True
