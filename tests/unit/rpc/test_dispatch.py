"""
Tests for L{kaproto.rpc.dispatch}.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import RemoteError
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Optional, Policy
from kaproto.program import Program, procedure
from kaproto.rpc.dispatch import Calls
from kaproto.rpc.negotiation import Event, ServerNegotiation
from kaproto.rpc.policycheck import PolicyCheck
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import MESSAGE_MAX, Message, MessageReader, MessageType, Status, rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure
from kaproto.wire.xdr import STRING_MAX, Packer, PackError
from tests.support import KEEPALIVE, Probe, Wire, call, errorOf

LIMITS = Limits()


@attrs.define
class FakeServer:
    """
    The part of the factory that L{Calls} uses.
    """

    programs: dict[int, Any]
    limits: Limits = LIMITS


def readyNegotiation(policy: Policy) -> ServerNegotiation:
    """
    @return: the negotiation of a client that may open.
    """
    negotiation = ServerNegotiation(Peer(), PolicyCheck(policy))
    negotiation.advance(Event.ACCEPTED)
    return negotiation


class FakeConnection:
    """
    The part of a connection that L{Calls} uses; it records replies.

    @ivar replies: all replies.
    @ivar atOnce: the replies sent with C{sendNow}.
    @ivar answered: the number of answered calls.
    """

    def __init__(self) -> None:
        self.negotiation = readyNegotiation(Disable())
        self.replies: list[Message] = []
        self.atOnce: list[Message] = []
        self.answered = 0
        self.hooks = object()

    def send(self, data: bytes, /) -> None:
        """
        Record replies.
        """
        reader = MessageReader()
        reader.feed(data)
        self.replies += iter(reader.next, None)

    def sendNow(self, data: bytes, /) -> None:
        """
        Record a reply that is sent at once.
        """
        self.send(data)
        self.atOnce.append(self.replies[-1])

    def callAnswered(self) -> None:
        """
        Count an answered call.
        """
        self.answered += 1


class Unpackable(Program):
    """
    A program with invalid results.

    @ivar waiting: the result of C{later}.
    """

    number = 0x2F000002
    OVERSIZE = 1
    LATER = 2
    NOTHING = 3
    LONG_ERROR = 4
    UNFIT = 5

    def __init__(self) -> None:
        self.waiting: Deferred[bytes] = Deferred()

    @procedure(OVERSIZE)
    def oversize(self, connection: object, payload: bytes) -> bytes:
        """
        Return a result larger than a message may be.
        """
        return bytes(MESSAGE_MAX)

    @procedure(LATER)
    def later(self, connection: object, payload: bytes) -> Deferred[bytes]:
        """
        Return a result that the test fires later.
        """
        return self.waiting

    @procedure(NOTHING)
    def nothing(self, connection: object, payload: bytes) -> Any:
        """
        Return C{None}.
        """

    @procedure(LONG_ERROR)
    def longError(self, connection: object, payload: bytes) -> Awaitable[bytes]:
        """
        Raise an error whose message is longer than a string may be.
        """
        raise RemoteError(1, 7, "x" * (STRING_MAX + 1))

    @procedure(UNFIT)
    def unfit(self, connection: object, payload: bytes) -> bytes:
        """
        Pack an integer that is out of range.
        """
        return Packer().int32(2**31).packed()


class CallsTestCase(SynchronousTestCase):
    """
    A test case with the calls of an open connection.
    """

    def setUp(self) -> None:
        """
        Open a connection.
        """
        self.connection = FakeConnection()
        self.connection.negotiation.advance(Event.ADMITTED)
        self.connection.negotiation.advance(Event.OPENED)
        self.connection.negotiation.advance(Event.ANSWERED)
        self.probe = Probe()
        self.unpackable = Unpackable()
        programs = (self.probe, self.unpackable)
        self.server = FakeServer({program.number: program for program in programs})
        self.calls = Calls(self.connection, self.server)

    def ask(self, message: Message) -> Message:
        """
        @return: the reply to a call that is answered immediately.
        """
        self.calls.received(message)
        (reply,) = self.connection.replies
        self.connection.replies.clear()
        return reply

    def serials(self) -> list[int]:
        """
        @return: the serials of the replies, in order.
        """
        return [reply.serial for reply in self.connection.replies]

    def receiveLater(self, count: int, payload: bytes = b"") -> None:
        """
        Receive calls that are answered later, when the test fires them.
        """
        for serial in range(count):
            self.calls.received(Probe.message(Probe.LATER, payload, serial))


class AnswerTests(CallsTestCase):
    """
    Tests for replies to calls.
    """

    def test_answer(self) -> None:
        """
        A reply has the program, version, procedure and serial of its call, and the result as its
        payload.
        """
        reply = self.ask(Probe.message(Probe.ECHO, b"abcd", 7))
        self.assertEqual(
            reply, Message(Probe.number, 1, Probe.ECHO, MessageType.REPLY, 7, Status.OK, b"abcd")
        )
        self.assertEqual(self.connection.answered, 1)
        self.assertTrue(self.calls.idle)

    def test_later(self) -> None:
        """
        A call may be answered later; until then the connection is not idle.
        """
        self.receiveLater(1)
        self.assertEqual(self.connection.replies, [])
        self.assertFalse(self.calls.idle)
        self.probe.waiting[0].callback(b"late")
        (reply,) = self.connection.replies
        self.assertEqual((reply.status, reply.payload), (Status.OK, b"late"))
        self.assertTrue(self.calls.idle)

    def test_remoteError(self) -> None:
        """
        A L{RemoteError} becomes an error reply, immediate or later, and is not logged.
        """
        self.assertEqual(errorOf(self.ask(Probe.message(Probe.FAIL))), (88, 55, 1, "no entry"))
        self.assertEqual(self.connection.answered, 1)
        self.receiveLater(1)
        self.probe.waiting[0].errback(RemoteError(9, 7, "too late"))
        self.assertEqual(errorOf(self.connection.replies[0]), (9, 7, 2, "too late"))
        self.assertTrue(self.calls.idle)

    def test_bug(self) -> None:
        """
        Any other exception is logged, and becomes an internal error without details.
        """
        error = errorOf(self.ask(Probe.message(Probe.BREAK)))
        self.assertEqual(
            error, (1, 7, 2, "internal error: procedure 4 failed; the server's log has more")
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unfit(self) -> None:
        """
        A result that does not fit its XDR type is an internal error, and is not blamed on the
        caller.
        """
        error = errorOf(self.ask(call(Unpackable.UNFIT, program=Unpackable.number)))
        self.assertEqual(error[:3], (1, 7, 2), error)
        self.assertIn("procedure 5 failed", error[3])
        self.assertEqual(len(self.flushLoggedErrors(PackError)), 1)

    def test_undecodable(self) -> None:
        """
        Arguments that cannot be decoded are answered with libvirtd's error.
        """
        error = errorOf(self.ask(Probe.message(Probe.DECODE, b"\0")))
        self.assertEqual(error, (39, 7, 2, "Unable to decode message payload"))

    def test_unknownProgram(self) -> None:
        """
        The error for an unknown program or version names both, in signed decimals as libvirtd does,
        and the reply echoes the header.
        """
        for program, version, message in (
            (5, 1, "Cannot find program 5 version 1"),
            (Probe.number, 2, f"Cannot find program {Probe.number} version 2"),
            (0xFFFFFFFF, 9, "Cannot find program -1 version 9"),
        ):
            reply = self.ask(call(1, serial=3, program=program, version=version))
            self.assertEqual(errorOf(reply), (39, 7, 2, message))
            self.assertEqual(
                (reply.program, reply.version, reply.procedure, reply.serial),
                (program, version, 1, 3),
            )

    def test_unknownProcedure(self) -> None:
        """
        The error for an unknown procedure names its number.
        """
        for number in (0, 99, -5):
            error = errorOf(self.ask(Probe.message(number)))
            self.assertEqual(error, (39, 7, 2, f"unknown procedure: {number}"))

    def test_status(self) -> None:
        """
        A call with a status other than 0 is refused, before the procedure is looked up.
        """
        error = errorOf(self.ask(call(99, program=Probe.number, status=1)))
        self.assertEqual(error, (39, 7, 2, "Unexpected message status 1"))

    def test_notOpen(self) -> None:
        """
        Other programs cannot be called before the connection is open.
        """
        self.connection.negotiation = readyNegotiation(Disable())
        error = errorOf(self.ask(Probe.message(Probe.ECHO)))
        self.assertEqual(error, (1, 7, 2, "internal error: hypervisor connection not open"))
        self.assertEqual(self.probe.calls, [])

    def test_noRemoteProgram(self) -> None:
        """
        Only the given programs can be called; the remote program is no exception.
        """
        error = errorOf(self.ask(call(Procedure.AUTH_LIST)))
        self.assertEqual(error[3], f"Cannot find program {REMOTE_PROGRAM} version 1")


class UnpackableTests(CallsTestCase):
    """
    Results that cannot be sent are answered with an internal error, so that the caller does not
    wait forever.
    """

    def assertInternalError(self) -> None:
        """
        Check that the only call was answered with an internal error, which was logged.
        """
        (reply,) = self.connection.replies
        code, _domain, _level, message = errorOf(reply)
        self.assertEqual(code, 1)
        self.assertIn("the server's log has more", message)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertTrue(self.calls.idle)

    def receive(self, number: int) -> None:
        """
        Receive a call of the invalid program.
        """
        self.calls.received(call(number, program=Unpackable.number))

    def test_tooLarge(self) -> None:
        """
        A result larger than a message may be is an internal error.
        """
        self.receive(Unpackable.OVERSIZE)
        self.assertInternalError()

    def test_tooLargeLater(self) -> None:
        """
        A late result larger than a message may be is an internal error.
        """
        self.receive(Unpackable.LATER)
        self.unpackable.waiting.callback(bytes(MESSAGE_MAX))
        self.assertInternalError()

    def test_noBytes(self) -> None:
        """
        A result that is not bytes is an internal error.
        """
        self.receive(Unpackable.NOTHING)
        self.assertInternalError()

    def test_noBytesLater(self) -> None:
        """
        A late result that is not bytes is an internal error.
        """
        self.receive(Unpackable.LATER)
        nothing: Any = None
        self.unpackable.waiting.callback(nothing)
        self.assertInternalError()

    def test_errorTooLong(self) -> None:
        """
        An error message longer than a string may be is an internal error.
        """
        self.receive(Unpackable.LONG_ERROR)
        self.assertInternalError()


class OrderTests(CallsTestCase):
    """
    Tests for the order in which calls are started and answered.
    """

    def test_outOfOrder(self) -> None:
        """
        Calls are answered when they finish, in any order; a slow one does not delay the others.
        """
        self.receiveLater(3)
        self.calls.received(Probe.message(Probe.ECHO, serial=3))
        self.probe.waiting[2].callback(b"")
        self.probe.waiting[0].callback(b"")
        self.probe.waiting[1].callback(b"")
        self.assertEqual(self.serials(), [3, 2, 0, 1])

    def test_runningMax(self) -> None:
        """
        A limited number of calls run at once.  Further calls wait, and are started in the order of
        their arrival.
        """
        self.receiveLater(LIMITS.runningCalls + 1)
        self.calls.received(Probe.message(Probe.ECHO, serial=LIMITS.runningCalls + 1))
        self.assertEqual(len(self.probe.waiting), LIMITS.runningCalls)
        self.probe.waiting[5].callback(b"")
        self.assertEqual(len(self.probe.waiting), LIMITS.runningCalls + 1)
        self.assertEqual(self.serials(), [5])
        self.probe.waiting[6].callback(b"")
        self.assertEqual(self.serials(), [5, 6, LIMITS.runningCalls + 1])

    def test_nothingOvertakes(self) -> None:
        """
        A new call is not started before those that wait.
        """
        self.calls.hold()
        self.calls.received(Probe.message(Probe.ECHO, serial=0))
        self.calls.received(Probe.message(Probe.ECHO, serial=1))
        self.assertEqual(self.serials(), [])
        self.calls.proceed()
        self.assertEqual(self.serials(), [0, 1])

    def test_hold(self) -> None:
        """
        While calls are held, running ones finish and no others start.
        """
        self.receiveLater(1)
        self.calls.hold()
        self.calls.received(Probe.message(Probe.ECHO, serial=1))
        self.probe.waiting[0].callback(b"")
        self.assertEqual(self.serials(), [0])
        self.assertFalse(self.calls.idle)
        self.calls.proceed()
        self.assertEqual(self.serials(), [0, 1])
        self.assertTrue(self.calls.idle)

    def test_heldAgain(self) -> None:
        """
        If a reply fills the peer's buffer again, the remaining calls stay held.
        """
        self.calls.hold()
        for serial in range(3):
            self.calls.received(Probe.message(Probe.ECHO, serial=serial))
        self.connection.callAnswered = self.calls.hold  # type: ignore[method-assign]
        self.calls.proceed()
        self.assertEqual(self.serials(), [0])
        self.calls.proceed()
        self.assertEqual(self.serials(), [0, 1])

    def test_fullByNumber(self) -> None:
        """
        C{full} is set when C{waitingCalls} calls wait, until one of them is started.
        """
        self.assertFalse(self.calls.full)
        self.receiveLater(LIMITS.runningCalls + LIMITS.waitingCalls - 1)
        self.assertFalse(self.calls.full)
        self.calls.received(Probe.message(Probe.LATER))
        self.assertTrue(self.calls.full)
        self.probe.waiting[0].callback(b"")
        self.assertFalse(self.calls.full)

    def test_fullBySize(self) -> None:
        """
        C{full} is set when the waiting calls have C{waitingBytes} bytes, until they are started.
        """
        self.calls.hold()
        half = bytes(LIMITS.waitingBytes // 2)
        self.calls.received(Probe.message(Probe.ECHO, half))
        self.assertFalse(self.calls.full)
        self.calls.received(Probe.message(Probe.ECHO, half))
        self.assertTrue(self.calls.full)
        self.calls.proceed()
        self.assertFalse(self.calls.full)
        self.calls.hold()
        self.calls.received(Probe.message(Probe.ECHO, half))
        self.assertFalse(self.calls.full)

    def test_toldWhenIdle(self) -> None:
        """
        C{callAnswered} is called when the answered call no longer counts, so that the connection
        can close if it is idle.
        """
        idle: list[bool] = []
        self.connection.callAnswered = (  # type: ignore[method-assign]
            lambda: idle.append(self.calls.idle)
        )
        self.receiveLater(1)
        self.probe.waiting[0].callback(b"")
        self.assertTrue(idle[-1])


class FreedTests(SynchronousTestCase):
    """
    Tests for freeing an ended connection without the garbage collector.
    """

    def test_freed(self) -> None:
        """
        After the end neither the factory nor the transport refers to the connection, and it has no
        reference cycles.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        clock = Clock()
        factory = KeepAliveServerFactory(Optional(KEEPALIVE), clock=clock)
        wire = Wire(cast(KeepAliveServerProtocol, factory.buildProtocol(None)))
        wire.feed(call(Procedure.AUTH_LIST))
        freed = weakref.ref(wire.protocol)
        wire.lose()
        wire.transport.unregisterProducer()
        del wire
        self.assertIsNone(freed())

    def test_lateAnswer(self) -> None:
        """
        A result that arrives after the end of the connection is dropped.
        """
        connection = FakeConnection()
        calls = Calls(connection, FakeServer({}))
        calls.clear()
        calls.answer(call(1), b"late")
        calls.fail(call(1), rpcError("late"))
        self.assertEqual(connection.replies, [])


