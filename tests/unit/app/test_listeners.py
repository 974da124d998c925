"""
Tests for L{kaproto.app.listeners}.
"""

from __future__ import annotations

import grp
import socket
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, StandardIOEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app import listeners
from kaproto.app.listeners import (
    DEFAULT_LISTEN,
    defaultSocket,
    innermost,
    serverEndpoint,
    takeReadOnly,
    unixListener,
    virshCommand,
)


class RecordingReactor(MemoryReactorClock):
    """
    A reactor that records UNIX sockets instead of listening on them.

    @ivar listened: address, backlog, mode and group of each socket.
    """

    def __init__(self, reactor: object, group: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.group = group
        self.listened: list[tuple[object, ...]] = []

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: Any = 50,
        mode: Any = 0o666,
        wantPID: Any = 0,
    ) -> None:
        """
        Record the socket.
        """
        self.listened.append((address, backlog, mode, self.group))


class EndpointTestCase(SynchronousTestCase):
    """
    A test case that creates endpoints on a reactor in memory.
    """

    def setUp(self) -> None:
        """
        Replace L{UNIXSocketReactor} by the recording reactor.
        """
        self.reactor = MemoryReactorClock()
        self.made: list[RecordingReactor] = []

        def make(reactor: object, group: int | None) -> RecordingReactor:
            self.made.append(RecordingReactor(reactor, group))
            return self.made[-1]

        self.patch(listeners, "UNIXSocketReactor", make)

    def make(self, description: str) -> IStreamServerEndpoint:
        """
        Create an endpoint from its description.
        """
        return serverEndpoint(self.reactor, description)

    def listen(self, *descriptions: str) -> None:
        """
        Listen on each endpoint.
        """
        for each in descriptions:
            self.make(each).listen(Factory())

    def refused(self, description: str) -> str:
        """
        @return: the error message for an invalid description.
        """
        return str(self.assertRaises(ValueError, self.make, description))


class ServerEndpointTests(EndpointTestCase):
    """
    Tests for server endpoints from strings.
    """

    def test_backlog(self) -> None:
        """
        TCP listeners have a backlog of 1024 by default.
        """
        self.listen(
            "tcp:0:interface=127.0.0.1",
            "tcp:1:backlog=7",
            "tcp6:2:interface=\\:\\:1",
            "proxy:tcp:3:from=192.0.2.1",
        )
        self.assertEqual(
            [(port, backlog) for port, _factory, backlog, _interface in self.reactor.tcpServers],
            [(0, 1024), (1, 7), (2, 1024), (3, 1024)],
        )

    def test_unix(self) -> None:
        """
        A UNIX socket has mode 660 by default, and C{group=} sets its group.
        """
        group = grp.getgrgid(0)
        for description, expected in (
            ("unix:/x", ("/x", 1024, 0o660, None)),
            ("unix:/x:mode=600:backlog=5", ("/x", 5, 0o600, None)),
            (f"unix:/x:group={group.gr_name}", ("/x", 1024, 0o660, 0)),
            ("unix:/x:group=77:mode=666", ("/x", 1024, 0o666, 77)),
            ("unix:/x\\:group\\=7", ("/x:group=7", 1024, 0o660, None)),
            ("proxy:unix:/x:group=77", ("/x", 1024, 0o660, 77)),
            ("proxy:unix:/x:uid=0:group=77", ("/x", 1024, 0o660, 77)),
        ):
            self.listen(description)
            self.assertEqual(self.made[-1].listened, [expected], description)

    def test_badUNIX(self) -> None:
        """
        A UNIX socket needs a path and an existing group, and cannot have a lock file.
        """
        for description in ("unix:", "unix::mode=600", "proxy:unix:"):
            self.assertIn("it takes a path, such as unix:/run/kaserver/", self.refused(description))
        self.assertEqual(
            self.refused("unix:/x:group=no\\:such"), "there is no group 'no:such' on this machine"
        )
        self.assertIn("no group '4294967295'", self.refused("unix:/x:group=4294967295"))
        self.assertIn("leave lockfile= out", self.refused("unix:/x:lockfile=1"))

    def test_badNumbers(self) -> None:
        """
        A mode is three octal digits and a backlog a positive whole number, each within its bounds.
        """
        for value in ("-1", "7777", "abc", "", "8", "66", "0o660", " 660", "+660"):
            self.assertEqual(
                self.refused(f"proxy:unix:/x:mode={value}:uid=0"),
                f"mode= is three octal digits, such as 660, not {value!r}",
            )
        for value in ("-1", "0", "x", "9999999999"):
            self.assertIn("backlog= is a whole number", self.refused(f"tcp:0:backlog={value}"))

    def test_others(self) -> None:
        """
        Endpoints without a backlog are returned unchanged.
        """
        self.assertIsInstance(self.make("stdio:"), StandardIOEndpoint)

    def test_mistakes(self) -> None:
        """
        An invalid description is refused with a suggestion if there is an obvious one, and with an
        example otherwise.
        """
        self.assertEqual(self.refused("16509"), "is --listen=tcp:16509:interface=127.0.0.1 meant?")
        self.assertEqual(
            self.refused("tcp6:1:interface=::1"),
            "write \\: for each colon in an address: '--listen=tcp6:1:interface=\\:\\:1'",
        )
        for description, reason in {
            "nonsense": "there is no endpoint 'nonsense'",
            "": "there is no endpoint ''",
            "tcp": "it needs 'port'",
            "tcp:port": "ports, backlogs and indexes are numbers",
            "tcp:0:nosuch=1": "it takes no nosuch=",
            "unix": "it needs 'address'",
            "systemd:domain=INET:index=7": "systemd has passed no socket with this index",
        }.items():
            expected = f"{reason}; it takes a Twisted server endpoint, such as tcp:16509"
            self.assertTrue(self.refused(description).startswith(expected), description)
        self.assertIn("proxy: needs from=NETWORK", self.refused("proxy:tcp:1"))
        self.assertIn("use libvirttls:PORT", self.refused("ssl:443:privateKey=/x"))

    def test_noSuchSocket(self) -> None:
        """
        The error for a socket that systemd has not passed names it; Twisted itself would raise a
        bare C{KeyError}.
        """
        for prefix, suffix in (("", ""), ("proxy:", ":from=192.0.2.1")):
            error = self.refused(f"{prefix}systemd:domain=INET:name=nosuch{suffix}")
            self.assertIn("systemd has passed no socket named 'nosuch'", error)

    def test_otherFamily(self) -> None:
        """
        A socket whose address family is not the one in the description is refused.
        """
        passed = socket.socket(socket.AF_UNIX)
        self.addCleanup(passed.close)
        for family in (socket.AF_UNIX, socket.AF_INET):
            endpoint = AdoptedStreamServerEndpoint(self.reactor, passed.fileno(), family)
            with patch.object(listeners, "serverFromString", return_value=endpoint):
                if family == socket.AF_UNIX:
                    self.assertIs(self.make("systemd:domain=UNIX:name=x"), endpoint)
                else:
                    error = self.refused("systemd:domain=INET:name=x")
                    self.assertIn("is of another address family: write domain=UNIX", error)

    def test_readOnly(self) -> None:
        """
        C{readonly=} is yes or no, and is removed from the description, wherever it stands.
        """
        for description, expected in (
            ("tcp:1", ("tcp:1", False)),
            ("tcp:1:readonly=no", ("tcp:1", False)),
            ("tcp:1:readonly=yes:backlog=7", ("tcp:1:backlog=7", True)),
            (r"unix:/x\:readonly=yes", (r"unix:/x\:readonly=yes", False)),
        ):
            self.assertEqual(takeReadOnly(description), expected)
        for value in ("", "true", "1", "YES"):
            error = self.assertRaises(ValueError, takeReadOnly, f"tcp:1:readonly={value}")
            self.assertIn(f"readonly is yes or no, not {value!r}", str(error))

    def test_innermost(self) -> None:
        """
        L{innermost} strips the endpoints that wrap another one.
        """
        for description, inner in (
            ("tcp:1", "tcp:1"),
            ("haproxy:tcp:1", "tcp:1"),
            ("keepalive:proxy:unix:/x:uid=1", "unix:/x:uid=1"),
            ("proxy", "proxy"),
            ("", ""),
        ):
            self.assertEqual(innermost(description), inner)


