"""
Peers that send too much, or read too little.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from contextlib import suppress

from tests.harness.attacks.rawsocket import (
    RESET,
    Address,
    Outcome,
    RawPeer,
    connect,
    endings,
    watch,
)
from tests.harness.attacks.slow import opened
from tests.interop import wire

__all__ = ["comeAndGo", "flood", "neverReading", "singleBytes", "unreadPongs", "unreadReplies"]

_PIECE = 65536
_SMALLEST = 2048
_EVENT_REGISTER = 316
_SUSPEND = 34
_RESUME = 28
_GET_URI = 110
_BATCH = 500
_LOOKUP = 23


def flood(address: Address, peers: int, seconds: float, message: bytes) -> Outcome:
    """
    Open clients that send one message repeatedly, as fast as the server reads, and read the
    answers.
    """
    crowd = opened(address, peers)
    data = message * (_PIECE // len(message))
    sent = _pour(crowd, data, seconds)
    outcome = endings(crowd, f"{sent // len(message):,} messages")
    for peer in crowd:
        # Discard the rest of the flood in the kernel's buffers, which is not part of the attack.
        peer.reset()
    return outcome


def singleBytes(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Open clients that send unsolicited pongs as fast as they can, in packets of one byte.
    """
    crowd = opened(address, peers)
    deadline = time.monotonic() + seconds
    sent = 0
    while time.monotonic() < deadline:
        for peer in crowd:
            at = sent // peers % len(wire.PONG)
            if peer.ended is None and peer.send(wire.PONG[at : at + 1]):
                sent += 1
    return endings(crowd, f"{sent:,} bytes")


def _pour(crowd: list[RawPeer], data: bytes, seconds: float) -> int:
    poll = select.poll()
    byNumber = {peer.socket.fileno(): (peer, bytearray()) for peer in crowd}
    for number, (peer, _) in byNumber.items():
        peer.socket.setblocking(False)
        poll.register(number, select.POLLIN | select.POLLOUT)
    deadline = time.monotonic() + seconds
    sent = 0
    while byNumber and time.monotonic() < deadline:
        for number, event in poll.poll(100):
            peer, rest = byNumber[number]
            try:
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    peer.receive()
                if peer.ended is None and event & select.POLLOUT:
                    rest += data if not rest else b""
                    done = peer.socket.send(rest)
                    del rest[:done]
                    sent += done
            except BlockingIOError:
                pass
            except OSError:
                peer.lost(RESET)
            if peer.ended is not None:
                poll.unregister(number)
                del byNumber[number]
    return sent


def unreadPongs(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Open clients that call and ping within the limits, and read no answers.  Each answer has the
    long name they opened with, since the kernel buffers megabytes.
    """
    crowd = [RawPeer(address, receiveBuffer=_SMALLEST) for _ in range(peers)]
    name = wire.optionalString("test:///default?" + "x" * 50000)
    for peer in crowd:
        peer.askKeepAlive()
        peer.call(wire.OPEN, name + b"\0\0\0\0")
        peer.socket.settimeout(1)
    data = wire.PING * 4 + wire.encode(_GET_URI) * 5

    def ask(peer: RawPeer) -> None:
        with suppress(TimeoutError):
            peer.send(data)

    watch(crowd, seconds, reads=False, every=0.05, do=ask)
    return endings(crowd)


def unreadReplies(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Open clients that each request 15 MB and read none of it, but prove now and then that they are
    alive.
    """
    crowd = [RawPeer(address, receiveBuffer=_SMALLEST) for _ in range(peers)]
    name = wire.optionalString("test:///default?" + "x" * 50000)
    for peer in crowd:
        peer.askKeepAlive()
        peer.call(wire.OPEN, name + b"\0\0\0\0")
        peer.send(wire.encode(_GET_URI) * 300)

    def live(peer: RawPeer) -> None:
        with suppress(TimeoutError):
            peer.send(wire.PONG)

    watch(crowd, seconds, reads=False, every=0.2, do=live)
    return endings(crowd)


def neverReading(address: Address, peers: int, seconds: float, events: int = 30_000) -> Outcome:
    """
    Clients that register for all events and never read one, while another causes events as fast as
    it can.  They send a pong now and then to stay alive.

    @param events: the most events to cause.  The kernel buffers about 25,000 for each client; for
        each further one, an attacked libvirtd uses 64 KiB.
    """
    crowd = [RawPeer(address, receiveBuffer=_SMALLEST) for _ in range(peers)]
    for peer in crowd:
        peer.open()
        # Lifecycle events of any domain.
        peer.call(_EVENT_REGISTER, struct.pack(">iI", 0, 0))
    friend = RawPeer(address)
    friend.open()
    domain = friend.call(_LOOKUP, wire.string("test"))
    caused = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and caused < events:
        for _ in range(100):
            friend.call(_SUSPEND, domain)
            friend.call(_RESUME, domain)
            caused += 2
        watch(crowd, 0.001, reads=False, do=lambda peer: peer.send(wire.PONG), every=1)
    return endings(crowd, f"{caused:,} events")


def comeAndGo(address: Address, times: int, seconds: float) -> Outcome:
    """
    Connect and close, many at a time, alternately with FIN and with RST.

    @param times: the number of connections.
    @param seconds: the most seconds to run.
    """
    ends: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    done = 0
    while done < times and time.monotonic() < deadline:
        batch = []
        for _ in range(min(_BATCH, times - done)):
            try:
                batch.append(connect(address, waits=False))
            except OSError as problem:
                ends[f"not let in: {type(problem).__name__}"] += 1
        done += _BATCH
        for number, one in enumerate(batch):
            select.select([], [one], [], 2)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                ends["not let in"] += 1
            else:
                ends["came and went"] += 1
            if number % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
    return Outcome(sum(ends.values()), ends)
