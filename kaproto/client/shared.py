"""
The part of a client's factory that its connections use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc.shared import SharedByConnections
from kaproto.security.clientauth import Authentication

__all__ = ["SharedByClient"]


class SharedByClient(SharedByConnections, Protocol):
    """
    The part of a L{kaproto.client.protocol.KeepAliveClientFactory} that a
    L{kaproto.client.connection.ClientConnection} uses.
    """

    name: str | None
    flags: int
    keepAlive: KeepAlive
    authentication: Authentication
    asksForKeepAlive: bool
    registersCloseCallback: bool
    startsOpen: bool
    onOpen: Callable[[Any], Awaitable[object] | None] | None
