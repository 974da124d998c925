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
    How a connection comes to be open.
    """

    def test_order(self) -> None:
        """
        A client authenticates, asks for keepalive, opens, and asks to be told why the server
        closes, one after the other, with serials from 0.
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
        Nothing is asked before the answer to what was asked before, and the connection is open
        when all is answered.
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
        A client need not want to know why the server closes.
        """
        factory = self.factory()
        factory.registersCloseCallback = False
        wire = self.connect(factory)
        self.assertEqual(self.answerAll(wire)[-1], OPEN._replace(serial=2))
        self.assertTrue(wire.protocol.isAlive())

    def test_farewellUnsupported(self) -> None:
        """
        A server without the close callback, or that refuses it, is opened all the same.
        """
        asked = feature(Feature.REMOTE_CLOSE_CALLBACK)
        register = call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
        for answers in ({asked: NO}, {asked: UNKNOWN_PROCEDURE}, {register: UNKNOWN_PROCEDURE}):
            self.connectOpen(answers=cast(dict[Message, Answer], answers))

    def test_oldServer(self) -> None:
        """
        A server that knows neither authentication nor features is opened all the same, and may
        not be pinged.
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
        When the server refuses, C{whenOpen} fails with its error.
        """
        error = self.failsToOpen({OPEN: REFUSED})
        assert isinstance(error, RemoteError)
        self.assertEqual(
            (error.code, error.domain, error.level, error.message),
            (9, 7, 2, "operation failed: keepalive is required here"),
        )

    def test_authentication(self) -> None:
        """
        A server that wants authentication cannot be opened, and the error says what it wants.
        """
        error = self.failsToOpen({call(Procedure.AUTH_LIST): b"\0\0\0\1\0\0\0\1"})
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertIn("sasl", str(error))

    def test_authenticationFails(self) -> None:
        """
        An error at the first question that does not come from an old server is the end.
        """
        error = RemoteError(45, 7, "go away")
        self.assertEqual(str(self.failsToOpen({call(Procedure.AUTH_LIST): error})), str(error))

    def test_garbled(self) -> None:
        """
        Answers during open that cannot be decoded are the server's mistake.
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
        A server that does not let the client open in time is given up.
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
        A connection that is lost before it is open cannot be opened.
        """
        for reason, expected in ((None, ConnectionClosed), (ConnectionLost(), ConnectionLost)):
            wire = self.connect()
            opened = [wire.protocol.whenOpen(), wire.protocol.whenOpen()]
            wire.lose(reason)
            for each in opened:
                self.failureResultOf(each, expected)

    def test_nobodyWaits(self) -> None:
        """
        When nobody waits for a connection to be open, that it could not be opened is logged.
        """
        wire = self.connect(KeepAliveClientFactory("test:///default", clock=self.clock))
        self.answerAll(wire, {opening("test:///default"): REFUSED})
        wire.lose()
        (line,) = self.logged()
        self.assertIn("test:///default could not be opened: operation failed", line)

    def test_refusedAndStays(self) -> None:
        """
        A server that refuses and does not close is not waited for.
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
        A factory may say how closely its connections watch their server from the beginning.
        """
        wire = self.connectOpen(KeepAliveClientFactory(keepAlive=KEEPALIVE, clock=self.clock))
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)


class WaysToOpenTests(ClientTestCase):
    """
    Clients that open differently.
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
        Where no C{CONNECT_OPEN} is known, a client calls at once.
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
    Calls and their answers.
    """

    def test_result(self) -> None:
        """
        A call has the numbers and the payload it is given and the next serial, and fires with
        the payload of its reply.
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
        Replies may come in any order, and several in one read.
        """
        wire = self.connectOpen()
        results = [wire.protocol.call(Probe.number, Probe.ECHO) for _time in range(3)]
        asked = wire.take()
        wire.feed(*(answer(asked[number], bytes([number])) for number in (2, 0, 1)))
        self.assertEqual([self.successResultOf(each) for each in results], [b"\0", b"\1", b"\2"])

    def test_error(self) -> None:
        """
        An error from the server is an exception that has its code, domain, level and message.
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
        Before the connection is open there is nothing to call, and the error says what to do.
        """
        wire = self.connect()
        wire.take()
        error = self.failureResultOf(wire.protocol.call(Probe.number, 1), LocalProtocolError)
        self.assertIn("await whenOpen() first", str(error.value))
        self.assertEqual(wire.taken(), b"")

    def test_afterClose(self) -> None:
        """
        Calls fail with the reason for which the connection was closed.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        self.failureResultOf(wire.protocol.call(Probe.number, 1), ConnectionLost)

    def test_lost(self) -> None:
        """
        Calls that are not answered when the connection is lost fail with the reason.
        """
        wire = self.connectOpen()
        results = [wire.protocol.call(Probe.number, 1) for _time in range(2)]
        wire.lose()
        for result in results:
            self.failureResultOf(result, ConnectionClosed)

    def test_tooLarge(self) -> None:
        """
        A payload that does not fit into a message fails the call, and nothing else.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1, bytes(MESSAGE_MAX))
        self.failureResultOf(result, LocalProtocolError)
        self.assertEqual(wire.taken(), b"")
        self.assertTrue(wire.protocol.isAlive())

    def test_badNumbers(self) -> None:
        """
        Numbers that do not fit into a message fail the call, and nothing else.
        """
        wire = self.connectOpen()
        for program, procedure, version in ((-1, 1, 1), (1, 2**31, 1), (1, 1, 2**32)):
            result = wire.protocol.call(program, procedure, version=version)
            self.failureResultOf(result, LocalProtocolError)
        self.assertEqual(wire.taken(), b"")
        self.assertTrue(wire.protocol.isAlive())

    def test_serialsWrap(self) -> None:
        """
        After 2^32 calls the serials begin again.
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
        A call may be given up; its answer is swallowed when it comes after all, good or bad.
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
        A call that was given up does not care for the end of the connection.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1)
        result.cancel()
        wire.lose()
        self.failureResultOf(result, CancelledError)


