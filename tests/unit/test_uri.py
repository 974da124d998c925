"""
Tests for L{kaproto.uri}.
"""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.uri import ConnectionURI, isURI, parseURI

SYSTEM_SOCKET = "/run/libvirt/libvirt-sock"


class IsURITests(SynchronousTestCase):
    """
    URIs and endpoint strings, told apart.
    """

    def test_uris(self) -> None:
        """
        What libvirt's users write is a URI.
        """
        for text in (
            "qemu:///system",
            "qemu+tcp://host/system",
            "test+unix:///default?socket=/run/x",
            "remote+tls://host/",
            "QEMU+TCP://host/system",
        ):
            self.assertTrue(isURI(text), text)

    def test_endpoints(self) -> None:
        """
        What Twisted's users write is none, and neither is a host's name.
        """
        for text in (
            "tcp:host:16509",
            "unix:/run/libvirt/libvirt-sock",
            "tls:host:16514",
            "host",
            "host/system",
            "",
            "://host",
            "qemu+://host",
            "+tcp://host",
        ):
            self.assertFalse(isURI(text), text)


class TransportTests(SynchronousTestCase):
    """
    Where a URI says to connect.
    """

    def assertGoesTo(self, text: str, transport: str, host: str, port: int, socket: str) -> None:
        """
        Fail unless a URI means that place.
        """
        uri = parseURI(text)
        self.assertEqual(
            (uri.transport, uri.host, uri.port, uri.socket), (transport, host, port, socket)
        )

    def test_tcp(self) -> None:
        """
        C{+tcp} is plain TCP to libvirt's port, or to the one that is given.
        """
        self.assertGoesTo("qemu+tcp://host/system", "tcp", "host", 16509, "")
        self.assertGoesTo("qemu+tcp://host:4040/system", "tcp", "host", 4040, "")

    def test_tls(self) -> None:
        """
        C{+tls} is TLS, and so is a host without a transport.
        """
        self.assertGoesTo("qemu+tls://host/system", "tls", "host", 16514, "")
        self.assertGoesTo("qemu://host/system", "tls", "host", 16514, "")
        self.assertGoesTo("qemu://host:4040/system", "tls", "host", 4040, "")

    def test_addresses(self) -> None:
        """
        A host may be an IP address; one of version 6 stands in brackets and is used without.
        """
        self.assertGoesTo("qemu+tcp://192.0.2.1/system", "tcp", "192.0.2.1", 16509, "")
        self.assertGoesTo("qemu+tcp://[2001:db8::1]:5/system", "tcp", "2001:db8::1", 5, "")

    def test_unix(self) -> None:
        """
        Without a host it is libvirtd's socket on this machine, or the one that is given.
        """
        for text in ("qemu:///system", "qemu+unix:///system", "qemu:///system?socket="):
            self.assertGoesTo(text, "unix", "", 0, SYSTEM_SOCKET)
        self.assertGoesTo("test+unix:///default?socket=/run/x", "unix", "", 0, "/run/x")
        self.assertGoesTo("test:///default?socket=/run/%C3%A9", "unix", "", 0, "/run/é")

    def test_readOnly(self) -> None:
        """
        A read-only connection goes to libvirtd's read-only socket, unless a socket is given.
        """
        self.assertEqual(parseURI("qemu:///system", readOnly=True).socket, SYSTEM_SOCKET + "-ro")
        given = parseURI("qemu:///system?socket=/run/x", readOnly=True)
        self.assertEqual(given.socket, "/run/x")

    def test_session(self) -> None:
        """
        A user's session is a socket in the user's runtime directory, and root's is libvirtd's.
        """
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/alice"})
        self.assertEqual(parseURI("qemu:///session").socket, "/run/user/1000/libvirt/libvirt-sock")
        self.assertEqual(parseURI("qemu:///system").socket, SYSTEM_SOCKET)
        del os.environ["XDG_RUNTIME_DIR"]
        self.assertEqual(
            parseURI("qemu:///session", readOnly=True).socket,
            "/home/alice/.cache/libvirt/libvirt-sock",
        )
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(parseURI("qemu:///session").socket, SYSTEM_SOCKET)

    def test_user(self) -> None:
        """
        A name before the host is kept for those who authenticate.
        """
        self.assertEqual(parseURI("qemu+tls://alice@host/system").user, "alice")
        self.assertIsNone(parseURI("qemu+tls://host/system").user)