class DefaultTests(SynchronousTestCase):
    """
    Tests for the default listeners.
    """

    def test_embedded(self) -> None:
        """
        The embedded host listens on the loopback address, at libvirt's port.
        """
        self.assertEqual(DEFAULT_LISTEN, "tcp:16509:interface=127.0.0.1")

    def test_gateway(self) -> None:
        """
        A gateway's socket is in systemd's C{RUNTIME_DIRECTORY}, in /run/kaserver for root, or in
        the user's C{XDG_RUNTIME_DIR}.
        """
        systemd = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7"}
        user = {"XDG_RUNTIME_DIR": "/run/user/7"}
        for environment, root, folder in (
            (systemd, True, "/run/a"),
            (systemd, False, "/run/a"),
            (user, True, "/run/kaserver"),
            ({}, True, "/run/kaserver"),
            (user, False, "/run/user/7/kaserver"),
        ):
            self.assertEqual(defaultSocket(environment, root=root), Path(folder, "libvirt-sock"))
        for environment in ({}, {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""}):
            self.assertIsNone(defaultSocket(environment, root=False))

    def test_listener(self) -> None:
        """
        The default socket has mode 660, and colons in its path are escaped.
        """
        self.assertEqual(unixListener(Path("/run/a:b")), "unix:/run/a\\:b:mode=660")

    def test_command(self) -> None:
        """
        The command to connect has the driver and the path of the upstream's URI.
        """
        for path, upstream, uri in (
            ("/x/y", "unix:/run/libvirt/libvirt-sock", "qemu+unix:///system?socket=/x/y"),
            ("/x/y", "qemu:///system", "qemu+unix:///system?socket=/x/y"),
            ("/x/y", "xen+tls://host/?pkipath=/z", "xen+unix:///?socket=/x/y"),
            ("/x/y", "unix:/run/user/7/libvirt/libvirt-sock", "qemu+unix:///session?socket=/x/y"),
            ("/x y&z", None, "test+unix:///default?socket=/x%20y%26z"),
        ):
            self.assertEqual(virshCommand(path, upstream), f"virsh -c '{uri}'")
