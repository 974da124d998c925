"""
Tests for L{kaproto.backends.connections}: how a gateway and all its connections find out whether
libvirtd is alive.
"""

from __future__ import annotations

from twisted.internet.error import ConnectError

from kaproto.backends.connections import UpstreamConnection
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.wire.message import Message, MessageType, packMessage, unpackError
from kaproto.wire.programs import Procedure
from tests.support_gateway import WATCHED, FarEnd, ThreeParties, WatchTestCase, stream


class BusyTests(WatchTestCase):
    """
    A libvirtd that has as many calls in hand as it reads of one connection.
    """

    def test_alone(self) -> None:
        """
        Its client stays connected for as long as a new connection is answered, which is closed
        afterwards.  That is logged once.  All calls are answered.
        """
        near, far = self.calling(8)
        self.parties.advance(120)
        self.assertTrue(near.isAlive())
        self.assertEqual(len(self.parties.probes), 1)
        self.assertFalse(self.parties.probes[0].clientTransport.disconnected)
        self.assertEqual(self.logged("is busy"), 1)
        self.assertEqual(self.logged("8 calls and streams are under way"), 1)
        self.assertEqual(self.logged("to ask whether it is alive"), 1)
        self.assertEqual(len(self.parties.gateway.upstream.busy), 1)
        self.unblock(far)
        self.assertEqual([each.serial for each in near.messages], list(range(10, 18)))
        self.parties.advance(5)
        self.assertEqual(len(self.parties.gateway.upstream.busy), 0)
        self.assertGone()
        near.transport.loseConnection()
        self.parties.flush()
        self.assertEqual(self.parties.clock.getDelayedCalls(), [])

    def test_fewPings(self) -> None:
        """
        However long it takes, no more than C{count} pings wait for libvirtd to read them.
        """
        _near, far = self.calling()
        before = far.pings
        self.parties.advance(60)
        self.unblock(far)
        self.assertEqual(far.pings - before, WATCHED.count)

    def test_whatTheProbeSays(self) -> None:
        """
        The probe logs in, and no more.
        """
        self.calling()
        self.parties.advance(20)
        server = self.parties.probes[0].server
        assert isinstance(server, FarEnd)
        self.assertEqual([each.procedure for each in server.before], [Procedure.AUTH_LIST])
        self.assertGreater(server.pings, 5)

    def test_goodbye(self) -> None:
        """
        The connection that asks when somebody looks closes as clients do.
        """
        self.parties.gateway.health.look()
        self.parties.advance(2)
        (pair,) = self.parties.probes
        assert isinstance(pair.server, FarEnd)
        asked = [Procedure.AUTH_LIST, Procedure.CONNECT_CLOSE]
        self.assertEqual([each.procedure for each in pair.server.before], asked)
        self.parties.advance(5)
        self.assertTrue(pair.clientTransport.disconnected)
        self.assertIsNone(self.parties.gateway.health.look())

    def test_another(self) -> None:
        """
        While another client's connection is answered, none is made to ask.
        """
        near, _far = self.calling()
        self.parties.opened()
        self.parties.advance(60)
        self.assertTrue(near.isAlive())
        self.assertEqual((len(self.parties.probes), self.logged("is busy")), (0, 1))

    def test_stream(self) -> None:
        """
        An upload that its sink does not take counts like a call.
        """
        near, far = self.parties.opened()
        self.parties.advance(0.5)
        near.write(*(stream(9, payload=bytes(4096)) for _ in range(8)))
        self.parties.flush()
        far.transport.pauseProducing()
        self.parties.advance(60)
        self.assertTrue(near.isAlive())

    def test_clientGoes(self) -> None:
        """
        When the client goes, so does the probe.
        """
        near, _far = self.calling()
        self.parties.advance(20)
        self.assertEqual(len(self.parties.probes), 1)
        near.transport.abortConnection()
        self.parties.flush()
        self.assertGone()
        self.assertEqual(self.parties.clock.getDelayedCalls(), [])

    def test_probeLost(self) -> None:
        """
        A probe that is lost is made again.
        """
        near, _far = self.calling()
        self.parties.advance(20)
        self.parties.probes[0].serverTransport.abortConnection()
        self.parties.advance(20)
        self.assertEqual(len(self.parties.probes), 2)
        self.assertTrue(near.isAlive())

    def test_probeRefused(self) -> None:
        """
        libvirtd that takes connections and refuses them is alive.
        """
        near, _far = self.calling()
        self.parties.upstream.factory.policy = Mandatory(KeepAlive(1, 1))
        self.parties.upstream.factory.limits = self.parties.factory.limits
        self.parties.advance(120)
        self.assertTrue(near.isAlive())
        self.assertGreater(len(self.parties.probes), 2)


