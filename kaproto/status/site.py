"""
The status page's HTTP server.  It can be read, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import FORBIDDEN, INTERNAL_SERVER_ERROR, NOT_ALLOWED, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from kaproto.status.daemon import Daemon, readiness
from kaproto.status.events import VIEWERS_MAX, Broadcaster
from kaproto.status.page import Page, View
from kaproto.status.sampler import Sampler

__all__ = ["CONNECTIONS_MAX", "StatusFactory", "isLiteral"]

CONNECTIONS_MAX: Final = 100
"""
How many connections there may be; more are closed at once.
"""

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

_TEXT: Final = "text/plain; charset=utf-8"
_STATIC: Final = Path(__file__).with_name("static")

_NO_METRICS: Final = (
    "prometheus-client is not installed; install it with: pip install 'kaproto[metrics]'\n"
)


_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")


def isLiteral(host: str) -> bool:
    """
    A browser that was led to this server by a name whose owner has it resolve to our address (DNS
    rebinding) sends that name.

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


class _Request(Request):
    """
    A request, of which the body is of no interest.
    """

    def handleContentChunk(self, data: bytes) -> None:
        """
        Forget it.
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
            self._refuse(NOT_ALLOWED, "Nothing can be changed here.\n")
        elif not (host is None or isinstance(self.getHost(), UNIXAddress) or isLiteral(str(host))):
            self._refuse(
                FORBIDDEN,
                "This server is reached by its IP address, or as localhost, and not by a name.\n",
            )
        else:
            super().process()

    def _refuse(self, code: int, text: str) -> None:
        self.setResponseCode(code)
        self.setHeader("Content-Type", _TEXT)
        self.write(b"" if self.method == b"HEAD" else text.encode())
        self.finish()


class _Later(Resource):
    """
    What is ready in this turn of the reactor or in a later one.
    """

    isLeaf = True
    _log = Logger()

    async def content(self, request: Request) -> bytes:
        """
        @return: the body of the answer.
        """
        raise NotImplementedError

    def render_GET(self, request: Request) -> int:
        """
        Answer, once that is possible.
        """
        Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        try:
            content = await self.content(request)
        except Exception:  # noqa: BLE001 - the client must not be left waiting
            self._log.failure("could not answer {path}", path=request.path)
            request.setResponseCode(INTERNAL_SERVER_ERROR)
            content = b"The log says why there is no answer.\n"
        # It has no channel any more if the client has not waited.
        if request.channel is not None:
            request.write(content)
            request.finish()


class _Text(_Later):
    """
    A short text, with a status code.
    """

    def __init__(self, make: Callable[[], Awaitable[tuple[int, str]]]) -> None:
        super().__init__()
        self._make = make

    async def content(self, request: Request) -> bytes:
        """
        @return: the text.
        """
        code, text = await self._make()
        request.setResponseCode(code)
        request.setHeader("Content-Type", _TEXT)
        return f"{text}\n".encode()


class _File(Resource):
    """
    A file of the page, kept in memory.
    """

    isLeaf = True

    def __init__(self, name: str, contentType: str) -> None:
        super().__init__()
        self._content = (_STATIC / name).read_bytes()
        self._contentType = contentType

    def render_GET(self, request: Request) -> bytes:
        """
        @return: its content.
        """
        request.setHeader("Content-Type", self._contentType)
        return self._content


class _Metrics(_Later):
    def __init__(self, daemon: Daemon, sampler: Sampler) -> None:
        super().__init__()
        self._daemon = daemon
        try:
            from kaproto.status.metrics import Metrics
        except ImportError:
            self._metrics = None
        else:
            self._metrics = Metrics(daemon, sampler)

    async def content(self, request: Request) -> bytes:
        """
        @return: the metrics, or how to have them.
        """
        if self._metrics is None:
            request.setResponseCode(SERVICE_UNAVAILABLE)
            request.setHeader("Content-Type", _TEXT)
            return _NO_METRICS.encode()
        await self._daemon.register.refresh()
        text, contentType = self._metrics.render(str(request.getHeader("accept") or ""))
        request.setHeader("Content-Type", contentType)
        return text


class _Document(_Later):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    async def content(self, request: Request) -> bytes:
        """
        @return: the page, rendered in some turns of the reactor.
        """
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return await self._page.document(View.fromArguments(request.args or {}))


class _Events(Resource):
    isLeaf = True

    def __init__(self, broadcaster: Broadcaster) -> None:
        super().__init__()
        self._broadcaster = broadcaster

    def render_GET(self, request: Request) -> bytes | int:
        """
        Keep a page up to date.
        """
        if len(self._broadcaster) >= VIEWERS_MAX:
            request.setResponseCode(SERVICE_UNAVAILABLE)
            return b""
        request.setHeader("Content-Type", "text/event-stream")
        self._broadcaster.add(request, View.fromArguments(request.args or {}))
        return NOT_DONE_YET


class _Site(Site):
    """
    Serves without writing a line to the log for each request.
    """

    displayTracebacks = False
    noisy = False

    def log(self, request: object) -> None:
        """
        Write nothing.
        """


class StatusFactory(WrappingFactory):
    """
    Serves the status of a daemon, while it listens.
    """

    noisy = False

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: what is watched.
        """
        self._sampler = Sampler(daemon)
        page = Page(daemon, self._sampler)
        self._broadcaster = Broadcaster(daemon.factory.clock, page.sections)
        root = Resource()
        for path, resource in {
            "": _Document(page),
            "events": _Events(self._broadcaster),
            "kaproto.css": _File("kaproto.css", "text/css; charset=utf-8"),
            "kaproto.js": _File("kaproto.js", "text/javascript; charset=utf-8"),
            "livez": _Text(_alive),
            "metrics": _Metrics(daemon, self._sampler),
            "readyz": _Text(lambda: _ready(daemon)),
        }.items():
            root.putChild(path.encode(), resource)
        site = _Site(root, requestFactory=_Request, reactor=daemon.factory.clock)
        super().__init__(site)

    def startFactory(self) -> None:
        """
        Begin to take samples.
        """
        self._sampler.start()
        super().startFactory()

    def buildProtocol(self, addr: IAddress) -> Protocol | None:  # type: ignore[override]
        """
        @return: a connection, unless there are too many.
        """
        if len(self.protocols) >= CONNECTIONS_MAX:
            return None
        protocol: Protocol = super().buildProtocol(addr)
        return protocol

    def stopFactory(self) -> None:
        """
        Close all connections.
        """
        super().stopFactory()
        self._sampler.stop()
        self._broadcaster.stop()
        for each in list(self.protocols):
            each.loseConnection()


async def _alive() -> tuple[int, str]:
    return 200, "ok"


async def _ready(daemon: Daemon) -> tuple[int, str]:
    await daemon.register.refresh()
    problem = readiness(daemon)
    return (200, "ok") if problem is None else (SERVICE_UNAVAILABLE, problem)
