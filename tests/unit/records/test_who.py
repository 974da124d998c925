"""
Tests for L{kaproto.records.who}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import text
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer, UnixCredentials
from kaproto.records.who import TEXT_MAX, Caller, Who, clean


class CleanTests(SynchronousTestCase):
    """
    Tests for the escaping of text that clients choose.
    """

    def test_table(self) -> None:
        """
        Ordinary names are unchanged; characters that move the cursor, break the line or are
        invisible are escaped.
        """
        for given_, expected in [
            ("CN=Zoë, O=Ex ample", "CN=Zoë, O=Ex ample"),
            ("a\nb\tc", r"a\nb\tc"),
            ("\x1b[2J", r"\x1b[2J"),
            ("\u202etxt.exe", r"\u202etxt.exe"),
            ("\udcff", r"\udcff"),
            ("x" * 257, "x" * 255 + "…"),
        ]:
            self.assertEqual(clean(given_), expected)

    @given(text())
    def test_always(self, value: str) -> None:
        """
        The result for any text is printable and of bounded length.
        """
        cleaned = clean(value)
        self.assertTrue(cleaned.isprintable())
        self.assertLessEqual(len(cleaned), 10 * TEXT_MAX)


class WhoTests(SynchronousTestCase):
    """
    Tests for the record of a peer.
    """

    def test_addresses(self) -> None:
        """
        A TCP address is shown with its port; a UNIX socket has none.
        """
        table: list[tuple[IAddress, str | None, str | None]] = [
            (IPv4Address("TCP", "192.0.2.1", 5), "192.0.2.1:5", "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8::1", 5), "[2001:db8::1]:5", "2001:db8::1"),
            (UNIXAddress(b""), None, None),
        ]
        for address, shown, host in table:
            who = Who.of(Peer(address, "tls", id=3, tlsDN="CN=a\nb", user="u"))
            self.assertEqual(who, Who(3, "tls", shown, Caller("u", r"CN=a\nb", host, None), None))

    def test_local(self) -> None:
        """
        The record of a local peer has the user, process and program that the kernel reports.
        """
        peer = Peer(UNIXAddress(b""), "unix", unixCredentials=UnixCredentials(7, 8, 9))
        self.assertEqual(Who.of(peer), Who(0, "unix", None, Caller(None, None, None, 8), 7))
        peer.program = "virt\ninstall"
        caller = Caller(None, None, None, 8, r"virt\ninstall")
        self.assertEqual(Who.of(peer), Who(0, "unix", None, caller, 7))
