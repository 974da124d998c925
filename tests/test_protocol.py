"""
Tests for L{kaproto.protocol}.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from kaproto import protocol as protocolModule
from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    PeerFlooded,
    RemoteProtocolError,
)
from kaproto.idle import Idler, IdleReader
from kaproto.liveness import KeepAlive, Liveness
from kaproto.pacemaker import STEP
from kaproto.protocol import CALLS, CONGESTION, KeepAliveFactory, KeepAliveProtocol
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    MessageType,
    packMessage,
)
from kaproto.wire.programs import KEEPALIVE_PROGRAM
from kaproto.wire.sieve import Header, MessageSieve
from kaproto.wire.xdr import Unpacker
from tests.strategies import garbage, pieces
from tests.support import KEEPALIVE, ClockTestCase, Probe, Wire, call

HELLO = call(1, b"hello")
FLOOD_OF_PONGS = 64
"""
How many answers to its pings a peer may leave unread.
"""


class Plain(KeepAliveProtocol):
    """
    An end that remembers what happens to it.
    """

    def connectionMade(self) -> None:
        """
        Begin with nothing.
        """
        self.messages: list[Message] = []
        self.reasons: list[Exception] = []

    def messageReceived(self, message: Message) -> None:
        """
        Remember a message.
        """
        self.messages.append(message)

    def closed(self, reason: Exception) -> None:
        """
        Remember the reason.
        """
        self.reasons.append(reason)


class ProtocolTestCase(ClockTestCase):
    """
    A test of one end.
    """

    def plain(self, protocol: type[KeepAliveProtocol] = Plain) -> Wire[Plain]:
        """
        Connect an end to the test.
        """
        factory = KeepAliveFactory(cast(IReactorTime, self.clock))
        factory.protocol = protocol
        return self.wire(cast(Plain, factory.buildProtocol(None)))

    def untilPinged(self, wire: Wire[Plain]) -> None:
        """
        Let time pass until the next ping, and no longer.
        """
        for _tick in range(200):
            self.clock.advance(1 / 64)
            if wire.taken() == PING:
                return
        self.fail("no ping came")

    def reasonOf(self, wire: Wire[Plain]) -> Exception:
        """
        Have an end that is closing be closed.

        @return: the one reason it was told.
        """
        self.assertTrue(wire.closing)
        wire.lose()
        (reason,) = wire.protocol.reasons
        return reason


class FactoryTests(SynchronousTestCase):
    """
    What the connections of one factory share.
    """

    def test_reactor(self) -> None:
        """
        Unless told otherwise a factory schedules with the reactor, and measures with the
        monotonic clock and not with the wall clock that the reactor goes by.
        """
        from twisted.internet import reactor

        factory = KeepAliveFactory()
        self.assertIs(factory.clock, reactor)
        self.assertIs(factory.seconds, time.monotonic)

    def test_clock(self) -> None:
        """
        With a L{Clock} everything goes by that.
        """
        clock = Clock()
        factory = KeepAliveFactory(cast(IReactorTime, clock))
        clock.advance(7)
        self.assertIs(factory.clock, clock)
        self.assertEqual(factory.seconds(), 7)


class TransportTests(ProtocolTestCase):
    """
    What an end does to its transport.
    """

    def test_noDelay(self) -> None:
        """
        Small messages are not held back on TCP; other transports have nothing to hold them.
        """
        asked: list[bool] = []

        class TCPTransport(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                asked.append(enabled)

        transport = TCPTransport()
        alsoProvides(transport, ITCPTransport)
        factory = self.plain().protocol.factory
        cast(Plain, factory.buildProtocol(None)).makeConnection(transport)
        self.assertEqual(asked, [True])


class FramingTests(ProtocolTestCase):
    """
    Bytes become messages.
    """

    def test_whole(self) -> None:
        """
        A message in one read is delivered, and nothing is answered by itself.
        """
        wire = self.plain()
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertEqual(wire.taken(), b"")

    def test_byteByByte(self) -> None:
        """
        A message that comes one byte at a time is delivered with its last byte.
        """
        wire = self.plain()
        for byte in packMessage(HELLO)[:-1]:
            wire.feed(bytes([byte]))
        self.assertEqual(wire.protocol.messages, [])
        wire.feed(packMessage(HELLO)[-1:])
        self.assertEqual(wire.protocol.messages, [HELLO])

    def test_manyAtOnce(self) -> None:
        """
        Messages that come in one read, the last one in part, are delivered in order.
        """
        wire = self.plain()
        messages = [call(1, serial=serial) for serial in range(10)]
        wire.feed(*messages, packMessage(HELLO)[:30])
        self.assertEqual(wire.protocol.messages, messages)
        wire.feed(packMessage(HELLO)[30:])
        self.assertEqual(wire.protocol.messages, [*messages, HELLO])

    def test_lengthOutOfBounds(self) -> None:
        """
        A length word that no message can have closes the connection, and the reason names it.
        """
        for length in (0, HEADER_SIZE - 1, MESSAGE_MAX + 1, 2**32 - 1):
            wire = self.plain()
            wire.feed(length.to_bytes(4, "big"))
            self.assertTrue(wire.aborted)
            reason = self.reasonOf(wire)
            self.assertIsInstance(reason, RemoteProtocolError)
            self.assertIn(f"a message of {length} bytes", str(reason))

    def test_pongInsideMessage(self) -> None:
        """
        Bytes that look like a pong in the middle of a message belong to that message.
        """
        wire = self.plain()
        message = call(1, PONG)
        wire.feed(packMessage(message)[:HEADER_SIZE])
        wire.feed(PONG)
        self.assertEqual(wire.protocol.messages, [message])

    def test_nothingIsReadWhenClosing(self) -> None:
        """
        What arrives behind a message that closed the connection is not looked at, whether it
        comes in the same read or later.
        """
        wire = self.plain()
        wire.feed(bytes(4), HELLO)
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [])

    def test_closedByMessage(self) -> None:
        """
        A subclass may close for what a message says; those behind it are not delivered.
        """

        class Obedient(Plain):
            def messageReceived(self, message: Message) -> None:
                super().messageReceived(message)
                self.disconnect(ConnectionClosed("as you wish"))

        wire = self.plain(Obedient)
        wire.feed(HELLO, HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertIsInstance(self.reasonOf(wire), ConnectionClosed)

    def test_undecodable(self) -> None:
        """
        A payload that cannot be decoded closes the connection with a L{RemoteProtocolError}.
        """

        class Decoding(Plain):
            def messageReceived(self, message: Message) -> None:
                Unpacker(message.payload).uint64()

        wire = self.plain(Decoding)
        wire.feed(HELLO)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, RemoteProtocolError)
        self.assertIn("cannot be decoded", str(reason))

    def test_protocolError(self) -> None:
        """
        A protocol error that a subclass raises closes the connection and is the reason.
        """
        error = RemoteProtocolError("something that may not be")

        class Strict(Plain):
            def messageReceived(self, message: Message) -> None:
                raise error

        wire = self.plain(Strict)
        wire.feed(HELLO)
        self.assertIs(self.reasonOf(wire), error)

    def test_subclassMustReceive(self) -> None:
        """
        The base class does not know what messages mean.
        """
        wire = self.plain(KeepAliveProtocol)
        self.assertRaises(NotImplementedError, wire.feed, HELLO)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Whatever bytes come, in whatever pieces, nothing is raised: the end is connected or it has
        a L{RemoteProtocolError} for closing, and no timer is left when it is closed.
        """
        clock = Clock()
        factory = KeepAliveFactory(cast(IReactorTime, clock))
        factory.protocol = Plain
        wire = Wire(cast(Plain, factory.buildProtocol(None)))
        wire.protocol.startKeepAlive(KEEPALIVE)
        for piece in data.draw(garbage().flatmap(pieces)):
            wire.feed(piece)
        if wire.closing:
            self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)
        else:
            wire.lose()
        self.assertEqual(clock.getDelayedCalls(), [])