class NameTests(SynchronousTestCase):
    """
    What a URI says to open, which is what virsh sends for it.
    """

    def test_names(self) -> None:
        """
        The server is asked for the URI without transport, host and what is meant for the client.
        """
        for text, name in [
            ("test+tcp://host/default", "test:///default"),
            ("test+tcp://host:4040/default", "test:///default"),
            ("test+tcp://alice@host/default", "test:///default"),
            ("qemu:///system", "qemu:///system"),
            ("qemu+tcp://host", "qemu://"),
            ("qemu+tcp://host/", "qemu:///"),
            ("test+tcp://host/de%20fault", "test:///de%20fault"),
            ("test+tcp://host/default?foo=bar", "test:///default?foo=bar"),
            ("test+tcp://host/default?foo=a&foo=b", "test:///default?foo=a&foo=b"),
            ("test+tcp://host/default?x=/p", "test:///default?x=%2Fp"),
            ("test+tcp://host/default?foo=a%26b", "test:///default?foo=a%26b"),
            ("test+tcp://host/default?foo=a%20b", "test:///default?foo=a%20b"),
            ("test+tcp://host/default?foo=a~b!*'()", "test:///default?foo=a~b%21%2A%27%28%29"),
            ("test+tcp://host/default?y", "test:///default?y="),
            ("test+tcp://host/default?mode=direct&foo=1&authfile=/x", "test:///default?foo=1"),
        ]:
            self.assertEqual(parseURI(text).name, name, text)

    def test_ownParameters(self) -> None:
        """
        The parameters that are meant for the client are taken out and kept, decoded.
        """
        uri = parseURI("qemu+tls://host/system?no_verify=1&pkipath=%2Fetc%2Fpki&foo=bar")
        self.assertEqual(uri.parameters, {"no_verify": "1", "pkipath": "/etc/pki"})
        self.assertEqual(uri.name, "qemu:///system?foo=bar")

    def test_serversDefault(self) -> None:
        """
        C{remote} asks for whatever the server has.
        """
        for text in ("remote+tcp://host/", "remote+tcp://host", "remote+tcp://host/x?y=1"):
            self.assertEqual(parseURI(text).name, "", text)

    def test_givenName(self) -> None:
        """
        C{name} is what is asked for, as it stands, even if it is empty.
        """
        self.assertEqual(parseURI("qemu+tcp://host/system?name=xen:///x").name, "xen:///x")
        self.assertEqual(parseURI("qemu+tcp://host/system?name=").name, "")
        self.assertEqual(parseURI("remote+tcp://host/?name=test%3A///x").name, "test:///x")


class MistakesTests(SynchronousTestCase):
    """
    URIs that cannot be used.
    """

    def test_mistakes(self) -> None:
        """
        The error repeats what was written, and says what is wrong with it or what there is.
        """
        for text, word in [
            ("tcp:host:16509", "qemu+tcp://host/system"),
            ("qemu+ssh://host/system", "'ssh' is not one of tcp, tls, unix"),
            ("qemu+libssh2://host/system", "'libssh2'"),
            ("qemu+tcp:///system", "no host"),
            ("qemu+tls://:16514/system", "no host"),
            ("qemu+unix://host/system", "use socket="),
            ("qemu+tcp://host:99999/system", "65535"),
            ("qemu+tcp://host:port/system", "port"),
        ]:
            error = self.assertRaises(ValueError, parseURI, text)
            self.assertIn(repr(text), str(error))
            self.assertIn(word, str(error))

    @given(
        st.sampled_from(["qemu", "qemu+tcp", "qemu+tls", "qemu+unix", "remote+tcp"]),
        st.text("ah/:@[]?&=%#;.1é ", max_size=20),
    )
    def test_anyText(self, scheme: str, rest: str) -> None:
        """
        Any text is a place and a name, or a L{ValueError}: there is somewhere to connect to,
        either a host with a port or a path.
        """
        try:
            uri = parseURI(f"{scheme}://{rest}")
        except ValueError:
            return
        self.assertIsInstance(uri, ConnectionURI)
        network = bool(uri.host and uri.port and not uri.socket)
        local = bool(uri.socket and not uri.host and not uri.port)
        self.assertEqual((network, local), (uri.transport != "unix", uri.transport == "unix"))


class EscapeTests(SynchronousTestCase):
    """
    Characters that mean something else elsewhere.
    """

    def test_plus(self) -> None:
        """
        A plus sign stands for itself in parameters, as it does for virsh.
        """
        self.assertEqual(parseURI("test:///default?socket=/run/a+b").socket, "/run/a+b")
        self.assertEqual(parseURI("test+tcp://h/default?foo=a+b").name, "test:///default?foo=a%2Bb")

    def test_brackets(self) -> None:
        """
        An address that is none is a mistake in the URI that is named.
        """
        for uri in ("qemu+tcp://[::1/system", "qemu+tcp://[x]/system"):
            self.assertIn(repr(uri), str(self.assertRaises(ValueError, parseURI, uri)))

    def test_user(self) -> None:
        """
        A user's name may have an at sign in it.
        """
        uri = "qemu+tls://alice%40example.com@h/system"
        self.assertEqual(parseURI(uri).user, "alice@example.com")