class HangTests(WatchTestCase):
    """
    A libvirtd that is connected and does nothing.
    """

    def hang(self) -> None:
        """
        Stop libvirtd.
        """
        self.parties.upstream.mute = True
        for pair in self.parties.upstream.pairs:
            pair.serverTransport.pauseProducing()

    def test_found(self) -> None:
        """
        It is found in C{interval * (count + 1)} seconds when nothing is under way, and in
        C{interval * (count + 3)} when something is; all clients are told why.
        """
        for number, bound in ((0, 6.1), (4, 10.1), (8, 10.1)):
            self.setUp()
            clients = [self.calling(number)[0] for _ in range(3)]
            self.parties.advance(60)
            self.hang()
            self.parties.advance(bound)
            for near in clients:
                self.assertFalse(near.isAlive())
                for message in near.messages[:number]:
                    self.assertIn("it hangs", unpackError(message.payload).message)
                self.assertEqual(len(near.messages), number)
            self.assertGone()
            self.assertEqual(self.parties.clock.getDelayedCalls(), [])

    def test_cannotConnect(self) -> None:
        """
        A probe that cannot be connected is tried again, and proves nothing meanwhile.
        """
        near, _far = self.calling()
        self.hang()
        self.parties.upstream.error = ConnectError()
        self.parties.advance(6.5)
        self.parties.upstream.error = None
        self.parties.upstream.mute = False
        self.parties.advance(60)
        self.assertTrue(near.isAlive())
        self.assertEqual(len(self.parties.probes), 1)

    def test_connectingHangs(self) -> None:
        """
        Connecting is given up when libvirtd is.
        """
        near, _far = self.calling()
        self.hang()
        self.parties.upstream.deaf = True
        self.parties.advance(10.1)
        self.assertFalse(near.isAlive())
        self.assertEqual(self.parties.upstream.cancelled, 1)
        self.assertEqual(self.parties.clock.getDelayedCalls(), [])


class AskTests(WatchTestCase):
    """
    A libvirtd that is not asked for keepalive.
    """

    def test_notAsked(self) -> None:
        """
        It is pinged at once, and then as often as ever, and never pings.
        """
        near, far = self.parties.opened()
        self.assertEqual(
            [each.procedure for each in far.before],
            [Procedure.AUTH_LIST, Procedure.CONNECT_OPEN],
        )
        self.assertEqual(far.pings, 1)
        self.parties.advance(8.5)
        self.assertEqual((far.pings, far.pongs), (5, 0))
        self.assertTrue(near.isAlive())

    def test_neverAnswers(self) -> None:
        """
        One that does not answer the first ping knows nothing of keepalive: it is not judged.
        """
        self.parties.upstream.factory.protocol = Ignorant
        near, far = self.parties.opened()
        self.parties.advance(60)
        self.assertEqual(far.pings, 1)
        self.assertTrue(near.isAlive())

    def test_answersLate(self) -> None:
        """
        From its first answer on it is watched, as idly as any other.
        """
        self.parties.upstream.factory.protocol = Ignorant
        near, far = self.parties.opened()
        self.parties.advance(60)
        (connection,) = self.parties.gateway.upstream.connections
        assert isinstance(connection, UpstreamConnection)
        self.assertIsNotNone(connection.heartbeat.onAnswer)
        far.write(packMessage(Message(0x6B656570, 1, 2, MessageType.MESSAGE, 0, 0)))
        self.parties.advance(0.2)
        self.assertIsNone(connection.heartbeat.onAnswer)
        self.parties.advance(6)
        self.assertFalse(near.isAlive())
        self.assertEqual(far.pings, 1 + WATCHED.count)

    def test_off(self) -> None:
        """
        With an interval of zero it is never pinged.
        """
        self.parties = ThreeParties(upstreamKeepAlive=KeepAlive(0, 5), ask=False)
        near, far = self.calling()
        self.parties.advance(60)
        self.assertEqual(far.pings, 0)
        self.assertTrue(near.isAlive())

    def test_mandatory(self) -> None:
        """
        A kaserver in mode 2 does not open for who does not ask; the log says what to do.
        """
        self.parties.upstream.factory.policy = Mandatory(WATCHED)
        near = self.parties.connect()
        self.assertFalse(near.isAlive())
        self.assertEqual(self.logged("pass --upstream-ask=yes"), 1)


class Ignorant(FarEnd):
    """
    A libvirtd that does not answer pings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answering = False


class AskedTests(WatchTestCase):
    """
    A libvirtd that was asked.
    """

    ask = True

    def test_busy(self) -> None:
        """
        While it lives a busy connection is not taken for dead.
        """
        near, _far = self.calling()
        self.parties.advance(60)
        self.assertTrue(near.isAlive())
