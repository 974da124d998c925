"""
Tests for L{kaproto.rpc.serverconnection}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    RemoteError,
)
from kaproto.interfaces import ISession, OpenRequest
from kaproto.keepalive.pacemaker import MAX_CLOSES_PER_TURN
from kaproto.limits import Limits
from kaproto.policies import Mandatory, Optional
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    MessageType,
    Status,
    packMessage,
    rpcError,
)
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    REMOTE_PROGRAM,
    CloseReason,
    Feature,
    Procedure,
)
from tests.strategies import garbage, messages, pieces
from tests.support import (
    ADDRESS,
    FEATURE_KEEPALIVE,
    KEEPALIVE,
    OPEN,
    FakeBackend,
    Probe,
    Wire,
    call,
    errorOf,
    feature,
    opening,
)
from tests.support_server import (
    ALREADY_OPEN,
    AUTH_LIST,
    CLOSE,
    LIMITS,
    NOT_OPEN,
    REGISTER,
    UNDECODABLE,
    ServerTestCase,
    farewell,
    rpc,
)


class OddInputTests(ServerTestCase):
    """
    Odd input has the same effects as on libvirtd.
    """

    def test_lengthOutOfBounds(self) -> None:
        """
        An invalid length closes the connection without a reply.
        """
        for length in (0, 3, 4, 5, 12, 24, 27, MESSAGE_MAX + 1, 0x80000000, 0xFFFFFFFF):
            for wire in (self.connect(), self.connectOpen()):
                wire.feed(length.to_bytes(4, "big") + bytes(24))
                self.assertEqual(wire.taken(), b"", length)
                self.assertTrue(wire.aborted, length)

    def test_lengthBeforeOpen(self) -> None:
        """
        Messages are limited in length until the connection is open.
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
        An incomplete message is waited for.
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
        Invalid calls, of type 0 or 4, are answered with libvirtd's errors, and the connection stays
        usable.
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
        Messages other than calls are ignored, whether the program is known or not.
        """
        for kind in (1, 2, 3, 5, 6, 7, 2**32 - 1):
            for program in (REMOTE_PROGRAM, Probe.number, 0x11223344):
                wire = self.connectOpen()
                wire.feed(call(1, program=program, kind=kind))
                self.assertEqual(wire.taken(), b"", kind)
                self.assertUsable(wire, kind)

    def test_fileDescriptors(self) -> None:
        """
        A call with file descriptors, or without a valid count of them, closes the connection.  A
        count of 0 makes it a plain call.
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
        Before open only authentication, the feature check, open and close are allowed.
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
        A second open is refused, and the first stays in effect.
        """
        wire = self.connectOpen()
        self.assertEqual(errorOf(wire.ask(OPEN)), ALREADY_OPEN)
        self.assertEqual(len(self.backend.requests), 1)
        self.assertUsable(wire)
        self.counted(wire, opened=1)

    def test_longMessageMeanwhile(self) -> None:
        """
        While a backend opens, the limit on message lengths from before open still applies.
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
        An open without a name is refused, and may be retried.
        """
        wire = self.connect()
        error = errorOf(wire.ask(opening(None)))
        self.assertEqual(error, (1, 7, 2, "internal error: connection not open"))
        self.assertEqual(wire.ask(OPEN).status, Status.OK)

    def test_openFlags(self) -> None:
        """
        The backend gets name and flags unchanged; trailing bytes are ignored.
        """
        wire = self.connect()
        message = opening("test:///default?a=b", 7)
        wire.ask(message._replace(payload=message.payload + b"trailing"))
        self.assertEqual(self.backend.requests, [OpenRequest("test:///default?a=b", 7)])

    def test_close(self) -> None:
        """
        C{CONNECT_CLOSE} is answered before the connection is closed, whether it is open or not.
        """
        for wire in (self.connect(), self.connectOpen()):
            reply = wire.ask(CLOSE, AUTH_LIST)
            self.assertEqual((reply.serial, reply.status, reply.payload), (9, Status.OK, b""))
            self.assertTrue(wire.closing)
            self.assertFalse(wire.aborted)

    def test_serials(self) -> None:
        """
        Serials may have any value and may repeat.
        """
        wire = self.connectOpen()
        for serial in (0, 0, 2**32 - 1):
            self.assertEqual(wire.ask(AUTH_LIST._replace(serial=serial)).serial, serial)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Arbitrary bytes, in any pieces and any phase, never raise.  At most one line is logged, and
        no timer is left.
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


class OpenTests(ServerTestCase):
    """
    Tests for opening a connection.
    """

    def test_timeout(self) -> None:
        """
        A client that does not open in time, whatever else it sends, is dropped, counted and logged.
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
        The timeout is the factory's C{openTimeout}.
        """
        factory = KeepAliveServerFactory(clock=self.clock, limits=Limits(openTimeout=0.5))
        wire = self.accept(factory)
        self.advance(0.6)
        self.assertTrue(wire.aborted)

    def test_inTime(self) -> None:
        """
        An open connection has no deadline.
        """
        wire = self.connectOpen()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.backend.session.connections, [wire.protocol])
        self.assertIs(wire.protocol.session, self.backend.session)
        self.counted(wire, opened=1)

    def test_openedIsToldAfterTheReply(self) -> None:
        """
        C{ISession.opened} is called once, after the reply to the client is written.
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
        The session answers the backend's procedures, and gets the reason when the connection is
        lost.
        """
        wire = self.connectOpen()
        self.assertEqual(wire.ask(call(FakeBackend.PROCEDURE, b"abcd")).payload, b"abcd")
        wire.lose(ConnectionLost())
        (reason,) = self.backend.session.reasons
        self.assertIsInstance(reason, ConnectionLost)
        self.assertIsNone(wire.protocol.session)

    def test_backendFails(self) -> None:
        """
        If the backend fails to open, its error is the reply, and the client may retry with the same
        total time.
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
        A bug in the backend becomes an internal error.
        """
        self.backend.error = ZeroDivisionError("a bug")
        wire = self.connect()
        self.assertEqual(errorOf(wire.ask(OPEN))[0], 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.advance(10)
        self.assertTrue(wire.aborted)

    def test_later(self) -> None:
        """
        While a backend opens, without a time limit, the client's pings and calls are answered, but
        it is not open.
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
        After a backend has failed asynchronously, the client may retry.
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
        If the client disconnects while a backend opens, the opening is cancelled, and nothing is
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
        If the client closes while a backend opens, the new session is closed at once, and its
        C{opened} is not called.
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
        If a backend fails after the client has closed, no deadline is set.
        """
        later = self.backend.later = Deferred()
        wire = self.connect()
        wire.feed(OPEN, CLOSE)
        wire.take()
        later.errback(RemoteError(38, 7, "no route"))
        self.assertEqual(wire.taken(), b"")
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CallTests(ServerTestCase):
    """
    Tests for slow calls.
    """

    def test_outOfOrder(self) -> None:
        """
        Calls are answered in the order in which they finish.
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
        Pings are answered at once, even while calls wait.
        """
        wire = self.connectOpen()
        self.callLater(wire, LIMITS.runningCalls + 10)
        wire.feed(Probe.message(Probe.ECHO), PING)
        self.assertEqual(wire.taken(), PONG)

    def test_lostWithCalls(self) -> None:
        """
        When the connection is lost, its calls are cancelled.
        """
        wire = self.connectOpen()
        self.callLater(wire, 2)
        wire.lose()
        self.assertTrue(all(each.called for each in self.probe.waiting))
        self.assertEqual(self.logged(), [])


class DeathTests(ServerTestCase):
    """
    Tests for clients that keepalive finds dead.
    """

    def test_silent(self) -> None:
        """
        A dead client is aborted, counted, and logged once with the numbers.
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
        A client that has registered for the close event is sent the reason, and has 0.1 seconds to
        read it.
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
        A dead client that has not read earlier bytes is not sent the close event.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.ask(REGISTER)
        wire.protocol._kaproto.pauseProducing()
        self.advance(3.1)
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.taken(), PING * 2)

    def test_noFarewellAnyMore(self) -> None:
        """
        A client that has unregistered is not sent the close event.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        wire.feed(REGISTER, call(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK))
        wire.take()
        self.advance(3.1)
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.taken(), PING * 2)

    def test_answers(self) -> None:
        """
        A client that answers pings stays connected, and nothing is logged.
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
    Tests for clients that exceed their limits.
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
        A client that pings and does not read the pongs is dropped, counted and logged once.
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
            ["dropped tcp 192.0.2.1:54321: it pings, but has left 64 pongs unread"],
        )

    def test_garbled(self) -> None:
        """
        A client that sends an invalid message is dropped, counted and logged once.
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
        Pings, calls, error replies and ends of connections are not logged.
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
    Tests for draining the server.
    """

    def test_nobody(self) -> None:
        """
        Without connections L{KeepAliveServerFactory.drain} fires at once.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        self.assertIsNone(self.successResultOf(factory.drain()))

    def test_idle(self) -> None:
        """
        Idle connections, open or not, are closed at once, and C{drain} fires when all have ended.
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
        A client that has registered for the close event gets it once, when draining begins.
        """
        wire = self.connectOpen()
        wire.ask(REGISTER)
        self.callLater(wire, 1)
        wire.protocol.factory.drain()
        wire.protocol.factory.drain()
        self.assertEqual(wire.take(), [farewell(CloseReason.EOF)])

    def test_refusalsNobodyReads(self) -> None:
        """
        A client that does not read gets no error replies to new calls, so they cannot fill the
        memory.
        """
        wire = self.connectOpen()
        self.callLater(wire, 1)
        wire.protocol.factory.drain()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(Probe.message(Probe.ECHO))
        self.assertEqual(wire.take(), [])

    def test_lostAfterRelayedReply(self) -> None:
        """
        After any number of relayed replies, one check for completion is scheduled, which is
        cancelled when the connection is lost.
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
        Calls received before draining finish, waiting ones included; later ones are refused.  Then
        the connection is closed.
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
        Until the connection closes, pings are answered and sent.
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
        A session that is not idle, such as a relay with pending calls, is waited for.
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
        A client that is being opened gets its reply before the connection closes.
        """
        for outcome, status in (
            (ISession(self.backend.session), Status.OK),
            (Failure(rpcError("no such host")), Status.ERROR),
        ):
            later = self.backend.later = Deferred()
            wire = self.connect()
            wire.feed(OPEN)
            wire.protocol.factory.drain()
            self.assertFalse(wire.closing)
            later.callback(outcome)
            self.assertEqual(wire.takeOne().status, status)
            self.assertTrue(wire.closing)

    def test_closingAlready(self) -> None:
        """
        A connection that is already closing keeps its reason.
        """
        wire = self.connectOpen()
        wire.ask(CLOSE)
        wire.protocol.factory.drain()
        wire.lose()
        (reason,) = self.backend.session.reasons
        self.assertIn("the client closed", str(reason))

    def test_abort(self) -> None:
        """
        C{abort} closes every connection at once, even with pending calls.
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
        Only a few connections are closed or aborted per turn of the reactor.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        for end, done in ((factory.drain, "closing"), (factory.abort, "aborted")):
            wires = [self.accept(factory) for _ in range(3 * MAX_CLOSES_PER_TURN - 1)]
            end()
            for expected in (MAX_CLOSES_PER_TURN, 2 * MAX_CLOSES_PER_TURN):
                self.assertEqual(sum(getattr(wire, done) for wire in wires), expected)
                # Run the reactor's next turn.
                turn = self.clock.calls.pop(0)
                self.assertEqual(turn.getTime(), self.clock.seconds())
                turn.func(*turn.args, **turn.kw)
            self.assertTrue(all(getattr(wire, done) for wire in wires))
            for wire in wires:
                wire.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_levels(self) -> None:
        """
        Problems for the administrator are logged as warnings, everything else as information.
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
        The session gets the reason for which its connection was closed.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.abort(DeadlineMissed("it did not sing", 3))
        wire.lose()
        self.assertEqual(
            [str(reason) for reason in self.backend.session.reasons], ["it did not sing within 3 s"]
        )
