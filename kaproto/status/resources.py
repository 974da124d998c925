"""
The resources of the status page's HTTP server: responses, files and event streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import INTERNAL_SERVER_ERROR, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from kaproto.status.events import VIEWERS_MAX, Broadcaster
from kaproto.status.page import View
from kaproto.status.requests import plainText

__all__ = ["Answer", "Events", "File"]

_STATIC: Final = Path(__file__).with_name("static")


class Answer(Resource):
    """
    A response that is made for each request, and may take several turns of the reactor.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, make: Callable[[Request], Awaitable[bytes]]) -> None:
        """
        @param make: sets the headers and returns the body.
        """
        super().__init__()
        self._make = make

    def render_GET(self, request: Request) -> int:
        """
        Answer once the body is ready.
        """
        Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        try:
            body = await self._make(request)
        except Exception:  # noqa: BLE001 - always answer the client
            self._log.failure("could not answer {path}", path=request.path)
            body = plainText(request, INTERNAL_SERVER_ERROR, "The log says why it failed.")
        # The request has no channel if the client has disconnected.
        if request.channel is not None:
            request.write(body)
            request.finish()


class File(Resource):
    """
    A static file of the page, kept in memory.
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


class Events(Resource):
    """
    The event stream that updates an open page.
    """

    isLeaf = True

    def __init__(self, broadcaster: Broadcaster) -> None:
        super().__init__()
        self._broadcaster = broadcaster

    def render_GET(self, request: Request) -> bytes | int:
        """
        Send events until the page is closed, unless too many pages are open.
        """
        if len(self._broadcaster) >= VIEWERS_MAX:
            request.setResponseCode(SERVICE_UNAVAILABLE)
            return b""
        request.setHeader("Content-Type", "text/event-stream")
        self._broadcaster.add(request, View.fromArguments(request.args or {}))
        return NOT_DONE_YET
