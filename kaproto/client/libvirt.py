"""
An open connection with methods for procedures and events of libvirt's remote program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import NoneType
from uuid import UUID

import attrs
from twisted.internet.defer import Deferred

from kaproto.client.calls import Call, DomainCall, Nothing, Version, nothingElse
from kaproto.client.events import EventStream
from kaproto.client.opened import OpenConnection
from kaproto.client.protocol import KeepAliveClientProtocol
from kaproto.client.subscriptions import Subscriptions
from kaproto.errors import RemoteError
from kaproto.wire import domains as wire
from kaproto.wire.domains import DomainInfo, LifecycleEventType, StateAndReason
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, Procedure
from kaproto.wire.structs import unpack

__all__ = ["Connection", "Domain", "DomainEvent"]


@attrs.frozen
class _Name:
    name: str


def _number(number: int) -> int:
    return number


@attrs.frozen
class Domain:
    """
    A domain, with its connection.  Domains with the same UUID are equal.

    To add a procedure, add a L{DomainCall}.

    @ivar connection: the connection.
    @ivar identity: the domain's name, UUID and number, as sent in calls.
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
    """
    Get the state, and the reason for it.
    """

    info = DomainCall(Procedure.DOMAIN_GET_INFO, nothingElse, DomainInfo)
    """
    Get state, memory, number of processors and processor time.
    """

    xml = DomainCall(Procedure.DOMAIN_GET_XML_DESC, wire.DomainAndFlags, str)
    """
    Get the description in libvirt's XML.
    """

    suspend = DomainCall(Procedure.DOMAIN_SUSPEND, nothingElse, NoneType)
    """
    Suspend the running domain.
    """

    resume = DomainCall(Procedure.DOMAIN_RESUME, nothingElse, NoneType)
    """
    Resume the suspended domain.
    """

    start = DomainCall(Procedure.DOMAIN_CREATE, nothingElse, NoneType)
    """
    Start the domain.
    """

    shutdown = DomainCall(Procedure.DOMAIN_SHUTDOWN, nothingElse, NoneType)
    """
    Ask the domain's operating system to shut down.
    """

    destroy = DomainCall(Procedure.DOMAIN_DESTROY, nothingElse, NoneType)
    """
    Stop the domain at once, as if its power was cut.
    """


@attrs.frozen
class DomainEvent:
    """
    A lifecycle event of a domain.

    @ivar domain: the domain.
    @ivar event: the type of the event.
    @ivar detail: a number for the details; its meaning depends on the event
        (C{virDomainEventStartedDetailType} and so on).
    """

    domain: Domain
    event: LifecycleEventType
    detail: int


class Connection(OpenConnection):
    """
    An open connection to a libvirtd or a kaserver.

    The methods return L{Deferred}s, which fail with
    L{RemoteError<kaproto.errors.RemoteError>} when the server answers with an error, and with the
    reason when the connection closes first.  To add a procedure, add a L{Call}.
    """

    hostname = Call(Procedure.CONNECT_GET_HOSTNAME, Nothing, str)
    """
    Get the host's name.
    """

    hypervisor = Call(Procedure.CONNECT_GET_TYPE, Nothing, str)
    """
    Get the name of the hypervisor's driver, such as C{"QEMU"}.
    """

    version = Call(Procedure.CONNECT_GET_VERSION, Nothing, Version)
    """
    Get the version of the hypervisor.
    """

    libVersion = Call(Procedure.CONNECT_GET_LIB_VERSION, Nothing, Version)
    """
    Get the version of libvirt on the server.
    """

    capabilities = Call(Procedure.CONNECT_GET_CAPABILITIES, Nothing, str)
    """
    Get the capabilities of host and hypervisor, in libvirt's XML.
    """

    _listAllDomains = Call(Procedure.CONNECT_LIST_ALL_DOMAINS, wire.ListAllDomains, wire.DomainList)
    _lookupByName = Call(Procedure.DOMAIN_LOOKUP_BY_NAME, _Name, wire.Domain)
    _register = Call(
        Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, wire.RegisterCallback, int
    )
    _deregister = Call(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, _number, NoneType)

    def __init__(self, protocol: KeepAliveClientProtocol) -> None:
        """
        @param protocol: an open connection's protocol.
        """
        super().__init__(protocol)
        self._lifecycle: Subscriptions[wire.LifecycleEvent, DomainEvent] = Subscriptions(
            self._domainEvent, self._deregister
        )
        self._listener: Callable[[int, bytes], None] | None = None
        protocol.listen(REMOTE_PROGRAM, self._eventReceived)
        self.whenClosed().addCallback(self._endEvents)

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Call a function with each event of a program, as L{KeepAliveClientProtocol.listen} does.
        """
        if program == REMOTE_PROGRAM:
            self._listener = listener
        else:
            super().listen(program, listener)

    def listAllDomains(self, flags: int = 0) -> Deferred[list[Domain]]:
        """
        List the domains, running or not.

        @param flags: L{ListFlag<kaproto.wire.domains.ListFlag>}s.  In each group with flags set, a
            domain must match one of them.
        """
        return Deferred.fromCoroutine(self._list(flags))

    async def _list(self, flags: int) -> list[Domain]:
        found = await self._listAllDomains(flags=flags)
        return [Domain(self, each) for each in found.domains]

    def domainStates(self) -> Deferred[dict[Domain, StateAndReason]]:
        """
        List all domains with their states.
        """
        return Deferred.fromCoroutine(self._states())

    async def _states(self) -> dict[Domain, StateAndReason]:
        states = {}
        # One at a time: libvirtd stops reading from a connection with five calls in progress.
        for domain in await self.listAllDomains():
            try:
                states[domain] = await domain.state()
            except RemoteError as error:
                if error.code != ErrorCode.NO_DOMAIN:
                    raise
                # The domain has disappeared since it was listed.
        return states

    def domainByName(self, name: str) -> Deferred[Domain]:
        """
        Find a domain by its name.
        """
        return self._lookupByName(name).addCallback(partial(Domain, self))

    def lifecycleEvents(self, domain: Domain | None = None) -> Deferred[EventStream[DomainEvent]]:
        """
        Ask the server for events when domains start, stop, are suspended and so on.

        @param domain: the only domain to watch; C{None} for all, including new ones.
        @return: fires with the stream of events once the server has agreed to send them.
        """
        only = None if domain is None else domain.identity
        registered = self._register(wire.EventID.LIFECYCLE, only)
        return Deferred.fromCoroutine(self._lifecycle.subscribe(registered))

    def _domainEvent(self, event: wire.LifecycleEvent) -> DomainEvent:
        return DomainEvent(Domain(self, event.domain), event.event, event.detail)

    def _eventReceived(self, procedure: int, payload: bytes) -> None:
        if procedure == Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE:
            self._lifecycle.received(unpack(wire.LifecycleEvent, payload))
        if self._listener is not None:
            self._listener(procedure, payload)

    def _endEvents(self, reason: Exception) -> Exception:
        self._lifecycle.end(reason, wanted=not self.closedHere)
        return reason