class TurnTests(ProtocolTestCase):
    """
    A peer that sends many messages at once, and others that wait meanwhile.
    """

    def many(self, count: int) -> list[Message]:
        """
        @return: so many messages.
        """
        return [call(1, serial=serial) for serial in range(count)]

    def test_turns(self) -> None:
        """
        So many messages are taken in, then the reactor does what else there is, and the peer is
        not read meanwhile.
        """
        wire = self.plain()
        messages = self.many(2 * TURN_MAX + 1)
        wire.feed(*messages)
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.assertFalse(wire.reading)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(wire.protocol.messages)))
        self.turns()
        self.assertEqual(others, [2 * TURN_MAX])
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneTurn(self) -> None:
        """
        What can be taken in at once needs no other turn.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX))
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moreComes(self) -> None:
        """
        What comes all the same, as over TLS it can, is taken in after what has come before it.
        """
        wire = self.plain()
        messages = self.many(3 * TURN_MAX)
        wire.feed(*messages[: 2 * TURN_MAX])
        wire.feed(*messages[2 * TURN_MAX :])
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.turns()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)

    def test_notSilence(self) -> None:
        """
        A peer that is not read because others have their turn is watched again afterwards.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        wire.feed(PONG * (TURN_MAX + 1))
        self.turns()
        self.advance(KEEPALIVE.interval + 0.25)
        self.assertEqual(wire.taken(), PING)

    def test_error(self) -> None:
        """
        What is wrong with a later message closes the connection as well.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX), bytes(28))
        self.assertFalse(wire.closing)
        self.turns()
        self.assertTrue(wire.aborted)
        self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)

    def test_closing(self) -> None:
        """
        Nothing more is taken in once this end closes.
        """
        wire = self.plain()
        wire.feed(*self.many(2 * TURN_MAX))
        wire.protocol.disconnect(ConnectionClosed("enough"))
        self.turns()
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)

    def test_peerCloses(self) -> None:
        """
        What the peer sent before it closed is taken in.
        """
        wire = self.plain()
        messages = self.many(4 * TURN_MAX)
        wire.feed(*messages)
        wire.lose()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peerFails(self) -> None:
        """
        When the connection has broken, nobody waits for an answer.
        """
        wire = self.plain()
        wire.feed(*self.many(4 * TURN_MAX))
        wire.lose(ConnectionLost())
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class KeepAliveTests(ProtocolTestCase):
    """
    Pings, pongs and silence.
    """

    def test_quietUntilStarted(self) -> None:
        """
        Nobody is pinged before keepalive is started, and no timer runs.
        """
        wire = self.plain()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))

    def test_death(self) -> None:
        """
        A silent peer is pinged after each interval, count times, and is then aborted with a
        L{KeepAliveTimeout} that has the numbers.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)
        self.advance(2.9)
        self.assertEqual(wire.taken(), PING * 2)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        assert isinstance(reason, KeepAliveTimeout)
        self.assertEqual((reason.interval, reason.count), (1, 2))
        self.assertApproximates(reason.silence, 3, 0.05)

    def test_exactDeath(self) -> None:
        """
        A ping may be as late as the next turn of the wheel; death is not.
        """
        wires = [self.plain() for _ in range(20)]
        dues: dict[Wire[Plain], float] = {}
        for number, wire in enumerate(wires):
            wire.protocol.startKeepAlive(KeepAlive(0.7 + number / 1000, 1 + number % 3))
            dues[wire] = (0.7 + number / 1000) * (2 + number % 3)
        alive = set(wires)
        while alive:
            self.clock.advance(STEP)
            now = self.clock.seconds()
            for wire in list(alive):
                if wire.aborted:
                    alive.remove(wire)
                    self.assertTrue(dues[wire] <= now <= dues[wire] + 2 * STEP, (dues[wire], now))
            self.assertLess(now, 4)
        pinged = [len(wire.taken()) // len(PING) for wire in wires]
        self.assertEqual(pinged, [1 + number % 3 for number in range(20)])

    def test_acknowledged(self) -> None:
        """
        A pong acknowledges all pings before it: as many may go unanswered again as at first.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.advance(2.5)
        wire.feed(PONG)
        self.advance(2.9)
        self.assertEqual(wire.taken(), PING * 4)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_lastChance(self) -> None:
        """
        A peer that seems dead is looked at once more, when what it sent has been read; so it is
        each time.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        for now in (1, 2, 3):
            self.assertIsNotNone(wire.protocol.beat(now))
        wire.feed(PONG)
        for now in (4, 5, 6):
            self.assertIsNotNone(wire.protocol.beat(now))
        self.assertFalse(wire.closing)
        self.assertIsNone(wire.protocol.beat(6))
        self.assertTrue(wire.aborted)

    def test_anythingIsLife(self) -> None:
        """
        A pong, a message or a part of one puts off the next ping by an interval.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        for life in (PONG, packMessage(HELLO), packMessage(HELLO)[:1]):
            self.advance(0.75)
            wire.feed(life)
        self.advance(0.75)
        self.assertEqual(wire.taken(), b"")
        self.assertApproximates(wire.protocol.silence, 0.75, 0.05)
        self.advance(0.5)
        self.assertEqual(wire.taken(), PING)

    def test_replaced(self) -> None:
        """
        Starting again puts the new interval and count in place of the old ones at once.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KeepAlive(10, 5))
        self.advance(1.5)
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.advance(0.1)
        self.assertEqual(wire.taken(), PING)

    def test_zeroStops(self) -> None:
        """
        A zero in either argument stops keepalive, and its timer.
        """
        for zero in (KeepAlive(0, 2), KeepAlive(1, 0)):
            wire = self.plain()
            wire.protocol.startKeepAlive(KEEPALIVE)
            wire.protocol.startKeepAlive(zero)
            self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notWhenClosing(self) -> None:
        """
        An end that is closing does not begin to ping.
        """
        wire = self.plain()
        wire.protocol.abort(ConnectionClosed("enough"))
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlyBeat(self) -> None:
        """
        Called upon before a ping is due, an end says when it will be.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.assertEqual(wire.protocol.beat(0.5), 1)
        self.assertEqual(wire.taken(), b"")

    def test_latency(self) -> None:
        """
        An end that is asked to measures how long its pings take to be answered, whether the pong
        comes alone or together with something else.
        """

        class Measuring(Plain):
            measuresLatency = True

        wire = self.plain(Measuring)
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.assertIsNone(wire.protocol.latency)
        for before, latency in ((b"", 0.125), (packMessage(HELLO), 0.25)):
            self.untilPinged(wire)
            self.clock.advance(latency)
            wire.feed(before + PONG)
            self.assertEqual(wire.protocol.latency, latency)
            self.clock.advance(0.25)
            wire.feed(before + PONG)
            self.assertEqual(wire.protocol.latency, latency)

    def test_unaskedPong(self) -> None:
        """
        A pong that answers no ping is only a sign of life.
        """
        wire = self.plain()
        wire.feed(PONG)
        wire.feed(HELLO, PONG)
        self.assertIsNone(wire.protocol.latency)
        self.assertEqual(wire.protocol.messages, [HELLO])

    def test_noLatencyUnlessAsked(self) -> None:
        """
        By default nothing is measured.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.advance(1.1)
        wire.feed(PONG)
        self.assertIsNone(wire.protocol.latency)

    def test_pong(self) -> None:
        """
        A ping is answered at once, whatever serial, status and payload it has.
        """
        wire = self.plain()
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        odd = Message(KEEPALIVE_PROGRAM, 1, 1, MessageType.MESSAGE, 9, 1, b"more")
        wire.feed(HELLO, odd)
        self.assertEqual(wire.taken(), PONG)

    def test_otherKeepAliveMessages(self) -> None:
        """
        Of the keepalive program, another version and unknown procedures are passed over, and
        what is not of the type of a ping is a message like others.
        """
        wire = self.plain()
        asCall = Message(KEEPALIVE_PROGRAM, 1, 1, MessageType.CALL, 0, 0)
        wire.feed(
            Message(KEEPALIVE_PROGRAM, 2, 1, MessageType.MESSAGE, 0, 0),
            Message(KEEPALIVE_PROGRAM, 1, 3, MessageType.MESSAGE, 0, 0),
            asCall,
        )
        self.assertEqual(wire.taken(), b"")
        self.assertEqual(wire.protocol.messages, [asCall])

    def test_pingFlood(self) -> None:
        """
        More pings in a second than the budget allows close the connection.
        """
        self.clock.advance(10)
        wire = self.plain()
        wire.feed(PING * wire.protocol.pingBudget)
        self.turns()
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, PeerFlooded)
        self.assertIn("more than 100 pings in a second", str(reason))

    def test_pingBudgetIsPerSecond(self) -> None:
        """
        A peer may use its budget again in the next second.
        """
        wire = self.plain()
        for _second in range(3):
            wire.feed(PING * wire.protocol.pingBudget)
            self.clock.advance(1)
        self.assertFalse(wire.closing)

    def test_pingsPiledUp(self) -> None:
        """
        Pings that have piled up while nothing was read, for as many seconds, may come all at once,
        and count as those of ten seconds at most beside those of the present one.
        """
        for seconds, allowed in ((1, 1), (2, 2), (3.5, 3), (11, 11), (1000, 11)):
            wire = self.plain()
            self.clock.advance(seconds)
            wire.feed(PING * (allowed * wire.protocol.pingBudget))
            self.turns(20)
            self.assertFalse(wire.closing)
            wire.feed(PING)
            self.assertIsInstance(self.reasonOf(wire), PeerFlooded)

    def test_pingsSavedUpOnce(self) -> None:
        """
        What was saved up of the budget is gone when it has been used.
        """
        wire = self.plain()
        self.clock.advance(5)
        wire.feed(PING * (5 * wire.protocol.pingBudget))
        self.turns(20)
        self.clock.advance(1)
        wire.feed(PING * wire.protocol.pingBudget)
        self.turns(20)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertIsInstance(self.reasonOf(wire), PeerFlooded)

    def test_unreadPongs(self) -> None:
        """
        A peer that pings and does not read what it is answered is closed, before the answers
        fill the memory; one that reads again in time is not.
        """
        wire = self.plain()
        wire.protocol.pauseProducing()
        wire.feed(PING * FLOOD_OF_PONGS)
        wire.protocol.resumeProducing()
        self.clock.advance(1)
        wire.protocol.pauseProducing()
        wire.feed(PING * FLOOD_OF_PONGS)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, PeerFlooded)
        self.assertIn("has not read 64 answers", str(reason))


