"""
Tests for L{kaproto.backends.gateway}: opening, with all that can go wrong behind it.
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
    The backend by itself.
    """

    def test_description(self) -> None:
        """
        Log lines name it and its libvirtd.
        """
        self.assertEqual(str(ThreeParties().gateway), f"gateway to {DESCRIPTION}")

    def test_time(self) -> None:
        """
        It has one time with its connections, although it is made before them.
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
        Any procedure may be one of libvirtd's.
        """
        self.assertTrue(ThreeParties().gateway.knows(9999))


class Answering(FarEnd):
    """
    Answers one procedure as the test says, and the others as usual.
    """

    procedure = Procedure.CONNECT_OPEN

    def answers(self, message: Message) -> bool:
        """
        Answer.
        """
        if message.procedure == self.procedure:
            self.answer(message)
            return True
        return False

    def answer(self, message: Message) -> None:
        """
        Override it.
        """


class Listening(Answering):
    """
    Notes whom it is told of.
    """

    procedure = Procedure.CONNECT_SET_IDENTITY

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def answer(self, message: Message) -> None:
        """
        Say that it is so.
        """
        self.asked.append(message.payload)
        self.write(message.reply())


class OpenTestCase(SynchronousTestCase):
    """
    Opens, and looks at the answer.

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
        Connect another client to another gateway.

        @param policy: the gateway's.
        @param keepAlive: how closely it watches its libvirtd.
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
        @return: what the client is answered at once.
        """
        self.wire.feed(message)
        self.parties.flush()
        return self.wire.take()

    def refusal(self, answers: list[Message]) -> tuple[int, int, int, str]:
        """
        @return: the code, domain, level and text of the only answer, a refusal to open.
        """
        (answer,) = answers
        self.assertEqual((answer.procedure, answer.serial), (OPEN.procedure, OPEN.serial))
        return errorOf(answer)

    def assertOpens(self) -> None:
        """
        The client can open, and then call libvirtd.
        """
        self.assertEqual(self.ask(OPEN), [OPEN._replace(type=MessageType.REPLY, payload=b"")])
        far = self.parties.toUpstream.server
        assert isinstance(far, FarEnd)
        far.scripted = True
        self.assertEqual(self.ask(call(59)), [])
        self.assertEqual([each.procedure for each in far.messages], [59])

    def assertNobodyUpstream(self) -> None:
        """
        No connection to libvirtd is left, and no timer.
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
        The timer that runs for a client which has not opened.
        """
        deadline = self.wire.protocol._kaproto.closing._deadline
        return deadline._call if isinstance(deadline, Deadline) else deadline

    @property
    def warnings(self) -> list[str]:
        """
        What was logged as a warning or worse.
        """
        return [formatEvent(event) for event in self.log if event["log_level"] >= LogLevel.warn]


class OpenTests(OpenTestCase):
    """
    Opening a libvirtd that is all right.
    """

    def test_opens(self) -> None:
        """
        Once the client wants to open, and not before, the gateway connects, asks for keepalive
        and opens what the client wants with the flags it gave. It says so to nobody.
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
        Every client has a connection to libvirtd of its own.
        """
        self.assertOpens()
        self.connect()
        self.assertOpens()
        self.assertEqual(len(self.upstream.pairs), 2)

    def test_mandatory(self) -> None:
        """
        A client that mode 2 refuses does not come near libvirtd.
        """
        self.setUpWith(Mandatory())
        code, _domain, _level, text = self.refusal(self.ask(OPEN))
        self.assertEqual(code, 9)
        self.assertIn("requires keepalive", text)
        self.assertEqual(self.upstream.pairs, [])
        self.assertTrue(self.wire.closing)

    def test_optional(self) -> None:
        """
        In mode 1 such a client opens, and a log line says what mode 2 would do.
        """
        self.setUpWith(Optional())
        self.assertOpens()
        (event,) = self.log
        self.assertIn("mode 2 would refuse this client", formatEvent(event))

    def test_withoutKeepAlive(self) -> None:
        """
        A libvirtd without keepalive is opened all the same, and never pinged.
        """

        class Old(Answering):
            """
            Does not know the procedure.
            """

            procedure = Procedure.CONNECT_SUPPORTS_FEATURE

            def answer(self, message: Message) -> None:
                """
                Answer with an error.
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
        Only where that is asked for, libvirtd is told who an authenticated client is, before
        anything is relayed; it is told nothing of one of whom nothing is known.
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
        A call that comes while libvirtd is being opened is answered as libvirtd would.
        """
        self.upstream.mute = True
        self.ask(OPEN)
        (answer,) = self.ask(call(59))
        self.assertEqual(errorOf(answer)[3], "internal error: hypervisor connection not open")
        (answer,) = self.ask(opening("test:///default"))
        self.assertEqual(errorOf(answer)[3], "internal error: connection already open")


