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
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import MESSAGE_MAX, Message, MessageReader, MessageType, Status, rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure
from kaproto.wire.xdr import STRING_MAX, Packer, PackError
from tests.support import KEEPALIVE, Probe, Wire, call, errorOf

LIMITS = Limits()


@attrs.define
class FakeServer:
    """
    What L{Calls} sees of the factory.
    """

    programs: dict[int, Any]
    limits: Limits = LIMITS


def readyNegotiation(policy: Policy) -> ServerNegotiation:
    """
    @return: that of a client who may open.
    """
    negotiation = ServerNegotiation(Peer(), policy)
    negotiation.advance(Event.ACCEPTED)
    return negotiation


class FakeConnection:
    """
    What L{Calls} sees of a connection, which keeps what is sent.

    @ivar replies: what was sent.
    @ivar atOnce: those of the replies that no other was about to follow.
    @ivar answered: how often it was told that a call has been answered.
    """

    def __init__(self) -> None:
        self.negotiation = readyNegotiation(Disable())
        self.replies: list[Message] = []
        self.atOnce: list[Message] = []
        self.answered = 0
        self.hooks = object()

    def send(self, data: bytes, /) -> None:
        """
        Keep a reply.
        """
        reader = MessageReader()
        reader.feed(data)
        self.replies += iter(reader.next, None)

    def sendNow(self, data: bytes, /) -> None:
        """
        Keep a reply, and that no other was about to follow.
        """
        self.send(data)
        self.atOnce.append(self.replies[-1])

    def callAnswered(self) -> None:
        """
        Count.
        """
        self.answered += 1


class Unpackable(Program):
    """
    A program whose answers do not fit into messages, or are none.

    @ivar waiting: the answer that is still to come.
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
        Answer with more than the protocol can carry.
        """
        return bytes(MESSAGE_MAX)

    @procedure(LATER)
    def later(self, connection: object, payload: bytes) -> Deferred[bytes]:
        """
        Answer when the test says so.
        """
        return self.waiting

    @procedure(NOTHING)
    def nothing(self, connection: object, payload: bytes) -> Any:
        """
        Answer with what is neither bytes nor to be waited for.
        """

    @procedure(LONG_ERROR)
    def longError(self, connection: object, payload: bytes) -> Awaitable[bytes]:
        """
        Fail with a message that is longer than strings may be.
        """
        raise RemoteError(1, 7, "x" * (STRING_MAX + 1))

    @procedure(UNFIT)
    def unfit(self, connection: object, payload: bytes) -> bytes:
        """
        Pack a number that does not fit.
        """
        return Packer().int32(2**31).packed()


class CallsTestCase(SynchronousTestCase):
    """
    A test of the calls of one connection, which is open.
    """

    def setUp(self) -> None:
        """
        Open.
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
        @return: the reply to a call that is answered at once.
        """
        self.calls.received(message)
        (reply,) = self.connection.replies
        self.connection.replies.clear()
        return reply

    def serials(self) -> list[int]:
        """
        @return: which calls have been answered, in the order of their answers.
        """
        return [reply.serial for reply in self.connection.replies]

    def receiveLater(self, count: int, payload: bytes = b"") -> None:
        """
        Receive calls that are answered when the test says so.
        """
        for serial in range(count):
            self.calls.received(Probe.message(Probe.LATER, payload, serial))


