"""
The arguments and results of libvirt's ADMIN program, as C{admin_protocol.x} has them.
"""

from __future__ import annotations

from typing import Annotated

import attrs

from kaproto.wire.structs import Hyper, Limit, UHyper, UInt
from kaproto.wire.xdr import TypedParameter

__all__ = [
    "ClientCall",
    "ClientLookup",
    "ClientName",
    "Flags",
    "ListOptions",
    "LogFilters",
    "LogOutputs",
    "Parameters",
    "ServerCall",
    "ServerList",
    "ServerListOptions",
    "ServerLookup",
    "ServerName",
    "ServerParameters",
    "SetLog",
    "SetTimeout",
    "Version",
]


@attrs.frozen
class Flags:
    """
    A call whose only argument is flags.
    """

    flags: UInt


@attrs.frozen
class Version:
    """
    A version: major * 1,000,000 + minor * 1,000 + release.
    """

    version: UHyper


@attrs.frozen
class ServerName:
    """
    A server of the daemon.
    """

    name: str


@attrs.frozen
class ClientName:
    """
    A client of a server.  A client passes back what it got; only the server's name and the id
    count then.

    @ivar timestamp: when it connected, in seconds since 1970.
    @ivar transport: 0 for UNIX, 1 for TCP, 2 for TLS.
    """

    server: ServerName
    id: UHyper
    timestamp: Hyper
    transport: UInt


@attrs.frozen
class ListOptions:
    """
    How to list.

    @ivar need: 0 to be told only how many there are.
    """

    need: UInt
    flags: UInt


@attrs.frozen
class ServerList:
    """
    The servers of the daemon.

    @ivar total: must be the length of C{servers} unless that is empty: C{virt-admin} believes it.
    """

    servers: list[ServerName]
    total: UInt


@attrs.frozen
class ServerLookup:
    """
    Find a server.
    """

    name: str
    flags: UInt


@attrs.frozen
class ServerCall:
    """
    A call about a server.
    """

    server: ServerName
    flags: UInt


@attrs.frozen
class ServerListOptions:
    """
    List a server's clients.
    """

    server: ServerName
    need: UInt
    flags: UInt


@attrs.frozen
class ServerParameters:
    """
    Set some of a server's parameters.
    """

    server: ServerName
    parameters: Annotated[list[TypedParameter], Limit(32)]
    flags: UInt


@attrs.frozen
class ClientLookup:
    """
    Find a client.
    """

    server: ServerName
    id: UHyper
    flags: UInt


@attrs.frozen
class ClientCall:
    """
    A call about a client.
    """

    client: ClientName
    flags: UInt


@attrs.frozen
class Parameters:
    """
    What there is to know of a server or a client.
    """

    parameters: Annotated[list[TypedParameter], Limit(32)]


@attrs.frozen
class LogOutputs:
    """
    Where the log goes.

    @ivar count: how many outputs there are.
    """

    outputs: str
    count: UInt


@attrs.frozen
class LogFilters:
    """
    What goes to the log.

    @ivar count: how many filters there are.
    """

    filters: str | None
    count: UInt


@attrs.frozen
class SetLog:
    """
    Set where the log goes, or what goes to it.
    """

    text: str | None
    flags: UInt


@attrs.frozen
class SetTimeout:
    """
    Set after how many seconds without clients the daemon stops.
    """

    seconds: UInt
    flags: UInt
