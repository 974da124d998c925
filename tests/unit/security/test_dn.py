"""
Tests for L{kaproto.security.dn}.
"""

from __future__ import annotations

import contextlib

from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.dn import distinguishedName, matchesGlob
from tests.der import certificateFor, element, name
from tests.pki import Authority, distinguished

CN = "2.5.4.3"
UTF8, PRINTABLE, TELETEX, IA5, UNIVERSAL, BMP, NUMERIC = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E, 0x12


def dn(*attributes: tuple[str, int, bytes]) -> str:
    """
    @return: the name of a certificate with these attributes, each in its own relative distinguished
        name.
    """
    return distinguishedName(certificateFor(name(*([each] for each in attributes))))


class DistinguishedNameTests(SynchronousTestCase):
    """
    Tests for L{distinguishedName}. The expected values are those of GnuTLS 3.7.9, which libvirt
    uses.
    """

    def test_documented(self) -> None:
        """
        A name like the one in libvirt's documentation keeps the certificate's order, has commas
        without spaces, and the e-mail address as C{EMAIL}.
        """
        identity = Authority().issue([*distinguished("alice"), (NameOID.EMAIL_ADDRESS, "a@b.c")])
        self.assertEqual(
            distinguishedName(identity.der),
            "C=GB,ST=London,L=London,O=Red Hat,CN=alice,EMAIL=a@b.c",
        )

    def test_escapes(self) -> None:
        """
        Special characters in a value are escaped, so that one value cannot look like two.
        """
        for value, shown in [
            ("a,O=b", "a\\,O=b"),
            ("a+b", "a\\+b"),
            ('a"b', 'a\\"b'),
            ("a\\b", "a\\\\b"),
            ("a<b>c;d", "a\\<b\\>c\\;d"),
            ("#a", "\\#a"),
            ("a#b", "a#b"),
            (" a", "\\ a"),
            ("a ", "a\\ "),
            ("  a  ", "\\  a \\ "),
            (" ", "\\ "),
            ("a=b/c*?", "a=b/c*?"),
            ("\u00e9\u65e5", "\u00e9\u65e5"),
            ("a\nb", "a\nb"),
        ]:
            self.assertEqual(dn((CN, UTF8, value.encode())), f"CN={shown}")

    def test_severalInOne(self) -> None:
        """
        Attributes of one relative distinguished name are joined by a plus sign.
        """
        subject = name(
            [(CN, UTF8, b"b"), ("2.5.4.10", UTF8, b"c")], [("2.5.4.6", PRINTABLE, b"GB")]
        )
        self.assertEqual(distinguishedName(certificateFor(subject)), "CN=b+O=c,C=GB")

    def test_twice(self) -> None:
        """
        An attribute may occur twice.
        """
        self.assertEqual(dn((CN, UTF8, b"a"), (CN, UTF8, b"b")), "CN=a,CN=b")

    def test_unknownAttribute(self) -> None:
        """
        An attribute without a label is shown by its OID, with its value in hexadecimal.
        """
        self.assertEqual(dn(("1.2.3.4", UTF8, b"XY")), "1.2.3.4=#0c025859")
        self.assertEqual(dn(("2.999.3", UTF8, b"XY")), "2.999.3=#0c025859")

    def test_wrongType(self) -> None:
        """
        A value whose string type is not allowed for its attribute is shown in hexadecimal.
        """
        self.assertEqual(dn((CN, IA5, b"a,b")), "CN=#1603612c62")
        self.assertEqual(dn(("2.5.4.6", UTF8, b"GB")), "C=#0c024742")
        self.assertEqual(dn(("0.9.2342.19200300.100.1.25", IA5, b"org")), "DC=org")
        self.assertEqual(dn(("1.2.643.100.1", NUMERIC, b"12")), "OGRN=12")

    def test_long(self) -> None:
        """
        Values whose length takes two or three bytes are read in full.
        """
        self.assertEqual(dn((CN, UTF8, b"a" * 200)), "CN=" + "a" * 200)
        self.assertEqual(dn((CN, UTF8, b"a" * 3000)), "CN=" + "a" * 3000)

    def test_teletex(self) -> None:
        """
        A teletex string is shown as text if it is printable ASCII, otherwise in hexadecimal.
        """
        self.assertEqual(dn((CN, TELETEX, b"a,b")), "CN=a\\,b")
        self.assertEqual(dn((CN, TELETEX, b"a\xe9")), "CN=\\#61e9")
        self.assertEqual(dn((CN, TELETEX, b"a\n")), "CN=\\#610a")

    def test_wide(self) -> None:
        """
        A BMP string is decoded from UTF-16; a universal string is shown in hexadecimal.
        """
        self.assertEqual(dn((CN, BMP, "a,\u65e5".encode("utf-16-be"))), "CN=a\\,\u65e5")
        self.assertEqual(dn((CN, BMP, b"\xd8\x00\x00a")), "CN=\\#d8000061")
        self.assertEqual(dn((CN, UNIVERSAL, "a".encode("utf-32-be"))), "CN=\\#00000061")

    def test_nul(self) -> None:
        """
        A value with a NUL, where a C program would stop reading, is shown in hexadecimal.
        """
        self.assertEqual(dn((CN, UTF8, b"alice\0.evil")), "CN=#0c0b616c696365002e6576696c")
        self.assertEqual(dn((CN, BMP, b"\0a\0\0\0b")), "CN=#1e060061000000" + "62")

    def test_notUTF8(self) -> None:
        """
        Bytes that are not UTF-8 are kept as surrogate escapes.
        """
        self.assertEqual(dn((CN, UTF8, b"a\xff")), "CN=a\udcff")

    def test_emptyValue(self) -> None:
        """
        An empty value is refused where GnuTLS has no text for it.
        """
        for tag in (UTF8, NUMERIC):
            with self.assertRaisesRegex(ValueError, "empty CN"):
                dn((CN, tag, b""))
        self.assertEqual(dn(("2.5.4.6", PRINTABLE, b"")), "C=#1300")

    def test_emptyName(self) -> None:
        """
        A certificate without a subject has an empty name.
        """
        self.assertEqual(dn(), "")

    def test_withoutVersion(self) -> None:
        """
        A version 1 certificate, which has no version field, is read.
        """
        subject = name([(CN, UTF8, b"old")])
        body = b"".join([element(0x02, b"\1"), *[element(0x30, b"")] * 3, subject])
        old = element(0x30, element(0x30, body))
        self.assertEqual(distinguishedName(old), "CN=old")

    def test_notACertificate(self) -> None:
        """
        Data that is not a certificate is refused.
        """
        for data in (b"", b"\x30\x00", element(0x30, element(0x30, b"\2\1\1"))):
            with self.assertRaisesRegex(ValueError, "not a certificate"):
                distinguishedName(data)

    def test_noKind(self) -> None:
        """
        An attribute type that is empty, truncated or too long is refused.
        """
        for encoded, words in [
            (b"", "type of 0 bytes"),
            (b"\x81", "truncated attribute type"),
            (b"\x81" * 32 + b"\1", "type of 33 bytes"),
        ]:
            attribute = element(0x30, element(0x06, encoded) + element(UTF8, b"a"))
            subject = element(0x30, element(0x31, attribute))
            with self.assertRaisesRegex(ValueError, words):
                distinguishedName(certificateFor(subject))

    def test_tooLong(self) -> None:
        """
        A name that is too long is refused before it is decoded.
        """
        values = [(CN, UTF8, b"a" * 20)] * 200
        with self.assertRaisesRegex(ValueError, "name of 6200 bytes, where 4096 are allowed"):
            dn(*values)
        self.assertEqual(len(dn(*values[:132])), 132 * 24 - 1)

    @given(st.data())
    def test_cutOrSpoiled(self, data: st.DataObject) -> None:
        """
        A truncated or corrupted certificate has a name or raises L{ValueError}, nothing else.
        """
        whole = certificateFor(name([(CN, UTF8, b"alice")], [("1.2.3", UTF8, b"b")]))
        spoiled = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
        for _ in range(data.draw(st.integers(0, 3))):
            if spoiled:
                at = data.draw(st.integers(0, len(spoiled) - 1))
                spoiled[at] = data.draw(st.integers(0, 255))
        with contextlib.suppress(ValueError):
            self.assertIsInstance(distinguishedName(bytes(spoiled)), str)


