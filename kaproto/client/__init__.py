"""
The client: L{connect} and the L{Connection} it gives, a service that stays connected, and a
Protocol and a Factory to subclass.
"""

from kaproto.client.calls import Call, DomainCall, Nothing, Version
from kaproto.client.connecting import connect, endpointFor
from kaproto.client.events import EventStream
from kaproto.client.libvirt import Connection, Domain, DomainEvent
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.service import KeepAliveClientService, Snapshot
from kaproto.security.saslclient import Login
from kaproto.wire.domains import (
    DomainInfo,
    DomainState,
    LifecycleEventType,
    ListFlag,
    StateAndReason,
)

__all__ = [
    "Call",
    "Connection",
    "Domain",
    "DomainCall",
    "DomainEvent",
    "DomainInfo",
    "DomainState",
    "EventStream",
    "KeepAliveClientFactory",
    "KeepAliveClientProtocol",
    "KeepAliveClientService",
    "LifecycleEventType",
    "ListFlag",
    "Login",
    "Nothing",
    "Snapshot",
    "StateAndReason",
    "Version",
    "connect",
    "endpointFor",
]
