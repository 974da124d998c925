"""
Tests for L{kaproto.peer}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer, UnixCredentials

FOUR = IPv4Address("TCP", "192.0.2.1", 4040)
SIX = IPv6Address("TCP", "2001:db8::1", 4040)
SOCKET = UNIXAddress("")


class PeerTests(SynchronousTestCase):
    """
    What is known of the other end.
    """

    def test_nothingKnown(self) -> None:
        """
        A peer of whom nothing is known has not asked for keepalive and is nobody.
        """
        peer = Peer()
        self.assertFalse(peer.asked)
        self.assertEqual(
            (peer.address, peer.tlsDN, peer.tlsFingerprint, peer.user, peer.unixCredentials),
            (None, None, None, None, None),
        )
        self.assertIsNone(peer.host)

    def test_host(self) -> None:
        """
        A peer on the network has an IP address, one on a UNIX socket has none.
        """
        self.assertEqual(Peer(FOUR).host, "192.0.2.1")
        self.assertEqual(Peer(SIX).host, "2001:db8::1")
        self.assertIsNone(Peer(SOCKET, "unix").host)

    def test_network(self) -> None:
        """
        Limits are counted for an IPv4 address, for 64 bits of an IPv6 address, and for a user of
        this machine.
        """
        for peer, network in (
            (Peer(FOUR), "192.0.2.1"),
            (Peer(IPv6Address("TCP", "::ffff:192.0.2.1", 1)), "192.0.2.1"),
            (Peer(SIX), "2001:db8::/64"),
            (Peer(IPv6Address("TCP", "2001:db8::ffff:1", 1)), "2001:db8::/64"),
            (Peer(IPv6Address("TCP", "fe80::1%eth0", 1)), "fe80::/64"),
            (Peer(SOCKET, "unix", unixCredentials=UnixCredentials(7, 1000, 100)), "uid 1000"),
            (Peer(SOCKET, "unix"), "unix"),
        ):
            self.assertEqual(peer.network, network)

    def test_secure(self) -> None:
        """
        TLS is secure and so is a UNIX socket; plain TCP is not.
        """
        self.assertFalse(Peer(FOUR).secure)
        self.assertTrue(Peer(FOUR, "tls").secure)
        self.assertTrue(Peer(SOCKET, "unix").secure)

    def test_names(self) -> None:
        """
        In the log a peer is the transport and where it connected from.
        """
        self.assertEqual(str(Peer(FOUR)), "tcp 192.0.2.1:4040")
        self.assertEqual(str(Peer(SIX, "tls")), "tls [2001:db8::1]:4040")
        self.assertEqual(str(Peer(SOCKET, "unix")), "unix socket")
        self.assertEqual(str(Peer()), "tcp None")

    def test_identities(self) -> None:
        """
        Whatever identities it has follow, quoted, so that what a peer calls itself cannot pass
        for something else in the log.
        """
        peer = Peer(FOUR, "tls", tlsDN="C=GB,CN=a\nb", user="alice user='bob'")
        self.assertEqual(
            str(peer), "tls 192.0.2.1:4040 dn='C=GB,CN=a\\nb' user=\"alice user='bob'\""
        )
        local = Peer(SOCKET, "unix", unixCredentials=UnixCredentials(10, 20, 30))
        self.assertEqual(str(local), "unix socket pid=10 uid=20")
