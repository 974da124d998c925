"""
Slow peers: they send byte by byte, half a message or nothing, or close one direction.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from tests.harness.attacks.rawsocket import Address, Outcome, RawPeer, endings, watch
from tests.interop import wire

__all__ = ["announced", "dripCall", "dripFirst", "dripOpen", "halfClose", "idle", "opened"]

_LARGEST = 33554436


def _drip(peers: list[RawPeer], message: bytes, seconds: float, every: float) -> Outcome:
    pieces: dict[RawPeer, Iterator[int]] = {peer: iter(message) for peer in peers}

    def one(peer: RawPeer) -> None:
        byte = next(pieces[peer], None)
        if byte is not None:
            peer.send(bytes([byte]))

    watch(peers, seconds, every=every, do=one)
    return endings(peers)


def dripFirst(address: Address, peers: int, seconds: float, every: float = 1.0) -> Outcome:
    """
    The first message is sent byte by byte, as by slowloris.

    @param every: seconds between two bytes.
    """
    crowd = [RawPeer(address) for _ in range(peers)]
    return _drip(crowd, wire.encode(wire.AUTH_LIST, b"\0" * 1000), seconds, every)


def dripOpen(address: Address, peers: int, seconds: float, every: float = 1.0) -> Outcome:
    """
    The open call is sent byte by byte, after everything before it is sent normally.

    @param every: seconds between two bytes.
    """
    crowd = [RawPeer(address) for _ in range(peers)]
    for peer in crowd:
        peer.askKeepAlive()
    message = wire.encode(wire.OPEN, wire.optionalString("test:///default" + "x" * 1000))
    return _drip(crowd, message, seconds, every)


def dripCall(address: Address, peers: int, seconds: float, every: float = 1.0) -> Outcome:
    """
    An open client sends a call byte by byte.

    @param every: seconds between two bytes.
    """
    crowd = opened(address, peers)
    return _drip(crowd, wire.encode(wire.GET_HOSTNAME, b"\0" * 1000), seconds, every)


def announced(address: Address, peers: int, seconds: float, *, early: bool = False) -> Outcome:
    """
    The header of a message of 32 MiB, the largest allowed, is sent without its rest, and pings are
    not answered.

    @param early: whether it is the first message; otherwise the client is open.
    """
    crowd = [RawPeer(address) for _ in range(peers)] if early else opened(address, peers)
    for peer in crowd:
        peer.send(wire.encode(wire.GET_HOSTNAME, length=_LARGEST))
    watch(crowd, seconds)
    return endings(crowd)


def idle(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Connections that send nothing.
    """
    crowd, refused = [], 0
    for _ in range(peers):
        try:
            crowd.append(RawPeer(address, timeout=0.5))
        except OSError:
            # The server accepts no more, and the kernel's queue is full.
            refused = peers - len(crowd)
            break
    watch(crowd, seconds)
    return endings(crowd, f"{refused} more found no room in the queue" if refused else "")


def halfClose(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Clients that close their own direction: at once, before open, within a message, when open, or
    with a call in progress.
    """
    crowd = [RawPeer(address) for _ in range(peers)]
    for number, peer in enumerate(crowd):
        stage = number % 5
        if stage in (1, 2):
            peer.askKeepAlive()
        if stage == 2:
            peer.send(wire.PING[:13])
        if stage > 2:
            peer.open()
        if stage == 4:
            peer.sendCall(wire.GET_CAPABILITIES)
        peer.socket.shutdown(socket.SHUT_WR)
    watch(crowd, seconds)
    return endings(crowd)


def opened(address: Address, peers: int) -> list[RawPeer]:
    """
    @return: clients that have opened.
    """
    crowd = [RawPeer(address) for _ in range(peers)]
    for peer in crowd:
        peer.open()
    return crowd
