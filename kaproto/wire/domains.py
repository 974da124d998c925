"""
Domains in libvirt's remote program: the arguments and results of its procedures, as structs for
L{kaproto.wire.structs}, and the numbers in them.

The names are libvirt's own without their common prefixes, from C{remote_protocol.x} and
C{libvirt-domain.h}.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from uuid import UUID

import attrs

from kaproto.wire.structs import UHyper, UInt

__all__ = [
    "Domain",
    "DomainAndFlags",
    "DomainInfo",
    "DomainList",
    "DomainState",
    "EventID",
    "LifecycleEvent",
    "LifecycleEventType",
    "ListAllDomains",
    "ListFlag",
    "RegisterCallback",
    "StateAndReason",
]


class _OpenEnum(IntEnum):
    """
    An enum that newer libvirts have more members of: C{DomainState(99)} is C{UNKNOWN_99}.
    """

    @classmethod
    def _missing_(cls, value: object) -> _OpenEnum | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


class DomainState(_OpenEnum):
    """
    What a domain is doing (C{virDomainState}).
    """

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class LifecycleEventType(_OpenEnum):
    """
    What happened to a domain (C{virDomainEventType}).
    """

    DEFINED = 0
    UNDEFINED = 1
    STARTED = 2
    SUSPENDED = 3
    RESUMED = 4
    STOPPED = 5
    SHUTDOWN = 6
    PMSUSPENDED = 7
    CRASHED = 8


class EventID(IntEnum):
    """
    The events that a callback can be registered for (C{virDomainEventID}); there are many more.
    """

    LIFECYCLE = 0


class ListFlag(IntFlag):
    """
    Which domains C{CONNECT_LIST_ALL_DOMAINS} lists (C{virConnectListAllDomainsFlags}).
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


@attrs.frozen
class Domain:
    """
    A domain, as calls, results and events name it (C{remote_nonnull_domain}).

    @ivar id: its number while it runs, -1 otherwise.
    """

    name: str
    uuid: UUID
    id: int


@attrs.frozen
class DomainAndFlags:
    """
    The arguments of the many procedures that take a domain and flags.
    """

    domain: Domain
    flags: UInt = 0


@attrs.frozen
class ListAllDomains:
    """
    The arguments of C{CONNECT_LIST_ALL_DOMAINS}.

    @ivar wantsDomains: whether to return domains, and not only their number.
    @ivar flags: L{ListFlag}s.  Of each group that has a flag set, a domain must match one.
    """

    wantsDomains: bool = True
    flags: UInt = 0


@attrs.frozen
class DomainList:
    """
    The result of C{CONNECT_LIST_ALL_DOMAINS}.
    """

    domains: list[Domain]
    count: UInt


@attrs.frozen
class DomainInfo:
    """
    The result of C{DOMAIN_GET_INFO}.

    @ivar maxMemory: the most memory that it may have, in KiB.
    @ivar memory: the memory that it has, in KiB.
    @ivar cpus: how many CPUs it has.
    @ivar cpuTime: the CPU time that it has used, in nanoseconds.
    """

    state: DomainState
    maxMemory: UHyper
    memory: UHyper
    cpus: int
    cpuTime: UHyper


@attrs.frozen
class StateAndReason:
    """
    The result of C{DOMAIN_GET_STATE}.

    @ivar reason: why it is in that state, by a number whose meaning depends on the state.
    """

    state: DomainState
    reason: int


@attrs.frozen
class RegisterCallback:
    """
    The arguments of C{CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY}.  The result is the callback's
    ID.

    @ivar event: an L{EventID}.
    @ivar domain: C{None} for the events of all domains.
    """

    event: int
    domain: Domain | None = None


@attrs.frozen
class LifecycleEvent:
    """
    What C{DOMAIN_EVENT_CALLBACK_LIFECYCLE} carries.

    @ivar callback: the ID of the callback.
    @ivar detail: how it happened, by a number whose meaning depends on the event.
    """

    callback: int
    domain: Domain
    event: LifecycleEventType
    detail: int
