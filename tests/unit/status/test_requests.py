"""
Tests for L{kaproto.status.requests}.
"""

from __future__ import annotations

from twisted.internet.address import UNIXAddress

from kaproto.status.requests import isLiteral
from tests.support_status import SiteTestCase


class RequestTests(SiteTestCase):
    """
    Tests for checks of requests.
    """

    def test_headers(self) -> None:
        """
        The headers forbid caching, foreign content, inline scripts, and use by other sites.
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
        Only C{GET} and C{HEAD} are allowed.
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
        Over TCP the C{Host} header must be an address or localhost.  An attacker could make any
        other name resolve to the server.
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
        Names and malformed addresses are not literals.
        """
        for host in ("::1", "[::1", "127.0.0.1:x", "1.2.3", "localhost:", "[localhost]:80x"):
            self.assertFalse(isLiteral(host), host)
