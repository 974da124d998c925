"""
Tests for L{kaproto.app.listening}.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.app.listening import explain, isExposed, show


@implementer(IAddress)
class Pigeon:
    """
    An address of an unknown kind.
    """

    def __str__(self) -> str:
        """
        @return: the address as text.
        """
        return "pigeon 7"


class ExplainTests(SynchronousTestCase):
    """
    Tests for explaining why an endpoint cannot listen, and what to do.
    """

    def refused(self, description: str) -> str:
        """
        @return: the explanation for an endpoint that cannot listen.
        """
        listening = serverFromString(reactor, description).listen(Factory())
        return explain(self.failureResultOf(listening).value)

    def test_inUse(self) -> None:
        """
        For an address in use, the explanation suggests another port or path.
        """
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        expected = (
            "Address already in use; choose another port or path, or stop what is listening there"
        )
        self.assertEqual(self.refused(f"tcp:{port}:interface=127.0.0.1"), expected)
        path = Path(self.mktemp())
        path.write_text("")
        self.assertEqual(self.refused(f"unix:{path}:lockfile=0"), expected)

    def test_locked(self) -> None:
        """
        A path that is locked, according to Twisted, is explained as an address in use.
        """
        locked = CannotListenError(None, "/x/y", "Cannot acquire lock")
        self.assertEqual(
            explain(locked),
            "Cannot acquire lock; choose another port or path, or stop what is listening there",
        )

    def test_folder(self) -> None:
        """
        A UNIX socket's folder must exist.
        """
        file = Path(self.mktemp())
        file.write_text("")
        for path, reason in (
            (Path(self.mktemp()) / "socket", "No such file or directory"),
            (file / "socket", "Not a directory"),
        ):
            self.assertEqual(
                self.refused(f"unix:{path}:lockfile=0"),
                f"{reason}; a socket needs a folder that exists",
            )

    def test_long(self) -> None:
        """
        A UNIX socket's path has a maximal length.
        """
        said = self.refused(f"unix:/tmp/{'x' * 200}:lockfile=0")
        self.assertEqual(said, "AF_UNIX path too long; choose one of at most 107 bytes")

    def test_address(self) -> None:
        """
        C{interface=} must be an address of this machine.
        """
        for address in ("192.0.2.1", "no.such.host.invalid"):
            self.assertRegex(
                self.refused(f"tcp:0:interface={address}"),
                "; interface= takes an address of this machine, such as 127.0.0.1$",
            )

    def test_port(self) -> None:
        """
        A port is at most 65535.
        """
        self.assertRegex(self.refused("tcp:65536"), "; ports are from 0 to 65535$")

    def test_permission(self) -> None:
        """
        A missing permission is explained, with ways around it.
        """
        problem = OSError(errno.EACCES, os.strerror(errno.EACCES))
        said = explain(CannotListenError("127.0.0.1", 509, problem))
        self.assertRegex(said, "^Permission denied; .*root.*systemd.*another port or path$")

    def test_files(self) -> None:
        """
        When the limit of open files is reached, the message names it and --workers.
        """
        said = explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        self.assertRegex(said, "^Too many open files; .*--workers.*LimitNOFILE=.*fewer workers$")

    def test_other(self) -> None:
        """
        Other problems are reported with their own text.
        """
        for problem in (OSError("a bad day"), ValueError("a bad day"), OSError(5, "a bad day")):
            self.assertEqual(explain(problem), "a bad day")
        self.assertEqual(explain(CannotListenError(None, 1, OSError(5, "a bad day"))), "a bad day")


class AddressTests(SynchronousTestCase):
    """
    Tests for the names of addresses, and whether other machines can reach them.
    """

    def test_all(self) -> None:
        """
        Only an IP address that is not loopback can be reached by other machines.
        """
        for address, name, exposed in (
            (IPv4Address("TCP", "127.0.0.1", 1), "tcp 127.0.0.1:1", False),
            (IPv4Address("TCP", "127.8.0.1", 1), "tcp 127.8.0.1:1", False),
            (IPv4Address("TCP", "0.0.0.0", 1), "tcp 0.0.0.0:1", True),
            (IPv4Address("TCP", "192.0.2.7", 1), "tcp 192.0.2.7:1", True),
            (IPv6Address("TCP", "::1", 1), "tcp [::1]:1", False),
            (IPv6Address("TCP", "fe80::1%eth0", 2), "tcp [fe80::1%eth0]:2", True),
            (UNIXAddress(b"/x/y"), "unix /x/y", False),
            (UNIXAddress("/x/z"), "unix /x/z", False),
            (Pigeon(), "pigeon 7", False),
        ):
            self.assertEqual((show(address), isExposed(address)), (name, exposed))
