"""
Tests for L{kaproto.app.makelistener}.
"""

from __future__ import annotations

import os
from pathlib import Path

from kaproto.security.endpoints import TLSServerEndpoint
from tests.support_options import TCP, UNIX, AccessTestCase, OptionsTestCase


class DefaultPlaceTests(OptionsTestCase):
    """
    Tests for a gateway's default listener.
    """

    def test_gatewayListens(self) -> None:
        """
        By default a gateway listens on a UNIX socket with mode 660, and its folder is created.
        """
        options = self.parse("--upstream=qemu:///system")
        (listener,) = options.listeners
        self.assertEqual(listener.description, "unix:/run/ours/libvirt-sock:mode=660")
        self.assertEqual(listener.folder, Path("/run/ours"))

    def test_noFolder(self) -> None:
        """
        A gateway without a folder for its socket is refused, and the error suggests C{--listen}.
        """
        self.patch(os, "environ", {})
        self.patch(os, "geteuid", lambda: 7)
        self.assertIn("such as --listen=unix:/path", self.refuse("--upstream=qemu:///system"))
        self.parse("--upstream=qemu:///system", UNIX)


class AccessTests(AccessTestCase):
    """
    Tests for access control of listeners.
    """

    def test_auth(self) -> None:
        """
        Clients can be authenticated over TLS and UNIX sockets.
        """
        for listen in (self.tls, UNIX):
            options = self.parse(self.auth, listen)
            (listener,) = options.listeners
            self.assertTrue(listener.authenticates)
            self.assertIsNotNone(listener.accessControl.portal)
            self.assertEqual(len(options.checkers), 1)

    def test_authOverTCP(self) -> None:
        """
        Authentication over plain TCP is refused, and the error suggests TLS.
        """
        for arguments in ((TCP,), (self.tls, TCP), ()):
            message = self.refuse(self.auth, *arguments)
            self.assertIn("--auth with --listen=tcp:16509", message)
            self.assertIn("--listen=libvirttls:16514", message)

    def test_authOfOne(self) -> None:
        """
        In a file each listener can have its own checkers, or none; listeners share a checker with
        the same argument.
        """
        file = f"file:{self.users}"
        options = self.parse(
            self.config(
                f'auth = "{file}"\n'
                f'[[listen]]\nendpoint = "libvirttls:16514:pki={self.folder}"\n'
                f'tls-allowed-dn = "CN=*"\n'
                '[[listen]]\nendpoint = "unix:/x"\nauth = []\n'
                f'[[listen]]\nendpoint = "unix:/y"\nauth = ["{file}"]\n'
            )
        )
        self.assertEqual([each.authenticates for each in options.listeners], [True, False, True])
        self.assertEqual(
            [each.accessControl.tlsAllowedDNs for each in options.listeners], [["CN=*"], None, None]
        )
        self.assertEqual(len(options.checkers), 1)

    def test_headersFromHere(self) -> None:
        """
        Trusting PROXY headers from any program on this machine needs C{--insecure}.
        """
        for listen in (
            "--listen=proxy:tcp:1:from=127.0.0.1",
            f"{self.tls}:from=0.0.0.0/0".replace("--listen=", "--listen=proxy:"),
        ):
            self.assertIn("proxy:unix:PATH", self.refuse(listen))
            self.parse(listen, "--insecure")

    def test_terminated(self) -> None:
        """
        With TLS terminated by a balancer, clients are authenticated by their certificates or by
        password.
        """
        listen = "--listen=proxy:tcp:1:from=192.0.2.1:tls=terminated"
        (listener,) = self.parse(listen, "--tls-allowed-dn=CN=a", "--auth=memory:a:b").listeners
        self.assertTrue(listener.authenticates)
        self.assertFalse(listener.believesEverybodyHere)
        (listener,) = self.parse(f"{listen}:certificate=optional").listeners
        self.assertFalse(listener.authenticates)

    def test_unauthenticatedGateway(self) -> None:
        """
        A gateway refuses TCP listeners without authentication, and the error suggests both
        remedies.  UNIX sockets, certificates and passwords are accepted.
        """
        upstream = "--upstream=unix:/x"
        for listen in (
            TCP,
            "--listen=tcp:1",
            f"{self.tls}:verify=no",
            "--listen=proxy:tcp:1:from=192.0.2.1",
        ):
            message = self.refuse(upstream, listen)
            self.assertIn(listen, message)
            self.assertIn("leave --listen out, or --listen=unix:", message)
            self.assertIn("--insecure", message)
        for arguments in ((self.tls,), (UNIX,), (f"{self.tls}:verify=no", self.auth)):
            self.parse(upstream, *arguments)

    def test_allowedDNs(self) -> None:
        """
        C{--tls-allowed-dn} can be repeated.
        """
        options = self.parse("--tls-allowed-dn=CN=a", "--tls-allowed-dn=*,CN=b", self.tls)
        (listener,) = options.listeners
        self.assertEqual(listener.accessControl.tlsAllowedDNs, ["CN=a", "*,CN=b"])
        self.assertIsInstance(listener.endpoint, TLSServerEndpoint)

    def test_allowedDNsWithoutCertificates(self) -> None:
        """
        C{--tls-allowed-dn} is refused if no listener asks for certificates.
        """
        for listen in (TCP, f"{self.tls}:verify=no"):
            message = self.refuse("--tls-allowed-dn=CN=a", listen)
            self.assertIn(
                "--tls-allowed-dn needs a listener whose clients have certificates", message
            )

    def test_badFiles(self) -> None:
        """
        Problems with certificate files are reported in one sentence, without the exception's name.
        """
        (self.folder / "CA/cacert.pem").unlink()
        for flag in (self.tls, "--upstream=test+tls://h/default?pkipath=/nothere"):
            message = self.refuse(flag)
            self.assertIn("/cacert.pem: there is no such file", message)
            self.assertNotIn("Error", message)
            self.assertNotIn("endpoint, such as", message)