class ReadingTests(ProtocolTestCase):
    """
    When an end does not read, and when its peer does not.
    """

    def test_pausedSilence(self) -> None:
        """
        While an end does not read, it neither pings its peer nor takes it for dead; afterwards
        the silence goes on from where it was.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.advance(0.5)
        wire.protocol.pauseReading(CALLS)
        self.assertFalse(wire.reading)
        self.assertTrue(wire.protocol.readingPaused)
        self.assertTrue(wire.protocol.isPausedFor(CALLS))
        self.advance(100)
        self.assertEqual(wire.taken(), b"")
        wire.protocol.resumeReading(CALLS)
        self.assertTrue(wire.reading)
        self.assertFalse(wire.protocol.isPausedFor(CALLS))
        self.advance(0.25)
        self.assertEqual(wire.taken(), b"")
        self.advance(0.5)
        self.assertEqual(wire.taken(), PING)

    def test_reasons(self) -> None:
        """
        An end reads again when the last reason for not reading has gone.
        """
        wire = self.plain()
        wire.protocol.resumeReading(CALLS)
        wire.protocol.pauseReading(CALLS)
        wire.protocol.pauseReading(CALLS)
        wire.protocol.pauseReading(CONGESTION)
        wire.protocol.resumeReading(CALLS)
        self.assertFalse(wire.reading)
        wire.protocol.resumeReading(CONGESTION)
        self.assertTrue(wire.reading)

    def test_congested(self) -> None:
        """
        The transport tells when the peer is behind with reading, and when it no longer is.
        """
        wire = self.plain()
        self.assertIs(wire.transport.producer, wire.protocol)
        self.assertTrue(wire.transport.streaming)
        wire.protocol.pauseProducing()
        self.assertTrue(wire.protocol.congested)
        wire.protocol.resumeProducing()
        self.assertFalse(wire.protocol.congested)

    def test_readingIsLife(self) -> None:
        """
        A peer that takes what had filled the buffer is alive, even if it says nothing.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        self.advance(2.5)
        wire.protocol.pauseProducing()
        wire.protocol.resumeProducing()
        self.advance(2.5)
        self.assertFalse(wire.closing)
        self.advance(0.7)
        self.assertTrue(wire.aborted)

    def test_stopProducing(self) -> None:
        """
        The transport may say that it takes no more; that it is lost, it says as well.
        """
        wire = self.plain()
        wire.protocol.stopProducing()
        self.assertFalse(wire.closing)


