"""
kaproto's client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react
from twisted.python.failure import Failure

from kaproto.client import KeepAliveClientProtocol, connect

__all__ = ["tryAll"]


def tryAll(uris: Iterable[str], done: Callable[[str, str | None], None]) -> None:
    """
    Open and close each URI, and report its error, C{None} for success.
    """

    def opened(connection: KeepAliveClientProtocol, uri: str) -> None:
        connection.close()
        done(uri, None)

    def failed(failure: Failure, uri: str) -> None:
        done(uri, f"{type(failure.value).__name__}: {failure.value}")

    async def tryEach(reactor: IReactorTime) -> None:
        for uri in uris:
            place, readOnly = uri.removeprefix("ro "), uri.startswith("ro ")
            connecting = connect(reactor, place, readOnly=readOnly, timeout=10)
            await connecting.addCallbacks(opened, failed, (uri,), errbackArgs=(uri,))

    react(lambda reactor: Deferred.fromCoroutine(tryEach(reactor)))
