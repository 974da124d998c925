"""
Peers on blocking sockets, for attackers and for measurements.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from tests.interop import wire
from tests.interop.wire import Frame, FrameReader

__all__ = [
    "CLOSED",
    "RESET",
    "Address",
    "Outcome",
    "RawPeer",
    "TLSAddress",
    "connect",
    "endings",
    "watch",
]


class TLSAddress(NamedTuple):
    """
    A port on 127.0.0.0/8 that speaks TLS.

    @ivar port: its number.
    @ivar certificate: the path of a client's certificate and private key.
    """

    port: int
    certificate: str


Address = str | int | TLSAddress
"""
The path of a UNIX socket, or a port on 127.0.0.0/8.
"""

CLOSED = "closed"
RESET = "reset"

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_PIECE = 262144
_sources = count()


class Outcome(NamedTuple):
    """
    What happened to the peers of an attack.

    @ivar times: the number of peers, or of repetitions.
    @ivar ends: how many peers ended in which way.
    @ivar seconds: the seconds until each ended.
    @ivar note: a remark for the table.
    """

    times: int
    ends: Counter[str]
    seconds: Sequence[float] = ()
    note: str = ""


def connect(
    address: Address, *, receiveBuffer: int = 0, timeout: float = 10.0, waits: bool = True
) -> socket.socket:
    """
    Connect.  Loopback source addresses take turns, since one has too few ports for many short
    connections.

    @param receiveBuffer: the size of this end's receive buffer in bytes; 0 for the default.
    @param waits: whether to wait until it is connected.
    """
    if isinstance(address, TLSAddress):
        plain = connect(address.port, receiveBuffer=receiveBuffer, timeout=timeout)
        try:
            return _secure(plain, address.certificate)
        except OSError:
            plain.close()
            raise
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    one = socket.socket(family)
    try:
        one.settimeout(timeout if waits else 0)
        if receiveBuffer:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        if isinstance(address, str):
            _connectUnix(one, address, timeout if waits else 0)
        else:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.bind((f"127.0.0.{next(_sources) % 200 + 2}", 0))
            with suppress(BlockingIOError):
                one.connect(("127.0.0.1", address))
    except OSError:
        one.close()
        raise
    return one


def _secure(plain: socket.socket, certificate: str) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificate)
    one = context.wrap_socket(plain)
    if one.recv(1) != b"\1":
        raise ConnectionResetError("not accepted")
    return one


def _connectUnix(one: socket.socket, path: str, timeout: float) -> None:
    """
    Wait for room in the server's queue, as a blocking socket does.  Python's sockets with a timeout
    are non-blocking, and C{connect} then fails at once.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            one.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.001)
        else:
            return


