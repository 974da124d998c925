"""
Domains in libvirt's remote program: the arguments and results of its procedures, as structs for
L{kaproto.wire.structs}, and their enumerations.

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
    An enum to which newer versions of libvirt add members: C{DomainState(99)} is C{UNKNOWN_99}.
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
    The state of a domain (C{virDomainState}).
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
    The types of lifecycle events (C{virDomainEventType}).
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
    The kinds of events that callbacks are registered for (C{virDomainEventID}).  libvirt has more.
    """

    LIFECYCLE = 0


class ListFlag(IntFlag):
    """
    Filters for C{CONNECT_LIST_ALL_DOMAINS} (C{virConnectListAllDomainsFlags}).
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
    A reference to a domain, in calls, results and events (C{remote_nonnull_domain}).

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

    @ivar wantsDomains: whether to return domains; otherwise only their number is returned.
    @ivar flags: L{ListFlag}s.  In each group with flags set, a domain must match one of them.
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

    @ivar maxMemory: the domain's memory limit, in KiB.
    @ivar memory: its current memory, in KiB.
    @ivar cpus: the number of its CPUs.
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

    @ivar reason: a number for the reason of the state; its meaning depends on the state.
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
    The payload of C{DOMAIN_EVENT_CALLBACK_LIFECYCLE}.

    @ivar callback: the ID of the callback.
    @ivar detail: a number for the details; its meaning depends on the event.
    """

    callback: int
    domain: Domain
    event: LifecycleEventType
    detail: int
