"""
Tests for L{kaproto.peer}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer, UnixCredentials, parseAddress, parseNetwork

FOUR = IPv4Address("TCP", "192.0.2.1", 4040)
SIX = IPv6Address("TCP", "2001:db8::1", 4040)
SOCKET = UNIXAddress("")


class PeerTests(SynchronousTestCase):
    """
    Tests for L{Peer}.
    """

    def test_nothingKnown(self) -> None:
        """
        By default nothing is known of a peer, and it has not asked for keepalive.
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
        A peer on the network has an IP address; one on a UNIX socket does not.
        """
        self.assertEqual(Peer(FOUR).host, "192.0.2.1")
        self.assertEqual(Peer(SIX).host, "2001:db8::1")
        self.assertIsNone(Peer(SOCKET, "unix").host)

    def test_network(self) -> None:
        """
        Limits apply to an IPv4 address, to 64 bits of an IPv6 address, or to a local user.
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
        TLS and UNIX sockets are secure; plain TCP is not.
        """
        self.assertFalse(Peer(FOUR).secure)
        self.assertTrue(Peer(FOUR, "tls").secure)
        self.assertTrue(Peer(SOCKET, "unix").secure)

    def test_names(self) -> None:
        """
        A peer is shown by its transport and address.
        """
        self.assertEqual(str(Peer(FOUR)), "tcp 192.0.2.1:4040")
        self.assertEqual(str(Peer(SIX, "tls")), "tls [2001:db8::1]:4040")
        self.assertEqual(str(Peer(SOCKET, "unix")), "unix socket")
        self.assertEqual(str(Peer()), "tcp None")

    def test_identities(self) -> None:
        """
        A peer's identities are shown after its address, quoted, so that a name the peer chose
        cannot forge a log entry.
        """
        peer = Peer(FOUR, "tls", tlsDN="C=GB,CN=a\nb", user="alice user='bob'")
        self.assertEqual(
            str(peer), "tls 192.0.2.1:4040 dn='C=GB,CN=a\\nb' user=\"alice user='bob'\""
        )
        self.assertEqual(str(Peer(FOUR, commonName="a b")), "tcp 192.0.2.1:4040 cn='a b'")
        local = Peer(SOCKET, "unix", unixCredentials=UnixCredentials(10, 20, 30))
        self.assertEqual(str(local), "unix socket pid=10 uid=20 program=unknown")
        local.program = "virt\ninstall"
        self.assertEqual(str(local), "unix socket pid=10 uid=20 program='virt\\ninstall'")


class AddressTests(SynchronousTestCase):
    """
    Tests for L{parseAddress} and L{parseNetwork}.
    """

    def test_addresses(self) -> None:
        """
        A zone is ignored, and an IPv4-mapped IPv6 address is an IPv4 address.
        """
        for text, expected in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::192.0.2.1", "::c000:201"),
        ):
            self.assertEqual(str(parseAddress(text)), expected)
        self.assertRaises(ValueError, parseAddress, "here")

    def test_networks(self) -> None:
        """
        An IPv4-mapped IPv6 network is an IPv4 network, and a single address is a network.
        """
        for text, expected in (
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ):
            self.assertEqual(str(parseNetwork(text)), expected)

    def test_noNetworks(self) -> None:
        """
        L{parseNetwork} refuses malformed networks and those with host bits set. The error has the
        text and, if possible, the right form.
        """
        for text, message in (
            ("10.0.0.1/8", "an address in a network; the network is 10.0.0.0/8"),
            ("::ffff:10.0.0.1/104", "the network is ::ffff:"),
            ("10.0.0.0/255.0.0.0", "write the number of bits after the slash"),
            ("10.0.0.0/", "write the number of bits after the slash"),
            ("10.0.0.0/+8", "write the number of bits after the slash"),
            ("fe80::%eth0/64", "leave out the zone, %eth0"),
            ("10.0.0.0/33", "is not a network, such as 10.0.0.0/8 or fd00::/8"),
            ("010.0.0.0/8", "is not a network, such as"),
            ("10.0.0.0/8 ", "the number of bits after the slash"),
            ("here", "is not a network, such as"),
            ("", "is not a network, such as"),
        ):
            error = self.assertRaises(ValueError, parseNetwork, text)
            self.assertIn(message, str(error))
            self.assertIn(repr(text), str(error))
