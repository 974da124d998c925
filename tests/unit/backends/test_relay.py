"""
Tests for L{kaproto.backends.relay}, between a client and a libvirtd in memory.
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
A peer is dead after 6 seconds.
"""

BIG = 3_000_000
"""
More bytes than any buffer in these tests holds.
"""


def reply(to: Message, payload: bytes = b"", status: int = Status.OK) -> Message:
    """
    The reply to a call.
    """
    return to._replace(type=MessageType.REPLY, payload=payload, status=status)


def number(value: int) -> bytes:
    """
    A number as a payload.
    """
    return Packer().int32(value).packed()


class RelayTestCase(SynchronousTestCase):
    """
    Base class for tests of three parties.

    @ivar log: the logged events.
    """

    def setUp(self) -> None:
        """
        Capture the log.
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
        @param keepAlive: the gateway's keepalive towards the client.
        @param upstreamKeepAlive: the gateway's keepalive towards libvirtd.
        @param farewell: whether the client registers a close callback.
        """
        parties = ThreeParties(Mandatory(keepAlive), upstreamKeepAlive)
        return parties, *parties.opened(farewell=farewell)

    def assertAllGone(self, parties: ThreeParties) -> None:
        """
        Check that no connection and no timer is left.
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
    Tests for relayed messages.
    """

    def exchange(self, there: Sequence[Message], back: Sequence[Message]) -> None:
        """
        Send messages both ways, and check that they arrive unchanged.
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
        A trace has every message of the client, but not the keepalive with libvirtd.
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
        Calls to any procedure of any program are relayed unchanged, and so are replies and errors,
        in any order.  Serials need not be unique or in order.
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
        Streams and their holes are relayed both ways.
        """
        hole = stream(9)._replace(type=MessageType.STREAM_HOLE)
        parts = [stream(9, payload=bytes(1000)), hole, stream(9), stream(9, Status.OK)]
        self.exchange(parts, [*parts, stream(9, Status.ERROR, b"why")])

    def test_oddities(self) -> None:
        """
        Messages that libvirtd would ignore are relayed.
        """
        odd = [call(59, kind=kind) for kind in (1, 2, 5, 6, 7, 99)]
        self.exchange([*odd, call(59, bytes(4), kind=MessageType.CALL_WITH_FDS)], [])

    @given(
        st.lists(messages().filter(_isRelayed), max_size=6),
        st.data(),
    )
    def test_anything(self, drawn: list[Message], data: st.DataObject) -> None:
        """
        Messages arrive in both directions, no matter how their bytes are split.
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
        The first half of a big message is forwarded before the second half arrives.
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
        More messages than one turn relays arrive in later turns, in both directions and in order.
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
        An event in the same read as libvirtd's reply to open is relayed.
        """
        parties = ThreeParties()
        event = Message(REMOTE_PROGRAM, 1, 318, MessageType.MESSAGE, 1, Status.OK, b"early")

        class EagerConnection(FarConnection):
            """
            Sends an event as soon as it is open.
            """

            def callAnswered(self) -> None:
                """
                Send the event together with the reply.
                """
                end = cast(FarEnd, self.hooks)
                if self.session is not None and not end.scripted:
                    end.scripted = True
                    end.write(event)
                super().callAnswered()

        class Eager(FarEnd):
            """
            A libvirtd that sends an event as soon as it is open.
            """

            _kaprotoConnection = EagerConnection

        parties.upstream.factory.protocol = Eager
        near = parties.connect()
        self.assertTrue(near.isAlive())
        self.assertEqual(near.messages, [event])


