"""
Tests for L{kaproto.status.resources}.
"""

from __future__ import annotations

from kaproto.status.page import Page
from tests.support_status import SiteTestCase


class AnswerTests(SiteTestCase):
    """
    Tests for responses that take several turns of the reactor.
    """

    def test_failure(self) -> None:
        """
        An exception while rendering is logged, and the response has status 500.
        """
        self.patch(Page, "document", self.fails)
        self.assertEqual(self.request("/").code, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def fails(self, view: object) -> bytes:
        """
        Raise an exception.
        """
        raise ZeroDivisionError(view)

    def test_gone(self) -> None:
        """
        A browser that disconnects during rendering is no error.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.lose(protocol)
        self.turns(20)
        self.assertEqual(self.flushLoggedErrors(), [])
