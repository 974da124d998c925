"""
Clients, records and the daemon as objects for JSON.

The keys are stable from the first release on.  Times of day are in ISO 8601, UTC.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime

from kaproto import __version__
from kaproto.records.endings import Ending
from kaproto.records.refusals import Refusal
from kaproto.records.wallclock import WallClock
from kaproto.records.who import Caller, Who, clean
from kaproto.registry.interfaces import IRegistry
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.status.clients import ClientStatus
from kaproto.status.daemon import SERVER_NAME, Daemon, readiness

__all__ = [
    "clientObject",
    "endingObject",
    "listedObject",
    "nodeObject",
    "refusalObject",
    "registryObject",
    "statusObject",
]

_Object = dict[str, object]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _caller(caller: Caller) -> _Object:
    return {
        "user": caller.user,
        "dn": caller.dn,
        "host": caller.host,
        "uid": caller.uid,
        "program": caller.program,
    }


def _who(who: Who) -> _Object:
    return {
        "id": who.id,
        "transport": who.transport,
        "address": who.address,
        **_caller(who.caller),
        "pid": who.pid,
    }


def clientObject(status: ClientStatus) -> _Object:
    """
    @return: the object of a client.
    """
    return {
        **_who(status.who),
        "since": _time(status.since),
        "read_only": status.readOnly,
        "phase": status.phase,
        "listener": status.listener,
        "opened": status.name,
        "policy": status.policy,
        "rule": status.rule,
        "keepalive_asked": status.keepAliveAsked,
        "keepalive_interval": status.interval,
        "keepalive_count": status.count,
        "last_heard_ms": _milliseconds(status.silence),
        "latency_us": None if status.latency is None else round(status.latency * 1e6),
        "calls": status.calls,
        "upstream": status.upstream,
        "bytes_received": status.received,
        "bytes_sent": status.sent,
    }


def listedObject(connection: ServerConnection, wallClock: WallClock) -> _Object:
    """
    @return: the description of a client for a registry, without values that change continuously.
    """
    peer, keepAlive = connection.peer, connection.heartbeat.keepAlive
    return {
        **_who(Who.of(peer)),
        "since": _time(wallClock.timeOfDay(peer.connectedAt)),
        "read_only": peer.readOnly,
        "phase": connection.negotiation.phase.value,
        "listener": connection.listener or None,
        "opened": None if peer.requested is None else clean(peer.requested),
        "rule": peer.rule,
        "keepalive_asked": peer.asked,
        "keepalive_interval": keepAlive.interval,
        "keepalive_count": keepAlive.count,
    }


def nodeObject(daemon: Daemon) -> _Object:
    """
    @return: the description of the daemon for a registry.
    """
    factory, problem = daemon.factory, readiness(daemon)
    journal = factory.journal
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started": _time(journal.wallClock.timeOfDay(journal.startedAt)),
        "state": "draining" if daemon.draining else "serving",
        "problem": problem,
        "policy": factory.policy.name,
        "listeners": list(daemon.listeners),
        "clients": len(daemon.register),
        "clients_max": factory.limits.maxClients or None,
    }


def registryObject(registry: IRegistry) -> _Object:
    """
    @return: the state of the registry.
    """
    status = registry.status()
    return {
        "node": registry.node,
        "registry": status.where,
        "up": status.problem is None,
        "problem": status.problem,
        "stale_s": round(status.stale, 1),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def endingObject(ending: Ending, wallClock: WallClock) -> _Object:
    """
    @return: the object of a connection that ended.
    """
    return {
        **_who(ending.who),
        "ended": _time(wallClock.timeOfDay(ending.endedAt)),
        "duration_s": round(ending.duration, 3),
        "opened": ending.name,
        "reason": ending.kind,
        "message": ending.reason,
    }


def refusalObject(refusal: Refusal, wallClock: WallClock) -> _Object:
    """
    @return: the object of a client that was refused, or would be in mode 2.
    """
    return {
        **_caller(refusal.caller),
        "refused": refusal.refused,
        "would_refuse": refusal.wouldRefuse,
        "last": _time(wallClock.timeOfDay(refusal.last)),
    }


def statusObject(daemon: Daemon) -> _Object:
    """
    @return: the state of the daemon.
    """
    factory = daemon.factory
    journal, counters, trips = factory.journal, factory.counters, factory.roundTrips
    byPhase: Counter[str] = Counter()
    for (_listener, phase), number in daemon.register.phases().items():
        byPhase[phase] += number
    return {
        "server": SERVER_NAME,
        "version": __version__,
        "pid": os.getpid(),
        "started": _time(journal.wallClock.timeOfDay(journal.startedAt)),
        "uptime_s": round(journal.age),
        "state": "draining" if daemon.draining else "serving",
        "ready": readiness(daemon) is None,
        "problem": readiness(daemon),
        "policy": factory.policy.name,
        "listeners": list(daemon.listeners),
        "registry": registryObject(daemon.registry),
        "clients": len(daemon.register),
        "clients_by_phase": dict(byPhase),
        "clients_max": factory.limits.maxClients or None,
        "accepted": counters.accepted,
        "opened": counters.opened,
        "refused": counters.refused,
        "would_refuse": counters.warned,
        "login_failures": counters.unauthenticated,
        "ended": {reason: number for reason, number in journal.endings.counts.items() if number},
        "round_trips": trips.total,
        "round_trip_avg_us": round(trips.sum * 1e6 / trips.total) if trips.total else None,
    }