class GlobTests(SynchronousTestCase):
    """
    Tests for L{matchesGlob}.
    """

    def test_patterns(self) -> None:
        """
        C{*} matches anything, C{?} one character, and the pattern must match the whole text.
        """
        alice = "C=GB,O=Red Hat,CN=alice"
        for pattern in ("*", alice, "C=GB,*,CN=alice", "*CN=alic?", "C=??,*", "***"):
            self.assertTrue(matchesGlob(alice, pattern), pattern)
        for pattern in ("", "alice", "C=GB,*,CN=bob", "*CN=alice?", "c=gb,*", "*CN=Alice"):
            self.assertFalse(matchesGlob(alice, pattern), pattern)

    def test_bracketsAreThemselves(self) -> None:
        """
        Brackets match themselves, unlike in a shell.
        """
        self.assertTrue(matchesGlob("a[b]c", "a[b]c"))
        self.assertTrue(matchesGlob("[!", "[!"))
        self.assertFalse(matchesGlob("abc", "a[b]c"))

    def test_lines(self) -> None:
        """
        A line break is a character like any other.
        """
        self.assertTrue(matchesGlob("a\nb", "a?b"))
        self.assertFalse(matchesGlob("a\nb", "a"))

    @given(st.text("ab*?[\\", max_size=8))
    def test_itself(self, text: str) -> None:
        """
        A text of letters, wildcards, opening brackets and backslashes matches itself as a pattern.
        """
        self.assertTrue(matchesGlob(text, text))
