"""
Connecting to a server by URI or endpoint string.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import ConnectionClosed
from kaproto.keepalive.liveness import KeepAlive
from kaproto.security.authfile import loginFor
from kaproto.security.endpoints import TLSClientEndpoint
from kaproto.security.pki import clientFiles
from kaproto.security.saslclient import Login
from kaproto.security.tls import ClientContextFactory
from kaproto.uri import isURI, parseURI
from kaproto.wire.programs import CloseReason

__all__ = ["connect", "endpointFor"]


def connect(
    reactor: IReactorTime,
    uri: str,
    *,
    name: str | None = None,
    readOnly: bool = False,
    keepAlive: KeepAlive | None = None,
    login: Login | None = None,
) -> Deferred[KeepAliveClientProtocol]:
    """
    Connect to a libvirtd or a kaserver, and open.

    @param reactor: the reactor.
    @param uri: a libvirt URI (C{test+tcp://host/default}, C{qemu+unix:///system?socket=PATH},
        C{qemu:///system}), or a Twisted client endpoint string (C{tcp:host:16509}).
    @param name: what to open, if not what the URI says; with an endpoint string by default the
        server's default.
    @param readOnly: whether to ask for a connection that must not change anything.
    @param keepAlive: the interval and count to start with, see
        L{KeepAliveClientProtocol.setKeepAlive}.
    @param login: the name and the password, for servers that want them; by default from the file
        that the URI names in C{authfile=}.
    @return: fires with the open connection; fails with L{ValueError} when the URI, or a file that
        it names, cannot be used, with L{AuthenticationFailed} when one end does not let the other
        in, with L{RemoteError} when the server refuses, or as connecting fails.
    """
    return Deferred.fromCoroutine(_connect(reactor, uri, name, readOnly, keepAlive, login))


async def _connect(
    reactor: IReactorTime,
    uri: str,
    name: str | None,
    readOnly: bool,
    keepAlive: KeepAlive | None,
    login: Login | None,
) -> KeepAliveClientProtocol:
    endpoint, uriName = endpointFor(reactor, uri, readOnly=readOnly)
    factory = KeepAliveClientFactory(
        uriName if name is None else name,
        int(readOnly),
        keepAlive,
        clock=reactor,
        login=login or loginFor(uri),
    )
    connection = await endpoint.connect(factory)
    assert isinstance(connection, KeepAliveClientProtocol)
    try:
        return await connection.whenOpen()
    except CancelledError:
        connection.abort(ConnectionClosed("nobody waits for it any more", CloseReason.CLIENT))
        raise


def endpointFor(
    reactor: object, uri: str, *, readOnly: bool = False
) -> tuple[IStreamClientEndpoint, str]:
    """
    @param uri: as for L{connect}.
    @return: where to connect, and the name to open there.
    @raise ValueError: when it cannot be used.
    """
    if not isURI(uri):
        return clientFromString(reactor, uri), ""
    parsed = parseURI(uri, readOnly=readOnly)
    if parsed.transport == "unix":
        return UNIXClientEndpoint(reactor, parsed.socket), parsed.name
    endpoint = HostnameEndpoint(reactor, parsed.host, parsed.port)
    if parsed.transport == "tls":
        files = clientFiles(None if parsed.pkipath is None else Path(parsed.pkipath))
        context = ClientContextFactory(files, parsed.host, verify=parsed.verify)
        return TLSClientEndpoint(endpoint, context, IReactorTime(reactor, None)), parsed.name
    return endpoint, parsed.name
