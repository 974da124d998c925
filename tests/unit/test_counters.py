"""
Tests for L{kaproto.counters}.
"""

from __future__ import annotations

import attrs
from OpenSSL.SSL import Error as SSLError
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kaproto.counters import Counters
from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    PeerFlooded,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.peer import Peer

PEER = Peer(IPv4Address("TCP", "192.0.2.1", 5), "tcp")


class CountersTests(SynchronousTestCase):
    """
    What is counted and said of connections that end.
    """

    def ended(self, reason: Exception) -> tuple[dict[str, int], list[str | None]]:
        """
        Have a connection end.

        @return: what was counted, and what was said.
        """
        counters = Counters()
        with capturedLogs() as events:
            counters.ended(PEER, reason, Logger())
        counted = {name: number for name, number in attrs.asdict(counters).items() if number}
        return counted, [formatEvent(event) for event in events]

    def test_each(self) -> None:
        """
        Each kind of end has its counter and its words, which name the peer and the reason.
        """
        who = "tcp 192.0.2.1:5"
        expected: list[tuple[Exception, str, str]] = [
            (TooManyClients("too many clients"), "displaced", f"dropped {who}: too many clients"),
            (
                SSLError([("SSL routines", "", "no shared cipher")]),
                "unauthenticated",
                f"refused {who}: TLS failed: no shared cipher",
            ),
            (
                KeepAliveTimeout(1, 2, 3.04),
                "dead",
                f"{who} is dead: connection closed due to keepalive timeout: nothing heard for "
                "3.04 s and 2 pings unanswered (interval 1 s, count 2)",
            ),
            (PeerFlooded("too many pings"), "flooded", f"dropped {who}: too many pings"),
            (
                DeadlineMissed("it did not open", 3),
                "deadlinesMissed",
                f"dropped {who}: it did not open within 3 s",
            ),
            (RemoteProtocolError("rubbish"), "protocolErrors", f"dropped {who}: it sent rubbish"),
        ]
        for reason, counter, line in expected:
            self.assertEqual(self.ended(reason), ({counter: 1}, [line]))

    def test_notLetIn(self) -> None:
        """
        Failures to log in have been counted when they happened, and are told when it was the last.
        """
        counted, lines = self.ended(AuthenticationFailed("three times wrong"))
        self.assertEqual(counted, {})
        self.assertEqual(lines, ["refused tcp 192.0.2.1:5: three times wrong"])

    def test_inOrder(self) -> None:
        """
        Of connections that end in order, or that the network loses, nothing is said.
        """
        for reason in (ConnectionClosed("the peer closed the connection"), ConnectionLost()):
            self.assertEqual(self.ended(reason), ({}, []))
