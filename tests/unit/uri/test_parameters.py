"""
Tests for L{kaproto.uri.parameters}.

C{tests/interop/test_uris.py} compares these expectations with libvirt's own client.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.uri import ConnectionURI, parseURI


class ParameterTests(SynchronousTestCase):
    """
    Tests for the parameters that are for the client.
    """

    def parse(self, query: str) -> ConnectionURI:
        """
        @return: a parsed URI with these parameters.
        """
        return parseURI(f"qemu+tls://host/system?{query}")

    def test_defaults(self) -> None:
        """
        Without parameters, the server's certificate is verified, and no other setting is changed.
        """
        expected = ConnectionURI("tls", "host", 16514, "", "qemu:///system")
        self.assertEqual(self.parse(""), expected)
        self.assertTrue(expected.verify)

    def test_verify(self) -> None:
        """
        Only C{no_verify=1} disables verification of the server's certificate; values other than 0
        and 1 are errors.
        """
        for value, verify in [("0", True), ("1", False), ("01", False), ("%201", False)]:
            self.assertIs(self.parse(f"no_verify={value}").verify, verify, value)
        self.assertFalse(self.parse("No_Verify=1").verify)
        self.assertTrue(self.parse("no_verify=1&no_verify=0").verify)
        for parameter in ("no_verify", "no_sanity", "No_TTY"):
            for value in (
                "2",
                "-1",
                "x",
                "1x",
                "1%20",
                "",
                "true",
                "no",
                "9" * 5000,
                "0x1",
                "%C2%B2",
            ):
                error = self.assertRaises(ValueError, self.parse, f"{parameter}={value}")
                self.assertIn(f": {parameter}=", str(error))
                self.assertIn("neither 0 nor 1", str(error))

    def test_authentication(self) -> None:
        """
        C{auth} selects an authentication method, and for SASL optionally a mechanism.
        """
        for value, expected in [
            ("sasl", ("sasl", None)),
            ("SASL", ("sasl", None)),
            ("sasl.plain", ("sasl", "PLAIN")),
            ("sasl.SCRAM-SHA-256", ("sasl", "SCRAM-SHA-256")),
            ("polkit", ("polkit", None)),
        ]:
            uri = self.parse(f"auth={value}")
            self.assertEqual((uri.authentication, uri.mechanism), expected)

    def test_paths(self) -> None:
        """
        Paths are decoded, and not checked.
        """
        uri = self.parse("pkipath=%2Fetc%2Fpki&AuthFile=a%20b")
        self.assertEqual((uri.pkipath, uri.authfile), ("/etc/pki", "a b"))
        self.assertEqual(uri.name, "qemu:///system")

    def test_user(self) -> None:
        """
        The user name before the host is decoded and kept.
        """
        for text, user in [("alice%40example.com", "alice@example.com"), ("", None)]:
            self.assertEqual(parseURI(f"qemu+tls://{text}@h/system").user, user)
