"""
Updates open status pages by server-sent events.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.server import Request
from zope.interface import implementer

from kaproto.status.page import View

__all__ = ["EVERY", "VIEWERS_MAX", "Broadcaster"]

EVERY: Final = 2.0
"""
Seconds between two updates.
"""

VIEWERS_MAX: Final = 20
"""
The maximum number of pages that are updated.
"""


@implementer(IPushProducer)
class _Viewer:
    """
    An open page.
    """

    def __init__(self, request: Request, view: View) -> None:
        self.request = request
        self.view = view
        self._sent: dict[str, str] = {}
        self._behind = False

    def update(self, sections: dict[str, str]) -> None:
        """
        Send the changed sections, unless the viewer has not read the last update yet.
        """
        if self._behind:
            return
        for name, html in sections.items():
            if self._sent.get(name) != html:
                self._sent[name] = html
                self.request.write(f"event: {name}\ndata: {json.dumps(html)}\n\n".encode())

    def pauseProducing(self) -> None:
        """
        The viewer reads too slowly: send no updates.
        """
        self._behind = True

    def resumeProducing(self) -> None:
        """
        The viewer has read everything: send updates again.
        """
        self._behind = False

    def stopProducing(self) -> None:
        """
        The viewer is gone.
        """


class Broadcaster:
    """
    Renders updates for all viewers, only while there are any.
    """

    def __init__(
        self, clock: IReactorTime, render: Callable[[View], Awaitable[dict[str, str]]]
    ) -> None:
        """
        @param render: renders the sections of a page.
        """
        self._render = render
        self._viewers: set[_Viewer] = set()
        self._loop = LoopingCall(self._update)
        self._loop.clock = clock

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, request: Request, view: View) -> None:
        """
        Update a page until it is closed.
        """
        viewer = _Viewer(request, view)
        self._viewers.add(viewer)
        request.registerProducer(viewer, True)
        request.notifyFinish().addBoth(lambda _: self._remove(viewer))
        if not self._loop.running:
            self._loop.start(EVERY)

    def _remove(self, viewer: _Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers and self._loop.running:
            self._loop.stop()

    def stop(self) -> None:
        """
        Close all pages' connections.
        """
        for viewer in list(self._viewers):
            viewer.request.unregisterProducer()
            viewer.request.finish()

    def _update(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._updateAll())

    async def _updateAll(self) -> None:
        for view in {viewer.view for viewer in self._viewers}:
            sections = await self._render(view)
            for viewer in list(self._viewers):
                if viewer.view == view:
                    viewer.update(sections)