class WaitingRoom:
    """
    Takes the place of an L{IdleReader}.
    """

    def __init__(self) -> None:
        self.idlers: list[Idler] = []

    def take(self, idler: Idler, liveness: Liveness) -> None:
        """
        Somebody has become idle.
        """
        idler.idle = 5
        idler.transport.pauseProducing()
        self.idlers.append(idler)

    def release(self, idler: Idler) -> None:
        """
        Somebody is idle no more.
        """
        idler.idle = -1
        self.idlers.remove(idler)


class IdleTests(ProtocolTestCase):
    """
    A peer from which nothing but pongs is expected is read by the factory's L{IdleReader}.
    """

    def setUp(self) -> None:
        """
        Make an end that is about to ping.
        """
        super().setUp()
        self.room = WaitingRoom()
        self.end = self.plain()
        self.prepare(self.end)

    def prepare(self, wire: Wire[Plain]) -> None:
        """
        Have an end ping, and be idle in the room.
        """
        wire.protocol.factory.idle = cast(IdleReader, self.room)
        wire.protocol.startKeepAlive(KEEPALIVE)

    def test_idle(self) -> None:
        """
        A peer that was pinged is idle.
        """
        self.assertEqual(self.room.idlers, [])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol])
        self.end.feed(PONG)
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol])

    def test_notWithinMessage(self) -> None:
        """
        A peer that has begun a message is expected to go on.
        """
        self.end.feed(packMessage(HELLO)[:20])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [])
        self.end.feed(packMessage(HELLO)[20:])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol])

    def test_notWithLatency(self) -> None:
        """
        To measure how long a pong takes, it has to be seen.
        """

        class Measuring(Plain):
            measuresLatency = True

        measuring = self.plain(Measuring)
        self.prepare(measuring)
        self.untilPinged(measuring)
        self.assertNotIn(measuring.protocol, self.room.idlers)

    def test_pausedReading(self) -> None:
        """
        Who does not read from a peer does not read from it in the room either.
        """
        self.untilPinged(self.end)
        self.end.protocol.pauseReading(CALLS)
        self.assertEqual(self.room.idlers, [])
        self.assertFalse(self.end.reading)

    def test_lastChance(self) -> None:
        """
        A peer whose time is up is not dead if what it sent is waiting to be read, and stays in
        the room.
        """
        verdicts = [True, True, False]
        self.patch(protocolModule, "hasUnread", lambda _transport: verdicts.pop(0))
        self.untilPinged(self.end)
        self.advance(3)
        self.assertEqual(verdicts, [True, False])
        self.assertEqual(self.room.idlers, [self.end.protocol])
        self.assertFalse(self.end.closing)
        self.advance(3)
        self.assertEqual(verdicts, [False])
        self.assertFalse(self.end.closing)
        self.advance(4)
        self.assertEqual(verdicts, [])
        self.assertTrue(self.end.aborted)

    def test_ends(self) -> None:
        """
        However a connection ends, it leaves the room.
        """
        ends: tuple[Callable[[Wire[Plain]], None], ...] = (
            lambda wire: wire.protocol.disconnect(ConnectionClosed("bye")),
            lambda wire: wire.protocol.abort(ConnectionClosed("bye")),
            lambda wire: wire.lose(),
        )
        for end in ends:
            wire = self.plain()
            self.prepare(wire)
            self.untilPinged(wire)
            self.assertIn(wire.protocol, self.room.idlers)
            end(wire)
            self.assertNotIn(wire.protocol, self.room.idlers)

    def test_relay(self) -> None:
        """
        In a relay a peer is idle between messages.
        """
        sieve = MessageSieve(keepsKeepAlive, lambda _message, _raw: None, lambda _data: None)
        other = self.plain()
        self.end.protocol.startRelay(sieve, sieve, other.protocol)
        packed = packMessage(HELLO)
        self.end.feed(packed[:20])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [])
        self.end.feed(packed[20:])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol])


