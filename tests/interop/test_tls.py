"""
Tests for TLS between kaproto and libvirt's own programs.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import signal

from cryptography.x509.oid import NameOID

from kaproto.client import connect
from kaproto.errors import AuthenticationFailed
from kaproto.security.dn import distinguishedName
from kaproto.security.handshake import CertificateRefused
from tests.interop.programs import startVirsh
from tests.interop.secure import SecureDaemon, SecureServer, SecureTestCase
from tests.interop.support import reactor, together
from tests.pki import Authority, distinguished, forPSS

DAYS = dt.timedelta(days=1)
NOT_ACCEPTED = "server verification (of our certificate or IP address) failed"

ALERT = "TLS handshake failed A TLS fatal alert has been received"

NO_TICKETS = """
openssl_conf = openssl
[openssl]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
NumTickets = 0
"""


class VirshTests(SecureTestCase):
    """
    Tests for virsh connecting to kaserver.
    """

    async def test_certificates(self) -> None:
        """
        A client is judged by its certificate, as the options of the server say.
        """
        await together(
            self._accepted(),
            self._allowedDNs(),
            self._strangersAuthority(),
            self._withoutCertificates(),
            self._newestVersion(),
            self._keepAlive(),
        )

    async def _accepted(self) -> None:
        """
        A client whose certificate is signed by the authority is accepted, whether it connects by
        name or by address.
        """
        server = await SecureServer.start(self, self.listener(), "--mode=2")
        for host in ("127.0.0.1", "localhost"):
            await self.letIn(server.tls(self.alice, host=host))

    async def test_refused(self) -> None:
        """
        A client without a certificate, or with one that is expired, revoked or of another
        authority, is refused, and the log says why.
        """
        revoked = self.authority.issue(distinguished("mallory"))
        self.authority.write(self.pki, crl=self.authority.revoke(revoked))
        other = Authority("Other CA").issue(distinguished("alice"))
        expired = self.authority.issue(distinguished("alice"), start=-3 * DAYS, end=-DAYS)
        server = await SecureServer.start(self, self.listener())
        await self.letIn(server.tls(self.alice))
        for identity, words in [
            (None, "it has no certificate"),
            (other, "its certificate is not signed by an authority (CA) that is trusted here"),
            (expired, "its certificate has expired"),
            (revoked, "its certificate has been revoked"),
        ]:
            # Without no_sanity virsh itself would refuse some of these.
            uri = server.tls(self.clientFiles(identity), "&no_sanity=1")
            await self.refused(uri, NOT_ACCEPTED)
            await server.program.waitOutput(re.escape(words))
        self.assertEqual(server.log.count("refused tls 127.0.0.1:"), 4)

    async def _allowedDNs(self) -> None:
        """
        With C{--tls-allowed-dn} only matching names are accepted.
        """
        server = await SecureServer.start(
            self, self.listener(), "--tls-allowed-dn=*,O=Red Hat,CN=alice", "--tls-allowed-dn=CN=x"
        )
        await self.letIn(server.tls(self.alice))
        bob = self.clientFiles(self.authority.issue(distinguished("bob")))
        await self.refused(server.tls(bob), NOT_ACCEPTED)
        await server.program.waitOutput("CN=bob', is not allowed")

    async def _strangersAuthority(self) -> None:
        """
        A certificate that comes with its untrusted authority's certificate is refused during the
        handshake.
        """
        server = await SecureServer.start(self, self.listener())
        other = Authority("Other CA")
        folder = self.clientFiles(other.issue(distinguished("alice")))
        with open(os.path.join(folder, "clientcert.pem"), "ab") as file:
            file.write(other.certificatePEM)
        result = await self.hostname(server.tls(folder, "&no_sanity=1"))
        # Sometimes virsh writes to the closed connection, and dies of SIGPIPE.
        self.assertIn(result.exitCode, (1, None, -signal.SIGPIPE), result)
        self.assertIn(ALERT if result.exitCode == 1 else "", result.errors)
        await server.program.waitOutput(
            "TLS failed: the client's certificate is not signed by an authority"
        )

    async def test_pss(self) -> None:
        """
        Both ends can have RSA keys restricted to PSS.
        """
        folder = self.clientFiles(self.authority.issue(distinguished("alice")))
        for owner, names in (
            ("server", ("libvirt/servercert.pem", "libvirt/private/serverkey.pem")),
            ("alice", ("clientcert.pem", "clientkey.pem")),
        ):
            directory = self.pki if owner == "server" else folder
            contents = forPSS(self.authority, distinguished(owner), ["127.0.0.1"])
            for name, content in zip(names, contents, strict=True):
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(content)
        server = await SecureServer.start(self, self.listener())
        await self.letIn(server.tls(folder))

    async def _withoutCertificates(self) -> None:
        """
        With C{verify=no}, clients need no certificate.
        """
        server = await SecureServer.start(self, self.listener(":verify=no"))
        await self.letIn(server.tls(self.nobody))

    async def _newestVersion(self) -> None:
        """
        The highest version is TLS 1.2, because of 1.3's session tickets, and TLS 1.3 where OpenSSL
        is configured to send none.
        """
        path = os.path.join(self.privateDirectory(), "openssl.cnf")
        with open(path, "w", encoding="ascii") as file:
            file.write(NO_TICKETS)
        for environment, version in (({}, "1.2"), ({"OPENSSL_CONF": path}, "1.3")):
            server = await SecureServer.start(self, self.listener(), environment=environment)
            self.assertIn(f"listening on tls (up to {version}) 127.0.0.1:", server.log)
            await self.letIn(server.tls(self.alice))
            await self.refused(server.tls(self.nobody), NOT_ACCEPTED)

    async def test_reload(self) -> None:
        """
        After SIGHUP the new certificate is used and a revoked client is refused; connected clients
        stay connected.
        """
        server = await SecureServer.start(self, self.listener())
        carol = self.authority.issue(distinguished("carol"))
        folder = self.clientFiles(carol)
        virsh = startVirsh(self, "-c", server.tls(folder))
        await virsh.ask("hostname", os.uname().nodename)
        renewed = self.authority.issue(distinguished("renewed"), hosts=["localhost"])
        self.authority.write(self.pki, renewed, crl=self.authority.revoke(carol))
        server.program.signal(signal.SIGHUP)
        await server.program.waitOutput("reloaded the certificates of .*/servercert.pem")
        await self.refused(server.tls(folder, host="localhost"), NOT_ACCEPTED)
        await self.letIn(server.tls(self.alice, host="localhost"))
        await self.refused(server.tls(self.alice), "Failed to verify peer's certificate")
        await virsh.ask("uri", "test\\+tls://")
        await virsh.ask("hostname", os.uname().nodename)

    async def test_reloadFails(self) -> None:
        """
        If a file is invalid, the previous certificate stays in use, and the log names the file and
        the problem.
        """
        server = await SecureServer.start(self, self.listener())
        with open(os.path.join(self.pki, "libvirt/private/serverkey.pem"), "w") as file:
            file.write("rubbish")
        server.program.signal(signal.SIGHUP)
        await server.program.waitOutput(
            "could not reload the certificates of .*/servercert.pem, keeping the previous version: "
            ".*/serverkey.pem: this is not the server's private key in PEM"
        )
        await self.letIn(server.tls(self.alice))

    async def _keepAlive(self) -> None:
        """
        Keepalive works over TLS: a stopped client is disconnected.
        """
        server = await SecureServer.start(
            self, self.listener(), "--mode=2", "--interval=0.5", "--count=1"
        )
        virsh = startVirsh(self, "-c", server.tls(self.alice))
        await virsh.ask("hostname", os.uname().nodename)
        virsh.signal(signal.SIGSTOP)
        await server.program.waitOutput("is dead: connection closed due to keepalive timeout")
        self.assertIn("CN=alice' is dead", server.log)


class ClientTests(SecureTestCase):
    """
    Tests for kaproto's client connecting to libvirtd.
    """

    tools = ("libvirtd", "python3-libvirt")

    async def refusal(self, uri: str, kind: type[Exception]) -> str:
        """
        Connect, and expect to fail.

        @return: the error's message.
        """
        try:
            connection = await connect(reactor, uri)
        except kind as error:
            return str(error)
        await connection.close()
        raise AssertionError(f"it got in: {uri}")

    async def test_accepted(self) -> None:
        """
        A client with a valid certificate is accepted, by name or by address.
        """
        daemon = await SecureDaemon.start(self, auth="none")
        for host in ("127.0.0.1", "localhost"):
            uri = f"test+tls://{host}:{daemon.port}/default?pkipath={self.alice}"
            connection = await connect(reactor, uri)
            self.assertEqual(await connection.hostname(), os.uname().nodename)
            await connection.close()

    async def test_notAccepted(self) -> None:
        """
        A client without one is refused, and its error says so.
        """
        daemon = await SecureDaemon.start(self, auth="none")
        uri = f"test+tls://127.0.0.1:{daemon.port}/default?pkipath={self.nobody}"
        self.assertIn(
            "instead of accepting this client", await self.refusal(uri, AuthenticationFailed)
        )

    async def test_otherAuthority(self) -> None:
        """
        The client refuses a server whose certificate another authority has signed, unless
        C{no_verify=1}.
        """
        daemon = await SecureDaemon.start(self, auth="none")
        folder = Authority("Other CA").writeFlat(
            self.privateDirectory(), self.authority.issue(distinguished("alice"))
        )
        # The client's own certificate is removed: the other authority has not signed it either.
        for name in ("clientcert.pem", "clientkey.pem"):
            os.unlink(os.path.join(folder, name))
        uri = f"test+tls://127.0.0.1:{daemon.port}/default?pkipath={folder}"
        message = await self.refusal(uri, CertificateRefused)
        self.assertIn("the server's certificate is not signed by", message)
        message = await self.refusal(f"{uri}&no_verify=1", AuthenticationFailed)
        self.assertIn("instead of accepting this client", message)

    async def test_otherName(self) -> None:
        """
        The client refuses a server whose certificate is for another name, unless C{no_verify=1}.
        """
        self.serverIdentity = self.authority.issue(distinguished("x"), hosts=["elsewhere.test"])
        daemon = await SecureDaemon.start(self, auth="none")
        uri = f"test+tls://127.0.0.1:{daemon.port}/default?pkipath={self.alice}"
        message = await self.refusal(uri, CertificateRefused)
        self.assertIn("is for elsewhere.test, not for 127.0.0.1", message)
        connection = await connect(reactor, f"{uri}&no_verify=1")
        await connection.close()

    async def test_distinguishedName(self) -> None:
        """
        L{distinguishedName} formats a certificate's name as libvirtd does.
        """
        daemon = await SecureDaemon.start(self, auth="none")
        identity = self.authority.issue(
            [
                *distinguished('alice, the #1 + <x>; "y"'),
                (NameOID.EMAIL_ADDRESS, "a@b.c"),
                (NameOID.USER_ID, " \u00e9=\\ "),
            ]
        )
        uri = f"test+tls://127.0.0.1:{daemon.port}/default?pkipath={self.clientFiles(identity)}"
        connection = await connect(reactor, uri)
        await connection.close()
        match = await daemon.program.waitOutput("Peer DN is (.*)")
        self.assertEqual(match[1], distinguishedName(identity.der))
