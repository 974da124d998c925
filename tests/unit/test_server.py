"""
Tests for L{kaproto.server}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from kaproto.counters import Counters
from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    RemoteError,
)
from kaproto.interfaces import Admission, ISession, OpenRequest, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import MAX_CLOSES_PER_TURN
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional, Policy, refusalFor
from kaproto.program import Program
from kaproto.security.admission import AccessControl
from kaproto.security.saslserver import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    Message,
    MessageType,
    Status,
    packMessage,
)
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    REMOTE_PROGRAM,
    CloseReason,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Packer
from tests.strategies import garbage, messages, pieces
from tests.support import (
    ADDRESS,
    FEATURE_KEEPALIVE,
    KEEPALIVE,
    OPEN,
    ClockTestCase,
    FakeBackend,
    Probe,
    Wire,
    call,
    errorOf,
    feature,
    opening,
)

AUTH_LIST = call(Procedure.AUTH_LIST)
CLOSE = call(Procedure.CONNECT_CLOSE, serial=9)
REGISTER = call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
NOT_OPEN = (1, 7, 2, "internal error: hypervisor connection not open")
ALREADY_OPEN = (1, 7, 2, "internal error: connection already open")
UNDECODABLE = (39, 7, 2, "Unable to decode message payload")


def rpc(message: str) -> tuple[int, int, int, str]:
    """
    @return: the error libvirtd has for calls that it does not let through.
    """
    return 39, 7, 2, message


def farewell(reason: CloseReason) -> Message:
    """
    @return: the event that tells a client why the server closes.
    """
    payload = Packer().int32(reason).packed()
    return call(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, payload, 1, kind=MessageType.MESSAGE)


LIMITS = Limits()


class ServerTestCase(ClockTestCase):
    """
    A test of a server, whose client is the test.
    """

    def setUp(self) -> None:
        """
        Have something to serve.
        """
        super().setUp()
        self.backend = FakeBackend()
        self.probe = Probe()

    def connect(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client.
        """
        return self.serve(policy, self.backend, [self.probe])

    def connectOpen(
        self, policy: Policy | None = None, *before: Message
    ) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client and open.

        @param before: what the client calls first.
        """
        wire = self.connect(policy)
        wire.feed(*before, OPEN)
        self.assertEqual({reply.status for reply in wire.take()}, {Status.OK})
        return wire

    def callLater(self, wire: Wire[KeepAliveServerProtocol], count: int) -> None:
        """
        Have calls arrive that are answered when the test says so.
        """
        wire.feed(*(Probe.message(Probe.LATER, serial=serial) for serial in range(count)))
        self.turns()

    def answerAll(self) -> None:
        """
        Answer the calls that are running.
        """
        waiting, self.probe.waiting = self.probe.waiting, []
        for each in waiting:
            each.callback(b"")

    def assertUsable(self, wire: Wire[KeepAliveServerProtocol], about: object = None) -> None:
        """
        Check that the server answers further calls.
        """
        self.assertFalse(wire.closing, about)
        self.assertEqual(wire.ask(AUTH_LIST).status, Status.OK, about)

    def counted(self, wire: Wire[KeepAliveServerProtocol], **expected: int) -> None:
        """
        Check all counters: those that are not given are zero, but for the connection itself.
        """
        self.assertEqual(wire.protocol.factory.counters, Counters(accepted=1, **expected))


class FactoryTests(ServerTestCase):
    """
    What a server serves.
    """

    def test_defaults(self) -> None:
        """
        Unless told otherwise a server is in mode 0, opens whatever is asked for and has the
        remote program only.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        self.assertIsInstance(factory.policy, Disable)
        self.assertEqual(set(factory.programs), {REMOTE_PROGRAM})
        self.assertEqual(factory.limits, Limits())
        wire = self.accept(factory)
        self.assertEqual(wire.ask(opening("anything:///")).status, Status.OK)

    def test_numbersCollide(self) -> None:
        """
        Two programs with one number are a mistake, which names it; so is a second remote program.
        """

        class Second(Program):
            number = REMOTE_PROGRAM

        for programs, number in (([Probe(), Probe()], "0x2f000001"), ([Second()], "0x20008086")):
            error = self.assertRaises(
                ValueError, KeepAliveServerFactory, programs=programs, clock=self.clock
            )
            self.assertEqual(str(error), f"two programs have the number {number}")

    def test_instances(self) -> None:
        """
        A class instead of an instance, or something else altogether, is an error that says so when
        the factory is made.
        """
        for arguments, message in (
            ({"policy": Mandatory}, "policy is the class Mandatory, not an instance: write Mandat"),
            ({"policy": "2"}, "policy is '2', which does not provide IKeepAlivePolicy"),
            ({"policy": 1, "mode": 2}, "policy=1 and mode=2: give one of the two"),
            ({"backend": FakeBackend}, "backend is the class FakeBackend, not an instance: write "),
            ({"backend": "x"}, "backend is 'x', which does not provide IBackend"),
            ({"programs": [Probe]}, "a program is the class Probe, not an instance: write Probe()"),
            ({"programs": [7]}, "a program is 7, which does not provide IProgram"),
        ):
            make: Any = KeepAliveServerFactory
            error = self.assertRaises(TypeError, make, clock=self.clock, **arguments)
            self.assertIn(message, str(error))

    def test_connections(self) -> None:
        """
        The factory knows its connections for as long as they are there.
        """
        wire = self.connect()
        factory = wire.protocol.factory
        self.assertEqual(factory.connections, [wire.protocol])
        other = self.accept(factory)
        self.assertEqual(factory.counters.accepted, 2)
        wire.lose()
        self.assertEqual(factory.connections, [other.protocol])

    def test_peer(self) -> None:
        """
        The peer is what the transport tells of it.
        """
        self.assertEqual(self.connect().protocol.peer, Peer(ADDRESS, "tcp", id=1))
        wire = self.accept(KeepAliveServerFactory(clock=self.clock), UNIXAddress(None))
        self.assertEqual(wire.protocol.peer.transport, "unix")

    def test_modes(self) -> None:
        """
        The number of a mode stands for its policy, by position or by name; there are three.
        """
        self.assertIsInstance(KeepAliveServerFactory(2).policy, Mandatory)
        self.assertIsInstance(KeepAliveServerFactory(mode=1).policy, Optional)
        for mode in (3, -1, True):
            error = self.assertRaises(ValueError, KeepAliveServerFactory, mode=mode)
            self.assertIn(f"there is no mode {mode!r}; 0 never pings", str(error))