class AnswerTests(CallsTestCase):
    """
    Who answers a call, and what.
    """

    def test_answer(self) -> None:
        """
        A reply has the numbers of its call and the result for its payload.
        """
        reply = self.ask(Probe.message(Probe.ECHO, b"abcd", 7))
        self.assertEqual(
            reply, Message(Probe.number, 1, Probe.ECHO, MessageType.REPLY, 7, Status.OK, b"abcd")
        )
        self.assertEqual(self.connection.answered, 1)
        self.assertTrue(self.calls.idle)

    def test_later(self) -> None:
        """
        A call may be answered later, and is not idle until then.
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
        An error that a program raises is sent as it is, now or later, and not logged.
        """
        self.assertEqual(errorOf(self.ask(Probe.message(Probe.FAIL))), (88, 55, 1, "no entry"))
        self.assertEqual(self.connection.answered, 1)
        self.receiveLater(1)
        self.probe.waiting[0].errback(RemoteError(9, 7, "too late"))
        self.assertEqual(errorOf(self.connection.replies[0]), (9, 7, 2, "too late"))
        self.assertTrue(self.calls.idle)

    def test_bug(self) -> None:
        """
        Any other exception is logged, and the caller is told no more than that there was one.
        """
        error = errorOf(self.ask(Probe.message(Probe.BREAK)))
        self.assertEqual(
            error, (1, 7, 2, "internal error: procedure 4 failed; the server's log has more")
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unfit(self) -> None:
        """
        A result that does not fit its XDR type is a bug like others, and not the caller's fault.
        """
        error = errorOf(self.ask(call(Unpackable.UNFIT, program=Unpackable.number)))
        self.assertEqual(error[:3], (1, 7, 2), error)
        self.assertIn("procedure 5 failed", error[3])
        self.assertEqual(len(self.flushLoggedErrors(PackError)), 1)

    def test_undecodable(self) -> None:
        """
        Arguments that cannot be decoded are answered as libvirtd does.
        """
        error = errorOf(self.ask(Probe.message(Probe.DECODE, b"\0")))
        self.assertEqual(error, (39, 7, 2, "Unable to decode message payload"))

    def test_unknownProgram(self) -> None:
        """
        A program or version that is not there is named, in signed decimals as libvirtd does, and
        the reply echoes it.
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
        A procedure that the program does not have is named.
        """
        for number in (0, 99, -5):
            error = errorOf(self.ask(Probe.message(number)))
            self.assertEqual(error, (39, 7, 2, f"unknown procedure: {number}"))

    def test_status(self) -> None:
        """
        A call has no status but 0, which is looked at before the procedure.
        """
        error = errorOf(self.ask(call(99, program=Probe.number, status=1)))
        self.assertEqual(error, (39, 7, 2, "Unexpected message status 1"))

    def test_notOpen(self) -> None:
        """
        Before the connection is open an application's program is not called.
        """
        self.connection.negotiation = readyNegotiation(Disable())
        error = errorOf(self.ask(Probe.message(Probe.ECHO)))
        self.assertEqual(error, (1, 7, 2, "internal error: hypervisor connection not open"))
        self.assertEqual(self.probe.calls, [])

    def test_noRemoteProgram(self) -> None:
        """
        There are no programs but those that were given, the remote program included.
        """
        error = errorOf(self.ask(call(Procedure.AUTH_LIST)))
        self.assertEqual(error[3], f"Cannot find program {REMOTE_PROGRAM} version 1")


class UnpackableTests(CallsTestCase):
    """
    Answers of programs that cannot be sent: the caller is told so instead of waiting for ever.
    """

    def assertInternalError(self) -> None:
        """
        Check that the one call was answered with an internal error, and that this was logged.
        """
        (reply,) = self.connection.replies
        code, _domain, _level, message = errorOf(reply)
        self.assertEqual(code, 1)
        self.assertIn("the server's log has more", message)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertTrue(self.calls.idle)

    def receive(self, number: int) -> None:
        """
        Receive a call of the program.
        """
        self.calls.received(call(number, program=Unpackable.number))

    def test_tooLarge(self) -> None:
        """
        A result that is larger than a message can be is the program's mistake.
        """
        self.receive(Unpackable.OVERSIZE)
        self.assertInternalError()

    def test_tooLargeLater(self) -> None:
        """
        So is one that comes later.
        """
        self.receive(Unpackable.LATER)
        self.unpackable.waiting.callback(bytes(MESSAGE_MAX))
        self.assertInternalError()

    def test_noBytes(self) -> None:
        """
        A result that is not bytes is the program's mistake.
        """
        self.receive(Unpackable.NOTHING)
        self.assertInternalError()

    def test_noBytesLater(self) -> None:
        """
        So is one that comes later.
        """
        self.receive(Unpackable.LATER)
        nothing: Any = None
        self.unpackable.waiting.callback(nothing)
        self.assertInternalError()

    def test_errorTooLong(self) -> None:
        """
        An error whose message is longer than a string can be is the program's mistake.
        """
        self.receive(Unpackable.LONG_ERROR)
        self.assertInternalError()


class OrderTests(CallsTestCase):
    """
    When calls are started and answered.
    """

    def test_outOfOrder(self) -> None:
        """
        Calls are answered as they are done and not as they came, and a slow one holds up none.
        """
        self.receiveLater(3)
        self.calls.received(Probe.message(Probe.ECHO, serial=3))
        self.probe.waiting[2].callback(b"")
        self.probe.waiting[0].callback(b"")
        self.probe.waiting[1].callback(b"")
        self.assertEqual(self.serials(), [3, 2, 0, 1])

    def test_runningMax(self) -> None:
        """
        Only so many calls run at once.  The others wait, whatever they are, and are started in
        the order in which they came.
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
        A call that comes while others wait is not started before them.
        """
        self.calls.hold()
        self.calls.received(Probe.message(Probe.ECHO, serial=0))
        self.calls.received(Probe.message(Probe.ECHO, serial=1))
        self.assertEqual(self.serials(), [])
        self.calls.proceed()
        self.assertEqual(self.serials(), [0, 1])

    def test_hold(self) -> None:
        """
        While the calls are held, those that run are finished and no other is started.
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
        When a reply fills the peer's buffer again, the rest goes on waiting.
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
        A hundred calls that wait are enough, until one of them is started.
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
        A few large calls that wait are enough as well, until they are started.
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
        The connection is told of an answer when nothing is left to be done, so that it can close.
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
    A connection that has ended is freed at once, as a collector would hold others up.
    """

    def test_freed(self) -> None:
        """
        Once it has ended, the factory and the transport have let go of it, and so has all that
        belongs to it.
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
        An answer that comes after the end of its connection goes nowhere.
        """
        connection = FakeConnection()
        calls = Calls(connection, FakeServer({}))
        calls.clear()
        calls.answer(call(1), b"late")
        calls.fail(call(1), rpcError("late"))
        self.assertEqual(connection.replies, [])


class ClearTests(CallsTestCase):
    """
    The connection is gone.
    """

    def test_clear(self) -> None:
        """
        What runs is cancelled, what waits is forgotten, and nothing more is answered or logged.
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
        All that is running or waiting can be answered with an error, each call once.
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
        There may be nothing to cancel.
        """
        self.calls.clear()
        self.assertTrue(self.calls.idle)