class ClearTests(CallsTestCase):
    """
    Tests for calls when the connection is lost.
    """

    def test_clear(self) -> None:
        """
        Running calls are cancelled, waiting ones dropped, and nothing is answered or logged.
        """
        self.receiveLater(LIMITS.runningCalls + 1)
        self.calls.clear()
        self.assertEqual(len(self.probe.waiting), LIMITS.runningCalls)
        for waiting in self.probe.waiting:
            self.assertTrue(waiting.called)
        self.assertEqual(self.connection.replies, [])
        self.assertEqual(self.connection.answered, 0)
        self.assertTrue(self.calls.idle)
        self.assertFalse(self.calls.full)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failAll(self) -> None:
        """
        All running and waiting calls can be failed, each with one error reply.
        """
        self.receiveLater(LIMITS.runningCalls + 3)
        self.assertEqual(self.calls.underWay, LIMITS.runningCalls + 3)
        self.calls.failAll(rpcError("maintenance"))
        serials = [each.serial for each in self.connection.replies]
        self.assertEqual(len(serials), LIMITS.runningCalls + 3)
        self.assertEqual(len(set(serials)), len(serials))
        self.assertEqual({errorOf(each)[3] for each in self.connection.replies}, {"maintenance"})
        self.assertEqual(self.calls.underWay, 0)
        self.calls.failAll(rpcError("again"))
        self.assertEqual(len(self.connection.replies), LIMITS.runningCalls + 3)

    def test_clearWhenIdle(self) -> None:
        """
        C{clear} does nothing if there are no calls.
        """
        self.calls.clear()
        self.assertTrue(self.calls.idle)
