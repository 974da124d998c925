"""
Tests for L{kaproto.status.site}.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from kaproto.status.site import CONNECTIONS_MAX, StatusFactory
from tests.support_status import SERVER, SiteTestCase


class SiteTests(SiteTestCase):
    """
    Tests for the resource at each path.
    """

    def test_page(self) -> None:
        """
        The page, its style sheet and its script are served.
        """
        page = self.request("/?q=x")
        self.assertEqual(page.code, 200)
        self.assertEqual(page.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn("<title>kaserver", page.text)
        for path, kind in [("/kaproto.css", "text/css"), ("/kaproto.js", "text/javascript")]:
            found = self.request(path)
            self.assertEqual(
                (found.code, found.headers["content-type"]), (200, f"{kind}; charset=utf-8")
            )
        self.assertEqual(self.request("/nothing").code, 404)

    def test_probes(self) -> None:
        """
        A server that drains, or whose libvirtd is down, is live but not ready.
        """
        self.assertEqual(self.request("/readyz").text, "ok\n")
        self.daemon.draining = True
        found = self.request("/readyz")
        self.assertEqual((found.code, found.text), (503, "draining\n"))
        self.assertEqual(self.request("/livez").code, 200)
        self.daemon.draining = False
        gateway = self.daemon.becomeGateway()
        gateway.health.failed("libvirtd is away")
        self.assertEqual(self.request("/readyz").text, "libvirtd is away\n")
        self.clock.advance(2)
        self.assertEqual(self.request("/readyz").code, 200)

    def test_metrics(self) -> None:
        """
        The metrics are served in the requested format.
        """
        found = self.request("/metrics")
        self.assertIn("kaproto_build_info", found.text)
        self.assertIn("text/plain", found.headers["content-type"])
        found = self.request("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        self.assertIn("openmetrics", found.headers["content-type"])

    def test_noMetrics(self) -> None:
        """
        Without the package for metrics the response says how to install it.
        """
        with patch.dict(sys.modules, {"kaproto.status.metrics": None}):
            self.status = StatusFactory(self.daemon)
        found = self.request("/metrics")
        self.assertEqual(found.code, 503)
        self.assertIn("pip install 'kaproto[metrics]'", found.text)

    def test_tooMany(self) -> None:
        """
        The number of connections is limited.
        """
        for _ in range(CONNECTIONS_MAX):
            self.connect()
        self.assertIsNone(self.status.buildProtocol(SERVER))
