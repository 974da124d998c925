"""
A connection to Redis that reconnects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater

from kaproto.registry.link import RedisFactory, RedisLink, connectLink

__all__ = ["Line"]

_DELAY: Final = 0.5
_DELAY_MAX: Final = 5.0


class Line:
    """
    Keeps a connection to Redis.  Each connection is prepared before it is used; for example, it
    logs in.

    Twisted's C{ClientService} cannot handle a connection that ends during its preparation.

    @ivar link: the connection, once it is prepared and until it ends.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        factory: RedisFactory,
        prepare: Callable[[RedisLink], Awaitable[None]],
        ready: Callable[[], object],
        lost: Callable[[str], object],
        clock: IReactorTime,
    ) -> None:
        """
        @param prepare: prepares a new connection, or raises an error.
        @param ready: called when a connection is prepared.
        @param lost: called with the reason when a connection ends or an attempt fails.
        """
        self.link: RedisLink | None = None
        self._endpoint = endpoint
        self._factory = factory
        self._prepare = prepare
        self._ready = ready
        self._lost = lost
        self._clock = clock
        self._running: Deferred[None] = succeed(None)

    def start(self) -> None:
        """
        Connect.
        """
        self._running = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        delay = _DELAY
        while True:
            try:
                link = await connectLink(self._endpoint, self._factory, self._prepare)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - try again after any error
                self._lost(str(error) or type(error).__name__)
            else:
                delay = _DELAY
                self._lost(await self._use(link))
            await deferLater(self._clock, delay)
            delay = min(_DELAY_MAX, delay * 2)

    async def _use(self, link: RedisLink) -> str:
        """
        @return: why the connection has ended.
        """
        self.link = link
        self._ready()
        try:
            return await link.whenEnded()
        finally:
            self.link = None
            link.abort("kaserver stops")

    def stop(self) -> Deferred[None]:
        """
        End the connection at once, and do not connect again.

        @return: fires when the connection has ended.
        """
        running, self._running = self._running, succeed(None)
        running.cancel()
        return running.addErrback(lambda failure: failure.trap(CancelledError) and None)
