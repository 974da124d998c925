"""
Tests for admitting clients over TLS and SASL, on both ends of a connection.
"""

from __future__ import annotations

import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from kaproto.client import (
    KeepAliveClientFactory,
    KeepAliveClientProtocol,
    connecting,
    endpointFor,
)
from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    RemoteError,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Policy
from kaproto.rpc.entrance import Entrance
from kaproto.security.admission import AccessControl
from kaproto.security.clientauth import Authentication
from kaproto.security.handshake import CertificateRefused
from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles
from kaproto.security.saslclient import Login
from kaproto.security.tls import ClientContextFactory, ServerContextFactory
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import PING, PONG, Message
from kaproto.wire.programs import Procedure
from kaproto.wire.sasl import packStart
from tests.pki import Authority, Identity, distinguished
from tests.support import OPEN, ClockTestCase, Wire, call, errorOf

ALICE = Login("alice", "sesame")
DONE = Failure(ConnectionDone())
REFUSED = (45, 7, 2, "authentication failed: authentication failed")


def entranceOf(wire: Wire[KeepAliveServerProtocol]) -> Entrance:
    """
    @return: the part of a server's protocol that admits the client.
    """
    entrance = wire.protocol._kaproto._entrance
    assert entrance is not None
    return entrance


class Watching(Policy):
    """
    A policy that remembers the clients it admitted.
    """

    name = "watching"

    def __init__(self, seen: list[Peer]) -> None:
        super().__init__()
        object.__setattr__(self, "seen", seen)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Record the client and admit it.
        """
        seen: list[Peer] = getattr(self, "seen")  # noqa: B009
        seen.append(peer)
        return ADMITTED


class AdmissionTestCase(ClockTestCase):
    """
    A test case with a server that uses access control.
    """

    def setUp(self) -> None:
        """
        Create a server that no client has connected to.
        """
        super().setUp()
        self.peers: list[Peer] = []
        self.accessControl = AccessControl()
        self.factory = KeepAliveServerFactory(
            Watching(self.peers),
            clock=self.clock,
            accessControl=self.accessControl,
            limits=Limits(maxAnonymousClients=0),
        )

    def wantPasswords(self) -> None:
        """
        Require clients to log in; C{alice} is the only user.
        """
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        self.accessControl.portal = makePortal([checker])


class Ends:
    """
    A client and a server, connected by TLS in memory.
    """

    def __init__(
        self, case: AdmissionTestCase, server: Any, client: Any, *, connected: bool = True
    ) -> None:
        self.case = case
        self.server: KeepAliveServerProtocol = server.wrappedProtocol
        self.client: KeepAliveClientProtocol = client.wrappedProtocol
        self.closed: list[Exception] = []
        self.pump: IOPump = connect(
            server,
            FakeTransport(server, isServer=True),
            client,
            FakeTransport(client, isServer=False),
        )
        self.opened = self.client.whenOpen()
        self.client.whenClosed().addCallback(self.closed.append)
        self.flush()

    def flush(self) -> None:
        """
        Deliver bytes and run the clock's calls until nothing is left to do.
        """
        for _ in range(30):
            self.case.clock.advance(0)
            self.pump.flush()

    def end(self) -> None:
        """
        Abort both ends of the connection.
        """
        for io in (self.pump.serverIO, self.pump.clientIO):
            io.abortConnection()
        self.flush()


class TLSTests(AdmissionTestCase):
    """
    Tests for a client and a server over TLS.
    """

    def setUp(self) -> None:
        """
        Create an authority, and certificates for the server and for C{alice}.
        """
        super().setUp()
        self.authority = Authority()
        self.directory = Path(self.mktemp())
        self.authority.write(
            str(self.directory), self.authority.issue(distinguished("server"), hosts=["host.test"])
        )
        self.alice = self.authority.issue(distinguished("alice"))

    def connect(
        self,
        identity: Identity | None,
        login: Login | None = None,
        *,
        verify: bool = True,
        host: str = "host.test",
    ) -> Ends:
        """
        Connect a client to the server.

        @param identity: the client's certificate, C{None} for none.
        @param verify: whether the server requires client certificates.
        @param host: the name that the client expects in the server's certificate.
        """
        flat = Path(self.mktemp())
        self.authority.writeFlat(str(flat), identity)
        server: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory), verify=verify),
            False,
            self.factory,
            clock=self.clock,
        )
        client: Any = TLSMemoryBIOFactory(
            ClientContextFactory(clientFiles(flat), host),
            True,
            KeepAliveClientFactory(
                "test:///default", clock=self.clock, authentication=Authentication(login)
            ),
            clock=self.clock,
        )
        ends = Ends(self, server.buildProtocol(None), client.buildProtocol(None))
        self.addCleanup(ends.end)
        return ends

    def refused(self, ends: Ends, words: str) -> None:
        """
        Check that the server refused a client and logged the reason.
        """
        self.assertEqual(self.factory.counters.unauthenticated, 1)
        self.assertEqual(self.factory.counters.opened, 0)
        (line,) = [line for line in self.logged(LogLevel.warn) if "refused tls " in line]
        self.assertIn(words, line)

    def test_letIn(self) -> None:
        """
        A client with a valid certificate is admitted, and the policy sees its DN and fingerprint.
        """
        ends = self.connect(self.alice)
        self.assertIs(self.successResultOf(ends.opened), ends.client)
        (peer,) = self.peers
        self.assertEqual(peer.transport, "tls")
        self.assertEqual(peer.tlsDN, "C=GB,ST=London,L=London,O=Red Hat,CN=alice")
        self.assertEqual(len(peer.tlsFingerprint or ""), 64)
        self.assertIsNone(peer.user)

    def test_noCertificate(self) -> None:
        """
        A client without a certificate is refused, and both ends report the reason.
        """
        ends = self.connect(None)
        error = self.failureResultOf(ends.opened, AuthenticationFailed).value
        self.assertIn("it requires a certificate that it trusts", str(error))
        self.refused(ends, "it has no certificate")
        self.assertEqual(ends.closed, [error])

    def test_allowed(self) -> None:
        """
        A client whose DN matches C{tlsAllowedDNs} is admitted.
        """
        self.accessControl.tlsAllowedDNs = ["*,CN=alice"]
        self.successResultOf(self.connect(self.alice).opened)

    def test_notAllowed(self) -> None:
        """
        A client whose DN does not match C{tlsAllowedDNs} is refused.
        """
        self.accessControl.tlsAllowedDNs = ["*,CN=bob"]
        ends = self.connect(self.alice)
        self.failureResultOf(ends.opened, AuthenticationFailed)
        self.refused(ends, "CN=alice', is not allowed")

    def test_password(self) -> None:
        """
        A password can be required together with a client certificate, or instead of one.
        """
        self.wantPasswords()
        for identity, verify in ((self.alice, True), (None, False)):
            ends = self.connect(identity, ALICE, verify=verify)
            self.successResultOf(ends.opened)
            self.assertEqual(self.peers.pop().user, "alice")

    def test_plain(self) -> None:
        """
        PLAIN is accepted over TLS.
        """
        self.wantPasswords()
        ends = self.connect(self.alice, Login("alice", "sesame", "PLAIN"))
        self.successResultOf(ends.opened)

    def test_slowHandshake(self) -> None:
        """
        A client that does not complete the TLS handshake in time is disconnected.
        """
        wrapper: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory)),
            False,
            self.factory,
            clock=self.clock,
        ).buildProtocol(None)
        wrapper.makeConnection(FakeTransport(wrapper, isServer=True))
        self.advance(9.9)
        self.assertEqual(len(self.factory.connections), 1)
        self.advance(0.1)
        wrapper.connectionLost(DONE)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("it did not complete the TLS handshake within 10 s", line)
        self.assertEqual(self.factory.counters.deadlinesMissed, 1)

    def broken(self, data: bytes) -> Any:
        """
        Connect to the server, send C{data} and disconnect.
        """
        wrapper: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory)),
            False,
            self.factory,
            clock=self.clock,
        ).buildProtocol(None)
        transport = FakeTransport(wrapper, isServer=True)
        wrapper.makeConnection(transport)
        if data:
            wrapper.dataReceived(data)
        wrapper.connectionLost(DONE)
        return wrapper

    def test_noTLS(self) -> None:
        """
        A client that does not speak TLS is refused, and the log says what it sent.
        """
        self.broken(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(self.factory.counters.unauthenticated, 1)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("TLS failed: the other end sent an HTTP request", line)

    def test_portScan(self) -> None:
        """
        A client that sends nothing is not logged.
        """
        self.broken(b"")
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.assertEqual(self.factory.counters.unauthenticated, 0)

    def test_lateHandshake(self) -> None:
        """
        A handshake that completes while the connection is closing admits nobody.
        """
        wire = self.accept(self.factory)
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        wire.protocol.handshakeCompleted()
        self.assertEqual(wire.taken(), b"")

    def test_otherServer(self) -> None:
        """
        A client refuses a server whose certificate is for another host.
        """
        ends = self.connect(self.alice, host="other.test")
        error = self.failureResultOf(ends.opened, CertificateRefused).value
        self.assertIn("not for other.test", str(error))

    def clientOf(self) -> Any:
        """
        Create a client with an in-memory transport, for which the test plays the server.
        """
        flat = Path(self.mktemp())
        self.authority.writeFlat(str(flat), self.alice)
        wrapper: Any = TLSMemoryBIOFactory(
            ClientContextFactory(clientFiles(flat), "host.test"),
            True,
            KeepAliveClientFactory(clock=self.clock),
            clock=self.clock,
        ).buildProtocol(None)
        wrapper.makeConnection(FakeTransport(wrapper, isServer=False))
        return wrapper

    def test_plainServer(self) -> None:
        """
        A client that connected to a server without TLS reports that TLS failed.
        """
        wrapper = self.clientOf()
        opened = wrapper.wrappedProtocol.whenOpen()
        wrapper.dataReceived(PING * 2)
        wrapper.connectionLost(DONE)
        error = self.failureResultOf(opened, RemoteProtocolError).value
        self.assertIn("TLS failed: ", str(error))

    def test_serverGone(self) -> None:
        """
        A client does not blame certificates when the server disconnects during the handshake.
        """
        wrapper = self.clientOf()
        closed = wrapper.wrappedProtocol.whenClosed()
        wrapper.connectionLost(DONE)
        self.assertIsInstance(self.successResultOf(closed), ConnectionLost)

    def confirm(self, data: bytes) -> KeepAliveClientProtocol:
        """
        Connect a client whose server first sends C{data}.
        """
        client: KeepAliveClientProtocol = self.clientOf().wrappedProtocol
        client.handshakeCompleted()
        client.dataReceived(data)
        return client

    def test_noConfirmation(self) -> None:
        """
        A client refuses a server whose first byte is not libvirt's confirmation.
        """
        client = self.confirm(b"220 ready")
        self.assertIsInstance(client._kaproto.closing.reason, RemoteProtocolError)
        self.assertIn(
            "b'2' over TLS where libvirt's servers first send b'\\x01'",
            str(client._kaproto.closing.reason),
        )
        client.connectionLost(DONE)

    def test_confirmationAndMore(self) -> None:
        """
        Messages that arrive together with the confirmation are handled.
        """
        written: list[bytes] = []
        client = self.clientOf().wrappedProtocol
        self.patch(client.transport, "write", written.append)
        client.dataReceived(b"\1" + PING)
        self.assertEqual(written[-1], PONG)
        client.connectionLost(DONE)


class SASLTests(AdmissionTestCase):
    """
    Tests for a client that logs in to a server.
    """

    def setUp(self) -> None:
        """
        Create a server that requires a login.
        """
        super().setUp()
        self.wantPasswords()

    def clientWith(self, login: Login | None = ALICE) -> KeepAliveClientFactory:
        """
        Create a client with a login, or without.
        """
        return KeepAliveClientFactory(clock=self.clock, authentication=Authentication(login))

    def test_letIn(self) -> None:
        """
        A client with the right password is admitted, and the policy sees its user.
        """
        pair = self.pair(self.factory, self.clientWith())
        self.assertTrue(pair.client.isAlive())
        self.assertEqual([peer.user for peer in self.peers], ["alice"])

    def test_wrong(self) -> None:
        """
        A client with a wrong password is refused, after a delay.
        """
        pair = self.pair(self.factory, self.clientWith(Login("alice", "other")))
        opened = pair.client.whenOpen()
        self.assertNoResult(opened)
        pair.advance(1.1)
        self.failureResultOf(opened, AuthenticationFailed)
        self.assertEqual(self.factory.counters.unauthenticated, 1)

    def test_noLogin(self) -> None:
        """
        A client without a login reports that the server requires one.
        """
        pair = self.pair(self.factory, self.clientWith(None), flush=False)
        opened = pair.client.whenOpen()
        pair.flush()
        error = self.failureResultOf(opened, AuthenticationFailed).value
        self.assertIn("authentication by sasl", str(error))

    def test_tooManyTries(self) -> None:
        """
        A client that fails to log in too often is disconnected after the last answer.
        """
        self.factory.limits = Limits(loginTries=2)
        wire = self.accept(self.factory)
        for number in range(2):
            wire.ask(call(Procedure.AUTH_SASL_INIT))
            wire.feed(call(Procedure.AUTH_SASL_START, packStart("CRAM-MD5", None)))
            self.assertEqual(wire.take(), [])
            self.advance(1)
            self.assertEqual(errorOf(wire.takeOne()), REFUSED)
            self.assertEqual(wire.closing, number == 1)
        wire.lose()
        self.assertIn("failed to log in 2 times", self.logged(LogLevel.warn)[-1])
        self.assertEqual(self.factory.counters.unauthenticated, 2)

    def test_tooLate(self) -> None:
        """
        A client that does not log in in time is disconnected.
        """
        wire = self.accept(self.factory)
        self.advance(59.9)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.assertIn(
            "it did not log in within 60 s (--auth-timeout)", self.logged(LogLevel.warn)[0]
        )

    def guess(self, password: bytes) -> Wire[KeepAliveServerProtocol]:
        """
        Connect over a UNIX socket, where PLAIN is accepted, and send a password after 3 s.
        """
        wire = self.accept(self.factory, UNIXAddress(None))
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        self.advance(3)
        data = packStart("PLAIN", b"\0alice\0" + password)
        wire.feed(call(Procedure.AUTH_SASL_START, data))
        return wire

    def test_oneAfterAnother(self) -> None:
        """
        Messages of a client that does not wait for the answers are answered in order, one at a
        time. When it leaves, only the guess that was being checked counts.
        """
        wire = self.accept(self.factory, UNIXAddress(None))
        for password in (b"wrong", b"wrong again", b"sesame"):
            wire.feed(call(Procedure.AUTH_SASL_INIT))
            data = packStart("PLAIN", b"\0alice\0" + password)
            wire.feed(call(Procedure.AUTH_SASL_START, data))
        wire.feed(call(Procedure.CONNECT_OPEN, OPEN.payload))
        for answers in (1, 2, 4):
            self.assertEqual(len(wire.take()), answers)
            self.advance(1)
        self.assertEqual([peer.user for peer in self.peers], ["alice"])
        hasty = self.accept(self.factory, UNIXAddress(None))
        for _ in range(3):
            hasty.feed(call(Procedure.AUTH_SASL_INIT))
            hasty.feed(call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0no")))
        hasty.lose()
        self.advance(10)
        failures = [line for line in self.logged(LogLevel.warn) if "failed to log in" in line]
        self.assertEqual(len(failures), 2 + 1)

    def test_turn(self) -> None:
        """
        A client's login deadline does not run while its login is queued, and continues afterwards.
        """
        self.factory.limits = Limits(loginGuesses=1, failureDelay=20, loginTimeout=10)
        self.guess(b"wrong")
        right, wrong = self.guess(b"sesame"), self.guess(b"wrong again")
        self.advance(13.75)
        self.assertEqual(right.take(), [])
        self.advance(0.5)
        self.assertEqual(len(right.take()), 1)
        self.advance(19.75)
        self.assertFalse(wrong.closing)
        self.advance(7.25)
        self.assertTrue(wrong.aborted)
        wrong.lose()
        self.assertIn("did not log in within 10 s (--auth-timeout)", self.logged()[-1])

    def test_endsWhileWaiting(self) -> None:
        """
        A connection that either end closes while its login is queued leaves no timer behind.
        """
        self.factory.limits = Limits(loginGuesses=1, failureDelay=20)
        for how in (Wire.lose, lambda wire: wire.protocol.abort(ConnectionClosed("enough"))):
            self.guess(b"wrong").lose()
            how(self.guess(b"sesame"))
            self.factory.abort()

    def test_stopsWhileWaiting(self) -> None:
        """
        A server that stops answers queued logins and closes their connections.
        """
        self.factory.limits = Limits(loginGuesses=1)
        self.guess(b"wrong")
        wire = self.guess(b"sesame")
        self.factory.drain()
        self.advance(4)
        self.assertTrue(wire.closing)

    def test_tooLong(self) -> None:
        """
        A password above 1,024 bytes is wrong; a message above 16 KiB ends the connection. The log
        has the length.
        """
        for size, words in (
            (4060, "cannot be a password: it is longer than 1,024 bytes"),
            (4090, "a message of 16408 bytes, where 28 to 16384 are allowed"),
        ):
            wire = self.accept(self.factory, UNIXAddress(None))
            wire.ask(call(Procedure.AUTH_SASL_INIT))
            data = b"\0alice\0".ljust(size, b"x")
            wire.feed(call(Procedure.AUTH_SASL_START, packStart("PLAIN", data)))
            wire.lose()
            self.assertIn(words, self.logged(LogLevel.warn)[-1])

    def test_freed(self) -> None:
        """
        A connection that ends is freed at once, without the garbage collector, at every stage of
        its login.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        self.factory.limits = Limits(loginGuesses=3)
        scram = packStart("SCRAM-SHA-256", b"n,,n=alice,r=abc")
        plain = packStart("PLAIN", b"\0alice\0wrong")
        for name, data, seconds in [
            ("begun", None, 0.0),
            ("malformed", packStart("PLAIN", b"\0"), 0.0),
            ("challenged", scram, 0.0),
            ("failed", plain, 0.0),
            ("refused", plain, 1.25),
            ("waiting", plain, 0.0),
            ("waiting", scram, 0.0),
        ]:
            protocol: Any = self.factory.buildProtocol(None)
            wire: Wire[KeepAliveServerProtocol] = Wire(protocol, UNIXAddress(None))
            del protocol
            wire.feed(call(Procedure.AUTH_SASL_INIT))
            if data is not None:
                wire.feed(call(Procedure.AUTH_SASL_START, data))
            self.advance(seconds)
            freed = weakref.ref(wire.protocol)
            wire.lose()
            wire.transport.unregisterProducer()
            # The log that the test keeps has the objects that logged.
            cast(list[Any], self._log).clear()
            del wire
            self.assertIsNone(freed(), name)

    def test_nothingBefore(self) -> None:
        """
        Before the login, every call but those of authentication is refused.
        """
        wire = self.accept(self.factory)
        for message in (OPEN, call(Procedure.CONNECT_CLOSE), call(Procedure.CONNECT_GET_TYPE)):
            reply = wire.ask(message)
            self.assertEqual(errorOf(reply)[0], 39)
        self.assertEqual(wire.ask(call(Procedure.AUTH_LIST)).payload, b"\0\0\0\1\0\0\0\1")

    def test_nothingTwice(self) -> None:
        """
        A client that has logged in cannot log in again.
        """
        pair = self.pair(self.factory, self.clientWith())
        for procedure in (
            Procedure.AUTH_SASL_INIT,
            Procedure.AUTH_SASL_START,
            Procedure.AUTH_SASL_STEP,
        ):
            failed = pair.client.call(0x20008086, procedure)
            pair.flush()
            error = self.failureResultOf(failed, RemoteError).value
            assert isinstance(error, RemoteError)
            self.assertEqual(error.code, 45)
        types = pair.client.call(0x20008086, Procedure.AUTH_LIST)
        pair.flush()
        self.assertEqual(self.successResultOf(types), b"\0\0\0\1\0\0\0\0")

    def test_gone(self) -> None:
        """
        A client that disconnects during its login leaves no timer behind.
        """
        wire = self.accept(self.factory)
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        wire.feed(call(Procedure.AUTH_SASL_START, packStart("CRAM-MD5", None)))
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unix(self) -> None:
        """
        PLAIN is accepted on a UNIX socket.
        """
        wire = self.accept(self.factory, UNIXAddress(""))
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        wire.ask(call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0sesame")))
        wire.ask(OPEN)
        self.assertEqual(self.peers[0].user, "alice")


class LimitTests(AdmissionTestCase):
    """
    Tests for a server with as many clients as it may have.
    """

    def replyOf(self, wire: Any) -> Message:
        """
        Make C{AUTH_LIST}, the call that every client makes first.
        """
        reply: Message = wire.ask(call(Procedure.AUTH_LIST))
        return reply

    def test_displaced(self) -> None:
        """
        With too many unauthenticated clients, the oldest of them is disconnected; the others and
        those that have authenticated stay.
        """
        self.wantPasswords()
        self.factory.limits = Limits(maxAnonymousClients=2)
        known = self.accept(self.factory)
        entranceOf(known).authenticated("alice")
        first, second, third = (self.accept(self.factory) for _ in range(3))
        self.assertTrue(first.aborted)
        self.assertIsInstance(first.protocol._kaproto.closing.reason, TooManyClients)
        for wire in (known, second, third):
            self.replyOf(wire)
        first.lose()
        self.assertEqual(self.factory.counters.displaced, 1)
        self.assertIn("too many clients", self.logged(LogLevel.warn)[0])

    def test_full(self) -> None:
        """
        When all clients are open, newcomers are refused with an error and disconnected, even while
        an earlier one is still connected.
        """
        self.factory.limits = Limits(maxClients=1)
        first = self.accept(self.factory)
        first.ask(OPEN)
        second, third = (self.accept(self.factory) for _ in range(2))
        self.assertEqual(errorOf(third.ask(OPEN))[0], 9)
        third.lose()
        code, _domain, _level, message = errorOf(self.replyOf(second))
        self.assertEqual(code, 9)
        self.assertIn("the server has reached its limit of 1 clients (--max-clients)", message)
        self.assertTrue(second.closing)
        second.lose()
        self.assertTrue(
            all("the limit of 1 clients is reached" in line for line in self.logged(LogLevel.warn))
        )
        kinds = [each.kind for each in self.factory.journal.endings]
        self.assertEqual(kinds, ["too_many_clients"] * 2)
        self.assertFalse(first.closing)
        first.lose()
        self.replyOf(self.accept(self.factory))

    def test_fullOfIdlers(self) -> None:
        """
        When the server is full, a client that has not opened is disconnected in favour of a
        newcomer.
        """
        self.factory.limits = Limits(maxClients=2)
        self.accept(self.factory).ask(OPEN)
        idle = self.accept(self.factory)
        newcomer = self.accept(self.factory)
        self.assertTrue(idle.aborted)
        newcomer.ask(OPEN)


class EndpointTests(ClockTestCase):
    """
    Tests for C{+tls} in a URI.
    """

    def setUp(self) -> None:
        """
        Write a client's certificate files, and create a reactor.
        """
        super().setUp()
        self.flat = Path(self.mktemp()).absolute()
        self.authority = Authority()
        self.authority.writeFlat(str(self.flat), self.authority.issue(distinguished("alice")))
        self.reactor = MemoryReactorClock()

    def test_port(self) -> None:
        """
        A URI without a port uses libvirt's.
        """
        places: list[tuple[object, ...]] = []

        def endpoint(reactor: object, *place: object) -> None:
            places.append(place)

        self.patch(connecting, "HostEndpoint", endpoint)
        for port in ("", ":1234"):
            _endpoint, name = endpointFor(
                self.reactor, f"qemu+tls://192.0.2.1{port}/system?pkipath={self.flat}"
            )
            self.assertEqual(name, "qemu:///system")
        self.assertEqual(places, [("192.0.2.1", 16514), ("192.0.2.1", 1234)])

    def test_default(self) -> None:
        """
        A URI with a host and without a transport uses TLS, by default with libvirt's files.
        """
        self.patch(Path, "home", lambda: self.flat)
        with self.assertRaisesRegex(ValueError, "/cacert.pem: there is no such file"):
            endpointFor(self.reactor, "qemu://192.0.2.1/system")

    def test_unverified(self) -> None:
        """
        C{no_verify=1} turns off the check of the server's certificate.
        """
        verified: list[bool] = []

        def contextFactory(
            files: CertificateFiles, host: str, *, verify: bool
        ) -> ClientContextFactory:
            verified.append(verify)
            return ClientContextFactory(files, host, verify=verify)

        self.patch(connecting, "ClientContextFactory", contextFactory)
        for parameter in ("", "&no_verify=0", "&no_verify=1"):
            endpointFor(self.reactor, f"qemu+tls://192.0.2.1/system?pkipath={self.flat}{parameter}")
        self.assertEqual(verified, [True, True, False])
