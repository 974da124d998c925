"""
The parameters of servers and clients for C{virt-admin}, with libvirt's names and types.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

import attrs

from kaproto.admin.errors import invalid, unsupportedParameter
from kaproto.admin.types import ClientName, Parameters, ServerName
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.records.wallclock import WallClock
from kaproto.records.who import Who
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory
from kaproto.status.clients import clientStatus
from kaproto.wire.xdr import ParameterType, TypedParameter

__all__ = [
    "WORKERS",
    "changedLimits",
    "clientName",
    "clientParameters",
    "limitParameters",
    "workerParameters",
]

_TCP: Final = 1
_TRANSPORTS: Final = {"unix": 0, "tcp": _TCP, "tls": 2}

_ANY: Final = 2**32 - 1
"""
libvirt's value for no limit.
"""

_LIMITS: Final = {"nclients_max": "maxClients", "nclients_unauth_max": "maxAnonymousClients"}

WORKERS: Final = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "nWorkers": 1,
    "freeWorkers": 0,
    "prioWorkers": 0,
    "jobQueueDepth": 0,
}
"""
The thread pool of kaserver: one thread, which is busy with this answer.
"""


def _unsigned(values: Mapping[str, int]) -> Parameters:
    return Parameters(
        [TypedParameter(name, value, ParameterType.UINT) for name, value in values.items()]
    )


def workerParameters() -> Parameters:
    """
    @return: the parameters for C{virt-admin server-threadpool-info}.
    """
    return _unsigned(WORKERS)


def limitParameters(limits: Limits, clients: int, anonymous: int) -> Parameters:
    """
    @return: the parameters for C{virt-admin server-clients-info}.
    """
    most = limits.maxClients or _ANY
    return _unsigned(
        {
            "nclients_max": most,
            "nclients": clients,
            "nclients_unauth_max": min(limits.maxAnonymousClients or _ANY, most),
            "nclients_unauth": anonymous,
        }
    )


def changedLimits(limits: Limits, parameters: list[TypedParameter]) -> Limits:
    """
    @param limits: the current limits.
    @param parameters: the parameters sent by C{virt-admin server-clients-set}.
    @return: the new limits.
    @raise kaproto.errors.RemoteError: when they are invalid, with libvirtd's code and message.
    """
    given: dict[str, int] = {}
    for each in parameters:
        name = each.name
        if name not in _LIMITS:
            raise unsupportedParameter(name)
        if each.type is not ParameterType.UINT:
            kind = each.type.name.lower()
            raise invalid(f"invalid type '{kind}' for parameter '{name}', expected 'uint'")
        if name in given:
            raise invalid(f"parameter '{name}' occurs multiple times")
        if not each.value:
            raise invalid(
                f"{name} 0 would let nobody connect; use daemon-shutdown or kaproto drain for "
                f"that, or {_ANY} for any number of clients"
            )
        given[name] = int(each.value)
    most, unknown = (given.get(name) for name in _LIMITS)
    if unknown is not None and unknown > (most or limits.maxClients or _ANY):
        raise invalid(
            "nclients_unauth_max, the clients that have not logged in, cannot be more than "
            "nclients_max, all clients"
        )
    return attrs.evolve(
        limits,
        **{_LIMITS[name]: 0 if value == _ANY else value for name, value in given.items()},
    )


def clientParameters(factory: KeepAliveServerFactory, connection: ServerConnection) -> Parameters:
    """
    @return: the parameters for C{virt-admin client-info}: libvirt's first, then kaproto's.
    """
    status = clientStatus(factory, connection)
    peer = connection.peer
    parameters = [TypedParameter("readonly", status.readOnly), *_identity(peer, status.who)]
    for name, value in status.parameters().items():
        kind = ParameterType.UINT if type(value) is int and 0 <= value <= _ANY else None
        if kind is None:
            parameters.append(TypedParameter(name, value))
        else:
            parameters.append(TypedParameter(name, value, kind))
    return Parameters(parameters)


def _identity(peer: Peer, who: Who) -> Iterator[TypedParameter]:
    """
    @return: the client's identity, in the order and with the types of libvirtd's answer.
    """
    caller = who.caller
    if caller.user is not None:
        yield TypedParameter("sasl_user_name", caller.user)
    if who.address is not None:
        yield TypedParameter("sock_addr", who.address)
    if caller.dn is not None:
        yield TypedParameter("tls_x509_dname", caller.dn)
    credentials = peer.unixCredentials
    if credentials is not None:
        yield TypedParameter("unix_user_id", credentials.uid, ParameterType.INT)
        with suppress(KeyError):
            yield TypedParameter("unix_user_name", pwd.getpwuid(credentials.uid).pw_name)
        yield TypedParameter("unix_group_id", credentials.gid, ParameterType.INT)
        with suppress(KeyError):
            yield TypedParameter("unix_group_name", grp.getgrgid(credentials.gid).gr_name)
        yield TypedParameter("unix_process_id", credentials.pid, ParameterType.INT)


def clientName(server: ServerName, client: ServerConnection, wallClock: WallClock) -> ClientName:
    """
    @return: the entry of a client for C{virt-admin client-list}.
    """
    peer = client.peer
    since = wallClock.timeOfDay(peer.connectedAt)
    return ClientName(server, peer.id, int(since), _TRANSPORTS.get(peer.transport, _TCP))