class OwnHopTests(RelayTestCase):
    """
    Tests for messages that the gateway answers itself.
    """

    def answer(self, message: Message) -> Message:
        """
        @return: the gateway's own reply to a call.
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
        @return: the code and the text of the gateway's own error for a call.
        """
        answer = self.answer(message)
        self.assertEqual(answer.status, Status.ERROR)
        error = unpackError(answer.payload)
        self.assertEqual((error.domain, error.level), (7, 2))
        return error.code, error.message

    def test_features(self) -> None:
        """
        The gateway answers that it has keepalive.  Queries of other features, and malformed ones,
        are relayed.
        """
        self.assertEqual(self.answer(feature(Feature.PROGRAM_KEEPALIVE)).payload, number(1))
        parties, near, far = self.opened()
        asked = [feature(Feature.FD_PASSING), call(Procedure.CONNECT_SUPPORTS_FEATURE)]
        near.write(*asked)
        parties.flush()
        self.assertEqual(far.messages, asked)

    def test_authentication(self) -> None:
        """
        After opening, no authentication is required, and none succeeds.
        """
        answer = self.answer(call(Procedure.AUTH_LIST))
        self.assertEqual(answer.payload, number(1) + number(0))
        for procedure in (67, 68, 69, 70):
            code, _text = self.refusal(call(procedure))
            self.assertEqual(code, ErrorCode.AUTH_FAILED)

    def test_setIdentity(self) -> None:
        """
        A client cannot set its own identity.
        """
        code, text = self.refusal(call(Procedure.CONNECT_SET_IDENTITY, bytes(8)))
        self.assertEqual(code, ErrorCode.OPERATION_DENIED)
        self.assertIn("identity", text)

    def test_passingFds(self) -> None:
        """
        Procedures that return file descriptors are refused, and the error says why.  Those that
        take file descriptors are relayed when they are called with none.
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
        A call with file descriptors is refused.  They are dropped, with the byte that follows for
        each, no matter how it is split.
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
        A reply with file descriptors becomes an error, and one with none is relayed.
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
        A message with more file descriptors than libvirt allows closes the connection.
        """
        parties, near, _far = self.opened()
        near.write(call(59, number(DESCRIPTORS_MAX + 1), kind=MessageType.CALL_WITH_FDS))
        parties.flush()
        self.assertEqual(parties.factory.counters.protocolErrors, 1)
        self.assertAllGone(parties)

    def test_featureWithFds(self) -> None:
        """
        A query of keepalive is answered by the gateway even in a call of type C{CALL_WITH_FDS} that
        has none.
        """
        parties, near, far = self.opened()
        near.write(call(60, number(0) + number(10), kind=MessageType.CALL_WITH_FDS))
        parties.flush()
        self.assertEqual(far.messages, [])
        self.assertEqual([each.payload for each in near.messages], [number(1)])

    def test_lastWords(self) -> None:
        """
        Messages that precede libvirtd's protocol error are relayed, even those in the same read;
        the gateway answers the remaining calls with errors.
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
        The gateway answers both sides' pings, no matter how they are split, and relays none.
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
        A call of the keepalive program gets the same error as from libvirtd.
        """
        code, text = self.refusal(call(1, program=KEEPALIVE_PROGRAM))
        self.assertEqual((code, text), (39, f"Cannot find program {KEEPALIVE_PROGRAM} version 1"))

    def test_flood(self) -> None:
        """
        A client that sends too many pings is disconnected.
        """
        parties, near, _far = self.opened()
        near.write(PING * 101)
        parties.flush()
        self.assertEqual(parties.factory.counters.flooded, 1)
        self.assertAllGone(parties)


