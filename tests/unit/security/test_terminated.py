"""
Tests for L{kaproto.security.terminated}.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.dn import nameFromText
from kaproto.security.terminated import TerminatedTLS
from kaproto.security.tls import TLSIdentity
from kaproto.wire.proxyheader import ProxyHeader
from tests.pki import Authority, distinguished

DN = "C=GB,ST=London,L=London,O=Red Hat,CN=alice"
TEXT = b"CN=alice,O=Red Hat,L=London,ST=London,C=GB"
NONE = "the load balancer does not say that it verified a client certificate"


def header(
    *, client: int = 3, verification: int = 0, inner: bytes = b"", **private: bytes
) -> ProxyHeader:
    """
    @return: a balancer's header.

    @param client: the flags of the TLS field.
    @param verification: its result, 0 for success.
    @param inner: the fields inside it.
    @param private: other fields, named by their type, for example C{xE0}.
    """
    fields = {0x20: struct.pack(">BI", client, verification) + inner}
    fields |= {int(name[1:], 16): value for name, value in private.items()}
    return ProxyHeader(fields=fields)


def field(kind: int, value: bytes) -> bytes:
    """
    @return: a field for the inside of the TLS field.
    """
    return struct.pack(">BH", kind, len(value)) + value


class TerminatedTests(SynchronousTestCase):
    """
    Tests for identifying a client whose TLS ends at a balancer.
    """

    def test_certificate(self) -> None:
        """
        A certificate takes precedence over all other fields.
        """
        der = Authority().issue(distinguished("alice")).der
        found = TerminatedTLS().identify(
            header(inner=field(0x28, der) + field(0x22, b"bob"), xE0=b"CN=mallory")
        )
        self.assertEqual(found, (TLSIdentity(DN, sha256(der).hexdigest(), None), "bob"))

    def test_name(self) -> None:
        """
        Without a certificate, the name is in the private field that the listener chooses.
        """
        for terminated, made in (
            (TerminatedTLS(), header(xE0=TEXT)),
            (TerminatedTLS(field=0xE5), header(xE5=TEXT, xE0=b"CN=mallory")),
        ):
            self.assertEqual(terminated.identify(made), (TLSIdentity(DN, None, None), None))

    def test_nameForms(self) -> None:
        """
        A name is parsed in the form of RFC 2253, with escapes.
        """
        for text, dn in (
            ("CN=a,C=GB", "C=GB,CN=a"),
            ("CN=a\\,O=b,C=GB", "C=GB,CN=a\\,O=b"),
            ("CN=a+O=b", "CN=a+O=b"),
            ("emailAddress=a@example.org,CN=a", "CN=a,EMAIL=a@example.org"),
        ):
            self.assertEqual(nameFromText(text), dn)
        self.assertRaises(ValueError, nameFromText, "O=" + "x" * 20000)

    def test_commonNameOnly(self) -> None:
        """
        A common name alone is kept for rules, and is not a distinguished name.
        """
        found = TerminatedTLS().identify(header(inner=field(0x22, b"alice")))
        self.assertEqual(found, (TLSIdentity(None, None, None), "alice"))

    def test_notVerified(self) -> None:
        """
        Fields that the balancer has not verified are ignored. Such a client is refused, unless the
        listener accepts clients without certificates.
        """
        der = Authority().issue(distinguished("alice")).der
        inner = field(0x28, der) + field(0x22, b"alice")
        for made in (
            header(client=1, inner=inner, xE0=TEXT),
            header(verification=1, inner=inner, xE0=TEXT),
            header(client=0, inner=inner, xE0=TEXT),
            header(client=2, inner=inner, xE0=TEXT),
            header(inner=b"\x28\xff", xE0=TEXT),
            ProxyHeader(fields={0xE0: TEXT}),
            ProxyHeader(fields={0x20: b"\3\0\0"}),
        ):
            self.assertEqual(TerminatedTLS().identify(made), (TLSIdentity(None, None, NONE), None))
            self.assertEqual(
                TerminatedTLS(required=False).identify(made),
                (TLSIdentity(None, None, None), None),
            )

    def test_unusable(self) -> None:
        """
        A verified identity that cannot be read is refused, even where certificates are optional.
        """
        empty = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
        for made in (
            header(inner=field(0x28, b"no certificate")),
            header(xE0=b"/C=GB/CN=alice"),
            header(xE0=b"\xff"),
            header(xE0=b"CN"),
            header(xE0=empty.public_bytes()),
        ):
            for required in (True, False):
                ((identity, _),) = [TerminatedTLS(required).identify(made)]
                self.assertIsNone(identity.dn)
                assert identity.problem is not None
                self.assertIn("unusable", identity.problem)

    def test_field(self) -> None:
        """
        Only a private field's type can be chosen.
        """
        for number in (0x22, 0xDF, 0xF0):
            self.assertRaises(ValueError, TerminatedTLS, field=number)
