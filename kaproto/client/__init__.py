"""
The client: L{connect} and its L{Connection}, a service that stays connected, and a Protocol and a
Factory to subclass.
"""

from kaproto.client.calls import Call, Nothing, Version, nothingElse
from kaproto.client.connecting import connect, endpointFor
from kaproto.client.events import EventStream
from kaproto.client.libvirt import Connection, Domain, DomainEvent
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.service import KeepAliveClientService, Snapshot
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.wire.domains import Domain as DomainName
from kaproto.wire.domains import (
    DomainInfo,
    DomainState,
    LifecycleEventType,
    ListFlag,
    StateAndReason,
)

__all__ = [
    "Authentication",
    "Call",
    "Connection",
    "Domain",
    "DomainEvent",
    "DomainInfo",
    "DomainName",
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
    "nothingElse",
]
