"""
Tests for L{kaproto.backends.connections}: how a gateway's connections find out together whether
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
    Tests for a libvirtd that stops reading a connection because it is busy with that connection's
    calls.
    """

    def test_alone(self) -> None:
        """
        The client stays connected for as long as a new connection, the probe, is answered.  All
        calls are answered, and then the probe is closed.  The state is logged once.
        """
        near, far = self.calling(8)
        self.parties.advance(120)
        self.assertTrue(near.isAlive())
        self.assertEqual(len(self.parties.probes), 1)
        self.assertFalse(self.parties.probes[0].clientTransport.disconnected)
        self.assertEqual(self.logged("is busy"), 1)
        self.assertEqual(self.logged("8 calls and streams are under way"), 1)
        self.assertEqual(self.logged("over a new connection, because"), 1)
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
        At most C{count} pings wait until libvirtd reads again, however long that takes.
        """
        _near, far = self.calling()
        before = far.pings
        self.parties.advance(60)
        self.unblock(far)
        self.assertEqual(far.pings - before, WATCHED.count)

    def test_whatTheProbeSays(self) -> None:
        """
        The probe's only call is C{AUTH_LIST}; after that it only pings.
        """
        self.calling()
        self.parties.advance(20)
        server = self.parties.probes[0].server
        assert isinstance(server, FarEnd)
        self.assertEqual([each.procedure for each in server.before], [Procedure.AUTH_LIST])
        self.assertGreater(server.pings, 5)

    def test_goodbye(self) -> None:
        """
        A probe for the gateway's health closes its connection as clients do.
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
        No probe is made while another client's connection is answered.
        """
        near, _far = self.calling()
        self.parties.opened()
        self.parties.advance(60)
        self.assertTrue(near.isAlive())
        self.assertEqual((len(self.parties.probes), self.logged("is busy")), (0, 1))

    def test_stream(self) -> None:
        """
        An upload that is not read counts like a call.
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
        The probe is closed when the client disconnects.
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
        A probe that is lost is replaced.
        """
        near, _far = self.calling()
        self.parties.advance(20)
        self.parties.probes[0].serverTransport.abortConnection()
        self.parties.advance(20)
        self.assertEqual(len(self.parties.probes), 2)
        self.assertTrue(near.isAlive())

    def test_probeRefused(self) -> None:
        """
        A libvirtd that accepts connections and then refuses to open is alive.
        """
        near, _far = self.calling()
        self.parties.upstream.factory.policy = Mandatory(KeepAlive(1, 1))
        self.parties.upstream.factory.limits = self.parties.factory.limits
        self.parties.advance(120)
        self.assertTrue(near.isAlive())
        self.assertGreater(len(self.parties.probes), 2)


class HangTests(WatchTestCase):
    """
    Tests for a libvirtd that accepts connections but does nothing with them.
    """

    def hang(self) -> None:
        """
        Make libvirtd hang.
        """
        self.parties.upstream.mute = True
        for pair in self.parties.upstream.pairs:
            pair.serverTransport.pauseProducing()

    def test_found(self) -> None:
        """
        The hang is detected in C{interval * (count + 1)} seconds when no call is under way, else in
        C{interval * (count + 3)}; each call is answered with an error that says why.
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
        A probe that cannot connect is tried again, and proves nothing until then.
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
        A probe that is still connecting is cancelled when libvirtd is found to hang.
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
    Tests for a libvirtd that the gateway does not ask for keepalive.
    """

    def test_notAsked(self) -> None:
        """
        The gateway pings libvirtd at once, and then once per interval; libvirtd never pings.
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
        A libvirtd that does not answer the first ping is taken to lack keepalive: it is not pinged
        again, and not considered dead.
        """
        self.parties.upstream.factory.protocol = Ignorant
        near, far = self.parties.opened()
        self.parties.advance(60)
        self.assertEqual(far.pings, 1)
        self.assertTrue(near.isAlive())

    def test_answersLate(self) -> None:
        """
        From the first pong on, however late, libvirtd is watched like any other.
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
        With an interval of zero, libvirtd is never pinged.
        """
        self.parties = ThreeParties(upstreamKeepAlive=KeepAlive(0, 5), ask=False)
        near, far = self.calling()
        self.parties.advance(60)
        self.assertEqual(far.pings, 0)
        self.assertTrue(near.isAlive())

    def test_mandatory(self) -> None:
        """
        A kaserver in mode 2 refuses a gateway that does not ask for keepalive; the log says which
        flag to pass.
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
    Tests for a libvirtd that the gateway asks for keepalive.
    """

    ask = True

    def test_busy(self) -> None:
        """
        A busy connection is not considered dead while libvirtd is alive.
        """
        near, _far = self.calling()
        self.parties.advance(60)
        self.assertTrue(near.isAlive())
