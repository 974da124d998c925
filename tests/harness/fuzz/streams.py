"""
The targets of stream attacks: both ends of each codec, in each mode, and of a tunnel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Disable, Mandatory, Optional, Policy
from kaproto.watch import watched, watchedClient
from kaproto.watch.choices import codecFor
from kaproto.watch.tunnelclient import tunnelClient
from kaproto.watch.tunnelmessages import TunnelMessages
from kaproto.watch.tunnelserver import tunnelServer
from kaproto.watch.tunnelwire import TunnelWire
from tests.harness.fuzz.reference import READERS, TUNNEL_ASKS, Bad, Part, readTunnel

__all__ = ["STREAMS", "Expected", "Stream"]

_ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 54321)
_TERMS: Final = KeepAlive(1, 2)
_POLICIES: Final = (Disable(_TERMS), Optional(_TERMS), Mandatory(_TERMS))
_HELD_MAX: Final = 1024 + 16
_TUNNEL_HELD_MAX: Final = 28 + 2 * 4096
_ENOUGH: Final = 30.0


@attrs.define
class Expected:
    """
    The allowed outcome of a stream.

    @ivar data: the application's bytes.
    @ivar tail: how many of the last of them may be held back, since their message is incomplete.
    @ivar ends: whether the connection must end.
    @ivar closes: whether the application closes, since it does not support half-closed connections.
    """

    data: bytes = b""
    tail: int = 0
    ends: bool = False
    closes: bool = False


@attrs.frozen
class Stream:
    """
    A target of stream attacks.

    @ivar name: its name in the table.
    @ivar make: builds a factory from an application's factory and a clock.
    @ivar expect: computes the allowed outcome of a stream.
    @ivar messages: generates a random message.
    @ivar opening: the first message of an honest peer.
    @ivar read: parses what the target has written.
    @ivar greeting: what the application writes.
    @ivar held: the most bytes that may be held back while the connection is open.
    @ivar waits: whether a peer that sends too little counts as plain after a while.
    """

    name: str
    make: Callable[[Factory[Any], Clock], Any]
    expect: Callable[[bytes], Expected]
    messages: Callable[[Random], bytes]
    opening: bytes
    read: Callable[[bytes], Iterator[Part]]
    greeting: bytes
    held: int = _HELD_MAX
    waits: bool = False


def _expectWatched(codec: str, policy: Policy | None) -> Callable[[bytes], Expected]:
    """
    @param policy: C{None} for a client.
    """

    def expect(data: bytes) -> Expected:
        found = Expected()
        asked = policy is None or policy.name != "mandatory"
        try:
            for part in READERS[codec](data):
                asked = asked or part.kind == "ask"
                if not part.kind and not asked:
                    # An incomplete message may still become a control message.
                    found.ends = part.whole or len(part.data) > _HELD_MAX
                    break
                if not part.kind:
                    found.data += part.data
                    found.tail = 0 if part.whole else len(part.data)
        except Bad:
            found.ends = True
        return found

    return expect


def _expectTunnel(policy: Policy | None) -> Callable[[bytes], Expected]:
    def expect(data: bytes) -> Expected:
        if policy is not None and not TUNNEL_ASKS.startswith(data[:8]):
            refused = policy.name == "mandatory"
            return Expected(b"" if refused else data, ends=refused)
        found = Expected()
        try:
            for part in readTunnel(data, "answer" if policy is None else "ask"):
                if not part.kind:
                    found.data += part.data
                elif part.kind == "end":
                    found.ends = found.closes = True
        except Bad:
            found.ends = True
        return found

    return expect


def _string(codec: str) -> Callable[[Random], bytes]:
    found: Any = codecFor(codec)
    words = (b"PING", b"PONG", b"KEEPALIVE 1", b"KEEPALIVE-OK 0.5", b"KEEPALIVE", b"PIN", b"PINGS")

    def message(random: Random) -> bytes:
        payload = random.choice((random.choice(words), random.randbytes(random.randrange(60))))
        if random.random() < 0.02:
            payload = random.randbytes(random.randrange(70_000))
        return bytes(found.framed(payload))

    return message


def _box(random: Random) -> bytes:
    codec: Any = codecFor("amp")
    if random.random() < 0.5:
        own = (codec.ask(1), codec.answer(1), codec.decline(), codec.ping, codec.pong)
        return bytes(random.choice(own))
    strings = [random.randbytes(random.randrange(1, 20)) for _ in range(2 * random.randrange(1, 4))]
    if random.random() < 0.3:
        strings += [b"_ask", random.choice((b"kaproto", b"kaproto.ping", b"1"))]
    return b"".join(len(each).to_bytes(2) + each for each in strings) + b"\0\0"


def _tunnelMessage(random: Random) -> bytes:
    own, wire = TunnelMessages(), TunnelWire(server=False)
    if random.random() < 0.6:
        return wire.wrap(random.randbytes(random.choice((0, 1, 40, 70_000))))
    messages = (own.ping, own.pong, own.ask(1), own.answer(1), own.refusal("no", b""), wire.end())
    return random.choice((*messages, own.ping, own.pong))


def _watched(name: str, policy: Policy, inner: Factory[Any], clock: Clock) -> Any:
    return watched(inner, policy, name, clock=clock)


def _tunneled(policy: Policy, wait: float, inner: Factory[Any], clock: Clock) -> Any:
    return tunnelServer(inner, policy, wait=wait, clock=clock)


def _ofCodec(name: str) -> Iterator[Stream]:
    codec: Any = codecFor(name)
    greeting = b"\0\5hello\0\5world\0\0" if name == "amp" else codec.framed(b"welcome")
    common: dict[str, Any] = {
        "messages": _box if name == "amp" else _string(name),
        "read": READERS[name],
        "greeting": greeting,
    }
    for policy in _POLICIES:
        yield Stream(
            f"{name}, {policy.name}",
            partial(_watched, name, policy),
            _expectWatched(name, policy),
            opening=codec.ask(1),
            **common,
        )
    yield Stream(
        f"{name}, client",
        lambda inner, clock: watchedClient(inner, _TERMS, name, clock=clock),
        _expectWatched(name, None),
        opening=codec.answer(1),
        **common,
    )


def _ofTunnel() -> Iterator[Stream]:
    messages = TunnelMessages()
    common: dict[str, Any] = {
        "messages": _tunnelMessage,
        "greeting": b"welcome",
        "held": _TUNNEL_HELD_MAX,
    }
    for policy, wait in product(_POLICIES, (0, 1)):
        yield Stream(
            f"tunnel, {policy.name}, wait={wait}",
            partial(_tunneled, policy, wait),
            _expectTunnel(policy),
            opening=messages.ask(1),
            read=_readServer,
            waits=bool(wait) and policy.name != "mandatory",
            **common,
        )
    yield Stream(
        "tunnel, client",
        lambda inner, clock: tunnelClient(inner, _TERMS, clock=clock),
        _expectTunnel(None),
        opening=messages.answer(1),
        read=lambda data: readTunnel(data, "ask"),
        **common,
    )


def _readServer(data: bytes) -> Iterator[Part]:
    if data[4:8] == TUNNEL_ASKS[4:]:
        yield from readTunnel(data, "answer")
    elif data:
        yield Part(data)


STREAMS: Final = {
    stream.name: stream for stream in (*chain.from_iterable(map(_ofCodec, READERS)), *_ofTunnel())
}
"""
All targets, by name.
"""
