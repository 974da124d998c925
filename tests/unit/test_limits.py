"""
Tests for L{kaproto.limits}.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import attrs
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from kaproto.errors import ConnectionClosed
from kaproto.limits import CLIENT_LIMITS, Limits
from kaproto.security.admission import AccessControl
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import PING, Message, MessageType, Status, packMessage
from kaproto.wire.programs import Procedure
from kaproto.wire.sasl import packStart
from tests.support import OPEN, ClockTestCase, Probe, Wire, call
from tests.support_gateway import FarEnd, NearEnd, ThreeParties

NAMES = [field.name for field in attrs.fields(Limits)]

SASL_INIT = call(Procedure.AUTH_SASL_INIT)
RIGHT = call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0sesame"))
WRONG = call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0wrong"))


class LimitsTests(SynchronousTestCase):
    """
    Tests for the values of L{Limits}.
    """

    def test_defaults(self) -> None:
        """
        By default a client waits longer for a server than a server for a client.
        """
        self.assertEqual(Limits().openTimeout, 10)
        self.assertEqual(CLIENT_LIMITS, attrs.evolve(Limits(), openTimeout=30))

    def test_documented(self) -> None:
        """
        Every limit is documented, in the order of the fields.
        """
        lines = (inspect.getdoc(Limits) or "").splitlines()
        documented = [line.split()[1] for line in lines if line.startswith("@ivar ")]
        self.assertEqual(documented, [f"{name}:" for name in NAMES])

    def test_refused(self) -> None:
        """
        Invalid values are refused, with the limit's name.
        """
        for name in NAMES:
            whole = isinstance(getattr(Limits(), name), int)
            for value in (-1, math.inf, math.nan, True, "1", None, 0.5 if whole else -0.5):
                with self.assertRaisesRegex((TypeError, ValueError), f"^{name} is "):
                    Limits(**{name: value})  # type: ignore[arg-type]

    def test_zero(self) -> None:
        """
        Zero clients means any number, and the delay may be zero; other limits must be above zero.
        """
        Limits(maxClients=0, maxAnonymousClients=0, failureDelay=0)
        for name in set(NAMES) - {"maxClients", "maxAnonymousClients", "failureDelay"}:
            with self.assertRaisesRegex(ValueError, f"^{name} is more than 0, not 0"):
                Limits(**{name: 0})

    def test_whole(self) -> None:
        """
        Seconds may be whole numbers.
        """
        self.assertEqual(Limits(openTimeout=3).openTimeout, 3)


class ChangeTests(ClockTestCase):
    """
    Tests that a limit can be changed while the server runs, one test for each limit.
    """

    def setUp(self) -> None:
        """
        Create a server.
        """
        super().setUp()
        self.probe = Probe()
        self.factory = KeepAliveServerFactory(
            programs=[self.probe], clock=self.clock, accessControl=AccessControl()
        )
        self.tested: set[str] = set()

    def change(self, **limits: Any) -> None:
        """
        Change limits.
        """
        self.factory.limits = attrs.evolve(self.factory.limits, **limits)

    def come(self) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client over a UNIX socket, where PLAIN is accepted.
        """
        return self.accept(self.factory, UNIXAddress(None))

    def open(self) -> Wire[KeepAliveServerProtocol]:
        """
        Connect and open a client.
        """
        wire = self.come()
        wire.ask(OPEN)
        return wire

    def wantPasswords(self) -> None:
        """
        Require clients to log in.
        """
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        self.factory.accessControl = AccessControl(makePortal([checker]))

    def later(self, wire: Wire[KeepAliveServerProtocol], count: int, payload: bytes = b"") -> None:
        """
        Call a procedure that does not return yet, C{count} times.
        """
        wire.feed(*[Probe.message(Probe.LATER, payload)] * count)
        self.turns()

    def assertEnds(self, wire: Wire[KeepAliveServerProtocol], seconds: float) -> None:
        """
        Check that a connection is closed after that many seconds, and not earlier.
        """
        self.advance(seconds - 0.25)
        self.assertFalse(wire.closing)
        self.advance(0.5)
        self.assertTrue(wire.aborted)

    def test_maxClients(self) -> None:
        """
        A client above the limit is refused.
        """
        self.open()
        self.change(maxClients=1)
        second = self.come()
        self.assertIn(b"reached its limit of 1 clients", second.ask(OPEN).payload)

    def test_maxAnonymousClients(self) -> None:
        """
        Above the limit, the oldest unauthenticated client is disconnected.
        """
        self.wantPasswords()
        first = self.come()
        self.change(maxAnonymousClients=1)
        self.come()
        self.assertTrue(first.aborted)

    def test_handshakeTimeout(self) -> None:
        """
        A client has less time for the TLS handshake.
        """
        self.change(handshakeTimeout=2)
        transport = StringTransport()
        vars(transport)["setTcpNoDelay"] = lambda _enabled: None
        directlyProvides(transport, ISSLTransport)
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(transport)
        self.advance(1.75)
        self.assertFalse(transport.disconnected)
        self.advance(0.25)
        self.assertTrue(transport.disconnected)
        protocol.connectionLost(Failure(ConnectionDone()))

    def test_loginTimeout(self) -> None:
        """
        A client has less time to log in.
        """
        self.wantPasswords()
        self.change(loginTimeout=2)
        self.assertEnds(self.come(), 2)

    def test_failureDelay(self) -> None:
        """
        A failed login is answered later, also for a client that is logging in already.
        """
        self.wantPasswords()
        wire = self.come()
        wire.ask(SASL_INIT)
        self.change(failureDelay=4)
        wire.feed(WRONG)
        self.advance(3.75)
        self.assertEqual(wire.take(), [])
        self.advance(0.5)
        self.assertEqual(len(wire.take()), 1)

    def test_loginTries(self) -> None:
        """
        A client has fewer tries, including those it has had already.
        """
        self.wantPasswords()
        wire = self.come()
        for tries in (3, 2):
            self.change(loginTries=tries)
            self.assertFalse(wire.closing)
            wire.feed(SASL_INIT, WRONG)
            self.advance(1.25)
        self.assertTrue(wire.closing)

    def test_loginGuesses(self) -> None:
        """
        Logins have to wait after fewer failures.
        """
        self.wantPasswords()
        for _ in range(2):
            self.come().feed(SASL_INIT, WRONG)
        self.change(loginGuesses=2)
        wire = self.come()
        wire.feed(SASL_INIT, RIGHT)
        self.assertEqual(len(wire.take()), 1)
        self.advance(1)
        self.assertEqual(len(wire.take()), 1)

    def test_openTimeout(self) -> None:
        """
        A client has less time to open.
        """
        self.change(openTimeout=3)
        self.assertEnds(self.come(), 3)

    def test_unreadTimeout(self) -> None:
        """
        A client has less time to read replies.
        """
        wire = self.open()
        wire.protocol._kaproto.pauseProducing()
        self.change(unreadTimeout=4)
        self.later(wire, 200)
        self.assertEnds(wire, 4)

    def test_stuckTimeout(self) -> None:
        """
        The two sides of a relay have less time to read.
        """
        left, right = self.open(), self.open()
        through = MessageFilter(lambda _header: False, lambda _message, _raw: None, print)
        left.protocol._kaproto.startRelay(through, through, right.protocol._kaproto)
        right.protocol._kaproto.startRelay(through, through, left.protocol._kaproto)
        left.protocol._kaproto.pauseProducing()
        self.change(stuckTimeout=5)
        right.protocol._kaproto.pauseProducing()
        self.assertEnds(right, 5)

    def test_closeTimeout(self) -> None:
        """
        A client has more time to read the last replies.
        """
        wire = self.open()
        self.change(closeTimeout=8)
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        self.advance(7.75)
        self.assertFalse(wire.aborted)
        self.advance(0.5)
        self.assertTrue(wire.aborted)

    def test_pingBudget(self) -> None:
        """
        Fewer pings a second are allowed.
        """
        wire = self.open()
        self.change(pingBudget=3)
        wire.feed(PING * 3)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)

    def test_unreadPongs(self) -> None:
        """
        Fewer pongs may be unread.
        """
        wire = self.open()
        wire.protocol._kaproto.pauseProducing()
        self.change(unreadPongs=3)
        wire.feed(PING * 3)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)

    def test_runningCalls(self) -> None:
        """
        Fewer calls run at a time.
        """
        wire = self.open()
        self.change(runningCalls=2)
        self.later(wire, 5)
        self.assertEqual(len(self.probe.waiting), 2)

    def test_waitingCalls(self) -> None:
        """
        Fewer calls may be queued.
        """
        wire = self.open()
        self.later(wire, 20)
        self.change(waitingCalls=2)
        self.later(wire, 1)
        self.assertTrue(wire.reading)
        self.later(wire, 1)
        self.assertFalse(wire.reading)

    def test_waitingBytes(self) -> None:
        """
        Fewer bytes of calls may be queued.
        """
        wire = self.open()
        self.later(wire, 20)
        self.change(waitingBytes=100)
        self.later(wire, 1, bytes(40))
        self.assertTrue(wire.reading)
        self.later(wire, 1, bytes(60))
        self.assertFalse(wire.reading)

    def relayed(self, **limits: int) -> tuple[ThreeParties, NearEnd, FarEnd]:
        """
        Connect a client through a gateway, then change the gateway's limits.
        """
        parties = ThreeParties()
        near, far = parties.opened()
        parties.factory.limits = attrs.evolve(parties.factory.limits, **limits)
        return parties, near, far

    def test_relayedCalls(self) -> None:
        """
        Fewer calls are answered when the connection to libvirtd is lost.
        """
        parties, near, far = self.relayed(relayedCalls=3)
        near.write(*(call(59, serial=serial) for serial in range(9)))
        parties.flush()
        far.transport.loseConnection()
        parties.flush()
        self.assertEqual([each.serial for each in near.messages], [0, 1, 2])

    def test_relayedStreams(self) -> None:
        """
        Fewer streams are tracked: with more of them, the connection is never idle.
        """
        for number, idle in ((2, True), (3, False)):
            parties, near, far = self.relayed(relayedStreams=2)
            streams = [
                call(201, serial=serial, kind=MessageType.STREAM) for serial in range(number)
            ]
            near.write(*(each._replace(status=Status.CONTINUE) for each in streams))
            parties.flush()
            far.write(*streams)
            parties.flush()
            session = parties.toClient.server.session
            assert session is not None
            self.assertEqual(session.idle, idle)

    def test_waitingAnswers(self) -> None:
        """
        Fewer answers of the gateway itself may wait for the end of a relayed message.
        """
        parties, near, far = self.relayed(waitingAnswers=2)
        long = call(201, bytes(65536), kind=MessageType.STREAM, status=Status.CONTINUE)
        far.write(packMessage(long)[:-50])
        parties.flush()
        for serial, flooded in enumerate((0, 0, 1)):
            near.write(call(Procedure.CONNECT_SET_IDENTITY, serial=serial))
            parties.flush()
            self.assertEqual(parties.factory.counters.flooded, flooded)

    def assertTooLong(self, message: Message, limit: int) -> None:
        """
        Check that a message of C{limit} bytes is accepted, and a longer one is not.
        """
        wire = self.come()
        room = bytes(limit - 28)
        wire.feed(message._replace(payload=room))
        self.assertFalse(wire.closing)
        wire.feed(message._replace(payload=room + bytes(4)))
        self.assertTrue(wire.aborted)

    def test_messageBeforeLogin(self) -> None:
        """
        Clients that have not logged in may send only shorter messages.
        """
        self.wantPasswords()
        self.change(messageBeforeLogin=256)
        self.assertTooLong(call(Procedure.AUTH_LIST), 256)

    def test_messageBeforeOpen(self) -> None:
        """
        Clients that have not opened may send only shorter messages.
        """
        self.change(messageBeforeOpen=512)
        self.assertTooLong(call(Procedure.AUTH_LIST), 512)

    def test_all(self) -> None:
        """
        Every limit has a test here.
        """
        self.assertEqual([name for name in NAMES if not hasattr(self, f"test_{name}")], [])
