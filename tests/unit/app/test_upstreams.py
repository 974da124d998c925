"""
Tests for L{kaproto.app.upstreams}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.upstreams import UpstreamServer, upstreamServer
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.wire.programs import AuthType


class UpstreamTests(SynchronousTestCase):
    """
    Tests for the libvirtd that C{--upstream} names.
    """

    def make(self, description: str, ask: str = "auto") -> UpstreamServer:
        """
        @return: the upstream server of a description.
        """
        return upstreamServer(MemoryReactorClock(), description, ask)

    def refuse(self, description: str) -> str:
        """
        @return: the error message for a bad description.
        """
        return str(self.assertRaises(ValueError, self.make, description))

    def test_descriptions(self) -> None:
        """
        C{--upstream} takes an endpoint string or a libvirt URI.
        """
        for description, address in (
            ("unix:/run/libvirt/libvirt-sock", "_path"),
            ("qemu:///system", "_path"),
            ("qemu:///session", "_path"),
            ("lxc+unix:///", "_path"),
            ("xen+tcp://h/", "host"),
            ("other+tcp://h/somewhere", "host"),
            ("test+tcp://h/etc/host.xml", "host"),
        ):
            self.assertTrue(hasattr(self.make(description).endpoint, address), description)

    def test_ask(self) -> None:
        """
        By default libvirtd is asked for keepalive, except over a UNIX socket.
        """
        local, remote = "unix:/x/y", "qemu+tcp://192.0.2.1/system"
        for description, ask, asked in (
            (local, "auto", False),
            (remote, "auto", True),
            (local, "yes", True),
            (remote, "no", False),
        ):
            self.assertIs(self.make(description, ask).asked, asked)

    def test_mistakes(self) -> None:
        """
        An invalid description is refused with a suggestion or with examples.
        """
        for description, meant in (
            ("tcp://host:1", "tcp:host:1"),
            ("unix:///x", "unix:/x"),
            ("http://host", "qemu+tls://HOST/system"),
            ("/run/libvirt/libvirt-sock", "unix:/run/libvirt/libvirt-sock"),
        ):
            expected = f"--upstream={description}: is --upstream={meant} meant?"
            self.assertEqual(self.refuse(description), expected)
        for description in ("nonsense", "tcp", "ssh+qemu://x", "qemu+ssh://host/system", ""):
            problem = self.refuse(description)
            self.assertTrue(problem.startswith(f"--upstream={description}: "), problem)
            self.assertIn("such as unix:/run/libvirt/libvirt-sock, or a libvirt URI", problem)
        for description, why in (
            ("foo", "there is no endpoint 'foo'"),
            ("tcp", "it needs 'host' and 'port'"),
            ("tcp:host:1:nosuch=2", "it takes no nosuch="),
            ("tcp:host:port", "ports, backlogs and indexes are numbers"),
        ):
            problem = self.refuse(description)
            self.assertTrue(
                problem.startswith(f"--upstream={description}: {why}; it takes a "), why
            )
        for description in ("unix:", "unix::timeout=3"):
            self.assertIn("it takes a path, such as unix:/", self.refuse(description))

    def test_misspelt(self) -> None:
        """
        A URI that no libvirtd can open is refused at the start.
        """
        for description, problem in (
            (
                "qemu:///sytem",
                "libvirt's qemu driver has no /sytem; it opens qemu:///system or qemu:///session",
            ),
            ("lxc+tcp://h/session", "libvirt's lxc driver has no /session; it opens lxc:///system"),
            ("qmeu:///system", "libvirt has no driver 'qmeu'; is qemu meant?"),
        ):
            self.assertEqual(self.refuse(description), f"--upstream={description}: {problem}")

    def test_login(self) -> None:
        """
        The gateway's login for libvirtd is read from the C{authfile} of the URI.
        """
        file = Path(self.mktemp()).absolute()
        uri = f"test+unix:///default?socket=/x/y&authfile={file}"
        self.assertIn(f"{file}: cannot be read", self.refuse(uri))
        file.write_text(
            "[credentials-a]\nauthname=fred\npassword=s\n[auth-libvirt-default]\ncredentials=a\n"
        )
        login = self.make(uri).authentication.login
        assert callable(login)
        self.assertEqual(login(), Login("fred", "s"))
        self.assertEqual(self.make("unix:/x/y").authentication, Authentication())
        asked = self.make("qemu:///system?auth=polkit").authentication
        self.assertEqual(asked.wanted, AuthType.POLKIT)
