"""
Tests for L{kaproto.client.connection}.
"""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from kaproto.client.connecting import connect
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    KeepAliveUnsupported,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.message import (
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
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    CloseReason,
    Feature,
    Procedure,
)
from tests.strategies import garbage, messages, pieces
from tests.support import (
    ADDRESS,
    KEEPALIVE,
    OPEN,
    Probe,
    Wire,
    call,
    feature,
    opening,
)
from tests.support_client import (
    NO,
    NO_AUTHENTICATION,
    REFUSED,
    UNKNOWN_PROCEDURE,
    YES,
    Answer,
    ClientTestCase,
    answer,
    closing,
    event,
)


class OpenTests(ClientTestCase):
    """
    Tests for opening a connection.
    """

    def test_order(self) -> None:
        """
        A client authenticates, asks for keepalive, opens, and registers a close callback, one call
        after the other, with serials from 0.
        """
        wire = self.connect(KeepAliveClientFactory("test:///default", 1, clock=self.clock))
        self.assertEqual(
            self.answerAll(wire),
            [
                call(Procedure.AUTH_LIST, serial=0),
                feature(Feature.PROGRAM_KEEPALIVE, 1),
                opening("test:///default", 1, 2),
                feature(Feature.REMOTE_CLOSE_CALLBACK, 3),
                call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK, serial=4),
            ],
        )
        self.assertTrue(wire.protocol.keepAliveSupported)
        self.assertIs(self.successResultOf(wire.protocol.whenOpen()), wire.protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneAtATime(self) -> None:
        """
        Each call is made after the reply to the one before, and the connection is open after the
        last reply.
        """
        wire = self.connect()
        opened = wire.protocol.whenOpen()
        for _call in range(5):
            self.assertNoResult(opened)
            self.assertFalse(wire.protocol.isAlive())
            asked = wire.takeOne()
            self.assertEqual(wire.taken(), b"")
            wire.feed(answer(asked, NO_AUTHENTICATION if asked.procedure == 66 else YES))
        self.assertIs(self.successResultOf(opened), wire.protocol)
        self.assertTrue(wire.protocol.isAlive())

    def test_noFarewell(self) -> None:
        """
        A client need not register a close callback.
        """
        factory = self.factory()
        factory.registersCloseCallback = False
        wire = self.connect(factory)
        self.assertEqual(self.answerAll(wire)[-1], OPEN._replace(serial=2))
        self.assertTrue(wire.protocol.isAlive())

    def test_farewellUnsupported(self) -> None:
        """
        A server that lacks the close callback, or refuses it, can be opened.
        """
        asked = feature(Feature.REMOTE_CLOSE_CALLBACK)
        register = call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
        for answers in ({asked: NO}, {asked: UNKNOWN_PROCEDURE}, {register: UNKNOWN_PROCEDURE}):
            self.connectOpen(answers=cast(dict[Message, Answer], answers))

    def test_oldServer(self) -> None:
        """
        A server that knows neither authentication nor features can be opened, but not pinged.
        """
        wire = self.connectOpen(
            KeepAliveClientFactory(keepAlive=KEEPALIVE, clock=self.clock),
            answers={
                call(Procedure.AUTH_LIST): UNKNOWN_PROCEDURE,
                feature(Feature.PROGRAM_KEEPALIVE): UNKNOWN_PROCEDURE,
            },
        )
        self.assertFalse(wire.protocol.keepAliveSupported)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """
        When the server refuses to open, C{whenOpen} fails with its error.
        """
        error = self.failsToOpen({OPEN: REFUSED})
        assert isinstance(error, RemoteError)
        self.assertEqual(
            (error.code, error.domain, error.level, error.message),
            (9, 7, 2, "operation failed: keepalive is required here"),
        )

    def test_authentication(self) -> None:
        """
        A server that requires authentication cannot be opened; the error names the method.
        """
        error = self.failsToOpen({call(Procedure.AUTH_LIST): b"\0\0\0\1\0\0\0\1"})
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertIn("sasl", str(error))

    def test_authenticationFails(self) -> None:
        """
        C{whenOpen} fails with an error in reply to C{AUTH_LIST}, other than an old server's.
        """
        error = RemoteError(45, 7, "go away")
        self.assertEqual(str(self.failsToOpen({call(Procedure.AUTH_LIST): error})), str(error))

    def test_garbled(self) -> None:
        """
        Replies that cannot be decoded are a L{RemoteProtocolError}.
        """
        for asked in (
            call(Procedure.AUTH_LIST),
            feature(Feature.PROGRAM_KEEPALIVE),
            feature(Feature.REMOTE_CLOSE_CALLBACK),
        ):
            error = self.failsToOpen({asked: b"\0"})
            self.assertIsInstance(error, RemoteProtocolError)
            self.assertIn("the server's answer during open cannot be decoded", str(error))

    def test_timeout(self) -> None:
        """
        A connection that is not open in time is aborted.
        """
        wire = self.connect()
        opened = wire.protocol.whenOpen()
        wire.take()
        self.advance(29)
        wire.feed(PING)
        self.assertFalse(wire.closing)
        self.advance(2)
        self.assertTrue(wire.aborted)
        wire.lose()
        error = self.failureResultOf(opened, DeadlineMissed).value
        self.assertEqual(str(error), "the server did not let this client open within 30 s")

    def test_lost(self) -> None:
        """
        When the connection is lost before it is open, C{whenOpen} fails with the reason.
        """
        for reason, expected in ((None, ConnectionClosed), (ConnectionLost(), ConnectionLost)):
            wire = self.connect()
            opened = [wire.protocol.whenOpen(), wire.protocol.whenOpen()]
            wire.lose(reason)
            for each in opened:
                self.failureResultOf(each, expected)

    def test_nobodyWaits(self) -> None:
        """
        A failure to open is logged if C{whenOpen} was not called.
        """
        wire = self.connect(KeepAliveClientFactory("test:///default", clock=self.clock))
        self.answerAll(wire, {opening("test:///default"): REFUSED})
        wire.lose()
        (line,) = self.logged()
        self.assertIn("test:///default could not be opened: operation failed", line)

    def test_refusedAndStays(self) -> None:
        """
        A server that refuses to open but does not close is disconnected after a timeout.
        """
        wire = self.connect()
        opened = wire.protocol.whenOpen()
        self.answerAll(wire, {OPEN: REFUSED})
        self.advance(5)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.failureResultOf(opened, RemoteError)

    def test_keepAlive(self) -> None:
        """
        Keepalive can be set in the factory.
        """
        wire = self.connectOpen(KeepAliveClientFactory(keepAlive=KEEPALIVE, clock=self.clock))
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)


