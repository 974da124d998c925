"""
Tests for the rules of liveness, one by one, between two ends in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.counters import Counters
from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive import suspicion, unreadpeer
from kaproto.keepalive.kernel import Delivery
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Disable, Mandatory, Optional, Policy
from kaproto.rpc.reading import Pause
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import ConnectedPair
from kaproto.wire.message import PING, PONG, packMessage
from tests.support import FEATURE_KEEPALIVE, KEEPALIVE, OPEN, ClockTestCase, Probe

Pair = ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]
HOUR = 3600

LIMITS = Limits()


class SilentConnection(ClientConnection):
    """
    A client's connection that sends nothing by itself.
    """

    def start(self) -> None:
        """
        Send nothing.
        """


class RawClient(KeepAliveClientProtocol, isBase=True):
    """
    A client that sends nothing by itself, and records what it receives.
    """

    _kaprotoConnection = SilentConnection
    heard = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.heard += data


class RuleTests(ClockTestCase):
    """
    Tests for detecting dead peers, and for what happens to their connections.

    @ivar isFull: whether our receive buffer is full.
    @ivar inFlight: segments that the peer's host has not acknowledged.
    """

    isFull = False
    inFlight = 0

    def connect(self, policy: Policy | None = None) -> Pair:
        """
        Connect a client that opens and answers pings, by default in mode 2.
        """
        policy = Mandatory(KEEPALIVE) if policy is None else policy
        self.probe = Probe()
        return self.pair(KeepAliveServerFactory(policy, programs=[self.probe], clock=self.clock))

    def connectRaw(self, policy: Policy | None = None, *said: bytes) -> Pair:
        """
        Connect a client that sends only what the test tells it to.
        """
        policy = Mandatory(KEEPALIVE) if policy is None else policy
        self.probe = Probe()
        server = KeepAliveServerFactory(policy, programs=[self.probe], clock=self.clock)
        client = KeepAliveClientFactory(clock=self.clock)
        client.protocol = RawClient
        pair = self.pair(server, client)
        self.say(pair, *said)
        return pair

    def say(self, pair: Pair, *said: bytes) -> bytes:
        """
        Send bytes from a raw client.

        @return: the bytes it receives.
        """
        assert isinstance(pair.client, RawClient)
        pair.client.heard = b""
        for data in said:
            pair.clientTransport.write(data)
        pair.flush()
        return pair.client.heard

    def pings(self, pair: Pair) -> list[float]:
        """
        @return: the times at which the server pinged.
        """
        return [at for at, data in pair.writtenBy("server") if data == PING]

    def dies(self, pair: Pair, at: float) -> None:
        """
        Check that the server closes the connection at that time, and not before.
        """
        pair.advance(at - self.clock.seconds() - 0.001)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(0.1)
        self.assertTrue(pair.serverTransport.disconnected)

    def test_rule1_anyBytesAreLife(self) -> None:
        """
        Any byte from the peer is a sign of life, even one of a message that is never completed.
        """
        pair = self.connectRaw(None, packMessage(FEATURE_KEEPALIVE), packMessage(OPEN))
        for byte in packMessage(Probe.message(Probe.ECHO))[:20]:
            pair.advance(0.9)
            self.say(pair, bytes([byte]))
        self.assertEqual(self.pings(pair), [])
        self.dies(pair, self.clock.seconds() + 3)

    def test_rule1_halfATLSRecord(self) -> None:
        """
        Bytes that the kernel has received are a sign of life before a protocol can see them, as in
        a long TLS record. No ping is sent within an interval of the last ones; without further
        bytes the peer is found dead after the usual time.
        """
        pair = self.connect()
        pair.blackhole()
        latest = 0.0

        def look(_transport: object) -> Delivery:
            return Delivery(0, received=1, silence=self.clock.seconds() - latest)

        self.patch(suspicion, "delivery", look)
        for _time in range(20):
            pair.advance(0.5)
            latest = self.clock.seconds()
        self.assertFalse(pair.serverTransport.disconnected)
        latest = 10.2
        self.dies(pair, 13.2)
        pings = [at for at in self.pings(pair) if at > 10]
        self.assertEqual(len(pings), 2, pings)

    def test_rule1_idleRoundTripsAreNotLookedAt(self) -> None:
        """
        The kernel's counters are read only when a second ping is due.
        """
        looks: list[float] = []

        def look(_transport: object) -> None:
            looks.append(self.clock.seconds())

        self.patch(suspicion, "delivery", look)
        pair = self.connect()
        pair.advance(10.5)
        self.assertEqual(looks, [])
        pair.blackhole()
        self.dies(pair, 13)
        self.assertEqual([round(at) for at in looks[:2]], [12, 13])

    def test_rule1_ownWritesAreNot(self) -> None:
        """
        Our own writes are no sign of life, however many there are.
        """
        pair = self.connect()
        pair.blackhole()
        for _time in range(29):
            pair.server.sendEvent(Probe.number, 1, b"news")
            pair.advance(0.1)
        self.assertEqual(len(self.pings(pair)), 2)
        self.dies(pair, 3)

    def test_rule2_pingsAfterSilence(self) -> None:
        """
        A ping is sent only after an interval of silence. A pong or any other message answers all
        earlier pings, and never more than C{count} are unanswered.
        """
        pair = self.connectRaw(
            Mandatory(KeepAlive(1, 3)), packMessage(FEATURE_KEEPALIVE), packMessage(OPEN)
        )
        pair.advance(2.5)
        self.assertEqual([round(at) for at in self.pings(pair)], [1, 2])
        self.say(pair, PONG)
        pair.advance(0.9)
        self.assertEqual(len(self.pings(pair)), 2)
        pair.advance(2.5)
        self.assertEqual([round(at, 1) for at in self.pings(pair)[2:]], [3.5, 4.5, 5.5])
        self.dies(pair, 6.5)
        self.assertEqual(len(self.pings(pair)), 5)

    def test_rule3_monotonicTime(self) -> None:
        """
        Setting the wall clock by hours neither kills a peer nor keeps one alive.
        """
        pair = self.connect()
        pair.client.setKeepAlive(1, 2)
        wall = time.time()
        for second in range(20):
            wall += HOUR * (-1) ** second * second
            self.patch(time, "time", lambda now=wall: now)
            pair.advance(1)
        self.assertTrue(pair.client.isAlive())
        self.assertApproximates(len(self.pings(pair)), 19, 1)
        pair.blackhole()
        self.patch(time, "time", lambda: wall - 5 * HOUR)
        pair.advance(3.1)
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertTrue(pair.clientTransport.disconnected)

    def test_rule4_stallsDoNotCount(self) -> None:
        """
        After a stall of this process, waiting bytes are read before any peer is judged, and the
        time does not count as silence.
        """
        pair = self.connect()
        pair.advance(0.99)
        self.clock.advance(0.1)
        self.assertEqual(len(self.pings(pair)), 1)
        self.clock.advance(60)
        pair.flush()
        self.assertTrue(pair.client.isAlive())
        pair.blackhole()
        heard = self.clock.seconds()
        pair.advance(1.5)
        self.clock.advance(HOUR)
        pair.advance(1)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(heard + HOUR + 3.1 - self.clock.seconds())
        self.assertTrue(pair.serverTransport.disconnected)

    def test_rule4_pausedReading(self) -> None:
        """
        While this end does not read, the peer's silence does not count.
        """
        pair = self.connect()
        pair.server._kaproto.pauseReading(Pause.CALLS)
        pair.advance(60)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.server._kaproto.reading.resume(Pause.CALLS)
        pair.blackhole()
        resumed = self.clock.seconds()
        self.dies(pair, resumed + 3)

    def test_rule5_deathIsAbort(self) -> None:
        """
        A dead peer's connection is aborted, whatever could not be sent. The reason has the
        interval, the count and the silence, and no timer is left.
        """
        pair = self.connect()
        pair.client.setKeepAlive(0.5, 4)
        pair.server._kaproto.pauseReading(Pause.CALLS)
        pair.blackhole()
        closed = pair.client.whenClosed()
        pair.client.call(Probe.number, Probe.ECHO, bytes(100_000)).addErrback(lambda _: None)
        pair.advance(2.45)
        self.assertNoResult(closed)
        pair.advance(0.15)
        self.assertTrue(pair.clientTransport.disconnected)
        reason = self.successResultOf(closed)
        assert isinstance(reason, KeepAliveTimeout)
        self.assertEqual((reason.interval, reason.count), (0.5, 4))
        self.assertApproximates(reason.silence, 2.5, 0.05)
        self.assertIn("interval 0.5 s, count 4", str(reason))
        pair.serverTransport.abortConnection()
        pair.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rule6_pingsAreAnsweredAtOnce(self) -> None:
        """
        Pings are answered at once in every mode and state, ahead of calls that wait.
        """
        for policy in (Disable(KEEPALIVE), Optional(KEEPALIVE), Mandatory(KEEPALIVE)):
            pair = self.connectRaw(policy)
            self.assertEqual(self.say(pair, PING), PONG)
            self.say(pair, packMessage(FEATURE_KEEPALIVE))
            self.assertEqual(self.say(pair, PING), PONG)
            self.say(pair, packMessage(OPEN))
            self.assertEqual(self.say(pair, PING), PONG)
            waiting = [packMessage(Probe.message(Probe.LATER))] * (LIMITS.runningCalls + 1)
            self.assertEqual(self.say(pair, *waiting, PING), PONG)
            pair.server._kaproto.drain()
            self.assertEqual(self.say(pair, PING), PONG)

    def fill(self, pair: Pair) -> None:
        """
        Make as many calls as the server queues, so that it stops reading.
        """
        calls = LIMITS.runningCalls + LIMITS.waitingCalls
        for _ in range(calls + 1):
            pair.client._kaproto.send(packMessage(Probe.message(Probe.LATER)))
        pair.advance(0.5)
        self.assertTrue(pair.server._kaproto.reading.pauses)

    def test_rule6_callsThatWait(self) -> None:
        """
        While so many calls wait that reading stops, a client that asked for keepalive gets
        unsolicited pongs, two in each of its ping intervals, so that it does not find the server
        dead.
        """
        for interval, pongs in ((0.5, 40), (1, 20)):
            pair = self.connect()
            pair.client.setKeepAlive(interval, 2)
            pair.advance(4 * interval + 0.1)
            self.fill(pair)
            before = len(pair.writtenBy("server"))
            pair.advance(10)
            self.assertTrue(pair.client.isAlive())
            self.assertFalse(pair.serverTransport.disconnected)
            sent = [data for _, data in pair.writtenBy("server")[before:]]
            self.assertEqual(set(sent), {PONG})
            self.assertApproximates(len(sent), pongs, 3)

    def test_rule6_askedAndHasNotPinged(self) -> None:
        """
        A client that has not pinged yet gets one pong a second, until it is read again.
        """
        pair = self.connect()
        self.fill(pair)
        before = len(pair.writtenBy("server"))
        pair.advance(5)
        sent = [data for _, data in pair.writtenBy("server")[before:]]
        self.assertEqual(sent, [PONG] * 5)
        connection = pair.server._kaproto
        connection.reading.resume(Pause.CALLS)
        self.assertIsNone(connection._peerPings._timer)

    def test_rule6_toNobodyElse(self) -> None:
        """
        A client that neither asked for keepalive nor pinged gets no pongs, nor does one that does
        not read.
        """
        pair = self.connectRaw(Optional(KEEPALIVE))
        self.say(pair, packMessage(OPEN))
        pair.server._kaproto.pauseReading(Pause.CALLS)
        self.assertIsNone(pair.server._kaproto._peerPings._timer)
        asking = self.connectRaw(Optional(KEEPALIVE))
        self.say(asking, packMessage(FEATURE_KEEPALIVE), packMessage(OPEN))
        asking.server._kaproto.pauseProducing()
        asking.server._kaproto.pauseReading(Pause.CALLS)
        before = len(asking.writtenBy("server"))
        asking.advance(5)
        self.assertEqual(len(asking.writtenBy("server")), before)

    def test_rule6_floodsAreClosed(self) -> None:
        """
        A peer that exceeds its ping budget is disconnected, and so is one that does not read the
        pongs.
        """
        pair = self.connectRaw(Disable(), packMessage(OPEN))
        self.assertEqual(self.say(pair, PING * 100), PONG * 100)
        self.say(pair, PING)
        self.assertTrue(pair.clientTransport.disconnected)
        pair = self.connectRaw(Disable(), packMessage(OPEN))
        pair.clientTransport.pauseProducing()
        pair.server.sendEvent(Probe.number, 1, bytes(100_000))
        for _second in range(65):
            self.assertFalse(pair.serverTransport.disconnected)
            pair.clientTransport.write(PING)
            pair.advance(1)
        self.assertTrue(pair.serverTransport.disconnected)

    def unreadClient(self, look: Callable[[Pair], Delivery], policy: Policy | None = None) -> Pair:
        """
        Connect a client, and stop reading from it.

        @param look: returns the kernel's counters.
        """
        pair = self.connect(policy)
        for module in (unreadpeer, suspicion):
            self.patch(module, "delivery", lambda _transport: look(pair))
        self.patch(suspicion, "isReceiveBufferFull", lambda _transport: self.isFull)
        pair.server._kaproto.reading.pause(Pause.TURN)
        pair.server._kaproto.pauseReading(Pause.CALLS)
        pair.blackhole()
        return pair

    def test_rule6_unreadClientsAreWatched(self) -> None:
        """
        A client that asked for keepalive is still pinged while it is not read. It is alive as long
        as the kernel receives answers, and is found dead after the usual time without any.
        """
        end = 20.5
        pair = self.unreadClient(
            lambda _pair: Delivery(0, 0, 0, 0, silence=max(0, self.clock.seconds() - end))
        )
        pair.advance(20)
        self.assertFalse(pair.serverTransport.disconnected)
        self.assertGreater(len(self.pings(pair)), 9)
        self.dies(pair, end + 3)

    def test_rule6_fullReceiveBuffer(self) -> None:
        """
        When our receive buffer is full, no answer can arrive, so silence proves nothing. A host
        that acknowledges no ping is dead nevertheless.
        """
        pair = self.unreadClient(
            lambda _pair: Delivery(0, 0, self.inFlight, 0, silence=self.clock.seconds())
        )
        self.isFull = True
        pair.advance(20)
        self.assertFalse(pair.serverTransport.disconnected)
        self.inFlight = 1
        pair.advance(6.2)
        self.assertTrue(pair.serverTransport.disconnected)

    def test_rule6_unreadUNIXClients(self) -> None:
        """
        On a UNIX socket the kernel knows whether the client reads, not when bytes arrived. A client
        is alive while it reads, and is found dead the usual time after it stops, whether or not our
        receive buffer is full. It is checked before each unsolicited pong and when it is due; a
        pong that it has not read yet proves nothing.
        """
        for keepAlive in (KeepAlive(1, 2), KeepAlive(1, 1), KeepAlive(0.25, 2), KeepAlive(5, 5)):
            for self.isFull in (False, True):
                pair, stopped = self._unreadUNIXClient(keepAlive)
                death = keepAlive.interval * (keepAlive.count + 1)
                pair.advance(2 * death)
                self.assertFalse(pair.serverTransport.disconnected, keepAlive)
                stopped.append(self.clock.seconds())
                pair.advance(max(0, death - 1.1))
                self.assertFalse(pair.serverTransport.disconnected, keepAlive)
                pair.advance(2.2)
                self.assertTrue(pair.serverTransport.disconnected, keepAlive)

    def test_rule6_unreadUNIXClientWrites(self) -> None:
        """
        A client that does not read is alive while the bytes that it writes arrive. Those that
        arrived earlier prove nothing.
        """
        pair = self.unreadClient(lambda _pair: Delivery(768, local=True, unread=100))
        self.dies(pair, 3)
        begun = self.clock.seconds()
        last = 30

        def look(_pair: Pair) -> Delivery:
            seconds = min(self.clock.seconds() - begun, last)
            return Delivery(5000, local=True, unread=28 * int(seconds))

        pair = self.unreadClient(look)
        pair.advance(last)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(5.2)
        self.assertTrue(pair.serverTransport.disconnected)

    def _unreadUNIXClient(self, keepAlive: KeepAlive) -> tuple[Pair, list[float]]:
        """
        @return: a client that reads 0.01 s after each write, and a list for the time at which it
            stops.
        """
        stopped: list[float] = []

        def look(pair: Pair) -> Delivery:
            until = min([self.clock.seconds(), *stopped]) - 0.01
            return Delivery(
                768 * sum(at > until for at, _data in pair.writtenBy("server")), local=True
            )

        return self.unreadClient(look, Mandatory(keepAlive)), stopped

    def test_rule6_unreadElsewhere(self) -> None:
        """
        Where the kernel knows neither, a client that is not read is not pinged, and its silence
        does not count.
        """
        pair = self.unreadClient(lambda _pair: Delivery(0))
        pair.advance(20)
        self.assertFalse(pair.serverTransport.disconnected)
        self.assertEqual(self.pings(pair), [])
        pair.server._kaproto.reading.resume(Pause.CALLS)
        pair.server._kaproto.reading.resume(Pause.TURN)
        self.dies(pair, 23)

    def test_rule6_unreadServer(self) -> None:
        """
        A peer that has not asked for keepalive, such as a server, is not pinged while it is not
        read.
        """
        pair = self.connect(Disable(KEEPALIVE))
        pair.client.setKeepAlive(1, 2)

        def look(_transport: object) -> Delivery:
            return Delivery(0, 0, 0, 0, silence=self.clock.seconds())

        for module in (unreadpeer, suspicion):
            self.patch(module, "delivery", look)
        pair.client._kaproto.pauseReading(Pause.CONGESTION)
        before = len(pair.writtenBy("client"))
        pair.advance(20)
        self.assertFalse(pair.clientTransport.disconnected)
        self.assertEqual(len(pair.writtenBy("client")), before)

    def test_rule7_slowPeers(self) -> None:
        """
        A client or server that reads slowly and answers each ping that it has read is alive. It
        gets no second ping before it has read everything written before the first. It is found dead
        the usual time after it stops reading.
        """
        for slow in ("client", "server"):
            pair = self.connect()
            pair.client.setKeepAlive(1, 2)
            pair.advance(0.5)
            other = {"client": "server", "server": "client"}[slow]
            written = len(pair.writtenBy(other))
            start = self.clock.seconds()
            pair.blackhole()
            stopsAt = start + 10

            def look(transport: object, *, sender: object, start: float, stop: float) -> object:
                if transport is not sender:
                    return Delivery(0, 0, 0, 0, 0)
                now = self.clock.seconds()
                taken = round((min(now, stop) - start) * 100_000)
                return Delivery(5_000_000 - taken, taken, 0, 0, now, sinceSent=max(0, now - stop))

            sender = pair.serverTransport if slow == "client" else pair.clientTransport
            self.patch(
                suspicion, "delivery", partial(look, sender=sender, start=start, stop=stopsAt)
            )
            pair.advance(10)
            self.assertFalse(sender.disconnected)
            pings = [data for _at, data in pair.writtenBy(other)[written:] if data == PING]
            self.assertEqual(len(pings), 1)
            pair.advance(2.9)
            self.assertFalse(sender.disconnected)
            pair.advance(0.2)
            self.assertTrue(sender.disconnected, slow)

    def test_rule9_deadlines(self) -> None:
        """
        A client that does not open in time is disconnected, and so is one that does not read its
        refusal.
        """
        pair = self.connectRaw()
        pair.advance(9.9)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(0.2)
        self.assertTrue(pair.serverTransport.disconnected)
        pair = self.connectRaw()
        pair.clientTransport.pauseProducing()
        self.say(pair, packMessage(OPEN))
        pair.advance(4.9)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(0.2)
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rule10_countedAndLoggedOnce(self) -> None:
        """
        Refusals, deaths and floods are counted and logged once, with the peer and the reason;
        answered pings are not logged.
        """
        factory = KeepAliveServerFactory(Mandatory(KEEPALIVE), clock=self.clock)
        raw = KeepAliveClientFactory(clock=self.clock)
        raw.protocol = RawClient
        healthy = self.pair(factory)
        healthy.advance(60)
        self.assertGreater(len(self.pings(healthy)), 50)
        healthy.client.close()
        healthy.flush()
        self.assertEqual(self.logged(), [])
        asked = packMessage(FEATURE_KEEPALIVE)
        for said, counter, line in (
            (
                [packMessage(OPEN)],
                "refused",
                "refused {peer} by policy mandatory: operation failed",
            ),
            (
                [asked, packMessage(OPEN)],
                "dead",
                "{peer} is dead: connection closed due to keepalive",
            ),
            ([PING * 200], "flooded", "dropped {peer}: more than 100 pings"),
        ):
            before = len(self.logged())
            pair = self.pair(factory, raw)
            self.say(pair, *said)
            pair.advance(5)
            self.assertTrue(pair.serverTransport.disconnected)
            self.assertEqual(getattr(factory.counters, counter), 1)
            (logged,) = self.logged()[before:]
            self.assertIn(line.format(peer="tcp 127.0.0.1:54321"), logged)
        self.assertEqual(
            factory.counters, Counters(accepted=4, opened=2, refused=1, dead=1, flooded=1)
        )
