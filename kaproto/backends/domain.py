"""
The domain of the embedded host: its description, its state, and the callbacks for its events.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from kaproto.backends.machine import architecture
from kaproto.errors import PeerFlooded, RemoteError
from kaproto.program import pack
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.domains import (
    Domain,
    DomainInfo,
    DomainState,
    EventID,
    LifecycleEvent,
    LifecycleEventType,
    ListFlag,
    StateAndReason,
)
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, ErrorDomain, Procedure

__all__ = [
    "CALLBACKS_MAX",
    "DOMAIN",
    "HYPERVISOR",
    "EventCallbacks",
    "SharedDomain",
    "checkDomain",
    "domainError",
    "domainXML",
    "notFound",
]

DOMAIN: Final = Domain("test", UUID("9124ca5f-6592-4c61-9ebb-7148b2fa2353"), 1)
"""
The domain's name, UUID and ID, the same on every embedded host.
"""

CALLBACKS_MAX: Final = 64
"""
The most event callbacks of one connection.
"""

_BOOTED: Final = StateAndReason(DomainState.RUNNING, 1)
_UNPAUSED: Final = StateAndReason(DomainState.RUNNING, 5)
_PAUSED_BY_USER: Final = StateAndReason(DomainState.PAUSED, 1)

_GROUPS: Final = (
    ListFlag.ACTIVE | ListFlag.INACTIVE,
    ListFlag.PERSISTENT | ListFlag.TRANSIENT,
    ListFlag.RUNNING | ListFlag.PAUSED | ListFlag.SHUTOFF | ListFlag.OTHER,
    ListFlag.MANAGEDSAVE | ListFlag.NO_MANAGEDSAVE,
    ListFlag.AUTOSTART | ListFlag.NO_AUTOSTART,
    ListFlag.HAS_SNAPSHOT | ListFlag.NO_SNAPSHOT,
    ListFlag.HAS_CHECKPOINT | ListFlag.NO_CHECKPOINT,
)

_ALWAYS: Final = (
    ListFlag.ACTIVE
    | ListFlag.PERSISTENT
    | ListFlag.NO_MANAGEDSAVE
    | ListFlag.NO_AUTOSTART
    | ListFlag.NO_SNAPSHOT
    | ListFlag.NO_CHECKPOINT
)


HYPERVISOR: Final = "kaproto"
"""
The hypervisor's type: the result of C{CONNECT_GET_TYPE}, also in the domain's XML.
"""

_MEMORY: Final = 1048576  # KiB


def domainError(code: ErrorCode, message: str) -> RemoteError:
    """
    @return: an error in the domain of libvirt's test driver.
    """
    return RemoteError(code, ErrorDomain.TEST, message)


def notFound(wanted: str) -> RemoteError:
    """
    @param wanted: the client's name for a domain that does not exist, such as C{"the ID 7"}.
    """
    return domainError(
        ErrorCode.NO_DOMAIN,
        f"Domain not found: no domain with {wanted}; this server has {DOMAIN.name}",
    )


def checkDomain(domain: Domain) -> None:
    """
    @raise RemoteError: when it is not L{DOMAIN}.
    """
    if domain.uuid != DOMAIN.uuid:
        raise notFound(f"the UUID {domain.uuid}")


def domainXML() -> str:
    """
    @return: the domain's description.
    """
    return (
        f"<domain type='{HYPERVISOR}' id='{DOMAIN.id}'>\n"
        f"  <name>{DOMAIN.name}</name>\n"
        f"  <uuid>{DOMAIN.uuid}</uuid>\n"
        f"  <memory unit='KiB'>{_MEMORY}</memory>\n"
        "  <vcpu>1</vcpu>\n"
        "  <os>\n"
        f"    <type arch='{architecture()}'>hvm</type>\n"
        "  </os>\n"
        "</domain>\n"
    )


class SharedDomain:
    """
    A domain that runs or is paused.

    @ivar state: its state and the reason for it.
    @ivar listeners: the event callbacks, one object for each connection that has registered any.
    """

    def __init__(self) -> None:
        self.state = _BOOTED
        self.listeners: set[EventCallbacks] = set()

    def matches(self, flags: int) -> bool:
        """
        @param flags: L{ListFlag}s.
        @return: whether the domain matches one of the given flags in each group.
        """
        running = self.state.state == DomainState.RUNNING
        has = _ALWAYS | (ListFlag.RUNNING if running else ListFlag.PAUSED)
        wanted = [flags & group for group in _GROUPS]
        return all(each & has for each in wanted if each)

    def info(self) -> DomainInfo:
        """
        @return: its state, memory and CPUs.  The CPU time is 0.
        """
        return DomainInfo(self.state.state, _MEMORY, _MEMORY, 1, 0)

    def suspend(self) -> None:
        """
        Pause the domain.

        @raise RemoteError: when it is not running.
        """
        self._change(DomainState.RUNNING, _PAUSED_BY_USER, LifecycleEventType.SUSPENDED)

    def resume(self) -> None:
        """
        Let the domain run.

        @raise RemoteError: when it is not paused.
        """
        self._change(DomainState.PAUSED, _UNPAUSED, LifecycleEventType.RESUMED)

    def _change(
        self, before: DomainState, after: StateAndReason, event: LifecycleEventType
    ) -> None:
        if self.state.state != before:
            raise domainError(
                ErrorCode.OPERATION_INVALID,
                f"Requested operation is not valid: domain {DOMAIN.name!r} is not "
                f"{before.name.lower()}",
            )
        self.state = after
        for listener in list(self.listeners):
            listener.happened(event)


class EventCallbacks:
    """
    The event callbacks that one connection has registered.
    """

    __slots__ = ("_callbacks", "_connection", "_domain", "_next")

    def __init__(self, domain: SharedDomain, connection: KeepAliveServerProtocol) -> None:
        """
        @param connection: the connection on which events are sent.
        """
        self._domain = domain
        self._connection = connection
        self._callbacks: dict[int, int] = {}
        self._next = 0

    def register(self, event: int) -> int:
        """
        @param event: an L{EventID}; only lifecycle events are ever sent.
        @return: the new callback's ID.
        @raise RemoteError: when there are L{CALLBACKS_MAX} already.
        """
        if len(self._callbacks) >= CALLBACKS_MAX:
            raise domainError(
                ErrorCode.OPERATION_FAILED,
                f"operation failed: this connection has {CALLBACKS_MAX} event callbacks, the most "
                "that it may have; deregister one first",
            )
        callback = self._next
        self._next += 1
        self._callbacks[callback] = event
        self._domain.listeners.add(self)
        return callback

    def deregister(self, callback: int) -> None:
        """
        @param callback: the ID from L{register}.
        @raise RemoteError: when there is no such callback.
        """
        if self._callbacks.pop(callback, None) is None:
            raise domainError(
                ErrorCode.INVALID_ARG, f"invalid argument: there is no event callback {callback}"
            )
        if not self._callbacks:
            self.clear()

    def clear(self) -> None:
        """
        Deregister all callbacks.
        """
        self._callbacks.clear()
        self._domain.listeners.discard(self)

    def happened(self, event: LifecycleEventType) -> None:
        """
        Send the event once for each lifecycle callback.  If the client does not read earlier
        messages, close its connection instead, so that events do not pile up in memory.
        """
        if self._connection.congested:
            self._connection.disconnect(PeerFlooded("it did not read its domain events"))
            return
        for callback, wanted in self._callbacks.items():
            if wanted == EventID.LIFECYCLE:
                self._connection.sendEvent(
                    REMOTE_PROGRAM,
                    Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE,
                    pack(LifecycleEvent(callback, DOMAIN, event, 0)),
                )
