"""
The embedded host: serves one domain, for testing clients without libvirtd.
"""

from __future__ import annotations

import socket
from reprlib import repr as shortened
from typing import Final
from uuid import UUID

import attrs
from zope.interface import implementer

from kaproto import __version__
from kaproto.backends.domain import (
    DOMAIN,
    HYPERVISOR,
    EventCallbacks,
    SharedDomain,
    checkDomain,
    domainError,
    domainXML,
    notFound,
)
from kaproto.backends.machine import capabilities, nodeInfo, versionNumber
from kaproto.errors import RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import Packer, Program, procedure
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.domains import (
    Domain,
    DomainInfo,
    DomainList,
    ListAllDomains,
    RegisterCallback,
    StateAndReason,
)
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, ErrorDomain, Feature, Procedure

__all__ = ["HOST_NAME", "EmbeddedHost"]

HOST_NAME: Final = "test:///default"
"""
The name that clients open: the URI of libvirt's test driver, which every libvirt client supports.
"""


@implementer(IBackend)
class EmbeddedHost:
    """
    A host with one domain, which all connections share.

    @ivar hostname: the machine's name.
    @ivar domain: the domain.
    """

    features = frozenset({Feature.REMOTE_EVENT_CALLBACK})

    def __init__(self) -> None:
        self.hostname = socket.gethostname()
        self.domain = SharedDomain()
        self._program = _HostProgram()

    def __str__(self) -> str:
        """
        @return: this backend's name in log lines.
        """
        return "embedded host"

    def knows(self, procedure: int) -> bool:
        """
        @return: whether the host answers this procedure of the remote program.
        """
        return self._program.knows(procedure)

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        @raise RemoteError: for any name but L{HOST_NAME} and the empty one.
        """
        name = request.name or HOST_NAME
        if name.partition("?")[0] != HOST_NAME:
            raise RemoteError(
                ErrorCode.NO_CONNECT,
                ErrorDomain.NONE,
                f"no connection driver available for {name}; this server has {HOST_NAME}",
            )
        return _HostSession(self, self._program, peer, name, request.readOnly)


@implementer(ISession)
@attrs.define(eq=False)
class _HostSession:
    """
    One connection to the host.

    @ivar connection: the connection, once it is open.
    """

    host: EmbeddedHost
    _program: Program
    peer: Peer
    name: str
    readOnly: bool
    connection: KeepAliveServerProtocol | None = None
    idle: bool = True
    _callbacks: EventCallbacks | None = None

    def opened(self, connection: KeepAliveServerProtocol) -> None:
        """
        Let the client register callbacks.
        """
        self.connection = connection

    @property
    def callbacks(self) -> EventCallbacks:
        """
        Its event callbacks.
        """
        if self._callbacks is None:
            assert self.connection is not None, "only an open connection calls procedures"
            self._callbacks = EventCallbacks(self.host.domain, self.connection)
        return self._callbacks

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        Answer a call.
        """
        result = self._program.callReceived(self, procedure, payload)
        assert isinstance(result, bytes)
        return result

    def closed(self, reason: Exception) -> None:
        """
        Send no more events.
        """
        if self._callbacks is not None:
            self._callbacks.clear()


def _mayWrite(session: _HostSession, function: str) -> None:
    """
    @param function: libvirt's name of the called function.
    @raise RemoteError: when the connection is read-only.
    """
    if session.readOnly:
        raise domainError(
            ErrorCode.OPERATION_DENIED,
            f"operation forbidden: read only access prevents {function}",
        )


