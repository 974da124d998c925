"""
Tests for L{kaproto.records.audit}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kaproto.logbounds import BOUNDS, VALUE_MAX
from kaproto.peer import Peer
from kaproto.records.audit import auditClosed, auditOpened


class AuditTests(SynchronousTestCase):
    """
    Tests for the lines of the audit log.
    """

    def setUp(self) -> None:
        """
        Create a client.
        """
        BOUNDS.clear()
        self.peer = Peer(IPv4Address("TCP", "192.0.2.1", 5), id=7, requested="qemu:///system")

    def test_opened(self) -> None:
        """
        The line for opening has the client, what it opened and how, and the policy and the rule
        that admitted it.
        """
        with capturedLogs() as log:
            auditOpened(self.peer, "optional")
            self.peer.rule, self.peer.readOnly, self.peer.asked = "rule 'backup'", True, True
            auditOpened(self.peer, "rules")
        self.assertEqual(
            [formatEvent(event) for event in log],
            [
                "connection 7: tcp 192.0.2.1:5 opened 'qemu:///system' (read-write, keepalive not "
                "asked), admitted by policy optional",
                "connection 7: tcp 192.0.2.1:5 opened 'qemu:///system' (read-only, keepalive "
                "asked), admitted by policy rules (rule 'backup')",
            ],
        )
        for event in log:
            self.assertEqual(event["log_namespace"], "kaproto.audit")
            self.assertEqual(event["log_level"], LogLevel.info)
            self.assertIs(event["peer"], self.peer)
            self.assertEqual((event["event"], event["connection"]), ("open", 7))

    def test_closed(self) -> None:
        """
        The line for the end has the client, the duration and the reason.
        """
        with capturedLogs() as log:
            auditClosed(self.peer, "closed", "the client closed the connection", 35.24)
        (event,) = log
        self.assertEqual(
            formatEvent(event),
            "connection 7: tcp 192.0.2.1:5 ended after 35.2 s: the client closed the connection",
        )
        self.assertEqual(
            (event["event"], event["kind"], event["seconds"]), ("end", "closed", 35.24)
        )

    def test_bounded(self) -> None:
        """
        Length and number of lines are bounded like those of all lines about clients.
        """
        self.peer.requested = "x" * 100_000 + "\n"
        with capturedLogs() as log:
            auditOpened(self.peer, "optional")
            for _ in range(2 * int(BOUNDS.perPeer.burst)):
                auditClosed(self.peer, "closed", "why", 1)
            auditOpened(self.peer, "optional")
        self.assertLess(len(formatEvent(log[0])), VALUE_MAX + 50)
        self.assertLess(len(log), 1.1 * BOUNDS.perPeer.burst)
        BOUNDS.clear()