class WaysToOpenTests(ClientTestCase):
    """
    Tests for clients that open in another way.
    """

    def test_withoutAsking(self) -> None:
        """
        A client that does not ask for keepalive opens, and may not ping.
        """
        factory = self.factory()
        factory.asksForKeepAlive = False
        wire = self.connect(factory)
        calls = [each.procedure for each in self.answerAll(wire)]
        self.assertEqual(calls[:2], [Procedure.AUTH_LIST, Procedure.CONNECT_OPEN])
        self.assertTrue(wire.protocol.isAlive())
        self.assertFalse(wire.protocol.keepAliveSupported)

    def test_startsOpen(self) -> None:
        """
        With a server that has no C{CONNECT_OPEN}, a client can call at once.
        """
        factory = self.factory()
        factory.startsOpen = True
        server = KeepAliveServerFactory(programs=[Probe()], clock=self.clock, startsOpen=True)
        pair = self.pair(server, factory)
        self.assertTrue(pair.client.isAlive())
        result = pair.client.call(Probe.number, Probe.ECHO, b"abcd")
        pair.flush()
        self.assertEqual(self.successResultOf(result), b"abcd")
        closed = pair.client.close()
        pair.flush()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)


class CallTests(ClientTestCase):
    """
    Tests for calls and their replies.
    """

    def test_result(self) -> None:
        """
        A call has the given numbers and payload, and the next serial; it fires with the payload of
        the reply.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 7, b"abcd", 3)
        asked = wire.takeOne()
        self.assertEqual(asked, Message(Probe.number, 3, 7, MessageType.CALL, 5, 0, b"abcd"))
        self.assertNoResult(result)
        wire.feed(answer(asked, b"efgh"))
        self.assertEqual(self.successResultOf(result), b"efgh")

    def test_await(self) -> None:
        """
        Calls can be awaited.
        """
        wire = self.connectOpen()

        async def twice() -> bytes:
            first = await wire.protocol.call(Probe.number, Probe.ECHO, b"ab")
            return first + await wire.protocol.call(Probe.number, Probe.ECHO, b"cd")

        result = Deferred.fromCoroutine(twice())
        for _time in range(2):
            asked = wire.takeOne()
            wire.feed(answer(asked, asked.payload))
        self.assertEqual(self.successResultOf(result), b"abcd")

    def test_outOfOrder(self) -> None:
        """
        Replies may arrive in any order, and several in one read.
        """
        wire = self.connectOpen()
        results = [wire.protocol.call(Probe.number, Probe.ECHO) for _time in range(3)]
        asked = wire.take()
        wire.feed(*(answer(asked[number], bytes([number])) for number in (2, 0, 1)))
        self.assertEqual([self.successResultOf(each) for each in results], [b"\0", b"\1", b"\2"])

    def test_error(self) -> None:
        """
        An error from the server raises L{RemoteError} with its code, domain, level and message.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, Probe.FAIL)
        wire.feed(answer(wire.takeOne(), RemoteError(88, 55, "no entry", 1)))
        error = self.failureResultOf(result, RemoteError).value
        self.assertEqual(
            (error.code, error.domain, error.level, error.message), (88, 55, 1, "no entry")
        )
        self.assertIn("no entry", str(error))
        self.assertTrue(wire.protocol.isAlive())

    def test_beforeOpen(self) -> None:
        """
        Calls before the connection is open fail, and the error says what to do.
        """
        wire = self.connect()
        wire.take()
        error = self.failureResultOf(wire.protocol.call(Probe.number, 1), LocalProtocolError)
        self.assertIn("await whenOpen() first", str(error.value))
        self.assertEqual(wire.taken(), b"")

    def test_afterClose(self) -> None:
        """
        Calls after the end of the connection fail with its reason.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        self.failureResultOf(wire.protocol.call(Probe.number, 1), ConnectionLost)

    def test_lost(self) -> None:
        """
        Unanswered calls fail with the reason when the connection is lost.
        """
        wire = self.connectOpen()
        results = [wire.protocol.call(Probe.number, 1) for _time in range(2)]
        wire.lose()
        for result in results:
            self.failureResultOf(result, ConnectionClosed)

    def test_tooLarge(self) -> None:
        """
        A payload that is too large for a message fails only this call.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1, bytes(MESSAGE_MAX))
        self.failureResultOf(result, LocalProtocolError)
        self.assertEqual(wire.taken(), b"")
        self.assertTrue(wire.protocol.isAlive())

    def test_badNumbers(self) -> None:
        """
        Numbers that do not fit into a message fail only this call.
        """
        wire = self.connectOpen()
        for program, procedure, version in ((-1, 1, 1), (1, 2**31, 1), (1, 1, 2**32)):
            result = wire.protocol.call(program, procedure, version=version)
            self.failureResultOf(result, LocalProtocolError)
        self.assertEqual(wire.taken(), b"")
        self.assertTrue(wire.protocol.isAlive())

    def test_serialsWrap(self) -> None:
        """
        After 2^32 calls, serials start again at 0.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto._replies.serial = 2**32 - 1
        results = [wire.protocol.call(Probe.number, 1) for _time in range(2)]
        asked = wire.take()
        self.assertEqual([each.serial for each in asked], [2**32 - 1, 0])
        wire.feed(*map(answer, asked))
        for result in results:
            self.successResultOf(result)

    def test_cancelled(self) -> None:
        """
        A call can be cancelled; its reply is then ignored, even if it is an error.
        """
        for late in (b"abcd", REFUSED):
            wire = self.connectOpen()
            result = wire.protocol.call(Probe.number, 1)
            result.cancel()
            self.failureResultOf(result, CancelledError)
            wire.feed(answer(wire.takeOne(), late))
            self.assertTrue(wire.protocol.isAlive())

    def test_cancelledAndLost(self) -> None:
        """
        A cancelled call is unaffected by the end of the connection.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1)
        result.cancel()
        wire.lose()
        self.failureResultOf(result, CancelledError)


