"""
An open connection, with what libvirt's remote program offers about domains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import ParamSpec, TypeVar
from uuid import UUID

import attrs
from twisted.internet.defer import Deferred

from kaproto.client.calls import Call, DomainCall, Nothing, Version, nothingElse
from kaproto.client.connection import ClientConnection
from kaproto.client.events import EVENTS_MAX, EventStream
from kaproto.client.protocol import KeepAliveClientProtocol
from kaproto.errors import RemoteError, RemoteProtocolError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc.protocol import connectionOf
from kaproto.wire import domains as wire
from kaproto.wire.domains import DomainInfo, LifecycleEventType, StateAndReason
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM, ErrorCode, Procedure
from kaproto.wire.structs import pack, unpack
from kaproto.wire.xdr import XDRError

__all__ = ["Connection", "Domain", "DomainEvent"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@attrs.frozen
class _Name:
    name: str


def _number(number: int) -> int:
    return number


@attrs.frozen
class Domain:
    """
    A domain of a connection's.  Domains with the same UUID are equal.

    A method for one more procedure is one more line; see L{DomainCall}.

    @ivar connection: the connection.
    @ivar identity: what names the domain in calls.
    """

    connection: Connection = attrs.field(repr=False, eq=False)
    identity: wire.Domain = attrs.field(eq=lambda identity: identity.uuid)

    @property
    def name(self) -> str:
        """
        The domain's name.
        """
        return self.identity.name

    @property
    def uuid(self) -> UUID:
        """
        The domain's UUID.
        """
        return self.identity.uuid

    @property
    def id(self) -> int:
        """
        The domain's number when it was listed or the event happened; -1 if it was not running.
        """
        return self.identity.id

    state = DomainCall(Procedure.DOMAIN_GET_STATE, wire.DomainAndFlags, StateAndReason)
    info = DomainCall(Procedure.DOMAIN_GET_INFO, nothingElse, DomainInfo)
    xml = DomainCall(Procedure.DOMAIN_GET_XML_DESC, wire.DomainAndFlags, str)
    suspend = DomainCall(Procedure.DOMAIN_SUSPEND, nothingElse, NoneType)
    resume = DomainCall(Procedure.DOMAIN_RESUME, nothingElse, NoneType)
    start = DomainCall(Procedure.DOMAIN_CREATE, nothingElse, NoneType)
    shutdown = DomainCall(Procedure.DOMAIN_SHUTDOWN, nothingElse, NoneType)
    destroy = DomainCall(Procedure.DOMAIN_DESTROY, nothingElse, NoneType)


@attrs.frozen
class DomainEvent:
    """
    Something happened to a domain.

    @ivar domain: the domain.
    @ivar event: what happened.
    @ivar detail: how it happened, by a number whose meaning depends on the event
        (C{virDomainEventStartedDetailType} and so on).
    """

    domain: Domain
    event: LifecycleEventType
    detail: int


class Connection:
    """
    An open connection to a libvirtd or a kaserver.

    The methods return L{Deferred}s, which fail with
    L{RemoteError<kaproto.errors.RemoteError>} when the server answers with an error, and with the
    reason when the connection closes first.  A method for one more procedure is one more line; see
    L{Call}.

    @ivar protocol: the connection's protocol.
    @ivar closeReason: why the connection was closed; C{None} while it is open.
    """

    hostname = Call(Procedure.CONNECT_GET_HOSTNAME, Nothing, str)
    hypervisor = Call(Procedure.CONNECT_GET_TYPE, Nothing, str)
    version = Call(Procedure.CONNECT_GET_VERSION, Nothing, Version)
    libVersion = Call(Procedure.CONNECT_GET_LIB_VERSION, Nothing, Version)
    capabilities = Call(Procedure.CONNECT_GET_CAPABILITIES, Nothing, str)

    _listAllDomains = Call(Procedure.CONNECT_LIST_ALL_DOMAINS, wire.ListAllDomains, wire.DomainList)
    _lookupByName = Call(Procedure.DOMAIN_LOOKUP_BY_NAME, _Name, wire.Domain)
    _register = Call(
        Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, wire.RegisterCallback, int
    )
    _deregister = Call(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, _number, NoneType)

    def __init__(self, protocol: KeepAliveClientProtocol) -> None:
        """
        @param protocol: one that is open.
        """
        self.protocol = protocol
        self.closeReason: Exception | None = None
        self._closing = False
        self._streams: dict[int, EventStream[DomainEvent]] = {}
        self._registering = 0
        self._early: list[wire.LifecycleEvent] = []
        self._listener: Callable[[int, bytes], None] | None = None
        protocol.listen(REMOTE_PROGRAM, self._eventReceived)
        protocol.whenClosed().addCallback(self._closed)

    def perform(self, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_R]:
        """
        Call a procedure of the remote program that is declared with types.

        @param call: the procedure; what follows are its arguments.
        @return: fires with the result.
        """
        return Deferred.fromCoroutine(self._perform(call, call.arguments(*args, **kwargs)))

    async def _perform(self, call: Call[_P, _R], arguments: object) -> _R:
        payload = await self.protocol.call(REMOTE_PROGRAM, call.procedure, pack(arguments))
        if call.result is NoneType:
            return None  # type: ignore[return-value]
        try:
            return unpack(call.result, payload)
        except XDRError as error:
            reason = RemoteProtocolError(
                f"the result of procedure {call.procedure} cannot be decoded: {error}"
            )
            connectionOf(self.protocol, ClientConnection).abort(reason)
            raise reason from error

    def call(
        self, program: int, procedure: int, payload: bytes = b"", version: int = PROGRAM_VERSION
    ) -> Deferred[bytes]:
        """
        Call a procedure of any program; see L{KeepAliveClientProtocol.call}.
        """
        return self.protocol.call(program, procedure, payload, version)

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Have the messages of a program that answer no call brought to a function; see
        L{KeepAliveClientProtocol.listen}.
        """
        if program == REMOTE_PROGRAM:
            self._listener = listener
        else:
            self.protocol.listen(program, listener)

    def listAllDomains(self, flags: int = 0) -> Deferred[list[Domain]]:
        """
        @param flags: L{ListFlag<kaproto.wire.domains.ListFlag>}s.  Of each group that has a flag
            set, a domain must match one.
        @return: fires with the domains.
        """
        return Deferred.fromCoroutine(self._list(flags))

    async def _list(self, flags: int) -> list[Domain]:
        found = await self._listAllDomains(flags=flags)
        return [Domain(self, each) for each in found.domains]

    def domainStates(self) -> Deferred[dict[Domain, StateAndReason]]:
        """
        @return: fires with all domains and their states.
        """
        return Deferred.fromCoroutine(self._states())

    async def _states(self) -> dict[Domain, StateAndReason]:
        states = {}
        # One after the other: libvirtd reads no more of a connection with five calls in progress.
        for domain in await self.listAllDomains():
            try:
                states[domain] = await domain.state()
            except RemoteError as error:
                if error.code != ErrorCode.NO_DOMAIN:
                    raise
                # It has gone since.
        return states

    def domainByName(self, name: str) -> Deferred[Domain]:
        """
        @return: fires with the domain of that name.
        """
        return self._lookupByName(name).addCallback(partial(Domain, self))

    def lifecycleEvents(self, domain: Domain | None = None) -> Deferred[EventStream[DomainEvent]]:
        """
        Have the server send what happens to domains: that they start, stop, are suspended and so
        on.

        @param domain: the only domain to hear of, C{None} for all, those to come included.
        @return: fires with the events from now on, once the server has agreed to send them.
        """
        return Deferred.fromCoroutine(self._subscribe(domain))

    async def _subscribe(self, domain: Domain | None) -> EventStream[DomainEvent]:
        only = None if domain is None else domain.identity
        self._registering += 1
        try:
            callback = await self._register(wire.EventID.LIFECYCLE, only)
        finally:
            self._registering -= 1
        stream: EventStream[DomainEvent] = EventStream(partial(self._unsubscribe, callback))
        self._streams[callback] = stream
        early, self._early = self._early, []
        for event in early:
            self._dispatch(event)
        return stream

    def _unsubscribe(self, callback: int) -> None:
        del self._streams[callback]
        # Whether the server agrees, or is there, makes no difference to who wants no more events.
        self._deregister(callback).addErrback(lambda _failure: None)

    def _eventReceived(self, procedure: int, payload: bytes) -> None:
        if procedure == Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE:
            self._dispatch(unpack(wire.LifecycleEvent, payload))
        if self._listener is not None:
            self._listener(procedure, payload)

    def _dispatch(self, event: wire.LifecycleEvent) -> None:
        stream = self._streams.get(event.callback)
        if stream is not None:
            stream.put(DomainEvent(Domain(self, event.domain), event.event, event.detail))
        elif self._registering and len(self._early) < EVENTS_MAX:
            # The server may send an event before its answer to the registration.
            self._early.append(event)

    def setKeepAlive(self, interval: float, count: int) -> None:
        """
        Ping the server from now on; see L{KeepAliveClientProtocol.setKeepAlive}.
        """
        self.protocol.setKeepAlive(interval, count)

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count at which the server is being pinged, zeros if it is not.
        """
        return self.protocol.keepAlive

    @property
    def keepAliveSupported(self) -> bool:
        """
        Whether the server may be pinged.
        """
        return self.protocol.keepAliveSupported

    @property
    def latency(self) -> float | None:
        """
        Seconds that the latest ping took to be answered; C{None} until there was one.
        """
        return self.protocol.latency

    def ping(self) -> Deferred[float]:
        """
        Ping the server once, now; see L{KeepAliveClientProtocol.ping}.
        """
        return self.protocol.ping()

    def isAlive(self) -> bool:
        """
        @return: whether the connection is open and, as far as is known, works
            (C{virConnectIsAlive}).
        """
        return self.protocol.isAlive()

    def whenClosed(self) -> Deferred[Exception]:
        """
        @return: fires, never fails, with the reason once the connection is gone.
        """
        return self.protocol.whenClosed()

    def close(self) -> Deferred[Exception]:
        """
        Say goodbye and close; see L{KeepAliveClientProtocol.close}.

        @return: fires as L{whenClosed} does.
        """
        self._closing = True
        return self.protocol.close()

    def _closed(self, reason: Exception) -> None:
        self.closeReason = reason
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(reason, wanted=not self._closing)
