"""
A service that keeps a connection to a server open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import attrs
from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.client.connecting import connect
from kaproto.client.libvirt import Connection, Domain, DomainEvent
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import CLIENT_LIMITS
from kaproto.security.saslclient import Login
from kaproto.waiting import Waiting
from kaproto.wire.domains import StateAndReason

__all__ = ["KeepAliveClientService", "Snapshot"]

_T = TypeVar("_T")


@attrs.frozen
class Snapshot:
    """
    The state of all domains at the beginning of a connection's events.

    @ivar states: the domains and their states.
    @ivar lost: why the previous connection was lost, if there was one.  Events between the two
        connections were missed.
    @ivar seconds: the time since that loss.
    """

    states: Mapping[Domain, StateAndReason]
    lost: Exception | None = None
    seconds: float = 0.0


class KeepAliveClientService(Service):
    """
    Connects, pings the server, and reconnects whenever the connection is lost.

    @ivar uri: the server.
    @ivar connection: the open connection, C{None} while there is none.
    """

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        uri: str,
        *,
        name: str | None = None,
        readOnly: bool = False,
        keepAlive: KeepAlive | None = None,
        login: Login | None = None,
        timeout: float = CLIENT_LIMITS.openTimeout,
        onOpen: Callable[[Connection], Awaitable[object] | None] | None = None,
        retryPolicy: Callable[[int], float] | None = None,
    ) -> None:
        """
        The other parameters are those of L{connect}.

        @param keepAlive: by default a ping after 5 seconds of silence, and 5 pings.
        @param onOpen: called with each new connection.  If it raises, or the Deferred or coroutine
            that it returns fails, the connection is closed, and the attempt counts as failed.
        @param retryPolicy: called with the number of failed attempts since the last success;
            returns the seconds until the next; by default
            L{backoffPolicy<twisted.application.internet.backoffPolicy>}'s.
        """
        self.uri = uri
        self.connection: Connection | None = None
        self._clock = monotonicClock(reactor)
        self._onOpen = onOpen
        self._retryPolicy: Callable[[int], float] = (
            backoffPolicy() if retryPolicy is None else retryPolicy
        )
        self._connect = partial(
            connect,
            reactor,
            uri,
            name=name,
            readOnly=readOnly,
            keepAlive=KeepAlive() if keepAlive is None else keepAlive,
            login=login,
            timeout=timeout,
        )
        self._waiting: Waiting[Connection] = Waiting()
        # Identifies this run of the service; None while it does not run.
        self._run: object | None = None
        # The Deferred that this run waits for; None while it waits for nothing.
        self._pending: Deferred[Any] | None = None
        # The connection of this run, also while onOpen has not finished.
        self._current: Connection | None = None

    def startService(self) -> None:
        """
        Start connecting.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._run is None:
            run = self._run = object()
            Deferred.fromCoroutine(self._stayConnected(run)).addErrback(self._ended, run)

    def stopService(self) -> Deferred[None]:
        """
        Close the connection, and do not connect again.

        @return: fires when the connection is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._run = None
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        self._waiting.fail(CancelledError("the service was stopped"))
        current, self._current, self.connection = self._current, None, None
        return succeed(None) if current is None else current.close().addCallback(lambda _: None)

    def whenConnected(self) -> Deferred[Connection]:
        """
        @return: fires with the open connection, once there is one and C{onOpen} has finished; fails
            with L{CancelledError} when the service is stopped.  It can be cancelled.
        """
        if self.connection is not None and self.connection.isAlive():
            return succeed(self.connection)
        return self._waiting.wait()

    async def lifecycleEvents(self) -> AsyncIterator[DomainEvent | Snapshot]:
        """
        Iterate over the events of this connection and all later ones, until the service is stopped.

        @return: for each connection a L{Snapshot}, and then its events.
        @raise RemoteError: when the server has no such events.
        """
        lost: Exception | None = None
        since = 0.0
        while True:
            try:
                connection = await self.whenConnected()
            except CancelledError:
                return
            ended = connection.whenClosed().addCallback(self._now)
            watched = False
            try:
                events = await connection.lifecycleEvents()
                states = await connection.domainStates()
                watched = True
                seconds = 0.0 if lost is None else self._clock.seconds() - since
                yield Snapshot(states, lost, seconds)
                async for event in events:
                    yield event
            except Exception:
                if connection.isAlive():
                    raise
            reason, when = await ended
            if self._run is None:
                return
            if watched:
                lost, since = reason, when

    def _now(self, reason: Exception) -> tuple[Exception, float]:
        return reason, self._clock.seconds()

    async def _stayConnected(self, run: object) -> None:
        failures = 0
        while self._run is run:
            try:
                connection = await self._wait(self._connect())
                await self._use(connection, run)
                failures = 0
            except Exception as error:
                if self._run is not run:
                    return
                failures += 1
                self._log.warn("no connection to {uri}: {error}", uri=self.uri, error=error)
            if self._run is run:
                delay = self._retryPolicy(failures)
                await self._wait(deferLater(self._clock, delay))

    async def _use(self, connection: Connection, run: object) -> None:
        self._current = connection
        try:
            later = None if self._onOpen is None else self._onOpen(connection)
            if later is not None:
                await later
        except BaseException:
            connection.close()
            raise
        if self._run is not run:
            return
        self.connection = connection
        self._waiting.fire(connection)
        if self._run is run:
            reason = await self._wait(connection.whenClosed())
            self._current = self.connection = None
            self._log.warn("lost the connection to {uri}: {reason}", uri=self.uri, reason=reason)

    async def _wait(self, deferred: Deferred[_T]) -> _T:
        """
        Wait for a Deferred that L{stopService} may cancel.  L{stopService} must not cancel the
        whole run: the run may have called it, through C{onOpen} or a callback of L{whenConnected}.
        """
        self._pending = deferred
        try:
            return await deferred
        finally:
            self._pending = None

    def _ended(self, failure: Failure, run: object) -> None:
        if self._run is run:
            self._run = None
            self._log.failure("gave up on {uri}", failure, uri=self.uri)
