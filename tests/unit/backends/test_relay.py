"""
Tests for L{kaproto.backends.relay}, between a client and a libvirtd that are made up.
"""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.connections import UpstreamConnection
from kaproto.backends.relay import (
    DESCRIPTORS_MAX,
    WHOLE_MAX,
    Relay,
)
from kaproto.errors import ConnectionClosed
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Mandatory
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.transport import StreamTransport
from kaproto.wire.message import (
    PING,
    PONG,
    TURN_MAX,
    Message,
    MessageType,
    Status,
    packMessage,
    unpackError,
)
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    LXC_PROGRAM,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    ErrorCode,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Packer
from tests.strategies import garbage, messages, pieces
from tests.support import freezeOlder
from tests.support_gateway import (
    DESCRIPTION,
    FarConnection,
    FarEnd,
    NearEnd,
    ThreeParties,
    call,
    feature,
    stream,
)

LIMITS = Limits()
WATCHED = KeepAlive(2, 2)
"""
Dead after 6 seconds.
"""

BIG = 3_000_000
"""
More bytes than any buffer here holds.
"""


def reply(to: Message, payload: bytes = b"", status: int = Status.OK) -> Message:
    """
    libvirtd's answer to a call.
    """
    return to._replace(type=MessageType.REPLY, payload=payload, status=status)


def number(value: int) -> bytes:
    """
    A number as a payload.
    """
    return Packer().int32(value).packed()


class RelayTestCase(SynchronousTestCase):
    """
    Connects the three parties, and looks afterwards whether a timer was left behind.

    @ivar log: what was logged.
    """

    def setUp(self) -> None:
        """
        Keep the log.
        """
        self.log = cast(list[LogEvent], self.enterContext(capturedLogs()))

    def opened(
        self,
        keepAlive: KeepAlive = WATCHED,
        upstreamKeepAlive: KeepAlive = WATCHED,
        *,
        farewell: bool = False,
    ) -> tuple[ThreeParties, NearEnd, FarEnd]:
        """
        @param keepAlive: how closely the client is watched.
        @param upstreamKeepAlive: how closely libvirtd is.
        @param farewell: whether the client wants to be told why it is disconnected.
        """
        parties = ThreeParties(Mandatory(keepAlive), upstreamKeepAlive)
        return parties, *parties.opened(farewell=farewell)

    def assertAllGone(self, parties: ThreeParties) -> None:
        """
        Nobody is connected any more, and nothing will happen any more.
        """
        parties.flush()
        for pair in parties.pairs:
            self.assertTrue(pair.clientTransport.disconnected)
            self.assertTrue(pair.serverTransport.disconnected)
        self.assertEqual(parties.factory.connections, [])
        self.assertEqual(parties.clock.getDelayedCalls(), [])


def _isRelayed(message: Message) -> bool:
    return message.program != KEEPALIVE_PROGRAM and message.type not in (
        MessageType.CALL_WITH_FDS,
        MessageType.REPLY_WITH_FDS,
    )