class OddInputTests(ClientTestCase):
    """
    Tests for invalid messages from the server, which close the connection with an error about them.
    """

    def test_replyToNothing(self) -> None:
        """
        The error for a reply without a call has its serial and procedure.
        """
        wire = self.connectOpen()
        wire.feed(answer(call(59, serial=1234)))
        self.assertRemoteProtocolError(wire, "serial 1234", "procedure 59", "answers no call")

    def test_secondReply(self) -> None:
        """
        A second reply to a call is a reply without a call.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1)
        reply = answer(wire.takeOne())
        wire.feed(reply, reply)
        self.successResultOf(result)
        self.assertRemoteProtocolError(wire, "serial 5")

    def test_replyToAnother(self) -> None:
        """
        The error for a reply from another procedure or program has the procedure that was called;
        the call fails with this error.
        """
        for program, procedure in ((Probe.number, 8), (QEMU_PROGRAM, 7)):
            wire = self.connectOpen()
            result = wire.protocol.call(Probe.number, 7)
            wire.feed(answer(wire.takeOne()._replace(program=program, procedure=procedure)))
            reason = self.assertRemoteProtocolError(wire, "serial 5", "to a call of procedure 7")
            self.assertIs(self.failureResultOf(result).value, reason)

    def test_status(self) -> None:
        """
        A reply with another status than OK and ERROR is invalid.
        """
        for status in (2, 3, -1):
            wire = self.connectOpen()
            wire.protocol.call(Probe.number, 7).addErrback(lambda _failure: None)
            asked = wire.takeOne()
            wire.feed(asked._replace(type=MessageType.REPLY, status=status))
            self.assertRemoteProtocolError(wire, f"a reply with status {status}")

    def test_errorGarbled(self) -> None:
        """
        An error that cannot be decoded closes the connection, and the call fails with the reason.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 7)
        wire.feed(wire.takeOne().reply(b"\0", Status.ERROR))
        self.assertRemoteProtocolError(wire, "cannot be decoded")
        self.failureResultOf(result, RemoteProtocolError)

    def test_types(self) -> None:
        """
        Calls, streams and messages with file descriptors are invalid.
        """
        for kind in (0, 3, 4, 5, 6, 7):
            wire = self.connectOpen()
            wire.feed(call(7, program=Probe.number, kind=kind))
            self.assertRemoteProtocolError(wire, f"type {kind}", "procedure 7", "0x2f000001")

    def test_keepAliveAsReply(self) -> None:
        """
        A keepalive message of type reply is a reply without a call.
        """
        wire = self.connectOpen()
        wire.feed(call(2, serial=77, program=KEEPALIVE_PROGRAM, kind=MessageType.REPLY))
        self.assertRemoteProtocolError(wire, "serial 77")

    def test_length(self) -> None:
        """
        The error for an invalid length word has the length.
        """
        wire = self.connectOpen()
        wire.feed(bytes(4))
        self.assertRemoteProtocolError(wire, "a message of 0 bytes")

    def test_nothingIsLogged(self) -> None:
        """
        The connection does not log why it was closed: that is left to the application.
        """
        wire = self.connectOpen()
        wire.feed(bytes(4))
        wire.lose()
        self.assertEqual(self.logged(), [])

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Arbitrary bytes, split anywhere and at any time, raise no exception: the client continues or
        closes the connection, C{whenOpen} and C{whenClosed} fire, and no timer is left.
        """
        clock = Clock()
        factory = KeepAliveClientFactory(keepAlive=KEEPALIVE, clock=clock)
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveClientProtocol)
        wire = Wire(protocol)
        opened = protocol.whenOpen()
        if data.draw(st.booleans()):
            self.answerAll(wire)
        closed = protocol.whenClosed()
        near = messages().map(lambda each: each._replace(serial=0, type=1, procedure=66))
        mixed = st.lists(garbage() | (near | messages()).map(packMessage), max_size=5)
        for piece in data.draw(mixed.map(b"".join).flatmap(pieces)):
            wire.feed(piece)
        wire.lose()
        self.assertIsInstance(self.successResultOf(closed), Exception)
        if not isinstance(opened.result, KeepAliveClientProtocol):
            self.failureResultOf(opened)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class SetKeepAliveTests(ClientTestCase):
    """
    Tests for L{KeepAliveClientProtocol.setKeepAlive}.
    """

    def test_shortestInterval(self) -> None:
        """
        The shortest interval except 0 is 0.1 seconds, for a connection, a factory and C{connect}.
        """
        wire = self.connectOpen()
        wire.protocol.setKeepAlive(0.1, 2)
        error = self.assertRaises(ValueError, wire.protocol.setKeepAlive, 0.099, 2)
        self.assertIn("at least 0.1 seconds", str(error))
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0.1, 2))
        self.assertRaises(ValueError, KeepAliveClientFactory, keepAlive=KeepAlive(0.099, 2))
        uri = "test+tcp://127.0.0.1/default"
        failing = connect(self.clock, uri, keepAlive=KeepAlive(0.099, 2))
        self.failureResultOf(failing, ValueError)

    def test_hardlyAnyInterval(self) -> None:
        """
        With a tiny interval there is one ping for each turn of the pacemaker, and a server that
        answers is alive.
        """
        for interval in (1e-300, 1e-16, 1e-6):
            wire = self.connectOpen()
            wire.protocol._kaproto.startKeepAlive(KeepAlive(interval, 3))
            for _turn in range(64):
                self.clock.advance(TICK)
                self.assertEqual(wire.taken(), PING)
                wire.feed(PONG)
            self.advance(1)
            self.assertEqual(wire.taken(), PING * 3)
            self.assertTrue(wire.aborted)
            wire.lose()

    def test_onTheWire(self) -> None:
        """
        A silent server is pinged after each interval, C{count} times, and is then disconnected;
        pending calls fail with L{KeepAliveTimeout}.
        """
        wire = self.connectOpen()
        wire.protocol.setKeepAlive(1, 2)
        hostname = wire.protocol.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_HOSTNAME)
        wire.take()
        closed = wire.protocol.whenClosed()
        for pings in (0, 1, 2):
            self.assertEqual(wire.taken(), PING * (pings > 0))
            self.advance(1)
        self.advance(0.1)
        self.assertTrue(wire.aborted)
        self.assertFalse(wire.protocol.isAlive())
        self.assertNoResult(closed)
        wire.lose()
        reason = self.successResultOf(closed)
        assert isinstance(reason, KeepAliveTimeout)
        self.assertEqual((reason.interval, reason.count), (1, 2))
        self.assertIs(self.failureResultOf(hostname).value, reason)

    def test_replaced(self) -> None:
        """
        A second call replaces the settings of the first at once.
        """
        wire = self.connectOpen()
        wire.protocol.setKeepAlive(100, 5)
        self.advance(0.5)
        wire.protocol.setKeepAlive(0.75, 3)
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0.75, 3))
        self.advance(0.375)
        self.assertEqual(wire.taken(), PING)
        wire.feed(PONG)
        wire.protocol.setKeepAlive(100, 5)
        self.advance(5)
        self.assertEqual(wire.taken(), b"")

    def test_zeroStops(self) -> None:
        """
        A zero in either argument stops keepalive, which can then be started again.
        """
        wire = self.connectOpen()
        for interval, count in ((0, 2), (1, 0), (0, 0)):
            wire.protocol.setKeepAlive(1, 2)
            self.advance(1.1)
            self.assertEqual(wire.taken(), PING)
            wire.feed(PONG)
            wire.protocol.setKeepAlive(interval, count)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))

    def test_bad(self) -> None:
        """
        Invalid arguments are refused before anything changes, even if keepalive is unsupported or
        the connection lost.
        """
        wire = self.connectOpen()
        wire.protocol.setKeepAlive(1, 2)
        lost = self.connectOpen()
        lost.lose()
        without = self.connectOpen(answers={feature(Feature.PROGRAM_KEEPALIVE): NO})
        nan, inf = float("nan"), float("inf")
        bad: list[tuple[type[Exception], object, object]] = [
            *((ValueError, interval, 2) for interval in (-1, -0.5, nan, inf, -inf, 2147484)),
            *((ValueError, interval, 2) for interval in (1e-300, 0.001, 0.0999)),
            *((TypeError, interval, 2) for interval in ("5", None, True, 1j)),
            (ValueError, 1, -1),
            *((TypeError, 1, count) for count in (1.5, 2.0, "2", None, True)),
        ]
        for error, interval, count in bad:
            for each in (wire, lost, without):
                self.assertRaises(error, each.protocol.setKeepAlive, interval, count)
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(1, 2))
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)

    def test_unsupported(self) -> None:
        """
        A server that answered the feature query with 0 or an error cannot be pinged.
        """
        for no in (NO, UNKNOWN_PROCEDURE):
            wire = self.connectOpen(answers={feature(Feature.PROGRAM_KEEPALIVE): no})
            error = self.assertRaises(KeepAliveUnsupported, wire.protocol.setKeepAlive, 1, 2)
            self.assertIn("did not say that it supports keepalive", str(error))
            self.advance(5)
            self.assertEqual(wire.taken(), b"")
            wire.feed(PING)
            self.assertEqual(wire.taken(), PONG)

    def test_beforeOpen(self) -> None:
        """
        A server cannot be pinged before it has answered the feature query.
        """
        wire = self.connect()
        self.assertRaises(KeepAliveUnsupported, wire.protocol.setKeepAlive, 1, 2)

    def test_closed(self) -> None:
        """
        After the connection was lost, C{setKeepAlive} raises the reason.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        self.assertRaises(ConnectionLost, wire.protocol.setKeepAlive, 1, 2)

    def test_latency(self) -> None:
        """
        The latency is the time between the latest ping and its pong.
        """
        wire = self.connectOpen()
        wire.protocol.setKeepAlive(1, 2)
        self.assertIsNone(wire.protocol.latency)
        while wire.taken() != PING:
            self.clock.advance(1 / 64)
        self.clock.advance(0.125)
        wire.feed(PONG)
        self.assertEqual(wire.protocol.latency, 0.125)

    def test_ping(self) -> None:
        """
        C{ping} fires with the time until the pong; one pong answers all earlier pings, even those
        whose Deferred was cancelled.
        """
        wire = self.connectOpen()
        first, second = wire.protocol.ping(), wire.protocol.ping()
        given = wire.protocol.ping().addTimeout(0.0625, self.clock)
        self.assertEqual(wire.taken(), PING * 3)
        self.clock.advance(0.125)
        self.failureResultOf(given, DeferredTimeout)
        self.assertNoResult(first)
        wire.feed(PONG)
        self.assertEqual(self.successResultOf(first), 0.125)
        self.assertEqual(self.successResultOf(second), 0.125)
        wire.feed(PONG)
        last = wire.protocol.ping()
        wire.lose(ConnectionLost())
        self.failureResultOf(last, ConnectionLost)
        self.failureResultOf(wire.protocol.ping(), ConnectionLost)

    def test_pingUnsupported(self) -> None:
        """
        C{ping} fails if the server has not answered the feature query, or lacks keepalive.
        """
        self.failureResultOf(self.connect().protocol.ping(), KeepAliveUnsupported)
        wire = self.connectOpen(answers={feature(Feature.PROGRAM_KEEPALIVE): NO})
        self.failureResultOf(wire.protocol.ping(), KeepAliveUnsupported)
        self.assertEqual(wire.taken(), b"")


