"""
The arguments and results of libvirt's ADMIN program, from C{admin_protocol.x}.
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
    A client of a server.  C{virt-admin} sends this structure back in later calls, of which the
    server reads only the server's name and the id.

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
    Options of a list.

    @ivar need: 0 to ask only for the number of entries.
    """

    need: UInt
    flags: UInt


@attrs.frozen
class ServerList:
    """
    The servers of the daemon.

    @ivar total: the number of servers.  Unless C{servers} is empty, it must be the length of
        C{servers}: C{virt-admin} does not check it.
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
    The parameters of a server or a client.
    """

    parameters: Annotated[list[TypedParameter], Limit(32)]


@attrs.frozen
class LogOutputs:
    """
    The outputs of the log.

    @ivar count: the number of outputs.
    """

    outputs: str
    count: UInt


@attrs.frozen
class LogFilters:
    """
    The filters of the log.

    @ivar count: the number of filters.
    """

    filters: str | None
    count: UInt


@attrs.frozen
class SetLog:
    """
    Set the outputs or the filters of the log.
    """

    text: str | None
    flags: UInt


@attrs.frozen
class SetTimeout:
    """
    Set the seconds without clients after which the daemon stops.
    """

    seconds: UInt
    flags: UInt
