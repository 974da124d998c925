"""
Requests to the status page's HTTP server: checks method and host, and sets response headers.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from twisted.internet.address import UNIXAddress
from twisted.web.http import FORBIDDEN, NOT_ALLOWED
from twisted.web.server import Request

__all__ = ["StatusRequest", "isLiteral", "plainText"]

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")


def isLiteral(host: str) -> bool:
    """
    Distinguish an address from a name.  The owner of a name can make it resolve to our address.  A
    browser then sends requests of a foreign page to us, with that name (DNS rebinding).

    @param host: the value of a C{Host} header.
    @return: whether it is an IP address or C{localhost}, with or without a port.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower()
    if name == "localhost":
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def plainText(request: Request, code: int, text: str) -> bytes:
    """
    Make the answer plain text.

    @param code: the status code.
    @return: the body.
    """
    request.setResponseCode(code)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    return f"{text}\n".encode()


class StatusRequest(Request):
    """
    A request that can only read.  Its body is ignored.
    """

    def handleContentChunk(self, data: bytes) -> None:
        """
        Ignore a part of the body.
        """

    def process(self) -> None:
        """
        Answer, or refuse.
        """
        for name, value in _HEADERS.items():
            self.setHeader(name, value)
        host = self.getHeader("host")
        if self.method not in (b"GET", b"HEAD"):
            self.setHeader("Allow", "GET, HEAD")
            self._refuse(NOT_ALLOWED, "Nothing can be changed here.")
        elif not (host is None or isinstance(self.getHost(), UNIXAddress) or isLiteral(str(host))):
            self._refuse(
                FORBIDDEN,
                "Use this server's IP address, or localhost, instead of a name.",
            )
        else:
            super().process()

    def _refuse(self, code: int, text: str) -> None:
        body = plainText(self, code, text)
        self.write(b"" if self.method == b"HEAD" else body)
        self.finish()
