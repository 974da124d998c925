"""
The status of one client, for operators.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kaproto.interfaces import IRelaySession
from kaproto.keepalive.kernel import delivery
from kaproto.records.who import Who, clean
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory

__all__ = ["ClientStatus", "clientStatus", "clientsOf", "findClient"]


@attrs.frozen
class ClientStatus:
    """
    The current status of a client.

    @ivar who: its identity.
    @ivar since: when it connected, in seconds since 1970.
    @ivar listener: the endpoint string of the listener that accepted it.
    @ivar phase: the phase of its connection, see L{kaproto.rpc.negotiation.Phase}.
    @ivar name: the name that it asked to open.
    @ivar readOnly: whether its connection is read-only.
    @ivar keepAliveAsked: whether it asked for keepalive.
    @ivar policy: the policy that decides about it.
    @ivar rule: the policy's rule that matched it.
    @ivar interval: seconds of silence before it is pinged; 0 for never.
    @ivar count: unanswered pings after which it is dead.
    @ivar silence: seconds since anything last arrived from it; C{None} if unknown.
    @ivar latency: the round-trip time of its latest ping, in seconds.
    @ivar calls: the number of its outstanding calls.
    @ivar upstream: the state of its connection to the server behind a gateway, in a word or two.
    @ivar received: bytes received from it: over TCP the kernel's count, over UNIX sockets the size
        of all messages.
    @ivar sent: bytes sent to it, counted like C{received}.
    """

    who: Who
    since: float
    listener: str | None
    phase: str
    name: str | None
    readOnly: bool
    keepAliveAsked: bool
    policy: str
    rule: str | None
    interval: float
    count: int
    silence: float | None
    latency: float | None
    calls: int
    upstream: str | None
    received: int
    sent: int

    def parameters(self) -> Mapping[str, bool | int | float | str]:
        """
        @return: attributes beyond libvirt's own, by the names that C{virt-admin client-info}
            prints.  Unknown ones are left out.
        """
        whole = self.interval == int(self.interval)
        given: dict[str, bool | int | float | str | None] = {
            "phase": self.phase,
            "keepalive_asked": self.keepAliveAsked,
            "policy": self.policy,
            "rule": self.rule,
            "keepalive_interval": int(self.interval) if whole else self.interval,
            "keepalive_count": self.count,
            "last_heard_ms": None if self.silence is None else round(self.silence * 1000),
            "latency_us": None if self.latency is None else round(self.latency * 1e6),
            "opened": self.name,
            "calls": self.calls,
            "upstream": self.upstream,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "listener": self.listener,
        }
        return {name: value for name, value in given.items() if value is not None}


def clientStatus(factory: KeepAliveServerFactory, connection: ServerConnection) -> ClientStatus:
    """
    @return: the current status of a client.
    """
    peer, heartbeat, session = connection.peer, connection.heartbeat, connection.session
    keepAlive = heartbeat.keepAlive
    kernel = delivery(connection.transport)
    silence = None if kernel is None else kernel.silence
    if silence is None and keepAlive.enabled:
        silence = heartbeat.silence
    return ClientStatus(
        Who.of(peer),
        factory.journal.wallClock.timeOfDay(peer.connectedAt),
        connection.listener or None,
        connection.negotiation.phase.value,
        None if peer.requested is None else clean(peer.requested),
        peer.readOnly,
        peer.asked,
        factory.policy.name,
        peer.rule,
        keepAlive.interval,
        keepAlive.count,
        silence,
        heartbeat.latency,
        connection.callsUnderWay,
        session.upstreamState if IRelaySession.providedBy(session) else None,
        connection.incoming.bytesReceived
        if kernel is None or kernel.received is None
        else kernel.received,
        connection.outgoing.bytesSent
        if kernel is None or kernel.acknowledged is None
        else kernel.acknowledged,
    )


def clientsOf(factory: KeepAliveServerFactory) -> list[ServerConnection]:
    """
    @return: a server's clients, the longest connected first.
    """
    return sorted(factory.clients, key=lambda each: each.peer.id)


def findClient(factory: KeepAliveServerFactory, number: int) -> ServerConnection | None:
    """
    @param number: the number of the client's connection.
    @return: the client, if it is connected.
    """
    for connection in factory.clients:
        if connection.peer.id == number:
            return connection
    return None