class CloseTests(ClientTestCase):
    """
    Tests for the end of a connection, closed by either side.
    """

    def test_close(self) -> None:
        """
        C{close} calls C{CONNECT_CLOSE}, closes the connection after the reply, and fires when the
        connection is lost.
        """
        wire = self.connectOpen()
        closed = wire.protocol.close()
        self.assertFalse(wire.protocol.isAlive())
        asked = wire.takeOne()
        self.assertEqual(asked, call(Procedure.CONNECT_CLOSE, serial=5))
        self.assertFalse(wire.closing)
        wire.feed(answer(asked))
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        self.assertNoResult(closed)
        wire.lose()
        reason = self.successResultOf(closed)
        assert isinstance(reason, ConnectionClosed)
        self.assertEqual(reason.reason, CloseReason.CLIENT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hungServer(self) -> None:
        """
        A server that does not reply to C{CONNECT_CLOSE} is disconnected after C{closeTimeout}.
        """
        wire = self.connectOpen()
        closed = wire.protocol.close()
        self.clock.advance(4.9)
        self.assertFalse(wire.closing)
        self.clock.advance(0.2)
        self.assertTrue(wire.closing)
        wire.lose()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)

    def test_goodbyeRefused(self) -> None:
        """
        The connection is closed even if the server replies to C{CONNECT_CLOSE} with an error.
        """
        wire = self.connectOpen()
        wire.protocol.close()
        wire.feed(answer(wire.takeOne(), UNKNOWN_PROCEDURE))
        self.assertTrue(wire.closing)

    def test_serverClosesFirst(self) -> None:
        """
        The server may close without a reply to C{CONNECT_CLOSE}.
        """
        wire = self.connectOpen()
        closed = wire.protocol.close()
        wire.lose()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closedAlready(self) -> None:
        """
        C{close} on a lost connection fires with the reason.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        closed = wire.protocol.close()
        self.assertEqual(wire.taken(), b"")
        self.assertIsInstance(self.successResultOf(closed), ConnectionLost)

    def test_twice(self) -> None:
        """
        A second C{close} fires at the same time as the first, and does not cut it short.
        """
        wire = self.connectOpen()
        first = wire.protocol.close()
        second = wire.protocol.close()
        asked = wire.takeOne()
        self.assertFalse(wire.closing)
        wire.feed(answer(asked))
        third = wire.protocol.close()
        wire.lose()
        fourth = wire.protocol.close()
        reasons = {self.successResultOf(each) for each in (first, second, third, fourth)}
        self.assertEqual(len(reasons), 1)

    def test_whileClosing(self) -> None:
        """
        While the connection is closing, C{call} and C{whenOpen} fail, and the error says why.
        """
        wire = self.connectOpen()
        wire.protocol.close()
        error = self.failureResultOf(wire.protocol.call(Probe.number, 1)).value
        self.assertNotIn("not open yet", str(error))
        opened = wire.protocol.whenOpen()
        wire.lose()
        self.failureResultOf(opened, ConnectionClosed)

    def test_beforeOpen(self) -> None:
        """
        A connection can be closed before it is open, and C{whenOpen} then fails.
        """
        wire = self.connect()
        opened = wire.protocol.whenOpen()
        wire.take()
        closed = wire.protocol.close()
        self.assertEqual(wire.taken(), b"")
        self.assertTrue(wire.closing)
        wire.lose()
        self.failureResultOf(opened, ConnectionClosed)
        self.successResultOf(closed)

    def test_whenClosed(self) -> None:
        """
        C{whenClosed} fires after all calls have failed, with the same reason for all callers, and
        at once when the connection is already lost.
        """
        wire = self.connectOpen()
        order: list[str] = []
        wire.protocol.whenClosed().addCallback(lambda _reason: order.append("closed"))
        wire.protocol.call(Probe.number, 1).addErrback(lambda _failure: order.append("call"))
        early = wire.protocol.whenClosed()
        wire.protocol._kaproto.abort(ConnectionClosed("enough"))
        self.assertNoResult(early)
        wire.lose()
        self.assertEqual(order, ["call", "closed"])
        late = wire.protocol.whenClosed()
        self.assertIs(self.successResultOf(late), self.successResultOf(early))

    def test_serverSays(self) -> None:
        """
        When the server sends its reason to close, that becomes the connection's reason, with
        libvirt's number.
        """
        for number, words in (
            (CloseReason.ERROR, "an error"),
            (CloseReason.EOF, "end of file"),
            (CloseReason.KEEPALIVE, "a keepalive timeout"),
            (CloseReason.CLIENT, "the client's own request"),
            (77, "reason 77"),
        ):
            wire = self.connectOpen()
            wire.feed(closing(number))
            self.assertTrue(wire.protocol.isAlive())
            hostname = wire.protocol.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_HOSTNAME)
            wire.lose()
            reason = self.successResultOf(wire.protocol.whenClosed())
            assert isinstance(reason, ConnectionClosed)
            self.assertEqual(reason.reason, number)
            self.assertEqual(str(reason), f"the server closed the connection because of {words}")
            self.assertIs(self.failureResultOf(hostname).value, reason)
            self.assertIs(self.failureResultOf(wire.protocol.whenOpen()).value, reason)

    def test_serverSaysNothing(self) -> None:
        """
        A reason that cannot be decoded closes the connection.
        """
        wire = self.connectOpen()
        wire.feed(event(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, b"\0"))
        self.assertRemoteProtocolError(wire, "cannot be decoded")

    def test_serverSaysAndBreaks(self) -> None:
        """
        The server's reason holds even if the connection is then reset, as happens when the server
        has not read everything.
        """
        wire = self.connectOpen()
        wire.feed(closing(CloseReason.KEEPALIVE))
        wire.lose(ConnectionLost())
        reason = self.successResultOf(wire.protocol.whenClosed())
        assert isinstance(reason, ConnectionClosed)
        self.assertEqual(reason.reason, CloseReason.KEEPALIVE)

    def test_ownReasonStays(self) -> None:
        """
        This side's reason to close, such as a keepalive timeout, takes precedence over the
        server's.
        """
        wire = self.connectOpen()
        wire.feed(closing(1))
        wire.protocol._kaproto.abort(KeepAliveTimeout(1, 2, 3))
        wire.lose()
        self.assertIsInstance(self.successResultOf(wire.protocol.whenClosed()), KeepAliveTimeout)


class ListenTests(ClientTestCase):
    """
    Tests for messages that are not replies to calls.
    """

    def test_listen(self) -> None:
        """
        A listener is called with the procedure and the payload of its program's messages; a second
        listener replaces it.
        """
        wire = self.connectOpen()
        heard: list[tuple[str, int, bytes]] = []
        wire.protocol.listen(Probe.number, lambda *what: heard.append(("first", *what)))
        wire.feed(event(9, b"abcd", Probe.number), event(9, b"", QEMU_PROGRAM))
        wire.protocol.listen(Probe.number, lambda *what: heard.append(("second", *what)))
        wire.feed(event(8, b"", Probe.number))
        self.assertEqual(heard, [("first", 9, b"abcd"), ("second", 8, b"")])

    def test_nobodyListens(self) -> None:
        """
        Messages without a listener are ignored.
        """
        wire = self.connectOpen()
        wire.feed(event(9, b"abcd", Probe.number), event(318), event(362, b"", Probe.number))
        self.assertTrue(wire.protocol.isAlive())
        self.assertEqual(self.logged(), [])

    def test_remoteProgram(self) -> None:
        """
        The events of the remote program can be listened to, including the server's reason to close.
        """
        wire = self.connectOpen()
        heard: list[int] = []
        wire.protocol.listen(REMOTE_PROGRAM, lambda procedure, _payload: heard.append(procedure))
        wire.feed(event(318), closing(1))
        self.assertEqual(heard, [318, 362])


class AgainstServerTests(ClientTestCase):
    """
    Tests for the client and kaproto's own server.
    """

    def test_calls(self) -> None:
        """
        Calls and events arrive.
        """
        server = KeepAliveServerFactory(programs=[Probe()], clock=self.clock)
        pair = self.pair(server)
        self.assertTrue(pair.client.isAlive())
        heard: list[bytes] = []
        pair.client.listen(Probe.number, lambda _procedure, payload: heard.append(payload))
        result = pair.client.call(Probe.number, Probe.ECHO, b"abcd")
        pair.server.sendEvent(Probe.number, 9, b"efgh")
        pair.flush()
        self.assertEqual(self.successResultOf(result), b"abcd")
        self.assertEqual(heard, [b"efgh"])

    def test_close(self) -> None:
        """
        The server understands the client's C{close}.
        """
        pair = self.pair()
        closed = pair.client.close()
        pair.flush()
        self.successResultOf(closed)
        self.assertTrue(pair.serverTransport.disconnected)

    def test_drained(self) -> None:
        """
        When the server shuts down, the client gets its reason.
        """
        pair = self.pair()
        pair.server.factory.drain()
        pair.flush()
        reason = self.successResultOf(pair.client.whenClosed())
        self.assertIn("end of file", str(reason))
