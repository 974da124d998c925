"""
Attacks on WebSockets.  Two servers get the same bytes, one with keepalive around its application
and one without: both applications must see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.websocket import WebSocketResource

from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.watch.websocket import watchedWebSocket
from tests.harness.fuzz.oracle import require
from tests.harness.fuzz.tap import Tap

__all__ = ["HANDSHAKE", "compareWebSockets", "frame"]

_ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 54321)
_PAYLOAD: Final = b"kaproto"

HANDSHAKE: Final = (
    b"GET /socket HTTP/1.1\r\nHost: 192.0.2.9\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2VlcGFsaXZlIGNsaWVudA==\r\n\r\n"
)
"""
The first bytes from a client.
"""


def frame(random: Random) -> bytes:
    """
    @return: a client's frame of any kind, with a mask of zeros.
    """
    opcode = random.choice((0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x83))
    payload = random.choice((_PAYLOAD, b"", b"hello", random.randbytes(random.randrange(126))))
    if random.random() < 0.03:
        payload = random.randbytes(random.randrange(126, 65536))
    if len(payload) < 126:
        length = bytes((0x80 | len(payload),))
    else:
        length = b"\xfe" + len(payload).to_bytes(2)
    return bytes((opcode,)) + length + bytes(4) + payload


class _Application:
    """
    Records its events.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        """
        @return: a method that records its name, and its arguments that are bytes or text.
        """
        return lambda *arguments: self.events.append(
            (name, *(each for each in arguments if isinstance(each, bytes | bytearray | str)))
        )


class _Applications:
    """
    A factory of one application.
    """

    def __init__(self) -> None:
        self.application = _Application()

    def buildProtocol(self, _request: object) -> Any:
        """
        @return: the application.
        """
        return self.application


class _HTTPTap(Tap):
    """
    A transport that a web server can use.
    """

    @property
    def disconnecting(self) -> bool:
        """
        Whether the server has begun to close.
        """
        return self.ending

    def writeSequence(self, data: Sequence[bytes], /) -> None:
        """
        Record the bytes.
        """
        self.write(b"".join(data))

    def getHost(self) -> IPv4Address:
        """
        @return: the server's address.
        """
        return _ADDRESS


def _attack(
    pieces: Sequence[bytes], *, isWatched: bool, isFull: bool
) -> tuple[list[Any], list[str], bool]:
    """
    @param isFull: whether the attacker does not read, so that a closing handshake never ends.
    @return: what the application saw, the last line of each traceback, and whether the connection
        ended.
    """
    clock, applications = Clock(), _Applications()
    factory: Any = applications
    if isWatched:
        factory = watchedWebSocket(factory, Mandatory(KeepAlive(1, 2)), clock=clock)
    root = Resource()
    root.putChild(b"socket", WebSocketResource(factory))
    site = Site(root, reactor=clock)
    site.timeOut = None
    tap = _HTTPTap(clock, _ADDRESS)
    protocol: Any = site.buildProtocol(_ADDRESS)
    tap.attach(protocol)
    tap.full = isFull
    for piece in pieces:
        tap.feed(piece)
    ended = tap.ending
    if isWatched:
        clock.pump([0.125] * 40)
        opened = ("negotiationFinished",) in applications.application.events
        require(tap.lost or not opened, "a dead peer was not found")
    tap.lose(ConnectionResetError())
    left = clock.getDelayedCalls()
    require(not isWatched or not left, f"left behind: {left}")
    events = [
        each for each in applications.application.events if each != ("pongReceived", _PAYLOAD)
    ]
    return events, [wrong.splitlines()[-1] for wrong in tap.wrongs], ended


def compareWebSockets(pieces: Sequence[bytes]) -> str:
    """
    Send the same bytes to both servers.

    @return: the outcome.
    @raise Violation: when keepalive makes any other difference than its pongs.
    """
    for isFull in (True, False):
        watched = _attack(pieces, isWatched=True, isFull=isFull)
        plain = _attack(pieces, isWatched=False, isFull=isFull)
        require(watched == plain, f"with a watch {watched}, without {plain}")
    return "ended" if watched[2] else "open"
