"""
The embedded host: one domain that can be suspended and resumed, so that clients can be tried
without libvirtd.
"""

from __future__ import annotations

import os
import re
import socket
from enum import IntFlag
from typing import Final
from uuid import UUID
from xml.sax.saxutils import escape

from zope.interface import implementer

from kaproto import __version__
from kaproto.errors import PeerFlooded, RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import Program, procedure
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, ErrorDomain, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = [
    "CALLBACKS_MAX",
    "DOMAIN_NAME",
    "DOMAIN_UUID",
    "HOST_NAME",
    "EmbeddedHost",
    "versionNumber",
]

HOST_NAME: Final = "test:///default"
"""
The name that clients open: that of libvirt's test driver, which every libvirt client knows.
"""

DOMAIN_NAME: Final = "test"
"""
The name of the domain.
"""

DOMAIN_UUID: Final = UUID("9124ca5f-6592-4c61-9ebb-7148b2fa2353")
"""
The UUID of the domain, the same on every embedded host.
"""

CALLBACKS_MAX: Final = 64
"""
How many event callbacks one connection may register.
"""

_TYPE: Final = "kaproto"
_MODEL_SIZE: Final = 32
_DOMAIN_ID: Final = 1
_DOMAIN_MEMORY: Final = 1048576  # KiB
_LIFECYCLE: Final = 0  # VIR_DOMAIN_EVENT_ID_LIFECYCLE
_RUNNING, _PAUSED = 1, 3  # virDomainState
_BOOTED, _UNPAUSED, _BY_USER = 1, 5, 1  # why it is running, or paused
_SUSPENDED, _RESUMED = 3, 4  # virDomainEventType


class _List(IntFlag):
    """
    What C{CONNECT_LIST_ALL_DOMAINS} is asked for (C{virConnectListAllDomainsFlags}).
    """

    ACTIVE = 1 << 0
    INACTIVE = 1 << 1
    PERSISTENT = 1 << 2
    TRANSIENT = 1 << 3
    RUNNING = 1 << 4
    PAUSED = 1 << 5
    SHUTOFF = 1 << 6
    OTHER = 1 << 7
    MANAGEDSAVE = 1 << 8
    NO_MANAGEDSAVE = 1 << 9
    AUTOSTART = 1 << 10
    NO_AUTOSTART = 1 << 11
    HAS_SNAPSHOT = 1 << 12
    NO_SNAPSHOT = 1 << 13
    HAS_CHECKPOINT = 1 << 14
    NO_CHECKPOINT = 1 << 15


_GROUPS: Final = (
    _List.ACTIVE | _List.INACTIVE,
    _List.PERSISTENT | _List.TRANSIENT,
    _List.RUNNING | _List.PAUSED | _List.SHUTOFF | _List.OTHER,
    _List.MANAGEDSAVE | _List.NO_MANAGEDSAVE,
    _List.AUTOSTART | _List.NO_AUTOSTART,
    _List.HAS_SNAPSHOT | _List.NO_SNAPSHOT,
    _List.HAS_CHECKPOINT | _List.NO_CHECKPOINT,
)
"""
Of each group that has a flag set, the domain must match one of the flags.
"""

_ALWAYS: Final = (
    _List.ACTIVE
    | _List.PERSISTENT
    | _List.NO_MANAGEDSAVE
    | _List.NO_AUTOSTART
    | _List.NO_SNAPSHOT
    | _List.NO_CHECKPOINT
)


def versionNumber(version: str) -> int:
    """
    @param version: such as C{"1.2.3"} or C{"1.2.3rc1"}.
    @return: libvirt's number for it: major * 1,000,000 + minor * 1,000 + release.
    """
    major, minor, release = (int(part) for part in re.findall(r"\d+", version)[:3])
    return major * 1_000_000 + minor * 1_000 + release


def _memory() -> int:
    """
    @return: the machine's memory in KiB.
    """
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024


