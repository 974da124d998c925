"""
The status page's HTTP server.  It is read-only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from kaproto.status.daemon import Daemon, readiness
from kaproto.status.events import Broadcaster
from kaproto.status.page import Page, View
from kaproto.status.requests import StatusRequest, plainText
from kaproto.status.resources import Answer, Events, File
from kaproto.status.sampler import Sampler

__all__ = ["CONNECTIONS_MAX", "StatusFactory"]

CONNECTIONS_MAX: Final = 100
"""
The most connections at a time; further ones are closed.
"""

_NO_METRICS: Final = (
    "prometheus-client is not installed; install it with: pip install 'kaproto[metrics]'"
)


class _Site(Site):
    """
    A site that logs no requests.
    """

    displayTracebacks = False
    noisy = False

    def log(self, request: object) -> None:
        """
        Log nothing.
        """


class StatusFactory(WrappingFactory):
    """
    Serves the status of a daemon, and samples it while listening.
    """

    noisy = False

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: the daemon to show.
        """
        self._daemon = daemon
        self._sampler = Sampler(daemon)
        self._page = Page(daemon, self._sampler)
        self._broadcaster = Broadcaster(daemon.factory.clock, self._page.sections)
        root = Resource()
        for path, resource in {
            "": Answer(self._document),
            "events": Events(self._broadcaster),
            "kaproto.css": File("kaproto.css", "text/css; charset=utf-8"),
            "kaproto.js": File("kaproto.js", "text/javascript; charset=utf-8"),
            "livez": Answer(_alive),
            "metrics": Answer(_metrics(daemon, self._sampler)),
            "readyz": Answer(self._ready),
        }.items():
            root.putChild(path.encode(), resource)
        site = _Site(root, requestFactory=StatusRequest, reactor=daemon.factory.clock)
        super().__init__(site)

    def startFactory(self) -> None:
        """
        Start sampling.
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

    async def _document(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return await self._page.document(View.fromArguments(request.args or {}))

    async def _ready(self, request: Request) -> bytes:
        await self._daemon.register.refresh()
        problem = readiness(self._daemon)
        return plainText(request, OK if problem is None else SERVICE_UNAVAILABLE, problem or "ok")


async def _alive(request: Request) -> bytes:
    return plainText(request, OK, "ok")


async def _notInstalled(request: Request) -> bytes:
    return plainText(request, SERVICE_UNAVAILABLE, _NO_METRICS)


def _metrics(daemon: Daemon, sampler: Sampler) -> Callable[[Request], Awaitable[bytes]]:
    try:
        from kaproto.status.metrics import Metrics
    except ImportError:
        return _notInstalled
    metrics = Metrics(daemon, sampler)

    async def render(request: Request) -> bytes:
        await daemon.register.refresh()
        text, contentType = metrics.render(str(request.getHeader("accept") or ""))
        request.setHeader("Content-Type", contentType)
        return text

    return render