class WatchTests(RelayTestCase):
    """
    Tests for keepalive on each of the two hops.
    """

    def test_idle(self) -> None:
        """
        Both peers are pinged, each at its own interval, and stay connected.
        """
        parties, near, far = self.opened(KeepAlive(2, 1), KeepAlive(5, 1))
        parties.advance(60.5)
        self.assertEqual((near.pings, far.pings), (30, 12))
        self.assertTrue(near.isAlive())

    def test_clientDead(self) -> None:
        """
        A client that hangs is dead after C{interval * (count + 1)} seconds, and the connection to
        libvirtd is closed at once.
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
        Without calls under way, a libvirtd that hangs is detected in C{interval * (count + 1)}
        seconds, and the client gets the close event.
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
        With calls under way, a hang is detected with a probe in C{interval * (count + 3)} seconds.
        The calls are answered with an error, in the order in which they were made, and the client
        is disconnected.
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
            self.assertIn("it hangs, or waits for storage", error.message)
            self.assertIn("--upstream-interval 2 s, --upstream-count 2", error.message)
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertEqual((told.type, told.serial, told.payload), (2, 1, number(1)))
        self.assertEqual(parties.factory.counters.dead, 0)
        self.assertAllGone(parties)

    def test_notWatched(self) -> None:
        """
        With an interval of zero, libvirtd is never pinged.
        """
        parties, near, far = self.opened(upstreamKeepAlive=KeepAlive(0, 0))
        far.answering = False
        parties.advance(100)
        self.assertEqual(far.pings, 0)
        self.assertTrue(near.isAlive())

    def test_pingBetweenMessages(self) -> None:
        """
        While one side sends a long message, the other is pinged before or after it, and never in
        the middle.
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
        Send a message, too long to be relayed whole, at one byte in four seconds.
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
        While a client takes minutes for one long message, libvirtd cannot be pinged and is not
        considered dead.
        """
        parties, near, far = self.opened()
        self.trickle(near, parties, 60)
        self.assertIsNone(far.closedBecause)
        self.assertTrue(near.isAlive())
        self.assertEqual(far.pings, 0)

    def test_serverSlow(self) -> None:
        """
        While libvirtd takes minutes for one long message, the client is not considered dead.
        """
        parties, near, far = self.opened()
        self.trickle(far, parties, 60)
        self.assertTrue(near.isAlive())
        self.assertEqual(near.pings, 0)

    def test_deadAfterSlow(self) -> None:
        """
        A dead peer is detected in time once the long message is complete.
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
        A short message is relayed whole: until all of it has arrived, the other side is pinged, and
        is found dead in time if it does not answer.
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
        A client that hangs in the middle of a message is the one that is considered dead, although
        libvirtd was silent for the same time.
        """
        parties, near, _far = self.opened(KeepAlive(2, 2), KeepAlive(2, 1))
        near.write(packMessage(call(59, bytes(WHOLE_MAX)))[:WHOLE_MAX])
        near.answering = False
        parties.advance(6.2)
        self.assertEqual(parties.factory.counters.dead, 1)
        self.assertAllGone(parties)


class EndTests(RelayTestCase):
    """
    Tests for the end of a relay.
    """

    def test_clientCloses(self) -> None:
        """
        The call to close and its reply are relayed; then both connections are closed, without a log
        line or an error counted.
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
        A client's last message before it disconnects is relayed.
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
        When libvirtd disconnects, exactly the unanswered calls are answered with an error.  The
        client has a close callback, so it gets the event before it is disconnected.
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
        A client that has no close callback, or has removed it, gets no event.
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
        When libvirtd disconnects in the middle of a message, nothing is written after the half
        message.
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
        At most C{relayedCalls} calls are remembered, however many are made.
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
        When libvirtd sends an invalid message, the client's calls are answered with an error about
        it.
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
        Arbitrary bytes from either side at worst close the connection: nothing is left, and the
        next client can open.
        """
        parties, near, far = self.opened()
        (near if fromClient else far).write(data)
        parties.flush()
        if parties.toClient.serverTransport.disconnected:
            self.assertAllGone(parties)
        parties.opened()

    def test_nothingLeft(self) -> None:
        """
        No object of a connection is left in memory, however it ended.
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
        # A logged event refers to the reason, which refers to a traceback.
        self.log.clear()
        gc.collect()
        self.assertEqual([how for how, end in ends.items() if end() is not None], [])
        self.assertEqual(len(ends), 10)