class DeadlineTests(ProtocolTestCase):
    """
    What the peer has to do in time.
    """

    def test_missed(self) -> None:
        """
        A peer that does not do what is expected in time is aborted, and the reason says what
        that was and how long it had.
        """
        wire = self.plain()
        wire.protocol.setDeadline(2.5, "it did not sing")
        self.advance(2.4)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        assert isinstance(reason, DeadlineMissed)
        self.assertEqual((reason.seconds, str(reason)), (2.5, "it did not sing within 2.5 s"))

    def test_stall(self) -> None:
        """
        A stall of this process, however long, takes only a part of the deadline, and the peer has
        the rest of it.
        """
        wire = self.plain()
        wire.protocol.setDeadline(10, "it did not sing")
        self.advance(5)
        self.clock.advance(3600)
        self.assertFalse(wire.closing)
        self.advance(3)
        self.assertFalse(wire.closing)
        self.advance(2)
        self.assertTrue(wire.aborted)

    def test_unread(self) -> None:
        """
        Nobody misses a deadline while what they have sent in time is waiting to be read, but
        whoever sends without end misses it a little later.
        """
        unread = True
        self.patch(protocolModule, "hasUnread", lambda _transport: unread)
        wire, other = self.plain(), self.plain()
        for each in (wire, other):
            each.protocol.setDeadline(8, "it did not sing")
        self.advance(8.5)
        self.assertFalse(wire.closing)
        wire.protocol.clearDeadline()
        self.advance(1)
        self.assertFalse(wire.closing)
        self.assertTrue(other.aborted)
        self.assertEqual(str(self.reasonOf(other)), "it did not sing within 8 s")

    def test_met(self) -> None:
        """
        A deadline that was met leaves no timer, and clearing it twice does no harm.
        """
        wire = self.plain()
        wire.protocol.setDeadline(2.5, "it did not sing")
        wire.protocol.clearDeadline()
        wire.protocol.clearDeadline()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneAtATime(self) -> None:
        """
        A second deadline takes the place of the first.
        """
        wire = self.plain()
        wire.protocol.setDeadline(1, "it did not sing")
        wire.protocol.setDeadline(5, "it did not dance")
        self.advance(2)
        self.assertFalse(wire.closing)
        self.advance(3)
        self.assertIn("dance", str(self.reasonOf(wire)))