class _HostProgram(Program):
    """
    The procedures of the remote program that the host answers.
    """

    number = REMOTE_PROGRAM

    @procedure(Procedure.CONNECT_GET_TYPE, result=str)
    def getType(self, session: _HostSession) -> str:
        return HYPERVISOR

    @procedure(Procedure.CONNECT_GET_VERSION, Procedure.CONNECT_GET_LIB_VERSION)
    def getVersion(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().uint64(versionNumber(__version__)).packed()

    @procedure(Procedure.CONNECT_GET_HOSTNAME, result=str)
    def getHostname(self, session: _HostSession) -> str:
        return session.host.hostname

    @procedure(Procedure.CONNECT_GET_URI, result=str)
    def getURI(self, session: _HostSession) -> str:
        return session.name

    @procedure(Procedure.CONNECT_IS_SECURE, result=bool)
    def isSecure(self, session: _HostSession) -> bool:
        return session.peer.secure

    @procedure(Procedure.NODE_GET_INFO)
    def nodeInfo(self, session: _HostSession, payload: bytes) -> bytes:
        return nodeInfo()

    @procedure(Procedure.CONNECT_GET_CAPABILITIES, result=str)
    def capabilities(self, session: _HostSession) -> str:
        return capabilities()

    @procedure(Procedure.CONNECT_LIST_ALL_DOMAINS, arguments=ListAllDomains, result=DomainList)
    def listAllDomains(self, session: _HostSession, wanted: ListAllDomains) -> DomainList:
        matches = session.host.domain.matches(wanted.flags)
        return DomainList([DOMAIN] if matches and wanted.wantsDomains else [], int(matches))

    @procedure(Procedure.DOMAIN_LOOKUP_BY_ID, arguments=int, result=Domain)
    def lookupByID(self, session: _HostSession, number: int) -> Domain:
        if number != DOMAIN.id:
            raise notFound(f"the ID {number}")
        return DOMAIN

    @procedure(Procedure.DOMAIN_LOOKUP_BY_NAME, arguments=str, result=Domain)
    def lookupByName(self, session: _HostSession, name: str) -> Domain:
        if name != DOMAIN.name:
            raise notFound(f"the name {shortened(name)}")
        return DOMAIN

    @procedure(Procedure.DOMAIN_LOOKUP_BY_UUID, arguments=UUID, result=Domain)
    def lookupByUUID(self, session: _HostSession, uuid: UUID) -> Domain:
        checkDomain(attrs.evolve(DOMAIN, uuid=uuid))
        return DOMAIN

    @procedure(Procedure.DOMAIN_GET_INFO, arguments=Domain, result=DomainInfo)
    def getInfo(self, session: _HostSession, domain: Domain) -> DomainInfo:
        checkDomain(domain)
        return session.host.domain.info()

    @procedure(Procedure.DOMAIN_GET_STATE, arguments=Domain, result=StateAndReason)
    def getState(self, session: _HostSession, domain: Domain) -> StateAndReason:
        checkDomain(domain)
        return session.host.domain.state

    @procedure(Procedure.DOMAIN_GET_OS_TYPE, arguments=Domain, result=str)
    def getOSType(self, session: _HostSession, domain: Domain) -> str:
        checkDomain(domain)
        return "hvm"

    @procedure(
        Procedure.DOMAIN_GET_AUTOSTART,
        Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE,
        arguments=Domain,
        result=bool,
    )
    def no(self, session: _HostSession, domain: Domain) -> bool:
        checkDomain(domain)
        return False

    @procedure(
        Procedure.DOMAIN_IS_ACTIVE, Procedure.DOMAIN_IS_PERSISTENT, arguments=Domain, result=bool
    )
    def yes(self, session: _HostSession, domain: Domain) -> bool:
        checkDomain(domain)
        return True

    @procedure(Procedure.DOMAIN_GET_XML_DESC, arguments=Domain, result=str)
    def getXMLDesc(self, session: _HostSession, domain: Domain) -> str:
        checkDomain(domain)
        return domainXML()

    @procedure(Procedure.DOMAIN_SUSPEND, arguments=Domain)
    def suspend(self, session: _HostSession, domain: Domain) -> None:
        checkDomain(domain)
        _mayWrite(session, "virDomainSuspend")
        session.host.domain.suspend()

    @procedure(Procedure.DOMAIN_RESUME, arguments=Domain)
    def resume(self, session: _HostSession, domain: Domain) -> None:
        checkDomain(domain)
        _mayWrite(session, "virDomainResume")
        session.host.domain.resume()

    @procedure(
        Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, arguments=RegisterCallback, result=int
    )
    def registerCallback(self, session: _HostSession, callback: RegisterCallback) -> int:
        if callback.domain is not None:
            checkDomain(callback.domain)
        return session.callbacks.register(callback.event)

    @procedure(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, arguments=int)
    def deregisterCallback(self, session: _HostSession, callback: int) -> None:
        session.callbacks.deregister(callback)
