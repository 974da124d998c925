"""
Tests for L{kaproto.status.requests}.
"""

from __future__ import annotations

from twisted.internet.address import UNIXAddress

from kaproto.status.requests import isLiteral
from tests.support_status import SiteTestCase


class RequestTests(SiteTestCase):
    """
    Which requests are answered.
    """

    def test_headers(self) -> None:
        """
        Nothing is kept, nothing is taken from elsewhere or run but our own file, and no other page
        can read or show it.
        """
        for path in ("/", "/livez", "/metrics", "/nothing"):
            headers = self.request(path, "Origin: http://evil.example").headers
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertNotIn("unsafe", headers["content-security-policy"])
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual([each for each in headers if "access-control" in each], [])

    def test_methods(self) -> None:
        """
        It can only be read; a body is not kept.
        """
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            found = self.request("/", "Content-Length: 4", method=method, body=b"abcd")
            self.assertEqual((found.code, found.headers["allow"]), (405, "get, head"))
            self.assertEqual(found.headers["cache-control"], "no-store")
        found = self.request("/livez", method="HEAD")
        self.assertEqual((found.code, found.body), (200, b""))
        found = self.request("/livez", method="HEAD", host="evil.example")
        self.assertEqual((found.code, found.body), (403, b""))

    def test_hosts(self) -> None:
        """
        Over TCP it is asked for by address, or as localhost; a name may be an attacker's, who has
        it resolve to our address.
        """
        for host, code in [
            ("127.0.0.1", 200),
            ("127.0.0.1:9164", 200),
            ("[::1]:9164", 200),
            ("localhost:9164", 200),
            ("evil.example:9164", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("", 403),
        ]:
            self.assertEqual(self.request("/livez", host=host).code, code, host)
        self.assertEqual(self.request("/livez", host=None, version="1.0").code, 200)
        socket = UNIXAddress("/run/status")
        self.assertEqual(self.request("/livez", host="gateway.example", address=socket).code, 200)

    def test_isLiteral(self) -> None:
        """
        What is no address is none.
        """
        for host in ("::1", "[::1", "127.0.0.1:x", "1.2.3", "localhost:", "[localhost]:80x"):
            self.assertFalse(isLiteral(host), host)
