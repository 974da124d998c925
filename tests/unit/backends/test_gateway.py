"""
Tests for L{kaproto.backends.gateway}: opening, and all its failures.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable

import attrs
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionDone,
    DNSLookupError,
)
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.gateway import Gateway
from kaproto.backends.identity import packIdentity
from kaproto.backends.relay import Relay
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.deadline import Deadline
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory, Optional
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import Message, MessageType, Status, packError, packMessage
from kaproto.wire.programs import AuthType, Feature, Procedure
from kaproto.wire.xdr import Packer
from tests.support import ADDRESS, FEATURE_KEEPALIVE, Wire, call, errorOf, feature, opening
from tests.support_gateway import DESCRIPTION, FarEnd, ThreeParties, Upstream

WHERE = f"libvirtd behind this gateway ({DESCRIPTION})"
OPEN = opening("test:///default", 1, serial=8)


class GatewayTests(SynchronousTestCase):
    """
    Tests for the backend alone.
    """

    def test_description(self) -> None:
        """
        Log lines name the gateway and its libvirtd.
        """
        self.assertEqual(str(ThreeParties().gateway), f"gateway to {DESCRIPTION}")

    def test_time(self) -> None:
        """
        The gateway and its clients' connections share one pacemaker, although the gateway is
        created first.
        """
        clock = Clock()
        gateway = Gateway(Upstream(Clock()), DESCRIPTION, KeepAlive(5, 5), clock)
        factory = KeepAliveServerFactory(0, gateway, clock=clock)
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        heartbeat = Wire(protocol).protocol._kaproto.heartbeat
        self.assertIs(heartbeat.pacemaker, gateway._monitor.pacemaker)

    def test_knows(self) -> None:
        """
        The gateway knows every procedure, since libvirtd may know it.
        """
        self.assertTrue(ThreeParties().gateway.knows(9999))


class Answering(FarEnd):
    """
    A libvirtd that answers one procedure as the test says, and the others as usual.
    """

    procedure = Procedure.CONNECT_OPEN

    def answers(self, message: Message) -> bool:
        """
        Answer the procedure.
        """
        if message.procedure == self.procedure:
            self.answer(message)
            return True
        return False

    def answer(self, message: Message) -> None:
        """
        Override it to write the answer.
        """


class Listening(Answering):
    """
    A libvirtd that records clients' identities.
    """

    procedure = Procedure.CONNECT_SET_IDENTITY

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def answer(self, message: Message) -> None:
        """
        Record the identity and reply.
        """
        self.asked.append(message.payload)
        self.write(message.reply())


class OpenTestCase(SynchronousTestCase):
    """
    Base class for tests of opening.

    @ivar wire: the newest client's connection.
    """

    wire: Wire[KeepAliveServerProtocol]

    def setUp(self) -> None:
        """
        Connect a client.
        """
        self.log = self.enterContext(capturedLogs())
        self.setUpWith()

    def setUpWith(
        self, policy: IKeepAlivePolicy | None = None, keepAlive: KeepAlive = KeepAlive(5, 5)
    ) -> None:
        """
        Connect a client to a new gateway.

        @param policy: the gateway's policy.
        @param keepAlive: the gateway's keepalive towards libvirtd.
        """
        self.parties = ThreeParties(policy, keepAlive)
        self.upstream = self.parties.upstream
        self.clock = self.parties.clock
        self.connect()

    def connect(self) -> None:
        """
        Connect another client.
        """
        protocol = self.parties.factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        self.wire = Wire(protocol)

    def ask(self, message: Message) -> list[Message]:
        """
        @return: the replies to a message that arrive at once.
        """
        self.wire.feed(message)
        self.parties.flush()
        return self.wire.take()

    def refusal(self, answers: list[Message]) -> tuple[int, int, int, str]:
        """
        @return: the code, domain, level and text of the only reply, which refuses to open.
        """
        (answer,) = answers
        self.assertEqual((answer.procedure, answer.serial), (OPEN.procedure, OPEN.serial))
        return errorOf(answer)

    def assertOpens(self) -> None:
        """
        Check that the client can open, and then call libvirtd.
        """
        self.assertEqual(self.ask(OPEN), [OPEN._replace(type=MessageType.REPLY, payload=b"")])
        far = self.parties.toUpstream.server
        assert isinstance(far, FarEnd)
        far.scripted = True
        self.assertEqual(self.ask(call(59)), [])
        self.assertEqual([each.procedure for each in far.messages], [59])

    def assertNobodyUpstream(self) -> None:
        """
        Check that no connection to libvirtd is left, and no timer.
        """
        self.parties.flush()
        for pair in self.upstream.pairs:
            self.assertTrue(pair.clientTransport.disconnected)
            self.assertTrue(pair.serverTransport.disconnected)
        self.assertEqual(
            [each for each in self.clock.getDelayedCalls() if each is not self.openDeadline], []
        )

    @property
    def openDeadline(self) -> object:
        """
        The timer of a client that has not opened.
        """
        deadline = self.wire.protocol._kaproto.closing._deadline
        return deadline._call if isinstance(deadline, Deadline) else deadline

    @property
    def warnings(self) -> list[str]:
        """
        The log lines of level warning or above.
        """
        return [formatEvent(event) for event in self.log if event["log_level"] >= LogLevel.warn]


class OpenTests(OpenTestCase):
    """
    Tests for opening a libvirtd without problems.
    """

    def test_opens(self) -> None:
        """
        When the client opens, and not before, the gateway connects, asks for keepalive, and opens
        with the client's name and flags.  Nothing is logged.
        """
        self.ask(FEATURE_KEEPALIVE)
        self.assertEqual(self.upstream.pairs, [])
        self.assertOpens()
        far = self.parties.toUpstream.server
        assert isinstance(far, FarEnd)
        self.assertEqual(
            [(each.procedure, each.payload) for each in far.before],
            [
                (Procedure.AUTH_LIST, b""),
                (Procedure.CONNECT_SUPPORTS_FEATURE, FEATURE_KEEPALIVE.payload),
                (Procedure.CONNECT_OPEN, OPEN.payload),
            ],
        )
        self.assertEqual(self.log, [])

    def test_oneEach(self) -> None:
        """
        Every client has its own connection to libvirtd.
        """
        self.assertOpens()
        self.connect()
        self.assertOpens()
        self.assertEqual(len(self.upstream.pairs), 2)

    def test_mandatory(self) -> None:
        """
        No connection to libvirtd is made for a client that mode 2 refuses.
        """
        self.setUpWith(Mandatory())
        code, _domain, _level, text = self.refusal(self.ask(OPEN))
        self.assertEqual(code, 9)
        self.assertIn("requires keepalive", text)
        self.assertEqual(self.upstream.pairs, [])
        self.assertTrue(self.wire.closing)

    def test_optional(self) -> None:
        """
        In mode 1 a client without keepalive opens, and a log line says what mode 2 would do.
        """
        self.setUpWith(Optional())
        self.assertOpens()
        (event,) = self.log
        self.assertIn("mode 2 would refuse this client", formatEvent(event))

    def test_withoutKeepAlive(self) -> None:
        """
        A libvirtd without keepalive can be opened, and is never pinged.
        """

        class Old(Answering):
            """
            A libvirtd that does not know the procedure.
            """

            procedure = Procedure.CONNECT_SUPPORTS_FEATURE

            def answer(self, message: Message) -> None:
                """
                Reply with an error.
                """
                error = packError(RemoteError(39, 7, "unknown procedure: 60"))
                self.write(message.reply(error, Status.ERROR))

        self.upstream.factory.protocol = Old
        self.assertOpens()
        self.parties.advance(60)
        far = self.parties.toUpstream.server
        assert isinstance(far, FarEnd)
        self.assertEqual(far.pings, 0)

    def test_identity(self) -> None:
        """
        With C{forwardIdentity}, and not without, libvirtd gets the identity of an authenticated
        client before anything is relayed.
        """
        self.upstream.factory.protocol = Listening
        for forward, user, told in ((False, "fred", 0), (True, None, 0), (True, "fred", 1)):
            self.parties.gateway._forwardIdentity = forward
            self.connect()
            self.wire.protocol.peer.user = user
            self.assertEqual(len(self.ask(OPEN)), 1)
            far = self.parties.toUpstream.server
            assert isinstance(far, Listening)
            self.assertEqual(far.asked, [packIdentity(self.wire.protocol.peer)] * told)

    def test_early(self) -> None:
        """
        Calls that arrive while libvirtd is being opened get libvirtd's own errors.
        """
        self.upstream.mute = True
        self.ask(OPEN)
        (answer,) = self.ask(call(59))
        self.assertEqual(errorOf(answer)[3], "internal error: hypervisor connection not open")
        (answer,) = self.ask(opening("test:///default"))
        self.assertEqual(errorOf(answer)[3], "internal error: connection already open")


class FailureTests(OpenTestCase):
    """
    Tests for a libvirtd that cannot be opened.
    """

    def test_refused(self) -> None:
        """
        When the connection is refused, the client and the log get the reason, with libvirtd's
        address.  The client may try again, and opens once libvirtd is running.
        """
        self.upstream.error = Refused()
        for _attempt in range(2):
            self.assertEqual(
                self.refusal(self.ask(OPEN)),
                (
                    38,
                    7,
                    2,
                    f"unable to connect to {WHERE}: Connection was refused by other side.",
                ),
            )
        self.assertEqual(
            self.warnings,
            [
                f"tcp 192.0.2.1:54321 could not open: unable to connect to {WHERE}: Connection "
                "was refused by other side."
            ]
            * 2,
        )
        self.upstream.error = None
        self.assertOpens()

    def test_full(self) -> None:
        """
        When libvirtd's listen queue is full, the error says that it accepts no connections, without
        Twisted's internals.
        """
        self.upstream.error = ConnectError(string=Failure(ConnectionDone()))
        code, _domain, _level, text = self.refusal(self.ask(OPEN))
        self.assertEqual(code, 38)
        self.assertTrue(text.startswith(f"unable to connect to {WHERE}: it accepts no"), text)
        self.upstream.error = ConnectError(95, "Operation not supported")
        code, _domain, _level, text = self.refusal(self.ask(OPEN))
        self.assertEqual(code, 38)
        self.assertIn("95: Operation not supported", text)

    def test_outOfFiles(self) -> None:
        """
        When the gateway has reached its limit of open files, over TCP or UNIX sockets, the error
        says how to raise it.
        """
        for number in (errno.EMFILE, errno.ENFILE):
            text = os.strerror(number)
            for error in (ConnectBindError(number, text), OSError(number, text)):
                self.upstream.error = error
                code, _domain, _level, said = self.refusal(self.ask(OPEN))
                self.assertEqual(code, 38)
                self.assertTrue(said.startswith(f"unable to connect to {WHERE}: "), said)
                self.assertIn("raise that limit (LimitNOFILE=, ulimit -n)", said)

    def test_otherError(self) -> None:
        """
        Any other error is passed on, or its class name if it has no text.
        """
        for error, said in (
            (DNSLookupError("no such host"), "DNS lookup failed: no such host."),
            (KeyError(), "KeyError"),
        ):
            self.upstream.error = error
            self.assertEqual(
                self.refusal(self.ask(OPEN)),
                (1, 7, 2, f"internal error: {WHERE} could not be opened: {said}"),
            )
        self.assertEqual(len(self.warnings), 2)

    def slow(self, seconds: float = 10) -> None:
        """
        Check that the client gets an error after exactly this time, and can then try again.
        """
        late = f"did not open within {seconds:g} s"
        self.assertEqual(self.ask(OPEN), [])
        self.parties.advance(seconds - 0.1)
        self.assertEqual(self.wire.take(), [])
        self.parties.advance(0.2)
        self.assertEqual(
            self.refusal(self.wire.take()),
            (
                68,
                7,
                2,
                f"{WHERE} {late}; it may hang, be starting, or have as many clients as it allows "
                "(max_clients, max_anonymous_clients)",
            ),
        )
        self.assertEqual(len(self.warnings), 1)
        self.assertIn(late, self.warnings[0])
        self.assertNobodyUpstream()
        self.upstream.deaf = self.upstream.mute = False
        self.assertIn(late, str(self.parties.gateway.health._problem))
        self.assertOpens()
        self.assertIsNone(self.parties.gateway.health.look())

    def test_connectingHangs(self) -> None:
        """
        Connecting is cancelled after ten seconds; the client gets an error, and can try again.
        """
        self.upstream.deaf = True
        self.slow()
        self.assertEqual(self.upstream.cancelled, 1)

    def test_openingHangs(self) -> None:
        """
        Opening times out too when libvirtd accepts the connection and then does not answer.
        """
        self.upstream.mute = True
        self.slow()

    def test_limits(self) -> None:
        """
        The timeout can be changed while the gateway runs.
        """
        gateway = self.parties.gateway
        gateway.limits = attrs.evolve(gateway.limits, openTimeout=3.0)
        self.upstream.mute = True
        self.slow(3)

    def test_ownError(self) -> None:
        """
        libvirtd's own error is passed on unchanged, is not logged, and leaves no connection.
        """

        class Refusing(Answering):
            """
            A libvirtd without the driver.
            """

            def answer(self, message: Message) -> None:
                """
                Reply with an error.
                """
                error = packError(RemoteError(5, 0, "no connection driver available", 1))
                self.write(message.reply(error, Status.ERROR))

        self.upstream.factory.protocol = Refusing
        answer = self.refusal(self.ask(OPEN))
        self.assertEqual(answer, (5, 0, 1, "no connection driver available"))
        self.assertIsNone(self.parties.gateway.health.look())
        self.assertEqual(self.log, [])
        self.assertNobodyUpstream()

    def failing(self, answer: Callable[[Answering, Message], object], procedure: int) -> str:
        """
        Open a libvirtd that answers one procedure in an unusual way.

        @return: the end of the error that the client gets.
        """

        class Strange(Answering):
            """
            A libvirtd that answers as the test says.
            """

            def answer(self, message: Message) -> None:
                """
                Call the test's function.
                """
                answer(self, message)

        Strange.procedure = Procedure(procedure)
        self.upstream.factory.protocol = Strange
        code, domain, level, text = self.refusal(self.ask(OPEN))
        self.assertEqual((code, domain, level), (1, 7, 2))
        before = f"internal error: {WHERE} could not be opened: "
        self.assertTrue(text.startswith(before), text)
        self.assertEqual(len(self.warnings), 1)
        self.assertNobodyUpstream()
        return text.removeprefix(before)

    def test_authentication(self) -> None:
        """
        A libvirtd that requires authentication cannot be opened; the error names the method.
        """
        types = Packer().uint32(1).int32(AuthType.SASL).packed()
        said = self.failing(
            lambda far, message: far.write(message.reply(types)), Procedure.AUTH_LIST
        )
        self.assertIn("authentication by sasl", said)

    def test_garbage(self) -> None:
        """
        A libvirtd that sends invalid messages cannot be opened.
        """
        said = self.failing(lambda far, _message: far.write(bytes(28)), Procedure.CONNECT_OPEN)
        self.assertIn("a message of 0 bytes", said)

    def test_closed(self) -> None:
        """
        A libvirtd that closes the connection instead of answering cannot be opened.
        """
        said = self.failing(
            lambda far, _message: far.transport.loseConnection(), Procedure.CONNECT_OPEN
        )
        self.assertEqual(said, "the peer closed the connection")

    def test_closedAfter(self) -> None:
        """
        A libvirtd that closes right after opening is opened, and then the client is disconnected.
        """

        class Fickle(Answering):
            """
            A libvirtd that closes right after opening.
            """

            def answer(self, message: Message) -> None:
                """
                Open and close.
                """
                self.write(message.reply())
                self.transport.loseConnection()

        self.upstream.factory.protocol = Fickle
        self.assertEqual(self.ask(OPEN), [OPEN._replace(type=MessageType.REPLY, payload=b"")])
        self.assertTrue(self.wire.closing)
        self.wire.lose()
        self.assertNobodyUpstream()


class FreedTests(SynchronousTestCase):
    """
    Tests that a relay is freed without the garbage collector.
    """

    def test_freed(self) -> None:
        """
        When both connections have ended, no reference cycle keeps the relay in memory.
        """
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        others = self.relays()
        parties = ThreeParties(None, KeepAlive(5, 5))
        near, _far = parties.opened()
        self.assertEqual(self.relays(), others + 1)
        near._kaproto.disconnect(ConnectionClosed("enough"))
        parties.flush()
        self.assertEqual(parties.factory.connections, [])
        self.assertEqual(self.relays(), others)

    def relays(self) -> int:
        """
        @return: the number of relays in this process.
        """
        return sum(isinstance(each, Relay) for each in gc.get_objects())


class ClientGoneTests(OpenTestCase):
    """
    Tests for a client that leaves while libvirtd is being opened.
    """

    def gone(self, leave: Callable[[], object]) -> None:
        """
        Check that opening is given up at once when the client leaves, and that no warning is
        logged.
        """
        self.ask(OPEN)
        leave()
        self.parties.flush()
        self.assertNobodyUpstream()
        self.assertEqual(self.warnings, [])
        self.assertEqual(self.parties.factory.connections, [])

    def test_connecting(self) -> None:
        """
        The client disconnects while the gateway is connecting.
        """
        self.upstream.deaf = True
        self.gone(self.wire.lose)
        self.assertEqual(self.upstream.cancelled, 1)

    def test_opening(self) -> None:
        """
        The client disconnects while the gateway is opening.
        """
        self.upstream.mute = True
        self.gone(self.wire.lose)

    def test_closes(self) -> None:
        """
        The client closes while the gateway is opening.
        """

        def close() -> None:
            (answer,) = self.ask(call(Procedure.CONNECT_CLOSE))
            self.assertEqual(answer.status, Status.OK)
            self.assertTrue(self.wire.closing)
            self.wire.lose()

        self.upstream.mute = True
        self.gone(close)

    def test_closing(self) -> None:
        """
        libvirtd opens after the client has closed.
        """
        self.upstream.mute = True
        self.ask(OPEN)
        self.ask(call(Procedure.CONNECT_CLOSE))
        self.parties.toUpstream.serverTransport.resumeProducing()
        self.parties.flush()
        self.wire.lose()
        self.assertNobodyUpstream()
        self.assertEqual(self.log, [])

    def test_garbage(self) -> None:
        """
        Bytes that arrive while libvirtd is being opened are relayed once it is open; an invalid
        message then closes the connection.
        """
        self.upstream.mute = True
        self.ask(OPEN)
        self.wire.feed(packMessage(feature(Feature.REMOTE_EVENT_CALLBACK))[:20])
        self.parties.toUpstream.serverTransport.resumeProducing()
        self.parties.flush()
        self.assertEqual(len(self.wire.take()), 1)
        self.wire.feed(packMessage(feature(Feature.REMOTE_EVENT_CALLBACK))[20:])
        self.parties.flush()
        far = self.parties.toUpstream.server
        assert isinstance(far, FarEnd)
        self.assertEqual(far.before[-1].payload, Packer().int32(14).packed())
        self.wire.feed(bytes(28))
        self.assertTrue(self.wire.aborted)
        self.wire.lose()
        self.assertNobodyUpstream()