class OddInputTests(ServerTestCase):
    """
    What libvirtd is seen to do with odd input, this server does.
    """

    def test_lengthOutOfBounds(self) -> None:
        """
        A length word that no message can have closes the connection without a message.
        """
        for length in (0, 3, 4, 5, 12, 24, 27, MESSAGE_MAX + 1, 0x80000000, 0xFFFFFFFF):
            for wire in (self.connect(), self.connectOpen()):
                wire.feed(length.to_bytes(4, "big") + bytes(24))
                self.assertEqual(wire.taken(), b"", length)
                self.assertTrue(wire.aborted, length)

    def test_lengthBeforeOpen(self) -> None:
        """
        Before open, messages have to be short; after it they need not.
        """
        longest = call(Procedure.AUTH_LIST, bytes(65536 - HEADER_SIZE))
        tooLong = longest._replace(payload=longest.payload + b"\0")
        wire = self.connect()
        self.assertEqual(wire.ask(longest).status, Status.OK)
        self.assertEqual(wire.ask(OPEN).status, Status.OK)
        self.assertEqual(wire.ask(tooLong).status, Status.OK)
        wire = self.connect()
        wire.feed(packMessage(tooLong)[:4])
        self.assertTrue(wire.aborted)

    def test_waits(self) -> None:
        """
        A message of which a part is missing is waited for.
        """
        whole = packMessage(call(Procedure.AUTH_LIST, serial=4))
        for data in (b"\0\0", MESSAGE_MAX.to_bytes(4, "big") + bytes(24), whole[:-1]):
            wire = self.connectOpen()
            wire.feed(data)
            self.assertEqual(wire.taken(), b"")
            self.assertFalse(wire.closing)
        wire = self.connectOpen()
        wire.feed(whole, whole[:-1])
        self.assertEqual(wire.takeOne().serial, 4)

    def test_errors(self) -> None:
        """
        Calls that cannot be let through are answered with libvirtd's own error, whether they
        come as type 0 or 4, and the connection stays usable.
        """
        unknown = 0x11223344
        badString = b"\0\0\0\1\xff\xff\xff\xff"
        argumentless = call(Procedure.CONNECT_SUPPORTS_FEATURE)
        for message, expected in (
            (call(1, program=unknown), rpc(f"Cannot find program {unknown} version 1")),
            (call(1, version=2), rpc(f"Cannot find program {REMOTE_PROGRAM} version 2")),
            (call(1, program=2**32 - 1), rpc("Cannot find program -1 version 1")),
            (call(1, program=KEEPALIVE_PROGRAM), rpc("Cannot find program 1801807216 version 1")),
            (call(9999), rpc("unknown procedure: 9999")),
            (call(0), rpc("unknown procedure: 0")),
            (call(-1), rpc("unknown procedure: -1")),
            (call(362), rpc("unknown procedure: 362")),
            (call(Procedure.AUTH_LIST, status=1), rpc("Unexpected message status 1")),
            (call(9999, status=2), rpc("Unexpected message status 2")),
            (argumentless, UNDECODABLE),
            (argumentless._replace(payload=b"\0\0"), UNDECODABLE),
            (call(Procedure.CONNECT_OPEN), UNDECODABLE),
            (call(Procedure.CONNECT_OPEN, badString), UNDECODABLE),
            (call(Procedure.AUTH_POLKIT), (45, 7, 2, "authentication failed: " * 2)),
        ):
            for wire in (self.connect(), self.connectOpen()):
                code, domain, level, text = errorOf(wire.ask(message._replace(serial=77)))
                self.assertEqual((code, domain, level), expected[:3], message)
                self.assertEqual(text, expected[3].removesuffix(": "), message)
                withFDs = message._replace(type=4, payload=bytes(4) + message.payload, serial=78)
                reply = wire.ask(withFDs)
                self.assertEqual(errorOf(reply)[3], text)
                self.assertEqual(reply.serial, 78)
                self.assertUsable(wire, message)
                self.counted(wire, opened=wire.protocol.factory.counters.opened)

    def test_ignored(self) -> None:
        """
        What is not a call is passed over, of known and unknown programs alike.
        """
        for kind in (1, 2, 3, 5, 6, 7, 2**32 - 1):
            for program in (REMOTE_PROGRAM, Probe.number, 0x11223344):
                wire = self.connectOpen()
                wire.feed(call(1, program=program, kind=kind))
                self.assertEqual(wire.taken(), b"", kind)
                self.assertUsable(wire, kind)

    def test_fileDescriptors(self) -> None:
        """
        A call that comes with file descriptors, or does not say with how many, closes the
        connection; one that comes with none is a plain call.
        """
        for payload in (b"\0\0\0\1", b"\0\0\0\x21", b"\0\0"):
            wire = self.connectOpen()
            wire.feed(call(Procedure.AUTH_LIST, payload, kind=MessageType.CALL_WITH_FDS))
            self.assertEqual(wire.taken(), b"")
            self.assertTrue(wire.aborted)
            wire.lose()
            self.counted(wire, opened=1, protocolErrors=1)
        wire = self.connectOpen()
        echo = Probe.message(Probe.ECHO, b"\0\0\0\0abcd")
        self.assertEqual(wire.ask(echo._replace(type=4)).payload, b"abcd")

    def test_beforeOpen(self) -> None:
        """
        Before open there are authentication, the feature check, open and close.
        """
        wire = self.connect()
        for message in (
            REGISTER,
            call(FakeBackend.PROCEDURE),
            Probe.message(Probe.ECHO),
            feature(Feature.REMOTE_CLOSE_CALLBACK),
            feature(Feature.FD_PASSING),
        ):
            self.assertEqual(errorOf(wire.ask(message)), NOT_OPEN)
        self.assertEqual(self.probe.calls, [])
        self.assertUsable(wire)

    def test_openTwice(self) -> None:
        """
        A second open is refused, and the first stays.
        """
        wire = self.connectOpen()
        self.assertEqual(errorOf(wire.ask(OPEN)), ALREADY_OPEN)
        self.assertEqual(len(self.backend.requests), 1)
        self.assertUsable(wire)
        self.counted(wire, opened=1)

    def test_longMessageMeanwhile(self) -> None:
        """
        While a backend opens, a message may be no longer than before: nothing that is longer could
        be answered.
        """
        self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(opening(serial=5))
        long = Probe.message(Probe.ECHO, bytes(LIMITS.messageBeforeOpen - 28))
        self.assertEqual(errorOf(wire.ask(long)), NOT_OPEN)
        wire.feed(long._replace(payload=long.payload + bytes(4)))
        self.assertTrue(wire.aborted)
        self.assertIn("28 to 65536 are allowed", str(wire.protocol._kaproto.closing.reason))

    def test_openWithoutName(self) -> None:
        """
        An open without a name is refused, and may be tried again.
        """
        wire = self.connect()
        error = errorOf(wire.ask(opening(None)))
        self.assertEqual(error, (1, 7, 2, "internal error: connection not open"))
        self.assertEqual(wire.ask(OPEN).status, Status.OK)

    def test_openFlags(self) -> None:
        """
        The backend is told the name and the flags as they came, whatever the client uses for
        itself, and bytes behind them do not matter.
        """
        wire = self.connect()
        message = opening("test:///default?a=b", 7)
        wire.ask(message._replace(payload=message.payload + b"trailing"))
        self.assertEqual(self.backend.requests, [OpenRequest("test:///default?a=b", 7)])

    def test_close(self) -> None:
        """
        A goodbye is answered before the connection is closed, before and after open.
        """
        for wire in (self.connect(), self.connectOpen()):
            reply = wire.ask(CLOSE, AUTH_LIST)
            self.assertEqual((reply.serial, reply.status, reply.payload), (9, Status.OK, b""))
            self.assertTrue(wire.closing)
            self.assertFalse(wire.aborted)

    def test_serials(self) -> None:
        """
        Serials may be anything and come twice.
        """
        wire = self.connectOpen()
        for serial in (0, 0, 2**32 - 1):
            self.assertEqual(wire.ask(AUTH_LIST._replace(serial=serial)).serial, serial)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Whatever bytes come, in whatever pieces and however far the client has come, nothing is
        raised: the server goes on, or it closes with at most one log line and leaves no timer.
        """
        clock = Clock()
        factory = KeepAliveServerFactory(Mandatory(KEEPALIVE), FakeBackend(), [Probe()], clock)
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        wire = Wire(protocol)
        wire.feed(
            *data.draw(st.sampled_from(((), (FEATURE_KEEPALIVE,), (FEATURE_KEEPALIVE, OPEN))))
        )
        before = len(self.logged())
        mixed = st.lists(garbage() | messages().map(packMessage), max_size=5).map(b"".join)
        for piece in data.draw(mixed.flatmap(pieces)):
            wire.feed(piece)
        wire.lose()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertLessEqual(len(self.logged()) - before, 1)
        self.assertEqual(factory.connections, [])
        self.assertEqual(self.flushLoggedErrors(), [])


class ModeTests(ServerTestCase):
    """
    The three modes, and other policies.
    """

    def test_readOnlyListener(self) -> None:
        """
        Where all connections are read-only, whatever a client asks for is opened for reading.
        """
        factory = KeepAliveServerFactory(
            Disable(),
            self.backend,
            clock=Clock(),
            accessControl=AccessControl(readOnly=True),
        )
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        self.assertEqual(Wire(protocol).ask(OPEN).status, Status.OK)
        self.assertEqual([request.readOnly for request in self.backend.requests], [True])
        self.assertTrue(protocol.peer.readOnly)

    def test_disable(self) -> None:
        """
        In mode 0 a client that asks for keepalive is told that it is there, and never pinged.
        """
        wire = self.connect(Disable(KEEPALIVE))
        self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        wire.ask(OPEN)
        self.advance(20)
        self.assertEqual(wire.taken(), b"")
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)

    def test_pingsWhoAsked(self) -> None:
        """
        In modes 1 and 2 a client is pinged from the moment it asks, before it has opened.
        """
        for policy in (Optional(KEEPALIVE), Mandatory(KEEPALIVE)):
            wire = self.connect(policy)
            self.advance(0.75)
            self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
            self.advance(0.9)
            self.assertEqual(wire.taken(), b"")
            self.advance(0.2)
            self.assertEqual(wire.taken(), PING)
            wire.lose()

    def test_optionalUnasked(self) -> None:
        """
        In mode 1 a client that did not ask is let in and never pinged; it is counted, and logged
        as one that mode 2 would refuse.
        """
        wire = self.connectOpen(Optional(KEEPALIVE))
        self.advance(20)
        self.assertEqual(wire.taken(), b"")
        self.assertUsable(wire)
        self.counted(wire, opened=1, warned=1)
        (line,) = self.logged()
        self.assertIn("tcp 192.0.2.1:54321: mode 2 would refuse", line)

    def test_optionalAsked(self) -> None:
        """
        In mode 1 there is nothing to say about a client that asked.
        """
        wire = self.connectOpen(Optional(KEEPALIVE), FEATURE_KEEPALIVE)
        self.counted(wire, opened=1)
        self.assertEqual(self.logged(), [])

    def test_mandatoryAsked(self) -> None:
        """
        In mode 2 a client that asked is let in.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.assertUsable(wire)
        self.counted(wire, opened=1)

    def test_mandatoryUnasked(self) -> None:
        """
        In mode 2 a client that did not ask gets an error that says what to do, and nothing more:
        the connection is closed as soon as that is sent.  It is counted and logged once.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        reply = wire.ask(opening(serial=3), AUTH_LIST, OPEN)
        self.assertEqual(reply.serial, 3)
        self.assertEqual(errorOf(reply), (9, 7, 2, refusalFor(wire.protocol.peer)))
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        wire.feed(AUTH_LIST)
        self.assertEqual(wire.taken(), b"")
        wire.lose()
        self.assertEqual(self.backend.requests, [])
        self.counted(wire, refused=1)
        (line,) = self.logged()
        self.assertIn("refused tcp 192.0.2.1:54321 by policy mandatory: operation failed:", line)

    def test_refusedAndDoesNotRead(self) -> None:
        """
        A client that is refused and does not read why cannot stay.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        wire.feed(OPEN)
        self.clock.advance(4.9)
        self.assertFalse(wire.aborted)
        self.clock.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_refusedOnce(self) -> None:
        """
        A client that opens twice before it reads anything is refused once.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        wire.protocol._kaproto.pauseProducing()
        wire.feed(OPEN, OPEN)
        wire.protocol._kaproto.resumeProducing()
        self.assertEqual(len(wire.take()), 1)
        self.counted(wire, refused=1)
        self.assertEqual(len(self.logged()), 1)

    def test_askedTwice(self) -> None:
        """
        Asking again does not begin a new silence.
        """
        wire = self.connect(Optional(KEEPALIVE))
        wire.feed(FEATURE_KEEPALIVE, FEATURE_KEEPALIVE)
        self.assertEqual(len(wire.take()), 2)
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)

    def test_askedAfterOpen(self) -> None:
        """
        In mode 1 a client may ask when it is open, and is pinged from then on.
        """
        wire = self.connectOpen(Optional(KEEPALIVE))
        self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)

    def test_perPeer(self) -> None:
        """
        A policy decides peer by peer whether to advertise, at which interval and count to ping,
        and what to say of whom it admits.
        """

        class ByAddress(Policy):
            name = "by address"

            def advertises(self, peer: Peer) -> bool:
                return peer.transport != "unix"

            def keepAlive(self, peer: Peer) -> KeepAlive | None:
                return KeepAlive(7, 9)

            def admit(self, peer: Peer) -> Admission | Refused:
                return Admission("welcome") if peer.transport == "unix" else Refused("not you")

        factory = KeepAliveServerFactory(ByAddress(), clock=self.clock)
        near = self.accept(factory, UNIXAddress(None))
        self.assertEqual(near.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\0")
        self.assertEqual(near.protocol.keepAlive, KeepAlive(0, 0))
        self.assertEqual(near.ask(OPEN).status, Status.OK)
        far = self.accept(factory)
        self.assertEqual(far.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        self.assertEqual(far.protocol.keepAlive, KeepAlive(7, 9))
        self.assertEqual(errorOf(far.ask(OPEN)), (9, 7, 2, "not you"))
        self.assertEqual(
            self.logged(),
            [
                "unix socket: welcome",
                "refused tcp 192.0.2.1:54321 by policy by address: not you",
            ],
        )


class Broken(Policy):
    """
    A policy that has a bug in everything it is asked.

    @ivar works: what it is asked without failing.
    """

    name = "broken"
    works: tuple[str, ...] = ()

    def advertises(self, peer: Peer) -> bool:
        """
        Fail, or not.
        """
        if "advertises" in self.works:
            return True
        raise ZeroDivisionError("advertises")

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        Fail.
        """
        raise ZeroDivisionError("keepAlive")

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Fail.
        """
        raise ZeroDivisionError("admit")


class BrokenPolicyTests(ServerTestCase):
    """
    A policy that raises what it should not lets nobody in and has nobody pinged, and the log names
    it.
    """

    def assertLogged(self, where: str) -> None:
        """
        Check the log.
        """
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(str(failure.value), where)
        (line,) = (each for each in self.logged(LogLevel.critical) if where in each)
        self.assertIn(f"policy broken failed in {where}() for tcp 192.0.2.1:54321", line)

    def test_feature(self) -> None:
        """
        When it fails at the feature check, the client counts as one that did not ask: it is
        answered 0, is not pinged, and is not admitted where asking is mandatory.
        """

        class Advertising(Broken):
            works = ("advertises",)

        for policy, where in ((Broken(), "advertises"), (Advertising(), "keepAlive")):
            wire = self.connect(policy)
            self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, bytes(4))
            self.assertLogged(where)
            self.assertFalse(wire.protocol.peer.asked)
            self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
            self.assertUsable(wire)

    def test_mandatory(self) -> None:
        """
        In mode 2 nobody gets in unwatched by its mistake.
        """

        class BrokenMandatory(Broken):
            def admit(self, peer: Peer) -> Admission | Refused:
                return Mandatory().admit(peer)

        wire = self.connect(BrokenMandatory())
        wire.ask(FEATURE_KEEPALIVE)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(errorOf(wire.ask(OPEN))[0], 9)
        self.assertTrue(wire.closing)

    def test_open(self) -> None:
        """
        When it fails at open, the client is refused, and told where the reason is.
        """
        wire = self.connect(Broken())
        code, domain, level, message = errorOf(wire.ask(OPEN))
        self.assertEqual((code, domain, level), (9, 7, 2))
        self.assertIn("its keepalive policy failed; the server's log has the reason", message)
        self.assertLogged("admit")
        self.assertTrue(wire.closing)
        wire.lose()
        self.counted(wire, refused=1)


class OpenTests(ServerTestCase):
    """
    From connecting to being open.
    """

    def test_timeout(self) -> None:
        """
        A client that does not open in time is dropped, counted and logged, whatever else it does.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        wire.feed(FEATURE_KEEPALIVE)
        for _second in range(10):
            self.assertFalse(wire.closing)
            wire.feed(PONG, AUTH_LIST)
            self.advance(1)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, deadlinesMissed=1)
        self.assertEqual(
            self.logged(),
            [
                "dropped tcp 192.0.2.1:54321: it did not open the connection within 10 s "
                "(--open-timeout)"
            ],
        )

    def test_timeoutIsTheFactorys(self) -> None:
        """
        How much time there is, the factory says.
        """
        factory = KeepAliveServerFactory(clock=self.clock, limits=Limits(openTimeout=0.5))
        wire = self.accept(factory)
        self.advance(0.6)
        self.assertTrue(wire.aborted)

    def test_inTime(self) -> None:
        """
        A client that has opened may stay.
        """
        wire = self.connectOpen()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.backend.session.connections, [wire.protocol])
        self.assertIs(wire.protocol.session, self.backend.session)
        self.counted(wire, opened=1)

    def test_openedIsToldAfterTheReply(self) -> None:
        """
        The session learns that it is open once, when the client has been told.
        """
        wire = self.connect()
        written: list[int] = []

        def opened(connection: object) -> None:
            written.append(len(wire.transport.value()))

        self.backend.session.opened = opened  # type: ignore[method-assign]
        wire.feed(OPEN, AUTH_LIST)
        self.assertEqual(written, [HEADER_SIZE])

    def test_backendCalls(self) -> None:
        """
        The session answers the backend's procedures, and is told when the client has gone.
        """
        wire = self.connectOpen()
        self.assertEqual(wire.ask(call(FakeBackend.PROCEDURE, b"abcd")).payload, b"abcd")
        wire.lose(ConnectionLost())
        (reason,) = self.backend.session.reasons
        self.assertIsInstance(reason, ConnectionLost)
        self.assertIsNone(wire.protocol.session)

    def test_backendFails(self) -> None:
        """
        When the backend cannot open, its error is the answer, and the client may try again for
        as long as it had at first.
        """
        self.backend.error = RemoteError(5, 0, "no such host")
        wire = self.connect()
        self.clock.advance(9)
        self.assertEqual(errorOf(wire.ask(OPEN)), (5, 0, 2, "no such host"))
        self.clock.advance(9)
        self.backend.error = None
        self.assertEqual(wire.ask(OPEN).status, Status.OK)
        self.counted(wire, opened=1)

    def test_backendBreaks(self) -> None:
        """
        A backend with a bug is answered for with an internal error.
        """
        self.backend.error = ZeroDivisionError("a bug")
        wire = self.connect()
        self.assertEqual(errorOf(wire.ask(OPEN))[0], 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.advance(10)
        self.assertTrue(wire.aborted)

    def test_later(self) -> None:
        """
        While a backend opens, which it has all the time for that it wants, the client's pings and
        calls are answered, but it is not open.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(opening(serial=5))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        self.assertEqual(errorOf(wire.ask(REGISTER)), NOT_OPEN)
        self.assertEqual(errorOf(wire.ask(OPEN)), ALREADY_OPEN)
        self.counted(wire)
        later.callback(ISession(self.backend.session))
        reply = wire.takeOne()
        self.assertEqual((reply.serial, reply.status), (5, Status.OK))
        self.assertEqual(self.backend.session.connections, [wire.protocol])
        self.counted(wire, opened=1)

    def test_failsLater(self) -> None:
        """
        When a backend fails after a while, the client may try again.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(OPEN)
        later.errback(RemoteError(38, 7, "no route"))
        self.assertEqual(errorOf(wire.takeOne()), (38, 7, 2, "no route"))
        self.backend.later = None
        self.assertEqual(wire.ask(OPEN).status, Status.OK)

    def test_lostMeanwhile(self) -> None:
        """
        When the client goes while a backend opens, the opening is cancelled, and nothing is
        logged.
        """
        cancelled: list[object] = []
        self.backend.later = Deferred(cancelled.append)
        wire = self.connect()
        wire.feed(OPEN)
        wire.lose()
        self.assertEqual(cancelled, [self.backend.later])
        self.counted(wire)
        self.assertEqual(self.logged(), [])

    def test_closingMeanwhile(self) -> None:
        """
        When the client says goodbye while a backend opens, what has been opened is closed at once
        and never told that it is open.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(OPEN)
        self.assertEqual(wire.ask(CLOSE).serial, 9)
        later.callback(ISession(self.backend.session))
        (reason,) = self.backend.session.reasons
        assert isinstance(reason, ConnectionClosed)
        self.assertEqual(reason.reason, CloseReason.CLIENT)
        self.assertEqual(self.backend.session.connections, [])
        self.assertEqual(wire.taken(), b"")
        wire.lose()
        self.counted(wire)

    def test_failsWhenClosing(self) -> None:
        """
        When the client says goodbye while a backend fails to open, no deadline is set for it.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(OPEN, CLOSE)
        wire.take()
        later.errback(RemoteError(38, 7, "no route"))
        self.assertEqual(wire.taken(), b"")
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StartsOpenTests(ServerTestCase):
    """
    Servers whose clients need not open.
    """

    def serveOpen(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client to such a server.
        """
        factory = KeepAliveServerFactory(
            policy, programs=[self.probe], clock=self.clock, startsOpen=True
        )
        return self.accept(factory)

    def test_open(self) -> None:
        """
        Calls are answered from the start, there is no deadline, no ping, and no remote program.
        """
        wire = self.serveOpen(Optional(KEEPALIVE))
        self.assertEqual(wire.ask(Probe.message(Probe.ECHO, b"abcd")).payload, b"abcd")
        self.assertEqual(
            errorOf(wire.ask(AUTH_LIST)), rpc("Cannot find program 536903814 version 1")
        )
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        self.advance(100)
        self.assertEqual(wire.taken(), b"")
        self.assertFalse(wire.closing)
        self.assertEqual(wire.protocol.factory.counters.opened, 1)

    def test_refused(self) -> None:
        """
        Whom the policy refuses is told so at each call, and dropped when it should have opened.
        Until then it may leave by itself: what it writes before it has read its refusal must not
        end it.
        """
        wire = self.serveOpen(Mandatory(KEEPALIVE))
        refusal = (9, 7, 2, refusalFor(wire.protocol.peer))
        for _ in range(2):
            self.assertEqual(errorOf(wire.ask(Probe.message(Probe.ECHO))), refusal)
        self.assertFalse(wire.closing)
        self.assertEqual(wire.protocol.factory.counters.refused, 1)
        self.assertEqual(self.probe.calls, [])
        ended = wire.protocol.whenClosed()
        wire.lose()
        self.assertIn(refusal[-1], str(self.successResultOf(ended)))
        silent = self.serveOpen(Mandatory(KEEPALIVE))
        self.advance(11)
        self.assertTrue(silent.closing)

    def test_noLogin(self) -> None:
        """
        A server that clients would have to log in to cannot do without the remote program.
        """
        error = self.assertRaises(
            ValueError,
            KeepAliveServerFactory,
            clock=self.clock,
            accessControl=AccessControl(makePortal([InMemoryUsernamePasswordDatabaseDontUse()])),
            startsOpen=True,
        )
        self.assertIn("log in", str(error))


class CallTests(ServerTestCase):
    """
    Calls that take their time, and clients that take theirs.
    """

    def test_outOfOrder(self) -> None:
        """
        Calls are answered as they are done.
        """
        wire = self.connectOpen()
        self.callLater(wire, 3)
        self.probe.waiting[2].callback(b"two")
        self.probe.waiting[0].callback(b"zero")
        self.assertEqual(
            [(reply.serial, reply.payload) for reply in wire.take()], [(2, b"two"), (0, b"zero")]
        )

    def test_pingsGoFirst(self) -> None:
        """
        Pings are answered at once, however many calls wait.
        """
        wire = self.connectOpen()
        self.callLater(wire, LIMITS.runningCalls + 10)
        wire.feed(Probe.message(Probe.ECHO), PING)
        self.assertEqual(wire.taken(), PONG)

    def test_lostWithCalls(self) -> None:
        """
        When the client goes, its calls are cancelled.
        """
        wire = self.connectOpen()
        self.callLater(wire, 2)
        wire.lose()
        self.assertTrue(all(each.called for each in self.probe.waiting))
        self.assertEqual(self.logged(), [])

    def test_fullPausesReading(self) -> None:
        """
        When too many calls wait, nothing more is read, and the client is not judged for its
        silence but sent a pong each second; when there is room again, reading goes on.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls - 1)
        self.assertTrue(wire.reading)
        wire.feed(Probe.message(Probe.LATER))
        self.assertFalse(wire.reading)
        self.advance(70)
        self.assertFalse(wire.closing)
        self.assertEqual(wire.taken(), PONG * 70)
        self.probe.waiting.pop().callback(b"")
        self.assertTrue(wire.reading)
        self.assertUsableLater(wire)

    def assertUsableLater(self, wire: Wire[KeepAliveServerProtocol]) -> None:
        """
        Check that everything that was called is answered in the end.
        """
        wire.take()
        wire.feed(AUTH_LIST._replace(serial=1000))
        while self.probe.waiting:
            self.answerAll()
        self.assertIn(1000, [reply.serial for reply in wire.take()])

    def test_moreInOneRead(self) -> None:
        """
        What was read already when too many calls wait is kept as well, and reading is paused
        once.
        """
        wire = self.connectOpen()
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls + 50)
        self.assertFalse(wire.reading)
        self.answerAll()
        self.assertFalse(wire.reading)
        self.answerAll()
        self.answerAll()
        self.assertTrue(wire.reading)
        while self.probe.waiting:
            self.answerAll()
        self.assertEqual(len(wire.take()), LIMITS.runningCalls + LIMITS.waitingCalls + 50)

    def test_congested(self) -> None:
        """
        The calls of a client that does not read its replies are not started until it does.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(Probe.message(Probe.ECHO), Probe.message(Probe.ECHO))
        self.assertEqual(self.probe.calls, [])
        self.assertTrue(wire.reading)
        wire.protocol._kaproto.resumeProducing()
        self.assertFalse(wire.protocol._kaproto.congested)
        self.assertEqual(len(wire.take()), 2)

    def test_unreadReplies(self) -> None:
        """
        A client that calls on and does not read has a deadline from when nothing more is read
        from it, and is then dropped, counted and logged.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        self.callLater(wire, LIMITS.waitingCalls)
        self.assertFalse(wire.reading)
        self.advance(59)
        self.assertFalse(wire.closing)
        self.advance(2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, opened=1, deadlinesMissed=1)
        (line,) = self.logged()
        self.assertIn("it did not read the replies to its calls within 60 s", line)

    def test_readsAgain(self) -> None:
        """
        A client that reads again in time has nothing to fear.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        self.callLater(wire, LIMITS.waitingCalls)
        self.advance(59)
        wire.protocol._kaproto.resumeProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(wire.reading)

    def test_unreadRepliesLater(self) -> None:
        """
        A client from which nothing more is read because its calls take long, and which then does
        not read their replies, has the same deadline: keepalive cannot judge it.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls)
        self.assertFalse(wire.reading)
        wire.protocol._kaproto.pauseProducing()
        self.answerAll()
        self.advance(61)
        self.assertTrue(wire.aborted)

    def test_unreadBeforeOpen(self) -> None:
        """
        A client that reads again, after calling on without reading, still has to open in time.
        """
        wire = self.connect()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(*[AUTH_LIST] * LIMITS.waitingCalls)
        self.advance(5)
        wire.protocol._kaproto.resumeProducing()
        self.advance(6)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, deadlinesMissed=1)

    def test_event(self) -> None:
        """
        A server may send messages that answer no call.
        """
        wire = self.connectOpen()
        wire.protocol.sendEvent(Probe.number, 9, b"abcd")
        self.assertEqual(
            wire.takeOne(), call(9, b"abcd", 1, program=Probe.number, kind=MessageType.MESSAGE)
        )
        wire.protocol.sendEvent(Probe.number, 9, b"", 3)
        self.assertEqual(wire.takeOne().version, 3)


