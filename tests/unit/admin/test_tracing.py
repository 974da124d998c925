"""
Tests for L{kaproto.admin.tracing}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.wire.message import PONG
from tests.support import Probe
from tests.support_admin import AdminTestCase


class TraceTests(AdminTestCase):
    """
    Tests for showing a client's messages to an administrator.
    """

    def setUp(self) -> None:
        """
        Connect a client and an administrator.
        """
        super().setUp()
        self.server.programs[Probe.number] = Probe()
        self.traced = self.openClient()
        self.pair_ = self._pairs[0]
        self.client_ = self.control()
        self.events: list[dict[str, Any]] = []

    def trace(self, number: int = 1, seconds: int = 10) -> Deferred[str]:
        """
        Start a trace.
        """
        running = Deferred.fromCoroutine(self.client_.trace(number, seconds, self.events.append))
        self.settle()
        return running

    def settle(self) -> None:
        """
        Deliver all bytes.
        """
        for pair in self._pairs:
            pair.flush()

    def test_messages(self) -> None:
        """
        Calls and replies are shown with their headers, and pongs with their latency, until the time
        is over.  Then nothing is left of the trace.
        """
        running = self.trace()
        self.pair_.client.call(Probe.number, Probe.ECHO, b"abcd")
        self.settle()
        self.pair_.client.call(Probe.number, 99).addErrback(lambda _: None)
        self.settle()
        self.pair_.advance(1.25)
        self.settle()
        call, reply, unknown, error, pong = self.events
        self.assertEqual(
            call,
            {
                "id": 1,
                "at_ms": 0.0,
                "direction": "in",
                "type": "call",
                "program": "0x2f000001",
                "procedure": 1,
                "name": None,
                "serial": call["serial"],
                "status": "ok",
                "bytes": 32,
            },
        )
        self.assertEqual(
            (reply["direction"], reply["type"], reply["serial"]), ("out", "reply", call["serial"])
        )
        self.assertEqual((unknown["procedure"], error["status"]), (99, "error"))
        self.assertEqual((pong["name"], pong["program"]), ("PONG", "keepalive"))
        self.assertGreater(pong["at_ms"], 900)
        self.pair_.advance(9)
        self.settle()
        self.assertEqual(self.successResultOf(running), "the time is over")
        self.assertIsNone(self.traced.incoming.trace)
        self.assertIsNone(self.traced.heartbeat.onAnswer)

    def test_names(self) -> None:
        """
        Procedures of libvirt have names.
        """
        running = self.trace()
        self.pair_.client.close()
        self.settle()
        self.assertEqual(
            [(each["program"], each["name"]) for each in self.events[:2]],
            [("remote", "CONNECT_CLOSE")] * 2,
        )
        self.assertIn("client closed", self.successResultOf(running))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pongInParts(self) -> None:
        """
        A pong that arrives in two reads is shown once.
        """
        self.trace().addErrback(lambda _: None)
        self.pair_.advance(1.25)
        self.settle()
        self.assertEqual([each["name"] for each in self.events], ["PONG"])
        self.traced.incoming.feed(PONG[:10])
        self.traced.incoming.feed(PONG[10:])
        self.settle()
        self.assertEqual([each["name"] for each in self.events], ["PONG"])

    def test_odd(self) -> None:
        """
        A message with unknown numbers is shown too.
        """
        self.trace().addErrback(lambda _: None)
        trace = self.traced.incoming.trace
        assert trace is not None
        trace("in", (28, 0x20008087, 1, 7, 9, 1, 77))
        self.settle()
        (event,) = self.events
        self.assertEqual((event["program"], event["type"], event["status"]), ("qemu", "9", "77"))

    def test_slowAdministrator(self) -> None:
        """
        Messages that the administrator does not read in time are left out and counted; the end of
        the trace is always sent.
        """
        running = self.trace(seconds=1)
        server = self.controlled.server._kaproto
        server.outgoing.congested = True
        for _ in range(3):
            self.pair_.client.call(Probe.number, Probe.ECHO)
        self.settle()
        self.pair_.advance(1)
        self.settle()
        self.assertEqual(
            self.successResultOf(running), "the time is over; 6 messages were left out"
        )

    def test_administratorGoes(self) -> None:
        """
        The trace ends when the administrator disconnects.
        """
        running = self.trace()
        closed = Deferred.fromCoroutine(self.client_.close())
        self.settle()
        self.successResultOf(closed)
        self.failureResultOf(running, ConnectionClosed)
        self.assertIsNone(self.traced.incoming.trace)
        self.pair_.client.close()
        self.settle()

    def test_again(self) -> None:
        """
        Two administrators can trace one client, each for its own time.
        """
        first = self.trace(seconds=5)
        other = self.control()
        seen: list[dict[str, Any]] = []
        second = Deferred.fromCoroutine(other.trace(1, 10, seen.append))
        self.settle()
        self.pair_.client.call(Probe.number, Probe.ECHO)
        self.settle()
        self.assertEqual([each["type"] for each in self.events], ["call", "reply"])
        self.assertEqual(seen, self.events)
        self.pair_.advance(6)
        self.settle()
        self.assertEqual(self.successResultOf(first), "the time is over")
        seen.clear()
        self.pair_.client.call(Probe.number, Probe.ECHO)
        self.settle()
        self.assertEqual([each["type"] for each in seen], ["call", "reply"])
        self.pair_.advance(5)
        self.settle()
        self.assertEqual(self.successResultOf(second), "the time is over")
        self.assertIsNone(self.traced.incoming.trace)

    def test_replaced(self) -> None:
        """
        If an administrator starts a second trace of the same client, it replaces the first.
        """
        self.trace(seconds=60).addErrback(lambda _: None)
        second = self.trace(seconds=5)
        self.pair_.client.call(Probe.number, Probe.ECHO)
        self.settle()
        self.assertEqual([each["type"] for each in self.events], ["call", "reply"])
        self.pair_.advance(5)
        self.settle()
        self.assertEqual(self.successResultOf(second), "the time is over")
        self.assertIsNone(self.traced.incoming.trace)

    def test_unknown(self) -> None:
        """
        Tracing an unknown client is an error.
        """
        self.failureResultOf(self.trace(99), RemoteError)
