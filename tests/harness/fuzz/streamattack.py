"""
Attacks on codecs and tunnels: any bytes, in any pieces.

The application must see exactly its own bytes, or the connection must end with a reason.
L{tests.harness.fuzz.reference} computes what it must see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kaproto.errors import KeepAliveUnsupported
from tests.harness.fuzz.attack import Case, Drawn, Watcher
from tests.harness.fuzz.oracle import require
from tests.harness.fuzz.reference import TUNNEL_ASKS
from tests.harness.fuzz.streams import STREAMS, Stream
from tests.harness.fuzz.tap import Tap
from tests.harness.fuzz.websockets import HANDSHAKE, compareWebSockets, frame

__all__ = ["StreamAttacker"]

_ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 54321)
_WEBSOCKET: Final = "web socket"
_ENOUGH: Final = 16.0


class Application(Protocol):
    """
    Records what it receives.

    @ivar greeting: what it sends.
    @ivar clock: if not C{None}, the application pauses whenever it receives something, until the
        next turn of the reactor.
    """

    def __init__(self, greeting: bytes, clock: Clock | None) -> None:
        self.greeting = greeting
        self.clock = clock
        self.heard = b""
        self._isPaused = False
        self.connections = 0
        self.lost: list[BaseException | None] = []

    def connectionMade(self) -> None:
        """
        Count the connection, and send the greeting.
        """
        self.connections += 1
        assert self.transport is not None
        self.transport.write(self.greeting)
        self._pause()

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        require(bool(self.connections) and not self.lost, "bytes outside of a connection")
        require(not self._isPaused, "bytes while the application has paused")
        self.heard += data
        self._pause()

    def _pause(self) -> None:
        if self.clock is not None:
            transport: Any = self.transport
            transport.pauseProducing()
            self._isPaused = True
            self.clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._isPaused = False
        if not self.lost:
            transport: Any = self.transport
            transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        self.lost.append(reason.value)


def _draw(name: str, opening: bytes, message: Callable[[Random], bytes], random: Random) -> Drawn:
    """
    Generate a random stream: messages, some of them mutated.
    """
    steps = [opening] if random.random() < 0.7 else []
    mutated = [False] * len(steps)
    for _number in range(random.choice((1, 3, 8, 16))):
        mutated.append(random.random() < 0.3)
        data = message(random)
        steps.append(_mutated(data, random) if mutated[-1] else data)
    return Drawn(Case(name, "", tuple(steps)), mutated)


def _mutated(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return random.choice(
        (
            data[:at],
            data[at:],
            data[:at] + random.randbytes(random.randrange(1, 5)) + data[at:],
            data[:at]
            + bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + 1])
            + data[at + 1 :],
            data * 2,
        )
    )


def _pieces(data: bytes, random: Random) -> list[bytes]:
    pieces = []
    while data:
        size = random.choice((1, 2, 3, 27, 28, 29, 100, 65536))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


class _Run:
    """
    One connection.
    """

    def __init__(self, stream: Stream, pieces: Sequence[bytes], *, pauses: bool) -> None:
        self._clock = Clock()
        self._application = Application(stream.greeting, self._clock if pauses else None)
        inner: Any = Factory.forProtocol(lambda: self._application)
        inner.noisy = False
        self._tap = Tap(self._clock, _ADDRESS)
        protocol: Any = stream.make(inner, self._clock).buildProtocol(_ADDRESS)
        self._protocol = protocol
        self._tap.attach(protocol)
        self._stream = stream
        self._pieces = pieces

    def outcome(self) -> str:
        """
        Feed the stream, check the outcome, and close.

        @return: the outcome.
        """
        tap, application = self._tap, self._application
        sent = b""
        for piece in self._pieces:
            if tap.ending:
                break
            sent += piece
            tap.feed(piece)
            while any(call.getTime() <= self._clock.seconds() for call in self._waiting()):
                self._clock.advance(0)
            self._checkMemory(sent)
        closes = self._check(sent)
        ended = tap.ending
        reason = type(self._protocol._reason).__name__ if ended else "open"
        if closes:
            # What follows the end may be an error as well.
            reason = "closed"
        self._clock.pump([0.125] * round(_ENOUGH / 0.125))
        self._checkLater(sent)
        require(not ended or tap.lost, "a connection does not end although it is to")
        if tap.lost:
            require(self._protocol._reason is not None or ended, "closed without a reason")
        later = type(self._protocol._reason).__name__ if tap.lost and not ended else ""
        tap.lose(ConnectionResetError())
        require(not tap.wrongs, "\n".join(tap.wrongs))
        require(application.connections <= 1, "connected twice")
        require(len(application.lost) == application.connections, "told of the end once")
        ready = getattr(self._protocol, "ready", None)
        if ready is not None:
            require(ready.called, "a client waits for ever")
            ready.addErrback(lambda failure: failure.trap(KeepAliveUnsupported))
        left = self._clock.getDelayedCalls()
        require(not left, f"left behind: {left}")
        return f"{reason}, then {later}" if later else reason

    def _waiting(self) -> Sequence[IDelayedCall]:
        return self._clock.getDelayedCalls()

    def _checkLater(self, sent: bytes) -> None:
        """
        Check what was written, and that a peer that sends too little to ask is served as a plain
        one.
        """
        application, stream = self._application, self._stream
        parts = stream.read(bytes(self._tap.written))
        written = b"".join(part.data for part in parts if not part.kind)
        if application.connections:
            require(written in (b"", stream.greeting), f"{written!r} was written")
            require(bool(written) or not application.heard, "the greeting was not written")
        if stream.waits and len(sent) < len(TUNNEL_ASKS):
            require(application.heard == sent, "somebody plain is not served")
            require(written == stream.greeting, "somebody plain is not greeted")

    def _checkMemory(self, sent: bytes) -> None:
        wire = self._protocol._wire
        held = len(getattr(wire, "_partial", b"")) or len(
            getattr(getattr(wire, "_filter", None), "_held", b"")
        )
        require(held <= self._stream.held, f"{held} bytes are held of {len(sent)}")

    def _check(self, sent: bytes) -> bool:
        heard = self._application.heard
        expected = self._stream.expect(sent)
        require(
            expected.data.startswith(heard),
            f"the application heard {heard[:80]!r} instead of {expected.data[:80]!r}",
        )
        if not self._tap.ending:
            require(not expected.ends, "the connection goes on")
            missing = len(expected.data) - len(heard)
            require(missing <= expected.tail, f"{missing} bytes are missing")
        return expected.closes


class StreamAttacker(Watcher):
    """
    Attacks codecs, tunnels and WebSockets.
    """

    def __init__(self) -> None:
        super().__init__([*STREAMS, _WEBSOCKET])

    def drawn(self, seed: str) -> Drawn:
        """
        @return: the attack of a seed.
        """
        random = Random(seed)
        name = random.choice(list(self.tallies))
        if name == _WEBSOCKET:
            return _draw(name, HANDSHAKE, frame, random)
        stream = STREAMS[name]
        return _draw(name, stream.opening, stream.messages, random)

    def carryOut(self, case: Case, seed: str, outcomes: Counter[str]) -> int:
        """
        Send a stream message by message, at once, and in pieces.

        @param seed: decides how it is split into pieces.
        @param outcomes: its outcomes are added to this.
        @return: the number of steps sent.
        @raise Violation: when an outcome is not allowed.
        """
        stream = STREAMS.get(case.target)
        steps = [step for step in case.steps if isinstance(step, bytes)]
        data = b"".join(steps)
        ways = (steps, [data], _pieces(data, Random(seed)))
        if stream is None:
            # The outcome of a bad request depends on how it arrives at Twisted's web server.
            results = {compareWebSockets(pieces) for pieces in ways}
        else:
            results = {
                _Run(stream, pieces, pauses=pauses).outcome()
                for pieces, pauses in zip((*ways, [data]), (False, False, False, True), strict=True)
            }
            require(len(results) == 1, f"it depends on the pieces: {results}")
        self.requireCleanLog()
        outcomes.update(results)
        return len(steps)