class OddInputTests(ClientTestCase):
    """
    What no server may send closes the connection with an error that names it.
    """

    def test_replyToNothing(self) -> None:
        """
        A reply that answers no call is named by its serial and procedure.
        """
        wire = self.connectOpen()
        wire.feed(answer(call(59, serial=1234)))
        self.assertRemoteProtocolError(wire, "serial 1234", "procedure 59", "answers no call")

    def test_secondReply(self) -> None:
        """
        A second reply to a call answers no call.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 1)
        reply = answer(wire.takeOne())
        wire.feed(reply, reply)
        self.successResultOf(result)
        self.assertRemoteProtocolError(wire, "serial 5")

    def test_replyToAnother(self) -> None:
        """
        A reply from another procedure or program than was called is named, with what was called;
        the call fails with that.
        """
        for program, procedure in ((Probe.number, 8), (QEMU_PROGRAM, 7)):
            wire = self.connectOpen()
            result = wire.protocol.call(Probe.number, 7)
            wire.feed(answer(wire.takeOne()._replace(program=program, procedure=procedure)))
            reason = self.assertRemoteProtocolError(wire, "serial 5", "to a call of procedure 7")
            self.assertIs(self.failureResultOf(result).value, reason)

    def test_status(self) -> None:
        """
        A reply is good or an error and nothing else.
        """
        for status in (2, 3, -1):
            wire = self.connectOpen()
            wire.protocol.call(Probe.number, 7).addErrback(lambda _failure: None)
            asked = wire.takeOne()
            wire.feed(asked._replace(type=MessageType.REPLY, status=status))
            self.assertRemoteProtocolError(wire, f"a reply with status {status}")

    def test_errorGarbled(self) -> None:
        """
        An error that cannot be decoded is the server's mistake, and no answer.
        """
        wire = self.connectOpen()
        result = wire.protocol.call(Probe.number, 7)
        wire.feed(wire.takeOne().reply(b"\0", Status.ERROR))
        self.assertRemoteProtocolError(wire, "cannot be decoded")
        self.failureResultOf(result, RemoteProtocolError)

    def test_types(self) -> None:
        """
        A client has no use for calls, streams and file descriptors.
        """
        for kind in (0, 3, 4, 5, 6, 7):
            wire = self.connectOpen()
            wire.feed(call(7, program=Probe.number, kind=kind))
            self.assertRemoteProtocolError(wire, f"type {kind}", "procedure 7", "0x2f000001")

    def test_keepAliveAsReply(self) -> None:
        """
        A keepalive message that claims to be a reply answers no call.
        """
        wire = self.connectOpen()
        wire.feed(call(2, serial=77, program=KEEPALIVE_PROGRAM, kind=MessageType.REPLY))
        self.assertRemoteProtocolError(wire, "serial 77")

    def test_length(self) -> None:
        """
        A length word that no message can have is named.
        """
        wire = self.connectOpen()
        wire.feed(bytes(4))
        self.assertRemoteProtocolError(wire, "a message of 0 bytes")

    def test_nothingIsLogged(self) -> None:
        """
        Why a connection was closed is for whoever uses it to log.
        """
        wire = self.connectOpen()
        wire.feed(bytes(4))
        wire.lose()
        self.assertEqual(self.logged(), [])

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Whatever bytes come, in whatever pieces and however far the client has come, nothing is
        raised: the client goes on, or it closes for what came; no timer is left, and whoever
        waits is told.
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
    L{KeepAliveClientProtocol.setKeepAlive}.
    """

    def test_shortestInterval(self) -> None:
        """
        Ten pings a second are allowed, and no more are, for as long as the interval is above 0;
        nor can a factory be made that would send more.
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
        However short the interval, there is one ping in a turn of the pacemaker's and no more, and
        a server that answers is alive.
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
        A silent server is pinged after each interval, count times, and is then aborted; whoever
        waits learns of the L{KeepAliveTimeout}.
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
        A second call takes the place of the first at once.
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
        A zero in either argument stops a running keepalive, and it can be started again.
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
        What is no interval or no count is refused before anything changes, also where keepalive
        is unsupported or the connection gone.
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
        A server that answered 0, or an error, to the feature check may not be pinged.
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
        A server that has not been asked may not be pinged.
        """
        wire = self.connect()
        self.assertRaises(KeepAliveUnsupported, wire.protocol.setKeepAlive, 1, 2)

    def test_closed(self) -> None:
        """
        When the connection is gone, the reason is raised.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        self.assertRaises(ConnectionLost, wire.protocol.setKeepAlive, 1, 2)

    def test_latency(self) -> None:
        """
        The latency is the time the latest ping took to be answered.
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
        A single ping fires with the time its answer took; one answer counts for all pings before
        it.  One that nobody waits for any more is no obstacle.
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
        A server that has not been asked, or has no keepalive, is not pinged.
        """
        self.failureResultOf(self.connect().protocol.ping(), KeepAliveUnsupported)
        wire = self.connectOpen(answers={feature(Feature.PROGRAM_KEEPALIVE): NO})
        self.failureResultOf(wire.protocol.ping(), KeepAliveUnsupported)
        self.assertEqual(wire.taken(), b"")


class CloseTests(ClientTestCase):
    """
    The end of a connection, from this side or the other.
    """

    def test_close(self) -> None:
        """
        A client says goodbye, and closes when that has been answered.  Whoever waits is told
        when the connection is gone.
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
        A server that does not answer a goodbye is not waited for longer than C{closeTimeout}.
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
        A server that answers a goodbye with an error is left all the same.
        """
        wire = self.connectOpen()
        wire.protocol.close()
        wire.feed(answer(wire.takeOne(), UNKNOWN_PROCEDURE))
        self.assertTrue(wire.closing)

    def test_serverClosesFirst(self) -> None:
        """
        A server may close when it hears the goodbye, without an answer.
        """
        wire = self.connectOpen()
        closed = wire.protocol.close()
        wire.lose()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closedAlready(self) -> None:
        """
        What is closed already need not be closed.
        """
        wire = self.connectOpen()
        wire.lose(ConnectionLost())
        closed = wire.protocol.close()
        self.assertEqual(wire.taken(), b"")
        self.assertIsInstance(self.successResultOf(closed), ConnectionLost)

    def test_twice(self) -> None:
        """
        To close again is to wait for the same end: it does not cut the goodbye short.
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
        A connection that is closing takes no more calls and does not come to be open, and says
        so.
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
        A connection may be closed before it is open, which it then never is.
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
        C{whenClosed} fires when the connection is gone, after the calls have failed, with the
        same reason for everybody, and afterwards at once.
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
        When the server says why it closes, that is the reason, in words and in libvirt's number.
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
        When the server says why it closes in a way that cannot be read, that closes it.
        """
        wire = self.connectOpen()
        wire.feed(event(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, b"\0"))
        self.assertRemoteProtocolError(wire, "cannot be decoded")

    def test_serverSaysAndBreaks(self) -> None:
        """
        What the server said is the reason also when the connection then breaks, as it does when
        the server had not read everything.
        """
        wire = self.connectOpen()
        wire.feed(closing(CloseReason.KEEPALIVE))
        wire.lose(ConnectionLost())
        reason = self.successResultOf(wire.protocol.whenClosed())
        assert isinstance(reason, ConnectionClosed)
        self.assertEqual(reason.reason, CloseReason.KEEPALIVE)

    def test_ownReasonStays(self) -> None:
        """
        What this side closes for, such as the server's death, is not covered up by what the
        server had said.
        """
        wire = self.connectOpen()
        wire.feed(closing(1))
        wire.protocol._kaproto.abort(KeepAliveTimeout(1, 2, 3))
        wire.lose()
        self.assertIsInstance(self.successResultOf(wire.protocol.whenClosed()), KeepAliveTimeout)


class ListenTests(ClientTestCase):
    """
    Messages that answer no call.
    """

    def test_listen(self) -> None:
        """
        A listener is called with the procedure and the payload of its program's messages; a
        second listener takes its place.
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
        What nobody listens to is passed over.
        """
        wire = self.connectOpen()
        wire.feed(event(9, b"abcd", Probe.number), event(318), event(362, b"", Probe.number))
        self.assertTrue(wire.protocol.isAlive())
        self.assertEqual(self.logged(), [])

    def test_remoteProgram(self) -> None:
        """
        The events of the remote program can be listened to, the server's last words included.
        """
        wire = self.connectOpen()
        heard: list[int] = []
        wire.protocol.listen(REMOTE_PROGRAM, lambda procedure, _payload: heard.append(procedure))
        wire.feed(event(318), closing(1))
        self.assertEqual(heard, [318, 362])


class AgainstServerTests(ClientTestCase):
    """
    The client and this project's own server.
    """

    def test_calls(self) -> None:
        """
        Calls and events get through.
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
        A goodbye is understood.
        """
        pair = self.pair()
        closed = pair.client.close()
        pair.flush()
        self.successResultOf(closed)
        self.assertTrue(pair.serverTransport.disconnected)

    def test_drained(self) -> None:
        """
        When the server shuts down, the client knows why.
        """
        pair = self.pair()
        pair.server.factory.drain()
        pair.flush()
        reason = self.successResultOf(pair.client.whenClosed())
        self.assertIn("end of file", str(reason))
