"""
Peers that end their connection with RST, in every state of a connection.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.harness.attacks.rawsocket import Address, Outcome, RawPeer
from tests.interop import wire

__all__ = ["GATEWAY_STATES", "LOGIN_STATES", "REFUSAL_STATES", "STATES", "resets"]

_LOOKUP = 23
_SCREENSHOT = 211
_STREAM = 3


def _accepted(peer: RawPeer) -> None:
    pass


def _amidAuth(peer: RawPeer) -> None:
    peer.send(wire.encode(wire.AUTH_LIST)[:17])


def _authenticated(peer: RawPeer) -> None:
    peer.call(wire.AUTH_LIST)


def _asked(peer: RawPeer) -> None:
    peer.askKeepAlive()


def _opening(peer: RawPeer) -> None:
    peer.askKeepAlive()
    peer.sendCall(wire.OPEN, wire.OPEN_ARGUMENTS)


def _opened(peer: RawPeer) -> None:
    peer.open()


def _amidMessage(peer: RawPeer) -> None:
    peer.open()
    peer.send(wire.encode(wire.GET_HOSTNAME, b"\0" * 100, length=100000))


def _calling(peer: RawPeer) -> None:
    peer.open()
    for _ in range(10):
        peer.sendCall(wire.GET_CAPABILITIES)


def _unread(peer: RawPeer) -> None:
    peer.open()
    for _ in range(200):
        peer.sendCall(wire.GET_CAPABILITIES)
    time.sleep(0.01)


def _streaming(peer: RawPeer) -> None:
    peer.open()
    domain = peer.call(_LOOKUP, wire.string("test"))
    peer.call(_SCREENSHOT, domain + struct.pack(">II", 0, 0))


def _saslBegun(peer: RawPeer) -> None:
    peer.call(wire.AUTH_LIST)
    peer.call(67)


def _saslFailing(peer: RawPeer) -> None:
    _saslBegun(peer)
    data = b"\0nobody\0nothing"
    characters = struct.pack(f">iI{len(data)}i", 0, len(data), *data)
    peer.sendCall(68, wire.string("PLAIN") + characters)


def _refused(peer: RawPeer) -> None:
    peer.call(wire.AUTH_LIST)
    peer.sendCall(wire.OPEN, wire.OPEN_ARGUMENTS)


def _refusedRead(peer: RawPeer) -> None:
    _refused(peer)
    with suppress(OSError):
        peer.reply(1)


State = Callable[[RawPeer], None]

STATES: Mapping[str, State] = {
    "accepted": _accepted,
    "in the middle of the first message": _amidAuth,
    "authenticated": _authenticated,
    "asked for keepalive": _asked,
    "opening": _opening,
    "open": _opened,
    "in the middle of a message": _amidMessage,
    "calls under way": _calling,
    "replies not read": _unread,
}

GATEWAY_STATES: Mapping[str, State] = {**STATES, "in a stream": _streaming}

LOGIN_STATES: Mapping[str, State] = {
    "accepted": _accepted,
    "login begun": _saslBegun,
    "login about to fail": _saslFailing,
}

REFUSAL_STATES: Mapping[str, State] = {
    "being refused": _refused,
    "refused": _refusedRead,
}


def resets(address: Address, times: int, states: Mapping[str, State]) -> Outcome:
    """
    Reach each state and end the connection with RST, several times.

    @param times: the number of connections for each state.
    """
    ends: Counter[str] = Counter()
    for name, state in states.items():
        for _ in range(times):
            peer = RawPeer(address)
            state(peer)
            peer.reset()
            ends[name] += 1
    return Outcome(sum(ends.values()), ends)