class DeathTests(ServerTestCase):
    """
    Clients that keepalive finds dead, and what they are told.
    """

    def test_silent(self) -> None:
        """
        A client that is dead is aborted, counted and logged once, with the numbers.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.advance(3.1)
        self.assertEqual(wire.taken(), PING * 2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, opened=1, dead=1)
        (line,) = self.logged()
        self.assertRegex(
            line,
            r"^tcp 192\.0\.2\.1:54321 is dead: connection closed due to keepalive timeout: nothing "
            r"heard for 3\.\d\d s and 2 pings unanswered \(interval 1 s, count 2\)$",
        )
        self.assertIsInstance(self.backend.session.reasons[0], KeepAliveTimeout)

    def test_farewell(self) -> None:
        """
        A client that wants to know why the server closes is told that it was keepalive, and has
        only a moment to take it.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.ask(REGISTER)
        self.advance(3.1)
        self.assertEqual(wire.take()[-1], farewell(CloseReason.KEEPALIVE))
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, opened=1, dead=1)
        self.assertEqual(len(self.logged()), 1)

    def test_noFarewellToTheCongested(self) -> None:
        """
        A client that is dead and has not read what was written before is told nothing.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.ask(REGISTER)
        wire.protocol._kaproto.pauseProducing()
        self.advance(3.1)
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.taken(), PING * 2)

    def test_noFarewellAnyMore(self) -> None:
        """
        A client that took its wish back is told nothing.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.feed(REGISTER, call(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK))
        wire.take()
        self.advance(3.1)
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.taken(), PING * 2)

    def test_answers(self) -> None:
        """
        A client that answers its pings stays, and nothing is logged about it.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        for _second in range(20):
            self.advance(1.1)
            self.assertEqual(wire.taken(), PING)
            wire.feed(PONG)
        self.assertFalse(wire.closing)
        self.assertEqual(self.logged(), [])


class BudgetTests(ServerTestCase):
    """
    Clients that want too much.
    """

    def test_pingFlood(self) -> None:
        """
        A client that pings too often is dropped, counted and logged once.
        """
        wire = self.connectOpen()
        wire.feed(PING * 1000)
        self.turns()
        self.assertEqual(wire.taken(), PONG * 100)
        self.assertTrue(wire.aborted)
        wire.feed(PING * 1000)
        wire.lose()
        self.counted(wire, opened=1, flooded=1)
        self.assertEqual(
            self.logged(),
            ["dropped tcp 192.0.2.1:54321: more than 100 pings in a second"],
        )

    def test_unreadPongs(self) -> None:
        """
        A client that pings and does not read is dropped, counted and logged once.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(PING * 65)
        self.turns()
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, opened=1, flooded=1)
        self.assertEqual(
            self.logged(),
            ["dropped tcp 192.0.2.1:54321: it pings and has not read 64 answers"],
        )

    def test_garbled(self) -> None:
        """
        A client that sends what is no message is dropped, counted and logged once.
        """
        wire = self.connect()
        wire.feed(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, protocolErrors=1)
        (line,) = self.logged()
        self.assertIn("dropped tcp 192.0.2.1:54321: it sent an HTTP request", line)

    def test_nothingPerPing(self) -> None:
        """
        Nothing is logged of pings, of calls, of errors in answers, or of clients that go.
        """
        wire = self.connectOpen(Optional(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.feed(PING * 50, call(9999), Probe.message(Probe.FAIL))
        self.advance(1.1)
        wire.feed(PONG, CLOSE)
        wire.lose()
        self.connectOpen().lose(ConnectionLost())
        self.assertEqual(self.logged(), [])


class DrainTests(ServerTestCase):
    """
    The server is going.
    """

    def test_nobody(self) -> None:
        """
        Without connections there is nothing to wait for.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        self.assertIsNone(self.successResultOf(factory.drain()))

    def test_idle(self) -> None:
        """
        Idle connections are closed at once, open or not, and the factory tells when all are gone.
        """
        wire = self.connectOpen()
        factory = wire.protocol.factory
        other = self.accept(factory)
        drained = factory.drain()
        again = factory.drain()
        for each in (wire, other):
            self.assertTrue(each.closing)
            self.assertFalse(each.aborted)
            self.assertNoResult(drained)
            each.lose()
        self.successResultOf(drained)
        self.successResultOf(again)
        (reason,) = self.backend.session.reasons
        assert isinstance(reason, ConnectionClosed)
        self.assertIn("shutting down", str(reason))
        self.assertEqual(self.logged(), [])

    def test_farewell(self) -> None:
        """
        A client that wants to know why the server closes is told so when that begins, once.
        """
        wire = self.connectOpen()
        wire.ask(REGISTER)
        self.callLater(wire, 1)
        wire.protocol.factory.drain()
        wire.protocol.factory.drain()
        self.assertEqual(wire.take(), [farewell(CloseReason.EOF)])

    def test_refusalsNobodyReads(self) -> None:
        """
        A client that calls on and does not read is not told each time, without end, that it is
        too late.
        """
        wire = self.connectOpen()
        self.callLater(wire, 1)
        wire.protocol.factory.drain()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(Probe.message(Probe.ECHO))
        self.assertEqual(wire.take(), [])

    def test_lostAfterRelayedReply(self) -> None:
        """
        However many replies have been relayed, one look is taken at what they make possible, and
        none once the connection is lost.
        """
        wire = self.connectOpen()
        self.callLater(wire, 1)
        wire.protocol._kaproto.drain()
        before = len(self.clock.getDelayedCalls())
        wire.protocol._kaproto.relayedCallAnswered()
        wire.protocol._kaproto.relayedCallAnswered()
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)
        wire.lose()
        self.assertEqual(len(self.clock.getDelayedCalls()), before)

    def test_acceptedCallsFinish(self) -> None:
        """
        Calls that came before are finished, waiting ones included; those that come later are
        refused; when all is done the connection is closed.
        """
        wire = self.connectOpen()
        self.callLater(wire, LIMITS.runningCalls + 1)
        wire.protocol.factory.drain()
        self.assertFalse(wire.closing)
        error = errorOf(wire.ask(Probe.message(Probe.ECHO)))
        self.assertEqual(error, (1, 7, 2, "internal error: the server is shutting down"))
        self.answerAll()
        self.assertEqual(len(wire.take()), LIMITS.runningCalls)
        self.assertFalse(wire.closing)
        self.answerAll()
        self.assertEqual(len(wire.take()), 1)
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)

    def test_pingsAreAnswered(self) -> None:
        """
        Until it is closed a connection has its pings answered, and is pinged.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.callLater(wire, 1)
        wire.protocol.factory.drain()
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)

    def test_busySession(self) -> None:
        """
        A session that has more under way than calls, as a relay has, is waited for.
        """
        wire = self.connectOpen()
        self.backend.session.idle = False
        wire.protocol.factory.drain()
        wire.protocol._kaproto.relayedCallAnswered()
        self.clock.advance(0)
        self.assertFalse(wire.closing)
        self.backend.session.idle = True
        wire.protocol._kaproto.relayedCallAnswered()
        self.clock.advance(0)
        self.assertTrue(wire.closing)

    def test_whileOpening(self) -> None:
        """
        A client whose backend is just opening is told how that went before it is closed.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(OPEN)
        wire.protocol.factory.drain()
        self.assertFalse(wire.closing)
        later.callback(ISession(self.backend.session))
        self.assertEqual(wire.takeOne().status, Status.OK)
        self.assertTrue(wire.closing)

    def test_closingAlready(self) -> None:
        """
        A connection that is closing for another reason keeps that.
        """
        wire = self.connectOpen()
        wire.ask(CLOSE)
        wire.protocol.factory.drain()
        wire.lose()
        (reason,) = self.backend.session.reasons
        self.assertIn("the client closed", str(reason))

    def test_abort(self) -> None:
        """
        Aborting closes every connection at once, whatever its calls do.
        """
        wire = self.connectOpen()
        factory = wire.protocol.factory
        other = self.accept(factory)
        self.callLater(wire, 1)
        drained = factory.drain()
        factory.abort()
        for each in (wire, other):
            self.assertTrue(each.aborted)
            each.lose()
        self.successResultOf(drained)
        self.assertEqual(self.logged(), [])

    def test_crowd(self) -> None:
        """
        Of many connections a few are closed, or aborted, in each turn of the reactor.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        for end, done in ((factory.drain, "closing"), (factory.abort, "aborted")):
            wires = [self.accept(factory) for _ in range(3 * MAX_CLOSES_PER_TURN - 1)]
            end()
            for expected in (MAX_CLOSES_PER_TURN, 2 * MAX_CLOSES_PER_TURN):
                self.assertEqual(sum(getattr(wire, done) for wire in wires), expected)
                # What the reactor does in its next turn.
                turn = self.clock.calls.pop(0)
                self.assertEqual(turn.getTime(), self.clock.seconds())
                turn.func(*turn.args, **turn.kw)
            self.assertTrue(all(getattr(wire, done) for wire in wires))
            for wire in wires:
                wire.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_levels(self) -> None:
        """
        What an administrator should look into is a warning, the rest is not.
        """
        self.connectOpen(Optional(KEEPALIVE))
        self.connect(Mandatory(KEEPALIVE)).feed(OPEN)
        wire = self.connect()
        wire.feed(bytes(4))
        wire.lose()
        self.assertEqual(len(self.logged(LogLevel.info)), 1)
        self.assertEqual(len(self.logged(LogLevel.warn)), 2)

    def test_deadlineReason(self) -> None:
        """
        The session learns why its connection is gone.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.abort(DeadlineMissed("it did not sing", 3))
        wire.lose()
        self.assertEqual(
            [str(reason) for reason in self.backend.session.reasons], ["it did not sing within 3 s"]
        )