class ClosingTests(ProtocolTestCase):
    """
    How an end closes, and what it is told about it.
    """

    def test_disconnect(self) -> None:
        """
        Disconnecting sends what was written, but nothing that is written afterwards, and stops
        the pings; when the transport is gone, so is the timer.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        wire.protocol.setDeadline(3, "it did not sing")
        wire.protocol.send(b"before")
        reason = ConnectionClosed("enough")
        wire.protocol.disconnect(reason)
        wire.protocol.send(b"after")
        self.assertEqual(wire.taken(), b"before")
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
        self.assertEqual(len(wire.protocol.factory.pacemaker), 0)
        self.assertIs(self.reasonOf(wire), reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peerThatDoesNotRead(self) -> None:
        """
        A peer that does not read what was written before disconnecting is aborted after
        C{closeTimeout}, or sooner where the caller says so.
        """
        for timeout, expected in ((None, 5), (0.5, 0.5)):
            wire = self.plain()
            wire.protocol.disconnect(ConnectionClosed("enough"), timeout)
            self.clock.advance(expected - 0.1)
            self.assertFalse(wire.aborted)
            self.clock.advance(0.2)
            self.assertTrue(wire.aborted)
            self.assertIsInstance(self.reasonOf(wire), ConnectionClosed)

    def test_firstReasonStays(self) -> None:
        """
        Who is closing already does not begin again, and keeps its reason; but to abort ends at
        once what would have waited for the peer.
        """
        wire = self.plain()
        reason = ConnectionClosed("first")
        wire.protocol.disconnect(reason)
        wire.protocol.disconnect(ConnectionClosed("second"))
        self.assertFalse(wire.aborted)
        wire.protocol.abort(ConnectionClosed("third"))
        self.assertTrue(wire.aborted)
        self.assertIs(self.reasonOf(wire), reason)

    def test_abort(self) -> None:
        """
        Aborting lets go of the transport as its producer, so that nobody resumes a dead end.
        """
        wire = self.plain()
        reason = KeepAliveTimeout(1, 2, 3)
        wire.protocol.abort(reason)
        self.assertTrue(wire.aborted)
        self.assertIsNone(wire.transport.producer)
        self.assertIs(self.reasonOf(wire), reason)

    def test_peerClosed(self) -> None:
        """
        When the peer closes in good order, the reason is a L{ConnectionClosed}.
        """
        wire = self.plain()
        wire.protocol.startKeepAlive(KEEPALIVE)
        wire.lose()
        (reason,) = wire.protocol.reasons
        self.assertIsInstance(reason, ConnectionClosed)
        self.assertEqual(str(reason), "the peer closed the connection")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connectionLost(self) -> None:
        """
        When the connection breaks, the reason is what the transport reported.
        """
        wire = self.plain()
        error = ConnectionLost()
        wire.lose(error)
        self.assertEqual(wire.protocol.reasons, [error])

    def test_noException(self) -> None:
        """
        What ends a process is no reason for a connection, which is then just closed.
        """
        wire = self.plain()
        wire.lose(KeyboardInterrupt())
        self.assertIsInstance(wire.protocol.reasons[0], ConnectionClosed)

    def test_defaultClosed(self) -> None:
        """
        A subclass need not care for the end.
        """
        wire = self.plain(KeepAliveProtocol)
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def keepsKeepAlive(header: Header) -> bool:
    """
    @return: whether a message is for the end itself and not to be relayed.
    """
    return header[1] == KEEPALIVE_PROGRAM


class RelayTests(ProtocolTestCase):
    """
    An end that is one half of a relay.

    C{left} and C{right} are the two halves.  What comes to one goes out at the other.
    """

    def setUp(self) -> None:
        """
        Make two ends, which are not connected to each other yet.
        """
        super().setUp()
        self.left = self.plain()
        self.right = self.plain()
        self.toLeft = self.sieve(self.right, self.left.transport)
        self.toRight = self.sieve(self.left, self.right.transport)

    def sieve(self, source: Wire[Plain], target: StringTransport) -> MessageSieve:
        """
        @return: what lets everything through from one end's peer to the other's, but keepalive.
        """
        return MessageSieve(
            keepsKeepAlive,
            lambda message, _raw: source.protocol.keepAliveReceived(message),
            target.write,
        )

    def start(self) -> None:
        """
        Make the two ends one connection.
        """
        self.left.protocol.startRelay(self.toRight, self.toLeft, self.right.protocol)
        self.right.protocol.startRelay(self.toLeft, self.toRight, self.left.protocol)

    def test_relayed(self) -> None:
        """
        Whatever comes, whole messages or parts of them, goes out at the other half as it is.
        """
        self.start()
        packed = packMessage(Probe.message(1, bytes(100)))
        self.left.feed(packed, packed[:40])
        self.assertEqual(self.right.taken(), packed + packed[:40])
        self.left.feed(packed[40:])
        self.assertEqual(self.right.taken(), packed[40:])
        self.right.feed(packed)
        self.assertEqual(self.left.taken(), packed)
        self.assertEqual(self.left.protocol.messages, [])

    def test_rest(self) -> None:
        """
        What had come before and was no whole message yet is relayed as well.
        """
        packed = packMessage(HELLO)
        self.left.feed(packed[:20])
        self.start()
        self.left.feed(packed[20:])
        self.assertEqual(self.right.taken(), packed)

    def test_ownPings(self) -> None:
        """
        Each half answers its own peer's pings and sends its own, between two relayed messages
        and not in the middle of one.
        """
        self.start()
        packed = packMessage(HELLO)
        self.left.feed(PING)
        self.assertEqual((self.left.taken(), self.right.taken()), (PONG, b""))
        self.right.protocol.startKeepAlive(KEEPALIVE)
        self.left.feed(packed[:30])
        self.advance(1.1)
        self.right.feed(PING)
        self.assertEqual(self.right.taken(), packed[:30])
        self.left.feed(packed[30:])
        self.assertEqual(self.right.taken(), packed[30:] + PONG)
        self.advance(1.1)
        self.assertEqual(self.right.taken(), PING)
        self.right.feed(PONG)
        self.assertEqual(self.left.taken(), b"")

    def test_garbage(self) -> None:
        """
        A length word that no message can have closes the half it came to, and nothing of what
        follows is relayed.
        """
        self.start()
        self.left.feed(bytes(HEADER_SIZE))
        self.assertTrue(self.left.aborted)
        self.left.feed(HELLO)
        self.assertEqual(self.right.taken(), b"")
        self.assertIsInstance(self.reasonOf(self.left), RemoteProtocolError)

    def test_quietInTheMiddle(self) -> None:
        """
        While the other side is slow to end a message, of which a peer has read all there is, the
        peer can neither be pinged nor blamed for its silence; when it does not read what there
        is, it can.
        """
        self.start()
        self.right.protocol.startKeepAlive(KEEPALIVE)
        self.left.feed(packMessage(HELLO)[:30])
        self.advance(10)
        self.assertFalse(self.right.closing)
        self.right.protocol.pauseProducing()
        self.advance(4.1)
        self.assertTrue(self.right.aborted)

    def test_backpressure(self) -> None:
        """
        While one peer is behind with reading, nothing is read from the other, and that one's
        silence does not count.
        """
        self.start()
        self.right.protocol.startKeepAlive(KEEPALIVE)
        self.left.protocol.pauseProducing()
        self.assertFalse(self.right.reading)
        self.advance(10)
        self.assertFalse(self.right.closing)
        self.left.protocol.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_congestedBefore(self) -> None:
        """
        A peer that was behind with reading before the relay began holds up the other as well.
        """
        self.left.protocol.pauseProducing()
        self.start()
        self.assertFalse(self.right.reading)
        self.left.protocol.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_bothStuck(self) -> None:
        """
        When neither peer reads, neither can be judged by its silence, so they have a deadline.
        """
        self.start()
        self.left.protocol.pauseProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.right.protocol.pauseProducing()
        self.advance(60)
        self.assertTrue(self.right.aborted)
        self.assertIn("did not read on within 60 s", str(self.reasonOf(self.right)))

    def test_unstuck(self) -> None:
        """
        When one of two peers that were stuck reads on, the deadline is gone.
        """
        for first in (self.left, self.right):
            self.start()
            self.left.protocol.pauseProducing()
            self.right.protocol.pauseProducing()
            first.protocol.resumeProducing()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.left.protocol.resumeProducing()
            self.right.protocol.resumeProducing()
