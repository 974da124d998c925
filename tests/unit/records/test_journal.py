"""
Tests for L{kaproto.records.journal}.
"""

from __future__ import annotations

import attrs
from OpenSSL.SSL import Error as SSLError
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

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
from kaproto.records.journal import Journal


def somebody() -> Peer:
    """
    @return: a peer.
    """
    return Peer(IPv4Address("TCP", "192.0.2.1", 5), "tcp")


def counted(journal: Journal) -> dict[str, int]:
    """
    @return: the counters that are not zero.
    """
    return {name: number for name, number in attrs.asdict(journal.counters).items() if number}


class JournalTests(SynchronousTestCase):
    """
    Tests for what is counted, logged and recorded.
    """

    def setUp(self) -> None:
        """
        Create a clock and a journal.
        """
        self.clock = Clock()
        self.journal = Journal(self.clock.seconds, lambda: 1000.0 + self.clock.seconds())

    def ended(self, reason: Exception) -> tuple[dict[str, int], list[str | None]]:
        """
        Record the end of a connection.

        @return: the counters that changed, and the log lines.
        """
        self.setUp()
        with capturedLogs() as events:
            self.journal.ended(somebody(), reason)
        return counted(self.journal), [formatEvent(event) for event in events]

    def test_endings(self) -> None:
        """
        Each kind of ending has its own counter and log line, which names the peer and the reason.
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

    def test_authenticationFailed(self) -> None:
        """
        Failed logins are counted individually, and logged when the connection ends.
        """
        self.assertEqual(
            self.ended(AuthenticationFailed("three times wrong")),
            ({}, ["refused tcp 192.0.2.1:5: three times wrong"]),
        )

    def test_inOrder(self) -> None:
        """
        Connections that are closed regularly, or lost by the network, are not logged.
        """
        for reason in (ConnectionClosed("the peer closed the connection"), ConnectionLost()):
            self.assertEqual(self.ended(reason), ({}, []))

    def test_numbers(self) -> None:
        """
        Each connection has a unique number, from 1, and the time when it was accepted.
        """
        first, second = somebody(), somebody()
        self.journal.connected(first)
        self.clock.advance(2)
        self.journal.connected(second)
        self.assertEqual((first.id, first.connectedAt), (1, 0))
        self.assertEqual((second.id, second.connectedAt), (2, 2))
        self.assertEqual(counted(self.journal), {"accepted": 2})

    def test_keepsEndings(self) -> None:
        """
        An ending is recorded with the peer, the reason and the duration.
        """
        peer = somebody()
        self.journal.connected(peer)
        self.clock.advance(2.5)
        self.journal.opened(peer, "optional")
        peer.requested = "test:///default"
        self.clock.advance(4)
        self.journal.ended(peer, ConnectionClosed("the client closed the connection"))
        (ending,) = self.journal.endings
        self.assertEqual((ending.who.id, ending.who.address), (1, "192.0.2.1:5"))
        self.assertEqual(
            (ending.kind, ending.reason), ("closed", "the client closed the connection")
        )
        self.assertEqual(
            (ending.name, ending.endedAt, ending.duration), ("test:///default", 6.5, 6.5)
        )
        self.assertEqual(self.journal.wallClock.timeOfDay(ending.endedAt), 1006.5)
        self.assertEqual(counted(self.journal), {"accepted": 1, "opened": 1})

    def test_audit(self) -> None:
        """
        With C{audits}, each client that has opened gets a log line for opening and one for its end.
        """
        for audits in (False, True):
            self.journal.audits = audits
            opened, other = somebody(), somebody()
            with capturedLogs() as log:
                self.journal.connected(opened)
                self.journal.opened(opened, "optional")
                self.clock.advance(3)
                for each in (opened, other):
                    self.journal.ended(each, ConnectionClosed("the client closed the connection"))
            lines = [formatEvent(event) for event in log]
            self.assertEqual(len(lines), 2 * audits)
        self.assertIn("admitted by policy optional", lines[0])
        self.assertIn("ended after 3.0 s: the client closed the connection", lines[1])

    def test_rule(self) -> None:
        """
        The log line for a refusal names the rule.
        """
        peer = somebody()
        peer.rule = "rule 2, mode mandatory"
        with capturedLogs() as events:
            self.journal.refused(peer, "rules", "no keepalive")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "refused tcp 192.0.2.1:5 by policy rules (rule 2, mode mandatory): no keepalive",
            ],
        )

    def test_refusals(self) -> None:
        """
        Refusals, and admissions with a warning, are counted, logged and summed by caller.
        """
        with capturedLogs() as events:
            self.journal.refused(somebody(), "mandatory", "no keepalive")
            self.clock.advance(1)
            self.journal.warned(somebody(), "mode 2 would refuse it")
            self.journal.loginFailed(somebody())
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "refused tcp 192.0.2.1:5 by policy mandatory: no keepalive",
                "tcp 192.0.2.1:5: mode 2 would refuse it",
            ],
        )
        self.assertEqual(counted(self.journal), {"refused": 1, "warned": 1, "unauthenticated": 1})
        (entry,) = self.journal.refusals
        self.assertEqual((entry.refused, entry.wouldRefuse, entry.last), (1, 1, 1))