class FailureTests(OpenTestCase):
    """
    Opening a libvirtd that is not.
    """

    def test_refused(self) -> None:
        """
        When nobody listens there, the client is told whom the gateway could not connect to and
        why, and the log has it too. The client may try again and gets through as soon as libvirtd
        is there.
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
        When libvirtd does not accept connections and no more can wait for that, the client is
        told so, and nothing of what that is like inside Twisted.
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
        When the gateway itself has no more files, as Twisted tells for TCP and for UNIX sockets,
        the client is told so and what would help.
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
        Any other error is told as it is, or by its name if it says nothing.
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
        Have the client told after so many seconds, and no sooner.
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
        When connecting takes for ever, the client is told after ten seconds; the attempt is given
        up, and the next one may succeed.
        """
        self.upstream.deaf = True
        self.slow()
        self.assertEqual(self.upstream.cancelled, 1)

    def test_openingHangs(self) -> None:
        """
        The same when libvirtd accepts the connection and then says nothing.
        """
        self.upstream.mute = True
        self.slow()

    def test_limits(self) -> None:
        """
        The time can be changed while the gateway runs.
        """
        gateway = self.parties.gateway
        gateway.limits = attrs.evolve(gateway.limits, openTimeout=3.0)
        self.upstream.mute = True
        self.slow(3)

    def test_ownError(self) -> None:
        """
        libvirtd's own error is passed on unchanged, is nothing to log, and leaves no
        connection.
        """

        class Refusing(Answering):
            """
            Has no such driver.
            """

            def answer(self, message: Message) -> None:
                """
                Answer with an error.
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
        Open a libvirtd that answers one procedure in a strange way.

        @return: what the client is told.
        """

        class Strange(Answering):
            """
            Does it.
            """

            def answer(self, message: Message) -> None:
                """
                Answer.
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
        A libvirtd that wants authentication cannot be opened, and the client is told what it
        wants.
        """
        types = Packer().uint32(1).int32(AuthType.SASL).packed()
        said = self.failing(
            lambda far, message: far.write(message.reply(types)), Procedure.AUTH_LIST
        )
        self.assertIn("authentication by sasl", said)

    def test_garbage(self) -> None:
        """
        One that sends what is no message cannot be opened.
        """
        said = self.failing(lambda far, _message: far.write(bytes(28)), Procedure.CONNECT_OPEN)
        self.assertIn("a message of 0 bytes", said)

    def test_closed(self) -> None:
        """
        One that closes the connection instead of answering cannot be opened.
        """
        said = self.failing(
            lambda far, _message: far.transport.loseConnection(), Procedure.CONNECT_OPEN
        )
        self.assertEqual(said, "the peer closed the connection")

    def test_closedAfter(self) -> None:
        """
        One that opens and closes in one go is open for as long as that takes.
        """

        class Fickle(Answering):
            """
            Closes when it has opened.
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
    What is left of a relay.
    """

    def test_freed(self) -> None:
        """
        When both ends have gone, nothing of it waits for the garbage collector.
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
        @return: how many relays there are in this process.
        """
        return sum(isinstance(each, Relay) for each in gc.get_objects())


class ClientGoneTests(OpenTestCase):
    """
    A client that does not wait for the end of opening.
    """

    def gone(self, leave: Callable[[], object]) -> None:
        """
        Have a client leave: the attempt is given up at once, and that is nothing to log.
        """
        self.ask(OPEN)
        leave()
        self.parties.flush()
        self.assertNobodyUpstream()
        self.assertEqual(self.warnings, [])
        self.assertEqual(self.parties.factory.connections, [])

    def test_connecting(self) -> None:
        """
        A client goes while the gateway is connecting.
        """
        self.upstream.deaf = True
        self.gone(self.wire.lose)
        self.assertEqual(self.upstream.cancelled, 1)

    def test_opening(self) -> None:
        """
        A client goes while the gateway is opening.
        """
        self.upstream.mute = True
        self.gone(self.wire.lose)

    def test_closes(self) -> None:
        """
        A client changes its mind and closes while the gateway is opening.
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
        libvirtd has opened when the client is about to be disconnected.
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
        What a client sent together with its wish to open is relayed once it is open, and ends the
        connection if it is no message.
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
