"""
Tests for L{kaproto.uri.parsing}.

C{tests/interop/test_uris.py} compares these expectations with libvirt's own client.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.uri import parseURI

SYSTEM_SOCKET = "/run/libvirt/libvirt-sock"


class PlaceTests(SynchronousTestCase):
    """
    Tests for where to connect.
    """

    def test_hosts(self) -> None:
        """
        The transport follows the plus sign, in any case; without one, a host means TLS.  The
        default host is C{localhost}, and the default port libvirt's.
        """
        for text, transport, host, port in [
            ("qemu+tcp://host/system", "tcp", "host", 16509),
            ("qemu+TCP://host:4040/system", "tcp", "host", 4040),
            ("qemu+tcp://host:04040/system", "tcp", "host", 4040),
            ("qemu+tcp://host:0/system", "tcp", "host", 16509),
            ("qemu+tcp://host", "tcp", "host", 16509),
            ("qemu+tcp://host?x=1", "tcp", "host", 16509),
            ("qemu+tcp:///system", "tcp", "localhost", 16509),
            ("qemu+tcp:/system", "tcp", "localhost", 16509),
            ("qemu+tcp://:4040/system", "tcp", "localhost", 16509),
            ("qemu+tls://host/system", "tls", "host", 16514),
            ("qemu://host/system", "tls", "host", 16514),
            ("qemu://host:4040/system", "tls", "host", 4040),
            ("qemu+tls:///system", "tls", "localhost", 16514),
            ("qemu+tcp://HoSt/system", "tcp", "HoSt", 16509),
            ("qemu+tcp://ho%73t/system", "tcp", "host", 16509),
            ("qemu+tcp://192.0.2.1/system", "tcp", "192.0.2.1", 16509),
            ("qemu+tcp://[2001:db8::1]:5/system", "tcp", "2001:db8::1", 5),
            ("qemu+tcp://[fe80::1%25lo]/system", "tcp", "fe80::1%lo", 16509),
            ("qemu+tcp://[fe80::1%lo]/system", "tcp", "fe80::1%lo", 16509),
            ("qemu+tcp://%3A%3A1/system", "tcp", "::1", 16509),
            ("qemu+tcp://[host]/system", "tcp", "[host]", 16509),
            ("esx+tcp://host/", "tcp", "host", 16509),
            ("test://host/default", "tls", "host", 16514),
        ]:
            uri = parseURI(text)
            self.assertEqual(
                (uri.transport, uri.host, uri.port, uri.socket), (transport, host, port, ""), text
            )

    def test_sockets(self) -> None:
        """
        Without host and transport, the place is libvirtd's socket on this machine, or the given
        one.
        """
        for text, socket in [
            ("qemu:///system", SYSTEM_SOCKET),
            ("qemu:/system", SYSTEM_SOCKET),
            ("qemu:", SYSTEM_SOCKET),
            ("qemu+UNIX:///system", SYSTEM_SOCKET),
            ("qemu+unix://user@/system", SYSTEM_SOCKET),
            ("test+unix:///default?socket=/run/x", "/run/x"),
            ("test+unix:///default?SOCKET=/run/x", "/run/x"),
            ("qemu:///system?socket=/run/x&socket=/run/y", "/run/y"),
            ("qemu:///system?socket=/run/%C3%A9", "/run/é"),
            ("qemu:///system?socket=/run/a+b", "/run/a+b"),
            ("qemu:///system?socket=/run/a%20b", "/run/a b"),
            ("qemu:///system?mode=direct&socket=/run/x", "/run/x"),
        ]:
            uri = parseURI(text)
            self.assertEqual(
                (uri.transport, uri.host, uri.port, uri.socket), ("unix", "", 0, socket), text
            )

    def test_readOnly(self) -> None:
        """
        A read-only connection goes to libvirtd's read-only socket, unless a socket is given.
        """
        self.assertEqual(parseURI("qemu:///system", readOnly=True).socket, SYSTEM_SOCKET + "-ro")
        given = parseURI("qemu:///system?socket=/run/x", readOnly=True)
        self.assertEqual(given.socket, "/run/x")

    def test_session(self) -> None:
        """
        C{/session} and the test driver use the user's own daemon, except for root.
        """
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/alice"})
        own = "/run/user/7/libvirt/libvirt-sock"
        for text, socket in [
            ("qemu:///session", own),
            ("remote:///session", own),
            ("test+unix:///default", own),
            ("qemu:///session/", SYSTEM_SOCKET),
            ("qemu:///system", SYSTEM_SOCKET),
            ("TEST+unix:///default", SYSTEM_SOCKET),
            ("qemu:///session?mode=direct", "/run/user/7/libvirt/virtqemud-sock"),
        ]:
            self.assertEqual(parseURI(text).socket, socket, text)
        self.assertEqual(parseURI("qemu:///session", readOnly=True).socket, own)
        del os.environ["XDG_RUNTIME_DIR"]
        session = parseURI("qemu:///session").socket
        self.assertEqual(session, "/home/alice/.cache/libvirt/libvirt-sock")
        os.environ["XDG_CACHE_HOME"] = "/cache"
        self.assertEqual(parseURI("qemu:///session").socket, "/cache/libvirt/libvirt-sock")
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(parseURI("qemu:///session").socket, SYSTEM_SOCKET)

    def test_mode(self) -> None:
        """
        C{mode} selects libvirtd or the driver's own daemon; the default is the latter if its socket
        exists.
        """
        self.patch(os, "geteuid", lambda: 1000)
        directory = Path(self.mktemp()).absolute() / "libvirt"
        directory.mkdir(parents=True)
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": str(directory.parent)})
        legacy, direct = directory / "libvirt-sock", directory / "virtqemud-sock"

        def socket(query: str) -> str:
            return parseURI(f"qemu:///session{query}").socket

        for query in ("", "?mode=auto", "?mode=legacy"):
            self.assertEqual(socket(query), str(legacy))
        self.assertEqual(socket("?mode=direct"), str(direct))
        direct.touch()
        for query in ("", "?mode=auto", "?mode=direct"):
            self.assertEqual(socket(query), str(direct))
        self.assertEqual(socket("?mode=legacy"), str(legacy))


class NameTests(SynchronousTestCase):
    """
    Tests for the name to open.
    """

    def test_names(self) -> None:
        """
        The name is the URI without transport, host and the client's own parameters.
        """
        for text, name in [
            ("test+tcp://host/default", "test:///default"),
            ("test+tcp://alice:secret@host:4040/default", "test:///default"),
            ("qemu:///system", "qemu:///system"),
            ("QEMU:///system", "QEMU:///system"),
            ("qemu:/system", "qemu:///system"),
            ("qemu:system", "qemu://system"),
            ("qemu+tcp://host", "qemu://"),
            ("qemu+tcp://host/", "qemu:///"),
            ("qemu+tcp://host//", "qemu:////"),
            ("qemu+tcp://host/a/../b", "qemu:///a/../b"),
            ("qemu+tcp://host?foo=bar", "qemu://?foo=bar"),
        ]:
            self.assertEqual(parseURI(text).name, name, text)

    def test_escapes(self) -> None:
        """
        Escapes are decoded and encoded again, which removes or changes some of them.
        """
        for text, name in [
            ("/de%20fault", "/de%20fault"),
            ("/a%2Fb", "/a/b"),
            ("/a%3Fb%23c%25d", "/a%3Fb%23c%25d"),
            ("/a:b@c;d=e&f+g$h,i!j*k'l(m)n~o-p_q.r", "/a%3Ab@c;d=e&f+g$h,i!j*k'l(m)n~o-p_q.r"),
            ("/%C3%A9%ff", "/%C3%A9%FF"),
            ("/%7Ea", "/~a"),
            ("/x#frag", "/x#frag"),
            ("/x#", "/x#"),
            ("/x#a[%20]:%7E/?", "/x#a[%20]:~/?"),
            ("#frag", "#frag"),
        ]:
            self.assertEqual(parseURI(f"qemu+tcp://h{text}").name, f"qemu://{name}", text)

    def test_parameters(self) -> None:
        """
        Parameters that the client does not know are sent to the server.  Both separators are
        understood, and C{&} is sent.
        """
        for query, sent in [
            ("foo=bar", "?foo=bar"),
            ("foo=a&foo=b", "?foo=a&foo=b"),
            ("FOO=1", "?FOO=1"),
            ("foo=/p", "?foo=%2Fp"),
            ("foo=a%26b%20c", "?foo=a%26b%20c"),
            ("foo=a+b", "?foo=a%2Bb"),
            ("foo=a~b!*'()", "?foo=a~b%21%2A%27%28%29"),
            ("foo=%7E%ff", "?foo=~%FF"),
            ("f%6Fo=1&%C3%A9=2", "?foo=1&é=2"),
            ("foo", "?foo="),
            ("=foo", ""),
            ("", ""),
            ("&&foo=1&", "?foo=1"),
            ("foo=a=b", "?foo=a%3Db"),
            ("foo=1?bar=2", "?foo=1%3Fbar%3D2"),
            ("a=1;b=2", "?a=1&b=2"),
            ("a;b;c=1", "?a=&b=&c=1"),
            ("a=1;b=2&c=3;d=4", "?a=1%3Bb%3D2&c=3&d=4"),
            ("foo=1;no_verify=0", "?foo=1"),
            ("mode=direct&foo=1&authfile=/x", "?foo=1"),
            ("AuthFile=/x&KEYFILE=/k", ""),
        ]:
            self.assertEqual(
                parseURI(f"qemu+tcp://host/system?{query}").name, f"qemu:///system{sent}", query
            )

    def test_serversDefault(self) -> None:
        """
        C{remote} opens the server's default.
        """
        for text in ("remote+tcp://host/", "remote:///", "remote+tcp://host/x?y=1#z"):
            self.assertEqual(parseURI(text).name, "", text)
        self.assertEqual(parseURI("REMOTE+tcp://host/x").name, "REMOTE:///x")

    def test_givenName(self) -> None:
        """
        C{name} is opened unchanged, even if it is empty.
        """
        for query, name in [
            ("name=xen:///x#frag", "xen:///x"),
            ("name=", ""),
            ("name", ""),
            ("Name=test%3A///x", "test:///x"),
            ("name=a&name=b", "b"),
        ]:
            self.assertEqual(parseURI(f"qemu+tcp://host/system?{query}").name, name, query)


class MistakesTests(SynchronousTestCase):
    """
    Tests for invalid URIs.
    """

    def test_mistakes(self) -> None:
        """
        The error quotes the URI, and says why it is invalid or what to write instead.
        """
        for text, word in [
            ("tcp:host:16509", "qemu+tcp://host/system"),
            ("qemu+ssh://host/system", "ssh -NL"),
            ("qemu+libssh2://host/system", "'libssh2'"),
            ("qemu+ext:///system", "'ext' is not one of tcp, tls, unix"),
            ("qemu+://host/system", "'' is not one of"),
            ("qemu+tcp+tls://host/system", "'tcp+tls' is not one of"),
            ("qemu+unix://host/system", "a UNIX socket has no host"),
            ("qemu+unix:///system?socket=", "socket= has 0 bytes"),
            ("qemu+unix:///system?socket=/" + "x" * 107, "socket= has 108 bytes"),
            ("qemu+tcp://host:65536/system", "65535"),
            ("qemu+tcp://host:port/system", "not a URI"),
            ("qemu+tcp://host:/system", "not a URI"),
            ("qemu+tcp://host:-1/system", "not a URI"),
            ("qemu+tcp://::1/system", "not a URI"),
            ("qemu+tcp://[::1/system", "not a URI"),
            ("qemu+tcp://[::1]x/system", "not a URI"),
            ("qemu+tcp://a@b@host/system", "not a URI"),
            ("qemu+tcp://host/sys tem", "%20"),
            ("qemu+tcp://host/é", "not a URI"),
            ("qemu+tcp://host/[x]", "not a URI"),
            ("qemu+tcp://host/x#a#b", "not a URI"),
            ("qemu+tcp://host/x?foo=%4", "not a URI"),
            ("qemu+tcp://h%C3%B6st/system", "xn--"),
            ("qemu+tcp://a..b/system", "'a..b' is not a host name"),
            (f"qemu+tcp://{'a' * 64}/system", "is not a host name"),
            ("qemu+tcp://host/a%00b", "%00"),
            ("qemu+tcp://ho%00st/system", "%00"),
            ("qemu+tcp://host/system?mode=bogus", "mode=bogus is not one of auto, direct, legacy"),
            ("qemu+tcp://host/system?mode=", "mode= is not one of"),
            ("qemu+tcp://host/system?MODE=Legacy", "MODE=Legacy is not one of"),
            ("qemu+tcp://host/system?proxy=x", "proxy=x is not one of auto, native, netcat"),
            ("qemu+tcp://host/system?auth=none", "auth=none is not one of sasl"),
            ("qemu+tcp://host/system?auth=", "auth= is not one of sasl"),
            ("qemu+tls://host/system?tls_priority=NORMAL:-VERS-ALL", "tls_priority="),
            ("test:///default", "test+unix:// connects to libvirtd"),
            ("test:/default", "the test driver itself"),
            ("openvz:///system", "the openvz driver itself"),
            ("esx://host/", "the esx driver itself"),
            ("vpx://host/dc/host", "the vpx driver itself"),
            ("hyperv://host/", "the hyperv driver itself"),
            ("qemu:///embed?root=/x", "embedded"),
            ("qemu://system", "qemu:///system has three slashes"),
            ("vbox://session/", "vbox:///session"),
        ]:
            error = self.assertRaises(ValueError, parseURI, text)
            self.assertTrue(str(error).startswith(f"{text!r}: "), error)
            self.assertIn(word, str(error))

    def test_tlsOnly(self) -> None:
        """
        Parameters for TLS are checked only with TLS, as in libvirt.
        """
        self.assertEqual(parseURI("qemu+tcp://h/x?tls_priority=x").name, "qemu:///x")
        self.assertEqual(parseURI("qemu+tls://h/x?tls_priority=NORMAL").name, "qemu:///x")

    @given(
        st.sampled_from(["qemu", "qemu+tcp", "qemu+tls", "qemu+unix", "remote+tcp"]),
        st.text("ah/:@[]?&=%#;.1é ", max_size=20),
    )
    def test_anyText(self, scheme: str, rest: str) -> None:
        """
        Any text either is refused with a L{ValueError}, or gives a place to connect to: a host with
        a port, or a path.
        """
        try:
            uri = parseURI(f"{scheme}:{rest}")
        except ValueError:
            return
        network = bool(uri.host and uri.port and not uri.socket)
        local = bool(uri.socket and not uri.host and not uri.port)
        self.assertEqual((network, local), (uri.transport != "unix", uri.transport == "unix"))
        self.assertNotIn("\0", uri.host + uri.socket + uri.name)