class DrainTests(RelayTestCase):
    """
    Tests for relayed connections when kaserver stops.
    """

    def drain(self, parties: ThreeParties) -> list[None]:
        """
        Start to stop the server.

        @return: a list that gets an element when all clients are gone.
        """
        done: list[None] = []
        parties.factory.drain().addCallback(done.append)
        parties.flush()
        return done

    def test_idle(self) -> None:
        """
        An idle client gets an event and is disconnected.
        """
        parties, near, _far = self.opened(farewell=True)
        self.assertEqual(self.drain(parties), [None])
        (told,) = near.messages
        self.assertEqual(told.procedure, Procedure.CONNECT_EVENT_CONNECTION_CLOSED)
        self.assertAllGone(parties)

    def test_call(self) -> None:
        """
        A client with a call under way gets the reply before it is disconnected.
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
        Stop the server while a stream is open.

        @param clients: the client's last message.
        @param last: the server's last message, which ends the stream.
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
        A stream stays open until libvirtd has confirmed its end.
        """
        self.streaming(stream(9, Status.OK), stream(9, Status.OK))

    def test_streamFailed(self) -> None:
        """
        A stream stays open until libvirtd sends an error.
        """
        self.streaming(stream(9), stream(9, Status.ERROR, b"why"))

    def test_streamAborted(self) -> None:
        """
        A stream that the client aborts stays open until libvirtd has confirmed that.
        """
        self.streaming(stream(9, Status.ERROR), stream(9, Status.OK))

    def test_streamFailedMeanwhile(self) -> None:
        """
        Data that the client sends before it reads the stream's error opens no new stream.
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
        A call is under way until the last byte of its reply has been relayed.
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
        At most C{relayedStreams} streams are tracked.  Beyond that, the client counts as streaming
        until its connection ends.
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
    Tests for a peer that does not read.
    """

    def held(self, parties: ThreeParties) -> int:
        """
        @return: the number of bytes that the gateway has written to both sides and not sent.
        """
        return parties.toClient.serverTransport._size + parties.toUpstream.clientTransport._size

    def test_clientDoesNotRead(self) -> None:
        """
        While a client does not read a long download, the gateway buffers little of it and stops
        reading. libvirtd, whose answers are not read, is not considered dead.  When the client
        reads again, it gets every byte.
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
        While libvirtd does not read a long upload, the gateway buffers little of it, and the client
        is not considered dead.
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
        A client that neither reads nor answers pings is dead, and unsent bytes do not delay its
        end.
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
        A libvirtd that neither reads an upload nor answers pings is dead; the client, which was not
        read from, gets an error and an event.
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
        A libvirtd that stops reading in the middle of a message is found dead too.
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
        A reply without a call is relayed, and does not count as the reply to the next call.
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
        When neither side reads, and one resumes within a minute, relaying goes on.
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
        When neither side reads for a minute, both are disconnected, since neither can be found
        dead.
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
        When a client is slow to read before relaying begins, libvirtd is not read either.
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
        A client that does not read the gateway's own replies is not read from, until it reads
        again.
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
        A client that does not read the gateway's own replies for a minute is disconnected.
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
        At most C{waitingAnswers} of the gateway's own replies wait for the end of a message from
        libvirtd.
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
    A producer that records whether it is paused.
    """

    paused = False

    def pauseProducing(self) -> None:
        """
        Record that the transport's buffer is full.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        Record that the transport's buffer is empty.
        """
        self.paused = False


class SocketTests(SynchronousTestCase):
    """
    Tests for relaying to real sockets, where messages are sent at once if the transport has nothing
    to send.

    @ivar ways: for each direction the function that feeds the relay, the transport that it writes
        to, and the socket of the receiver.
    """

    def setUp(self) -> None:
        """
        Create a relay between two sockets.
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
        @return: a transport, and its peer's socket.
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
        @return: the bytes that arrived at the receiver.
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
        Do what the reactor does, until the transport has nothing to send.

        @return: the bytes that arrived at the receiver.
        """
        data = self.read(far)
        while transport in self.reactor.getWriters():
            transport.doWrite()
            data += self.read(far)
        return data

    def test_atOnce(self) -> None:
        """
        A whole message arrives before the reactor's next turn.
        """
        message = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
        for feed, _transport, far in self.ways:
            feed(message)
            self.assertEqual(self.read(far), message)
        self.assertEqual(self.reactor.getWriters(), [])

    def test_order(self) -> None:
        """
        A message does not overtake bytes that the transport has not sent yet.
        """
        message = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
        for feed, transport, far in self.ways:
            transport.write(PONG)
            feed(message)
            self.assertEqual(self.read(far), b"")
            self.assertEqual(self.writeOut(transport, far), PONG + message)

    def test_slowReader(self) -> None:
        """
        While the receiver does not read, the sender is paused; afterwards everything arrives in
        order.
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
        Nothing is written to a lost connection, and messages written while it closes are still
        sent.
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