class RawPeer:
    """
    One connection, controlled by the test.

    @ivar begun: when it connected, on the monotonic clock.
    @ivar ended: how the server ended it, L{CLOSED} or L{RESET}, or C{None}.
    @ivar endedAt: when that was, on the monotonic clock.
    @ivar received: the number of bytes received.
    """

    def __init__(self, address: Address, *, receiveBuffer: int = 0, timeout: float = 10.0) -> None:
        self.socket = connect(address, receiveBuffer=receiveBuffer, timeout=timeout)
        self.begun = time.monotonic()
        self.ended: str | None = None
        self.endedAt = 0.0
        self.received = 0
        self.frames: list[Frame] = []
        self._reader = FrameReader()
        self._serial = 0

    def send(self, data: bytes) -> bool:
        """
        @return: whether all of it was sent; otherwise the server has ended the connection.
        """
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.lost(RESET)
            return False
        return True

    def lost(self, how: str) -> None:
        """
        Record that the server ended the connection.
        """
        if self.ended is None:
            self.ended = how
            self.endedAt = time.monotonic()

    def receive(self) -> bytes:
        """
        Read once, and wait for bytes if there are none.

        @return: the bytes; empty after the connection has ended.
        """
        try:
            data = self.socket.recv(_PIECE)
        except ConnectionResetError:
            self.lost(RESET)
            return b""
        if not data:
            self.lost(CLOSED)
        self.received += len(data)
        return data

    def reply(self, serial: int, timeout: float = 10.0) -> Frame:
        """
        Wait for the reply to a call, and answer pings meanwhile.

        @raise TimeoutError: when it did not arrive in time.
        @raise ConnectionError: when the connection ended first.
        """
        deadline = time.monotonic() + timeout
        while True:
            for frame in self.frames:
                if frame.kind == wire.REPLY and frame.serial == serial:
                    self.frames.remove(frame)
                    return frame
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no reply to call {serial} within {timeout:g} s")
            self.socket.settimeout(left)
            self.takeIn()
            if self.ended is not None:
                raise ConnectionResetError(f"{self.ended} before the reply to call {serial}")

    def takeIn(self) -> None:
        """
        Read once.  Answer pings, and keep the other messages.
        """
        for frame in self._reader.feed(self.receive(), time.monotonic()):
            if frame.program != wire.KEEPALIVE:
                self.frames.append(frame)
            elif frame.procedure == 1:
                self.send(wire.PONG)

    def sendCall(self, procedure: int, payload: bytes = b"") -> int:
        """
        Send a call.

        @return: its serial.
        """
        serial = self._serial
        self._serial += 1
        self.send(wire.encode(procedure, payload, serial=serial))
        return serial

    def call(self, procedure: int, payload: bytes = b"", timeout: float = 10.0) -> bytes:
        """
        Make a call that must succeed.

        @return: its result.
        """
        frame = self.reply(self.sendCall(procedure, payload), timeout)
        if frame.error is not None:
            raise ConnectionError(frame.error.message)
        return frame.payload

    def askKeepAlive(self, timeout: float = 10.0) -> None:
        """
        Ask for keepalive on a server that requires no authentication.
        """
        self.call(wire.AUTH_LIST, timeout=timeout)
        feature = struct.pack(">i", wire.FEATURE_KEEPALIVE)
        self.call(wire.SUPPORTS_FEATURE, feature, timeout)

    def open(self, *, ask: bool = True, timeout: float = 10.0) -> None:
        """
        Make the calls of libvirt's own client when it opens.

        @param ask: whether to ask for keepalive first.
        """
        if ask:
            self.askKeepAlive(timeout)
        self.call(wire.OPEN, wire.OPEN_ARGUMENTS, timeout)

    def reset(self) -> None:
        """
        End the connection with RST.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def watch(
    peers: Iterable[RawPeer],
    seconds: float,
    *,
    reads: bool = True,
    every: float = 1.0,
    do: Callable[[RawPeer], object] | None = None,
) -> None:
    """
    Wait until the server has ended all of the connections, or the time is over.

    @param reads: whether to read, and discard, what arrives; the end is noticed in any case.
    @param do: called repeatedly with each peer that has not ended.
    @param every: seconds between two calls of C{do}.
    """
    poll = select.poll()
    waiting = {}
    for peer in peers:
        if peer.ended is None:
            waiting[peer.socket.fileno()] = peer
            poll.register(peer.socket, _GONE | (select.POLLIN if reads else 0))
    deadline = time.monotonic() + seconds
    turn = time.monotonic()
    while waiting and (now := time.monotonic()) < deadline:
        if do is not None and now >= turn:
            turn += every
            for peer in list(waiting.values()):
                do(peer)
        until = deadline if do is None else min(turn, deadline)
        for number, event in poll.poll(max(0, until - time.monotonic()) * 1000):
            peer = waiting[number]
            if event & select.POLLIN:
                peer.receive()
            elif event & _GONE:
                broken = peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                peer.lost(RESET if broken else CLOSED)
        for number in [number for number, peer in waiting.items() if peer.ended is not None]:
            poll.unregister(number)
            del waiting[number]


def endings(peers: Sequence[RawPeer], note: str = "") -> Outcome:
    """
    @return: how the peers ended.
    """
    ends = Counter("stays" if peer.ended is None else peer.ended for peer in peers)
    seconds = [peer.endedAt - peer.begun for peer in peers if peer.ended is not None]
    return Outcome(len(peers), ends, seconds, note)