@implementer(IBackend)
class EmbeddedHost:
    """
    A host with one domain, whose state all connections share.

    @ivar hostname: the machine's name, which it answers to C{CONNECT_GET_HOSTNAME}.
    @ivar listening: the sessions that have registered event callbacks.
    """

    features = frozenset({Feature.REMOTE_EVENT_CALLBACK})

    def __init__(self) -> None:
        self.hostname = socket.gethostname()
        self.listening: set[_HostSession] = set()
        self.state, self.reason = _RUNNING, _BOOTED
        self.program = _HostProgram()

    def __str__(self) -> str:
        """
        The backend as log lines name it.
        """
        return "embedded host"

    def knows(self, procedure: int) -> bool:
        """
        @return: whether the host answers this procedure of the remote program.
        """
        return self.program.knows(procedure)

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
        return _HostSession(self, peer, name, readOnly=request.readOnly)

    def change(self, state: int, reason: int, event: int) -> None:
        """
        Change the domain's state and tell every session that listens.
        """
        self.state, self.reason = state, reason
        for session in list(self.listening):
            session.lifecycleChanged(event)


@implementer(ISession)
class _HostSession:
    """
    One connection to the host.

    @ivar callbacks: the IDs of its event callbacks, and the event of each.
    """

    __slots__ = ("_connection", "_nextCallback", "callbacks", "host", "name", "peer", "readOnly")
    idle = True

    def __init__(self, host: EmbeddedHost, peer: Peer, name: str, *, readOnly: bool) -> None:
        self.host = host
        self.peer = peer
        self.name = name
        self.readOnly = readOnly
        self.callbacks: dict[int, int] = {}
        self._nextCallback = 0
        self._connection: KeepAliveServerProtocol | None = None

    def opened(self, connection: KeepAliveServerProtocol) -> None:
        """
        Remember where to send events.
        """
        self._connection = connection

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        Answer a call.
        """
        result = self.host.program.callReceived(self, procedure, payload)
        assert isinstance(result, bytes)
        return result

    def closed(self, reason: Exception) -> None:
        """
        Send no more events.
        """
        self._connection = None
        self.host.listening.discard(self)

    def register(self, event: int) -> int:
        """
        @param event: a C{virDomainEventID}; only lifecycle events ever happen.
        @return: the new callback's ID.
        @raise RemoteError: when there are L{CALLBACKS_MAX} already.
        """
        if len(self.callbacks) >= CALLBACKS_MAX:
            raise _error(
                ErrorCode.OPERATION_FAILED,
                f"operation failed: this connection has {CALLBACKS_MAX} event callbacks, the most "
                "that it may have; deregister one first",
            )
        callback = self._nextCallback
        self._nextCallback += 1
        self.callbacks[callback] = event
        self.host.listening.add(self)
        return callback

    def deregister(self, callback: int) -> None:
        """
        @param callback: what L{register} returned.
        @raise RemoteError: when there is no such callback.
        """
        if self.callbacks.pop(callback, None) is None:
            raise _error(
                ErrorCode.INVALID_ARG, f"invalid argument: there is no event callback {callback}"
            )
        if not self.callbacks:
            self.host.listening.discard(self)

    def lifecycleChanged(self, event: int) -> None:
        """
        Send the event to each lifecycle callback, or close the connection of a client that has
        64 KiB to read and does not, so that events do not pile up in memory.
        """
        if self._connection is None:
            return
        if self._connection.congested:
            self._connection.disconnect(PeerFlooded("it did not read its domain events"))
            return
        for callback, wanted in self.callbacks.items():
            if wanted == _LIFECYCLE:
                packer = _packDomain(Packer().int32(callback)).int32(event).int32(0)
                self._connection.sendEvent(
                    REMOTE_PROGRAM, Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE, packer.packed()
                )


def _error(code: ErrorCode, message: str) -> RemoteError:
    return RemoteError(code, ErrorDomain.TEST, message)


def _packDomain(packer: Packer) -> Packer:
    return packer.string(DOMAIN_NAME).fixed(DOMAIN_UUID.bytes).int32(_DOMAIN_ID)


def _unpackDomain(unpacker: Unpacker) -> None:
    """
    @raise RemoteError: when it is not the domain that there is.
    """
    unpacker.string()
    uuid = UUID(bytes=unpacker.fixed(16))
    unpacker.int32()
    _found(found=uuid == DOMAIN_UUID, wanted=f"the UUID {uuid}")


def _found(*, found: bool, wanted: str) -> None:
    if not found:
        raise _error(
            ErrorCode.NO_DOMAIN,
            f"Domain not found: no domain with {wanted}; this server has {DOMAIN_NAME}",
        )


class _HostProgram(Program):
    """
    The procedures of the remote program that the host answers.
    """

    number = REMOTE_PROGRAM

    @procedure(Procedure.CONNECT_GET_TYPE)
    def getType(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().string(_TYPE).packed()

    @procedure(Procedure.CONNECT_GET_VERSION, Procedure.CONNECT_GET_LIB_VERSION)
    def getVersion(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().uint64(versionNumber(__version__)).packed()

    @procedure(Procedure.CONNECT_GET_HOSTNAME)
    def getHostname(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().string(session.host.hostname).packed()

    @procedure(Procedure.CONNECT_GET_URI)
    def getURI(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().string(session.name).packed()

    @procedure(Procedure.CONNECT_IS_SECURE)
    def isSecure(self, session: _HostSession, payload: bytes) -> bytes:
        return Packer().int32(session.peer.secure).packed()

    @procedure(Procedure.NODE_GET_INFO)
    def nodeInfo(self, session: _HostSession, payload: bytes) -> bytes:
        # libvirt allows a host that does not know its topology to call all CPUs cores of one
        # socket, and its frequency 0.
        cpus = os.cpu_count() or 1
        model = os.uname().machine.encode()[: _MODEL_SIZE - 1].ljust(_MODEL_SIZE, b"\0")
        packer = Packer().chars(model).uint64(_memory())
        for number in (cpus, 0, 1, 1, cpus, 1):  # CPUs, MHz, nodes, sockets, cores, threads
            packer.int32(number)
        return packer.packed()

    @procedure(Procedure.CONNECT_GET_CAPABILITIES)
    def capabilities(self, session: _HostSession, payload: bytes) -> bytes:
        cpus = os.cpu_count() or 1
        return (
            Packer()
            .string(
                "<capabilities>\n"
                "  <host>\n"
                "    <cpu>\n"
                f"      <arch>{escape(os.uname().machine)}</arch>\n"
                f"      <topology sockets='1' dies='1' cores='{cpus}' threads='1'/>\n"
                "    </cpu>\n"
                "  </host>\n"
                "</capabilities>\n"
            )
            .packed()
        )

    @procedure(Procedure.CONNECT_LIST_ALL_DOMAINS)
    def listAllDomains(self, session: _HostSession, payload: bytes) -> bytes:
        arguments = Unpacker(payload)
        wantsDomains, flags = arguments.int32(), arguments.uint32()
        has = _ALWAYS | (_List.RUNNING if session.host.state == _RUNNING else _List.PAUSED)
        matches = all(not flags & group or flags & group & has for group in _GROUPS)
        packer = Packer()
        if matches and wantsDomains:
            _packDomain(packer.uint32(1))
        else:
            packer.uint32(0)
        return packer.uint32(matches).packed()

    @procedure(Procedure.DOMAIN_LOOKUP_BY_ID)
    def lookupByID(self, session: _HostSession, payload: bytes) -> bytes:
        number = Unpacker(payload).int32()
        _found(found=number == _DOMAIN_ID, wanted=f"the ID {number}")
        return _packDomain(Packer()).packed()

    @procedure(Procedure.DOMAIN_LOOKUP_BY_NAME)
    def lookupByName(self, session: _HostSession, payload: bytes) -> bytes:
        name = Unpacker(payload).string()
        _found(found=name == DOMAIN_NAME, wanted=f"the name {name[:100]!r}")
        return _packDomain(Packer()).packed()

    @procedure(Procedure.DOMAIN_LOOKUP_BY_UUID)
    def lookupByUUID(self, session: _HostSession, payload: bytes) -> bytes:
        uuid = UUID(bytes=Unpacker(payload).fixed(16))
        _found(found=uuid == DOMAIN_UUID, wanted=f"the UUID {uuid}")
        return _packDomain(Packer()).packed()

    @procedure(Procedure.DOMAIN_GET_INFO)
    def getInfo(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        packer = Packer().int32(session.host.state)
        packer.uint64(_DOMAIN_MEMORY).uint64(_DOMAIN_MEMORY)
        return packer.int32(1).uint64(0).packed()  # one CPU, which has used no time

    @procedure(Procedure.DOMAIN_GET_STATE)
    def getState(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        return Packer().int32(session.host.state).int32(session.host.reason).packed()

    @procedure(Procedure.DOMAIN_GET_OS_TYPE)
    def getOSType(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        return Packer().string("hvm").packed()

    @procedure(Procedure.DOMAIN_GET_AUTOSTART, Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE)
    def no(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        return Packer().int32(0).packed()

    @procedure(Procedure.DOMAIN_IS_ACTIVE, Procedure.DOMAIN_IS_PERSISTENT)
    def yes(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        return Packer().int32(1).packed()

    @procedure(Procedure.DOMAIN_GET_XML_DESC)
    def getXMLDesc(self, session: _HostSession, payload: bytes) -> bytes:
        _unpackDomain(Unpacker(payload))
        return (
            Packer()
            .string(
                f"<domain type='{_TYPE}' id='{_DOMAIN_ID}'>\n"
                f"  <name>{DOMAIN_NAME}</name>\n"
                f"  <uuid>{DOMAIN_UUID}</uuid>\n"
                f"  <memory unit='KiB'>{_DOMAIN_MEMORY}</memory>\n"
                "  <vcpu>1</vcpu>\n"
                "  <os>\n"
                f"    <type arch='{escape(os.uname().machine)}'>hvm</type>\n"
                "  </os>\n"
                "</domain>\n"
            )
            .packed()
        )

    @procedure(Procedure.DOMAIN_SUSPEND)
    def suspend(self, session: _HostSession, payload: bytes) -> bytes:
        self._mayChange(session, payload, _RUNNING, "virDomainSuspend", "running")
        session.host.change(_PAUSED, _BY_USER, _SUSPENDED)
        return b""

    @procedure(Procedure.DOMAIN_RESUME)
    def resume(self, session: _HostSession, payload: bytes) -> bytes:
        self._mayChange(session, payload, _PAUSED, "virDomainResume", "paused")
        session.host.change(_RUNNING, _UNPAUSED, _RESUMED)
        return b""

    def _mayChange(
        self, session: _HostSession, payload: bytes, state: int, function: str, called: str
    ) -> None:
        _unpackDomain(Unpacker(payload))
        if session.readOnly:
            raise _error(
                ErrorCode.OPERATION_DENIED,
                f"operation forbidden: read only access prevents {function}",
            )
        if session.host.state != state:
            raise _error(
                ErrorCode.OPERATION_INVALID,
                f"Requested operation is not valid: domain {DOMAIN_NAME!r} is not {called}",
            )

    @procedure(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY)
    def registerCallback(self, session: _HostSession, payload: bytes) -> bytes:
        arguments = Unpacker(payload)
        event = arguments.int32()
        if arguments.uint32():
            _unpackDomain(arguments)
        return Packer().int32(session.register(event)).packed()

    @procedure(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY)
    def deregisterCallback(self, session: _HostSession, payload: bytes) -> bytes:
        session.deregister(Unpacker(payload).int32())
        return b""