class PassingTests(RelayTestCase):
    """
    What is relayed.
    """

    def exchange(self, there: Sequence[Message], back: Sequence[Message]) -> None:
        """
        Send messages both ways, and see them arrive as they are.
        """
        parties, near, far = self.opened()
        near.write(*there)
        far.write(*back)
        parties.flush()
        self.assertEqual(bytes(far.raw), b"".join(map(packMessage, there)))
        self.assertEqual(far.messages, list(there))
        self.assertEqual(near.messages, list(back))

    def test_traced(self) -> None:
        """
        A trace sees each message of the client's, and none of keepalive with libvirtd.
        """
        parties, near, far = self.opened()
        seen: list[tuple[str, int, int]] = []
        connection = connectionOf(parties.toClient.server, ServerConnection)
        connection.incoming.trace = connection.outgoing.trace = lambda way, header: seen.append(
            (way, header[3], header[5])
        )
        asked = call(Procedure.CONNECT_GET_HOSTNAME, serial=5)
        near.write(asked)
        parties.flush()
        far.write(asked._replace(type=MessageType.REPLY))
        parties.flush()
        number = int(Procedure.CONNECT_GET_HOSTNAME)
        self.assertEqual(seen, [("in", number, 5), ("out", number, 5)])

    def test_calls(self) -> None:
        """
        Calls to any procedure of any program are relayed unchanged, and so are the answers
        in any order, errors included; serials need not be unique or in order.
        """
        calls = [
            call(Procedure.CONNECT_GET_HOSTNAME, serial=5),
            call(Procedure.CONNECT_LIST_ALL_DOMAINS, number(1) * 2, serial=5),
            call(Procedure.CONNECT_OPEN, serial=2**32 - 1),
            call(-1, b"?", serial=0, program=QEMU_PROGRAM),
            call(2, b"x" * 5, program=LXC_PROGRAM),
            call(7, b"", program=0xDEADBEEF),
            feature(Feature.REMOTE_EVENT_CALLBACK),
            call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK),
            call(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK),
            call(59)._replace(version=7, status=9),
        ]
        answers = [reply(each, b"answer", index % 2) for index, each in enumerate(calls)]
        self.exchange(calls, answers[::-1])

    def test_events(self) -> None:
        """
        Events of any program are relayed.
        """
        event = Message(REMOTE_PROGRAM, 1, 318, MessageType.MESSAGE, 1, Status.OK, b"lifecycle")
        closed = event._replace(procedure=Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.exchange([], [event, event._replace(program=QEMU_PROGRAM), closed])

    def test_streams(self) -> None:
        """
        Streams and their holes come through both ways.
        """
        hole = stream(9)._replace(type=MessageType.STREAM_HOLE)
        parts = [stream(9, payload=bytes(1000)), hole, stream(9), stream(9, Status.OK)]
        self.exchange(parts, [*parts, stream(9, Status.ERROR, b"why")])

    def test_oddities(self) -> None:
        """
        What libvirtd would pass over is not looked at: it comes there.
        """
        odd = [call(59, kind=kind) for kind in (1, 2, 5, 6, 7, 99)]
        self.exchange([*odd, call(59, bytes(4), kind=MessageType.CALL_WITH_FDS)], [])

    @given(
        st.lists(messages().filter(_isRelayed), max_size=6),
        st.data(),
    )
    def test_anything(self, drawn: list[Message], data: st.DataObject) -> None:
        """
        However the bytes of messages are cut, they arrive, in both directions at once.
        """
        parties, near, far = self.opened()
        packed = b"".join(map(packMessage, drawn))
        there = data.draw(pieces(packed))
        back = data.draw(pieces(packed))
        for index in range(max(len(there), len(back))):
            near.write(*there[index : index + 1])
            far.write(*back[index : index + 1])
            parties.flush()
        self.assertEqual(far.messages, drawn)
        self.assertEqual(near.messages, drawn)

    def test_bigMessage(self) -> None:
        """
        Of a big message the half that has come is passed on before the other half comes.
        """
        parties, near, far = self.opened()
        packed = packMessage(call(148, bytes(BIG)))
        near.write(packed[: BIG // 2])
        parties.flush()
        self.assertEqual(len(far.raw), BIG // 2)
        near.write(packed[BIG // 2 :])
        parties.flush()
        self.assertEqual(far.raw, packed)

    def test_manyAtOnce(self) -> None:
        """
        More messages at once than are relayed in one turn arrive all the same, in both directions
        and in order, once the others have had theirs.
        """
        parties, near, far = self.opened()
        calls = [call(148, serial=serial) for serial in range(2 * TURN_MAX + 1)]
        near.write(b"".join(map(packMessage, calls)))
        parties.flush()
        self.assertEqual(far.messages, calls)
        replies = [reply(each) for each in calls]
        far.write(b"".join(map(packMessage, replies)))
        parties.flush()
        self.assertEqual(near.messages, replies)

    def test_beforeRelaying(self) -> None:
        """
        What libvirtd sends together with its answer to open is not lost, nor what the client
        sends before it knows that it is open.
        """
        parties = ThreeParties()
        event = Message(REMOTE_PROGRAM, 1, 318, MessageType.MESSAGE, 1, Status.OK, b"early")

        class EagerConnection(FarConnection):
            """
            Sends an event as soon as it is open.
            """

            def callAnswered(self) -> None:
                """
                Send it in one go with the answer.
                """
                end = cast(FarEnd, self.hooks)
                if self.session is not None and not end.scripted:
                    end.scripted = True
                    end.write(event)
                super().callAnswered()

        class Eager(FarEnd):
            """
            Has such a connection.
            """

            _kaprotoConnection = EagerConnection

        parties.upstream.factory.protocol = Eager
        near = parties.connect()
        self.assertTrue(near.isAlive())
        self.assertEqual(near.messages, [event])


class OwnHopTests(RelayTestCase):
    """
    What is not relayed.
    """

    def answer(self, message: Message) -> Message:
        """
        @return: the gateway's own answer to a call that is not relayed.
        """
        parties, near, far = self.opened()
        near.write(message)
        parties.flush()
        self.assertEqual(far.messages, [])
        (answer,) = near.messages
        self.assertEqual(answer[:3], message[:3])
        self.assertEqual((answer.type, answer.serial), (MessageType.REPLY, message.serial))
        near.messages.clear()
        near.write(call(Procedure.CONNECT_GET_HOSTNAME))
        parties.flush()
        self.assertEqual(len(far.messages), 1, "the connection does not work any more")
        return answer

    def refusal(self, message: Message) -> tuple[int, str]:
        """
        @return: the code and the text of the gateway's own refusal of a call.
        """
        answer = self.answer(message)
        self.assertEqual(answer.status, Status.ERROR)
        error = unpackError(answer.payload)
        self.assertEqual((error.domain, error.level), (7, 2))
        return error.code, error.message

    def test_features(self) -> None:
        """
        The gateway has keepalive, whatever libvirtd has.  All else is asked of libvirtd, also what
        is no proper question.
        """
        self.assertEqual(self.answer(feature(Feature.PROGRAM_KEEPALIVE)).payload, number(1))
        parties, near, far = self.opened()
        asked = [feature(Feature.FD_PASSING), call(Procedure.CONNECT_SUPPORTS_FEATURE)]
        near.write(*asked)
        parties.flush()
        self.assertEqual(far.messages, asked)

    def test_authentication(self) -> None:
        """
        Authentication is over: none is needed, and none succeeds.
        """
        answer = self.answer(call(Procedure.AUTH_LIST))
        self.assertEqual(answer.payload, number(1) + number(0))
        for procedure in (67, 68, 69, 70):
            code, _text = self.refusal(call(procedure))
            self.assertEqual(code, ErrorCode.AUTH_FAILED)

    def test_setIdentity(self) -> None:
        """
        Nobody can claim to be somebody else.
        """
        code, text = self.refusal(call(Procedure.CONNECT_SET_IDENTITY, bytes(8)))
        self.assertEqual(code, ErrorCode.OPERATION_DENIED)
        self.assertIn("identity", text)

    def test_passingFds(self) -> None:
        """
        The procedures that return file descriptors are refused, with the reason.  Those that take
        some are called with none as well, and relayed then.
        """
        for program, procedure in ((REMOTE_PROGRAM, 343), (LXC_PROGRAM, 1)):
            code, text = self.refusal(call(procedure, program=program))
            self.assertEqual(code, ErrorCode.OPERATION_UNSUPPORTED)
            self.assertIn("file descriptors cannot be passed", text)
        parties, near, far = self.opened()
        calls = [call(each) for each in (249, 309, 310, 443)]
        calls.append(call(7, number(0), program=QEMU_PROGRAM, kind=MessageType.CALL_WITH_FDS))
        near.write(*calls)
        parties.flush()
        self.assertEqual(far.messages, calls)

    def test_fds(self) -> None:
        """
        A call that comes with file descriptors is refused.  They are dropped, and so is the byte
        that comes with each, whenever it comes.
        """
        asked = call(7, number(3), program=QEMU_PROGRAM, kind=MessageType.CALL_WITH_FDS)
        for parts in ([b"\0\0\0"], [b"", b"\0", b"\0\0"], [b"\0\0", b"\0"]):
            parties, near, far = self.opened()
            near.write(packMessage(asked) + parts[0])
            for part in parts[1:]:
                parties.flush()
                near.write(part)
            near.write(call(59))
            parties.flush()
            self.assertEqual(far.messages, [call(59)])
            (answer,) = near.messages
            error = unpackError(answer.payload)
            self.assertEqual(error.code, ErrorCode.OPERATION_UNSUPPORTED)

    def test_fdsFromServer(self) -> None:
        """
        An answer with file descriptors becomes an error, and one with none is relayed.
        """
        parties, near, far = self.opened()
        calls = [call(59, serial=serial) for serial in (5, 6, 7)]
        near.write(*calls)
        parties.flush()
        answers = [each._replace(type=MessageType.REPLY_WITH_FDS) for each in calls]
        far.write(
            packMessage(answers[0]._replace(payload=number(2))) + b"\0\0",
            answers[1]._replace(payload=number(0)),
            reply(calls[2]),
        )
        parties.flush()
        refused, *others = near.messages
        self.assertEqual((refused.type, refused.serial), (MessageType.REPLY, 5))
        self.assertIn("file descriptors cannot", unpackError(refused.payload).message)
        self.assertEqual(others, [answers[1]._replace(payload=number(0)), reply(calls[2])])

    def test_manyFds(self) -> None:
        """
        More than libvirt allows in one message end the connection.
        """
        parties, near, _far = self.opened()
        near.write(call(59, number(DESCRIPTORS_MAX + 1), kind=MessageType.CALL_WITH_FDS))
        parties.flush()
        self.assertEqual(parties.factory.counters.protocolErrors, 1)
        self.assertAllGone(parties)

    def test_featureWithFds(self) -> None:
        """
        A feature that belongs to one hop is answered there, also where the question comes in the
        form of a call with file descriptors, of which there are none.
        """
        parties, near, far = self.opened()
        near.write(call(60, number(0) + number(10), kind=MessageType.CALL_WITH_FDS))
        parties.flush()
        self.assertEqual(far.messages, [])
        self.assertEqual([each.payload for each in near.messages], [number(1)])

    def test_lastWords(self) -> None:
        """
        What libvirtd said before it broke the protocol arrives, also when it came in the same
        read, and whatever was not answered by then is answered by the gateway.
        """
        first, second = call(59, serial=5), call(3, serial=6)
        answer = packMessage(first._replace(type=MessageType.REPLY, payload=bytes(100)))
        fds = packMessage(call(343, number(33), kind=MessageType.REPLY_WITH_FDS))
        protocolErrors = bytes(4) + packMessage(second._replace(type=MessageType.REPLY))[4:]
        for bad in (fds, protocolErrors):
            for cut in (0, 60):
                parties, near, far = self.opened()
                near.write(first, second)
                parties.flush()
                far.write(answer[:cut])
                parties.flush()
                far.write(answer[cut:] + bad)
                parties.flush()
                self.assertEqual(
                    [(each.serial, each.status) for each in near.messages],
                    [(5, Status.OK), (6, Status.ERROR)],
                )
                self.assertAllGone(parties)

    def test_pings(self) -> None:
        """
        Each side's pings are answered by the gateway, and the other side sees nothing of them,
        however they are cut.
        """
        parties, near, far = self.opened()
        for party, other in ((near, far), (far, near)):
            before = other.pings, other.pongs
            party.write(PING + PING[:10])
            parties.flush()
            party.write(PING[10:] + PONG)
            parties.flush()
            self.assertEqual(party.pongs, 2)
            self.assertEqual((other.pings, other.pongs), before)
        self.assertEqual((near.messages, far.messages), ([], []))

    def test_calledAsKeepAlive(self) -> None:
        """
        A call of the keepalive program is answered with an error, as libvirtd does.
        """
        code, text = self.refusal(call(1, program=KEEPALIVE_PROGRAM))
        self.assertEqual((code, text), (39, f"Cannot find program {KEEPALIVE_PROGRAM} version 1"))

    def test_flood(self) -> None:
        """
        A client that pings without end is dropped for it.
        """
        parties, near, _far = self.opened()
        near.write(PING * 101)
        parties.flush()
        self.assertEqual(parties.factory.counters.flooded, 1)
        self.assertAllGone(parties)


class WatchTests(RelayTestCase):
    """
    Keepalive on each of the two hops.
    """

    def test_idle(self) -> None:
        """
        Both sides are pinged, each at its own interval, and stay connected.
        """
        parties, near, far = self.opened(KeepAlive(2, 1), KeepAlive(5, 1))
        parties.advance(60.5)
        self.assertEqual((near.pings, far.pings), (30, 12))
        self.assertTrue(near.isAlive())

    def test_clientDead(self) -> None:
        """
        A client that hangs is found dead in time, and libvirtd is rid of it at once.
        """
        parties, near, far = self.opened()
        near.answering = False
        parties.advance(5.9)
        self.assertIsNone(far.closedBecause)
        parties.advance(0.3)
        self.assertIsNotNone(far.closedBecause)
        self.assertEqual(parties.factory.counters.dead, 1)
        self.assertAllGone(parties)

    def test_serverDead(self) -> None:
        """
        With nothing under way a libvirtd that hangs is found in C{interval * (count + 1)} seconds,
        and the client is told.
        """
        parties, near, far = self.opened(farewell=True)
        far.answering = False
        parties.advance(5.9)
        self.assertEqual(near.messages, [])
        parties.advance(0.2)
        (told,) = near.messages
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertEqual(parties.probes, [])
        self.assertAllGone(parties)

    def test_serverHangs(self) -> None:
        """
        With calls under way it is asked on another connection first, and found in
        C{interval * (count + 3)} seconds.  The calls are answered with an error that says so, in
        the order in which they were made, and the client is told and disconnected.
        """
        parties, near, far = self.opened(farewell=True)
        far.answering = False
        parties.upstream.mute = True
        parties.advance(3)
        calls = [call(59, serial=31), call(1, program=QEMU_PROGRAM, serial=30)]
        near.write(*calls)
        parties.advance(6.9)
        self.assertEqual(near.messages, [])
        parties.advance(0.2)
        *answers, told = near.messages
        self.assertEqual(
            [each[:6] for each in answers], [reply(each, status=1)[:6] for each in calls]
        )
        for each in answers:
            error = unpackError(each.payload)
            self.assertEqual((error.code, error.domain, error.level), (1, 7, 2))
            self.assertIn(f"libvirtd behind this gateway ({DESCRIPTION})", error.message)
            self.assertIn("it hangs, or the storage", error.message)
            self.assertIn("--upstream-interval 2 s, --upstream-count 2", error.message)
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertEqual((told.type, told.serial, told.payload), (2, 1, number(1)))
        self.assertEqual(parties.factory.counters.dead, 0)
        self.assertAllGone(parties)

    def test_notWatched(self) -> None:
        """
        With zeros libvirtd is never pinged.
        """
        parties, near, far = self.opened(upstreamKeepAlive=KeepAlive(0, 0))
        far.answering = False
        parties.advance(100)
        self.assertEqual(far.pings, 0)
        self.assertTrue(near.isAlive())

    def test_pingBetweenMessages(self) -> None:
        """
        While one side sends a long message, the other is pinged before or after it and never
        in the middle.
        """
        parties, near, far = self.opened(KeepAlive(60, 1), KeepAlive(2, 60))
        message = call(148, bytes(3000))
        packed = packMessage(message)
        for begin in range(0, len(packed), 100):
            near.write(packed[begin : begin + 100])
            parties.advance(0.5)
        self.assertEqual(far.messages, [message])
        parties.advance(3)
        self.assertGreater(far.pings, 0)

    def trickle(self, slow: NearEnd | FarEnd, parties: ThreeParties, seconds: float) -> None:
        """
        Have one side send a message too long to be relayed whole, one byte in four seconds.
        """
        message = packMessage(stream(9, payload=bytes(WHOLE_MAX)))
        slow.write(message[:WHOLE_MAX])
        parties.flush()
        sent = WHOLE_MAX

        def each() -> None:
            nonlocal sent
            due = WHOLE_MAX + int((parties.clock.seconds() - start) / 4)
            slow.write(message[sent:due])
            sent = due

        start = parties.clock.seconds()
        parties.advance(seconds, each)

    def test_clientSlow(self) -> None:
        """
        libvirtd, which cannot be pinged while a client takes minutes over one long message, is not
        found dead for that.
        """
        parties, near, far = self.opened()
        self.trickle(near, parties, 60)
        self.assertIsNone(far.closedBecause)
        self.assertTrue(near.isAlive())
        self.assertEqual(far.pings, 0)

    def test_serverSlow(self) -> None:
        """
        The same the other way round.
        """
        parties, near, far = self.opened()
        self.trickle(far, parties, 60)
        self.assertTrue(near.isAlive())
        self.assertEqual(near.pings, 0)

    def test_deadAfterSlow(self) -> None:
        """
        Once that message is complete, a side that is dead is found dead in time.
        """
        parties, near, far = self.opened(KeepAlive(60, 1))
        packed = packMessage(stream(9, payload=bytes(WHOLE_MAX)))
        near.write(packed[:-50])
        far.answering = False
        parties.upstream.mute = True
        parties.advance(20)
        self.assertIsNone(far.closedBecause)
        near.write(packed[-50:])
        parties.advance(12.2)
        self.assertIsNotNone(far.closedBecause)
        self.assertAllGone(parties)

    def test_shortMessage(self) -> None:
        """
        A message that is short enough is relayed whole: while it trickles in, the other side is
        pinged in front of it, and found dead in time if it does not answer.
        """
        packed = packMessage(stream(9, payload=bytes(100)))
        for dead in range(2):
            parties, near, far = self.opened()
            both: list[NearEnd | FarEnd] = [near, far]
            both[1 - dead].write(packed[:50])
            parties.advance(3)
            self.assertEqual(both[dead].pings, 1)
            both[dead].answering = False
            parties.advance(6.2)
            self.assertIsNotNone(far.closedBecause)
            self.assertAllGone(parties)

    def test_bothDead(self) -> None:
        """
        A client that hangs in the middle of a message is the one that is found dead, though
        libvirtd has been silent as long.
        """
        parties, near, _far = self.opened(KeepAlive(2, 2), KeepAlive(2, 1))
        near.write(packMessage(call(59, bytes(WHOLE_MAX)))[:WHOLE_MAX])
        near.answering = False
        parties.advance(6.2)
        self.assertEqual(parties.factory.counters.dead, 1)
        self.assertAllGone(parties)


class EndTests(RelayTestCase):
    """
    How a relay ends.
    """

    def test_clientCloses(self) -> None:
        """
        A client's goodbye and libvirtd's answer are relayed, and then all is closed
        without anything to log or count.
        """
        parties, near, far = self.opened(farewell=True)
        goodbye = call(Procedure.CONNECT_CLOSE)
        near.write(goodbye)
        parties.flush()
        self.assertEqual(far.messages, [goodbye])
        far.write(reply(goodbye))
        far.transport.loseConnection()
        parties.flush()
        self.assertEqual(near.messages, [reply(goodbye)])
        counters = parties.factory.counters
        self.assertEqual((counters.accepted, counters.opened), (1, 1))
        self.assertEqual((counters.dead, counters.protocolErrors), (0, 0))
        self.assertEqual(self.log, [])
        self.assertAllGone(parties)

    def test_clientVanishes(self) -> None:
        """
        What a client sent before it disconnected is still relayed.
        """
        parties, near, far = self.opened()
        last = call(59, bytes(100))
        near.write(last)
        near.transport.loseConnection()
        parties.flush()
        self.assertEqual(far.messages, [last])
        self.assertIsInstance(far.closedBecause, ConnectionClosed)
        self.assertEqual(self.log, [])
        self.assertAllGone(parties)

    def test_serverGone(self) -> None:
        """
        When libvirtd goes, the calls it left unanswered, and only those, are answered with an
        error that says so; the client, which wants to know, is told before it is disconnected.
        """
        parties, near, far = self.opened(farewell=True)
        calls = [call(59, serial=serial) for serial in range(10, 14)]
        calls.append(feature(Feature.REMOTE_EVENT_CALLBACK, serial=14))
        near.write(*calls)
        parties.flush()
        far.write(reply(calls[1]), reply(calls[3]))
        far.transport.loseConnection()
        parties.flush()
        self.assertEqual([each.serial for each in near.messages], [11, 13, 10, 12, 14, 1])
        error = unpackError(near.messages[2].payload)
        self.assertEqual(
            error.message,
            f"internal error: libvirtd behind this gateway ({DESCRIPTION}): the peer closed the "
            "connection",
        )
        self.assertEqual(near.messages[-1].procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertAllGone(parties)

    def test_notAskedForFarewell(self) -> None:
        """
        A client that has not asked to be told, or does not want to be told any more, is not.
        """
        for calls in ([], [call(360), call(361)]):
            parties, near, far = self.opened()
            near.write(*calls)
            parties.flush()
            far.write(*map(reply, calls))
            far.transport.loseConnection()
            parties.flush()
            self.assertEqual(len(near.messages), len(calls))
            self.assertAllGone(parties)

    def test_serverGoneMidMessage(self) -> None:
        """
        When libvirtd goes in the middle of a message, nothing is put there in its place.
        """
        parties, near, far = self.opened(farewell=True)
        asked = call(59)
        near.write(asked)
        parties.flush()
        far.write(packMessage(stream(9, payload=bytes(WHOLE_MAX)))[:-1])
        parties.flush()
        far.transport.loseConnection()
        parties.flush()
        self.assertEqual(near.messages, [])
        self.assertAllGone(parties)

    def test_manyOutstanding(self) -> None:
        """
        A limited number of calls is remembered, however many are made.
        """
        parties, near, far = self.opened()
        near.write(*(call(59, serial=serial) for serial in range(LIMITS.relayedCalls + 10)))
        parties.flush()
        self.assertEqual(len(far.messages), LIMITS.relayedCalls + 10)
        far.transport.loseConnection()
        parties.flush()
        self.assertEqual([each.serial for each in near.messages], list(range(LIMITS.relayedCalls)))

    def test_garbageFromServer(self) -> None:
        """
        When libvirtd sends what is no message, the client is told what it was.
        """
        parties, near, far = self.opened()
        near.write(call(59))
        parties.flush()
        far.write(bytes(28))
        parties.flush()
        (answer,) = near.messages
        self.assertIn("a message of 0 bytes", unpackError(answer.payload).message)
        self.assertAllGone(parties)

    @given(garbage(), st.booleans())
    def test_garbage(self, data: bytes, fromClient: bool) -> None:
        """
        Whatever bytes come from either side, the worst is that the connection ends: nothing is
        left behind, and the next client can open.
        """
        parties, near, far = self.opened()
        (near if fromClient else far).write(data)
        parties.flush()
        if parties.toClient.serverTransport.disconnected:
            self.assertAllGone(parties)
        parties.opened()

    def test_nothingLeft(self) -> None:
        """
        Nothing of a connection is left in memory, however it ended.
        """
        freezeOlder(self)
        parties = ThreeParties(Mandatory(WATCHED), WATCHED)
        ends: dict[str, weakref.ref[object]] = {}

        def end(how: str) -> None:
            near, far = parties.opened(farewell=True)
            near.write(call(59), stream(9, payload=bytes(100)))
            parties.flush()
            match how:
                case "client vanishes":
                    near.transport.abortConnection()
                case "client garbles":
                    near.write(bytes(28))
                case "libvirtd vanishes":
                    far.transport.abortConnection()
                case "libvirtd hangs":
                    far.answering = False
                    parties.upstream.mute = True
                case "client hangs":
                    near.answering = False
            parties.advance(11)
            parties.upstream.mute = False
            self.assertAllGone(parties)
            for name, pair in (("client", parties.toClient), ("upstream", parties.toUpstream)):
                ends[f"{how}: {name}"] = weakref.ref(
                    pair.server if name == "client" else pair.client
                )
            parties.forget()

        for how in (
            "client vanishes",
            "client garbles",
            "libvirtd vanishes",
            "libvirtd hangs",
            "client hangs",
        ):
            end(how)
        # A log line has the reason with it, which has a traceback.
        self.log.clear()
        gc.collect()
        self.assertEqual([how for how, end in ends.items() if end() is not None], [])
        self.assertEqual(len(ends), 10)


class DrainTests(RelayTestCase):
    """
    What happens to relayed connections when kaserver stops.
    """

    def drain(self, parties: ThreeParties) -> list[None]:
        """
        Start to drain.

        @return: a list that gets an element when nobody is left.
        """
        done: list[None] = []
        parties.factory.drain().addCallback(done.append)
        parties.flush()
        return done

    def test_idle(self) -> None:
        """
        A client that waits for nothing is told, and closed.
        """
        parties, near, _far = self.opened(farewell=True)
        self.assertEqual(self.drain(parties), [None])
        (told,) = near.messages
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertAllGone(parties)

    def test_call(self) -> None:
        """
        A client that waits for an answer gets it before it is closed.
        """
        parties, near, far = self.opened()
        asked = call(59)
        near.write(asked)
        parties.flush()
        done = self.drain(parties)
        self.assertEqual(done, [])
        far.write(reply(asked, b"answer"))
        parties.flush()
        self.assertEqual(near.messages, [reply(asked, b"answer")])
        self.assertEqual(done, [None])
        self.assertAllGone(parties)

    def streaming(self, clients: Message, last: Message) -> None:
        """
        Drain while a stream is under way.

        @param clients: the client's last message.
        @param last: the server's, which ends it.
        """
        parties, client, server = self.opened()
        client.write(stream(9, payload=b"up"))
        server.write(stream(9, payload=b"down"))
        parties.flush()
        done = self.drain(parties)
        client.write(stream(9, payload=b"up"), clients)
        server.write(stream(9, payload=b"down"), stream(9))
        parties.flush()
        self.assertEqual(done, [])
        server.write(last)
        parties.flush()
        self.assertEqual(done, [None])
        self.assertAllGone(parties)

    def test_streamConfirmed(self) -> None:
        """
        A stream goes on until libvirtd has confirmed its end.
        """
        self.streaming(stream(9, Status.OK), stream(9, Status.OK))

    def test_streamFailed(self) -> None:
        """
        A stream goes on until libvirtd says that it has failed.
        """
        self.streaming(stream(9), stream(9, Status.ERROR, b"why"))

    def test_streamAborted(self) -> None:
        """
        A stream that the client aborts goes on until libvirtd has confirmed that.
        """
        self.streaming(stream(9, Status.ERROR), stream(9, Status.OK))

    def test_streamFailedMeanwhile(self) -> None:
        """
        What the client sends before it has read that the stream failed is not another stream.
        """
        parties, near, far = self.opened()
        for serial in range(LIMITS.relayedStreams + 3):
            near.write(stream(serial, payload=b"up"))
            parties.flush()
            far.write(stream(serial, Status.ERROR, b"why"))
            parties.flush()
            near.write(stream(serial, payload=b"up"))
            parties.flush()
        self.assertEqual(self.drain(parties), [None])

    def test_longReply(self) -> None:
        """
        A call is answered when the last byte of its reply has been relayed.
        """
        parties, near, far = self.opened()
        asked = call(14)
        near.write(asked)
        parties.flush()
        done = self.drain(parties)
        answer = packMessage(reply(asked, bytes(100_000)))
        for part in (answer[:70_000], answer[70_000:-1]):
            far.write(part)
            parties.advance(1)
            self.assertEqual(done, [])
        far.write(answer[-1:])
        parties.flush()
        self.assertEqual(done, [None])
        self.assertEqual(len(near.messages), 1)
        self.assertAllGone(parties)

    def test_manyStreams(self) -> None:
        """
        However many streams a client makes up, no more than so many are told apart.  If there are
        more, they count as open until the connection ends.
        """
        for number in (LIMITS.relayedStreams, LIMITS.relayedStreams + 1):
            parties, near, far = self.opened()
            near.write(*(stream(serial, payload=b"x") for serial in range(number)))
            near.write(stream(0, payload=b"y"))
            parties.flush()
            self.assertEqual(len(far.messages), number + 1)
            done = self.drain(parties)
            far.write(*(stream(serial, Status.OK) for serial in range(number)))
            parties.flush()
            self.assertEqual(done, [None] if number == LIMITS.relayedStreams else [])


class PressureTests(RelayTestCase):
    """
    A side that does not read.
    """

    def held(self, parties: ThreeParties) -> int:
        """
        @return: how many bytes the gateway has written to either side and not sent.
        """
        return parties.toClient.serverTransport._size + parties.toUpstream.clientTransport._size

    def test_clientDoesNotRead(self) -> None:
        """
        While a client does not read a long download, the gateway holds little of it and reads no
        more; libvirtd, which it does not read, is not found dead. When the client reads on, it
        gets every byte.
        """
        parties, near, far = self.opened(KeepAlive(60, 60))
        parts = [stream(9, payload=bytes([index]) * 50_000) for index in range(100)]
        near.transport.pauseProducing()
        far.answering = False
        for part in parts:
            far.write(part)
            parties.flush()
        parties.advance(30)
        self.assertLess(self.held(parties), 200_000)
        self.assertFalse(parties.toUpstream.clientTransport.reading)
        self.assertIsNone(far.closedBecause)
        far.answering = True
        near.transport.resumeProducing()
        parties.advance(10)
        self.assertEqual(near.messages, parts)
        self.assertTrue(near.isAlive())
        self.assertTrue(parties.toUpstream.clientTransport.reading)

    def test_serverDoesNotRead(self) -> None:
        """
        The same the other way round, with a long upload.
        """
        parties, near, far = self.opened(WATCHED, KeepAlive(60, 60))
        parts = [stream(9, payload=bytes([index]) * 50_000) for index in range(100)]
        far.transport.pauseProducing()
        near.answering = False
        for part in parts:
            near.write(part)
            parties.flush()
        parties.advance(30)
        self.assertLess(self.held(parties), 200_000)
        self.assertFalse(parties.toClient.serverTransport.reading)
        self.assertTrue(near.isAlive())
        near.answering = True
        far.transport.resumeProducing()
        parties.advance(10)
        self.assertEqual(far.messages, parts)
        self.assertTrue(near.isAlive())

    def test_clientDies(self) -> None:
        """
        A client that neither reads nor answers pings is dead, and what it has not read does not
        delay its end.
        """
        parties, near, far = self.opened(farewell=True)
        near.transport.pauseProducing()
        near.answering = False
        for _count in range(10):
            far.write(stream(9, payload=bytes(50_000)))
            parties.flush()
        parties.advance(6.2)
        self.assertEqual(parties.factory.counters.dead, 1)
        self.assertAllGone(parties)

    def test_serverDies(self) -> None:
        """
        A libvirtd that takes no more of an upload, nor answers pings, is dead; the client, which
        was not read meanwhile, is told.
        """
        parties, near, far = self.opened(farewell=True)
        far.transport.pauseProducing()
        parties.upstream.mute = True
        near.write(call(59))
        parties.flush()
        for _count in range(10):
            near.write(stream(9, payload=bytes(50_000)))
            parties.flush()
        parties.advance(10.2)
        answer, told = near.messages
        self.assertIn("it hangs", unpackError(answer.payload).message)
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertAllGone(parties)

    def test_serverDiesMidMessage(self) -> None:
        """
        The same in the middle of a message, of which the client would send the rest.
        """
        parties, near, far = self.opened()
        far.transport.pauseProducing()
        parties.upstream.mute = True
        packed = packMessage(stream(9, payload=bytes(BIG)))
        for begin in range(0, BIG, 50_000):
            near.write(packed[begin : begin + 50_000])
            parties.flush()
        parties.advance(10.2)
        self.assertAllGone(parties)

    def test_unasked(self) -> None:
        """
        An answer to no call is relayed, and no call counts as answered for it.
        """
        parties, near, far = self.opened()
        answer = reply(call(59))
        far.write(answer)
        parties.flush()
        self.assertEqual(near.messages, [answer])
        near.write(call(59))
        parties.flush()
        connection = connectionOf(parties.toUpstream.client, UpstreamConnection)
        self.assertTrue(connection.isUnderWay)

    def test_unstuck(self) -> None:
        """
        When neither side reads, and one does again within the minute, all goes on.
        """
        for first in (0, 1):
            parties, near, far = self.opened(KeepAlive(600, 1), KeepAlive(600, 1))
            both: list[NearEnd | FarEnd] = [near, far]
            for party in both:
                party.transport.pauseProducing()
            for _count in range(10):
                for party in both:
                    party.write(stream(9, payload=bytes(50_000)))
                parties.flush()
            parties.advance(30)
            both[first].transport.resumeProducing()
            parties.advance(60)
            both[1 - first].transport.resumeProducing()
            parties.flush()
            self.assertEqual([len(party.messages) for party in both], [10, 10])

    def test_stuck(self) -> None:
        """
        When neither side reads, neither can be found dead; after a minute that is the end.
        """
        parties, near, far = self.opened()
        for party in (near, far):
            party.transport.pauseProducing()
            party.answering = False
        for _count in range(10):
            for party in (near, far):
                party.write(stream(9, payload=bytes(50_000)))
            parties.flush()
        parties.advance(59)
        self.assertFalse(parties.toClient.serverTransport.disconnected)
        parties.advance(1.1)
        self.assertAllGone(parties)

    def test_congestedBefore(self) -> None:
        """
        A client that is behind with reading already when relaying starts holds up libvirtd too.
        """
        parties = ThreeParties()
        parties.upstream.mute = True
        near = parties.connect()
        near.transport.pauseProducing()
        near.write(*(call(Procedure.AUTH_LIST, serial=serial) for serial in range(1000, 1090)))
        near.write(*(call(9999, serial=serial) for serial in range(2000, 3500)))
        parties.flush()
        self.assertTrue(parties.toClient.server.congested)
        parties.toUpstream.serverTransport.resumeProducing()
        parties.flush()
        self.assertFalse(parties.toUpstream.clientTransport.reading)
        near.transport.resumeProducing()
        parties.flush()
        self.assertTrue(near.isAlive())
        self.assertTrue(parties.toUpstream.clientTransport.reading)

    def test_refusedWithoutReading(self) -> None:
        """
        A client that makes calls the gateway refuses, and does not read the refusals, is not read
        any further; it may catch up.
        """
        parties, near, far = self.opened()
        near.transport.pauseProducing()
        refused = call(Procedure.CONNECT_SET_IDENTITY)
        for _count in range(50):
            near.write(*[refused] * 100)
            parties.flush()
        self.assertLess(self.held(parties), 200_000)
        self.assertFalse(parties.toClient.serverTransport.reading)
        near.transport.resumeProducing()
        parties.advance(10)
        self.assertEqual(len(near.messages), 5_000)
        self.assertTrue(near.isAlive())
        self.assertEqual(far.messages, [])

    def test_refusedAndGone(self) -> None:
        """
        If it does not catch up, it is dropped after a minute.
        """
        parties, near, _far = self.opened()
        near.transport.pauseProducing()
        near.write(*[call(Procedure.CONNECT_SET_IDENTITY)] * 1000)
        parties.advance(59)
        self.assertFalse(parties.toClient.serverTransport.disconnected)
        parties.advance(1.1)
        self.assertEqual(parties.factory.counters.deadlinesMissed, 1)
        self.assertAllGone(parties)

    def test_refusedMidMessage(self) -> None:
        """
        Refusals that wait for the end of a message from libvirtd do not grow without bound.
        """
        parties, near, far = self.opened()
        far.write(packMessage(stream(9, payload=bytes(WHOLE_MAX)))[:-50])
        parties.flush()
        refused = [
            call(Procedure.CONNECT_SET_IDENTITY, serial=serial)
            for serial in range(LIMITS.waitingAnswers)
        ]
        near.write(*refused)
        parties.flush()
        self.assertEqual(parties.factory.counters.flooded, 0)
        near.write(feature(Feature.PROGRAM_KEEPALIVE))
        parties.flush()
        self.assertEqual(parties.factory.counters.flooded, 1)
        self.assertAllGone(parties)


class Producer:
    """
    Notes whether it is paused.
    """

    paused = False

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.
        """
        self.paused = False


class SocketTests(SynchronousTestCase):
    """
    What is relayed reaches real sockets, at once if nothing is waiting.

    @ivar ways: for each direction, what feeds the relay, the transport it writes to, and the
        socket at the other end.
    """

    def setUp(self) -> None:
        """
        Put a relay between two sockets.
        """
        self.reactor = MemoryReactor()
        client, clientSocket = self.connected()
        upstream, upstreamSocket = self.connected()
        ends = [
            SimpleNamespace(
                incoming=SimpleNamespace(trace=None),
                outgoing=Outgoing(cast(StreamTransport, transport)),
                server=SimpleNamespace(limits=LIMITS),
            )
            for transport in (client, upstream)
        ]
        relay = Relay(*cast(Any, ends))
        self.addCleanup(relay.end)
        self.ways = (
            (relay._toServer.feed, upstream, upstreamSocket),
            (relay._toClient.feed, client, clientSocket),
        )

    def connected(self) -> tuple[Connection, socket.socket]:
        """
        A transport, and the socket at its other end.
        """
        ours, far = socket.socketpair()
        for each in (ours, far):
            self.addCleanup(each.close)
            each.setblocking(False)
        transport = Connection(ours, Protocol(), self.reactor)
        transport.connected = True
        transport.startReading()
        return transport, far

    def read(self, far: socket.socket) -> bytes:
        """
        What has come.
        """
        data = b""
        try:
            while piece := far.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data

    def writeOut(self, transport: Connection, far: socket.socket) -> bytes:
        """
        Do what the reactor does, until nothing is left to write.

        @return: what has come.
        """
        data = self.read(far)
        while transport in self.reactor.getWriters():
            transport.doWrite()
            data += self.read(far)
        return data

    def test_atOnce(self) -> None:
        """
        A message that came whole is with the receiver before the reactor's next turn.
        """
        message = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
        for feed, _transport, far in self.ways:
            feed(message)
            self.assertEqual(self.read(far), message)
        self.assertEqual(self.reactor.getWriters(), [])

    def test_order(self) -> None:
        """
        A message does not overtake what the transport has not sent yet.
        """
        message = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
        for feed, transport, far in self.ways:
            transport.write(PONG)
            feed(message)
            self.assertEqual(self.read(far), b"")
            self.assertEqual(self.writeOut(transport, far), PONG + message)

    def test_slowReader(self) -> None:
        """
        While the receiver does not read, the sender is told to pause, and afterwards everything
        is there, in order.
        """
        message = packMessage(stream(1, payload=bytes(range(256)) * 1024))
        for feed, transport, far in self.ways:
            producer = Producer()
            transport.registerProducer(cast(Any, producer), True)
            sent = b""
            while not producer.paused:
                for begin in range(0, len(message), 65536):
                    feed(message[begin : begin + 65536])
                sent += message
                self.assertLess(len(sent), 100 * len(message))
            feed(message)
            self.assertEqual(self.writeOut(transport, far), sent + message)
            self.assertFalse(producer.paused)

    def test_closed(self) -> None:
        """
        Nothing is written to a connection that is gone, and what was written before a close is
        still sent.
        """
        message = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
        for feed, transport, far in self.ways:
            transport.write(PONG)
            transport.loseConnection()
            feed(message)
            self.assertEqual(self.read(far), b"")
            transport.doWrite()
            self.assertEqual(self.read(far), PONG + message)
            transport.connected = False
            feed(message)
            self.assertEqual(self.read(far), b"")
