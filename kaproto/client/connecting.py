"""
Connects to a server by URI or endpoint string.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from socket import (
    AF_INET6,
    AI_NUMERICHOST,
    AI_NUMERICSERV,
    NI_NUMERICHOST,
    NI_NUMERICSERV,
    SOCK_STREAM,
    getaddrinfo,
    getnameinfo,
)

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorThreads,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from zope.interface import implementer

from kaproto.arguments import checkInstance, checkType
from kaproto.client.connection import ClientConnection
from kaproto.client.libvirt import Connection
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.endpointstring import whyNotMade
from kaproto.errors import ConnectionClosed, DeadlineMissed
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.deadline import Deadline
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import CLIENT_LIMITS
from kaproto.rpc.protocol import connectionOf
from kaproto.security.authfile import authenticationFor
from kaproto.security.endpoints import TLSClientEndpoint
from kaproto.security.pki import clientFiles
from kaproto.security.saslclient import Login
from kaproto.security.tls import ClientContextFactory
from kaproto.uri import isURI, parseURI
from kaproto.wire.programs import CloseReason

__all__ = ["HostEndpoint", "connect", "endpointFor"]


def connect(
    reactor: IReactorTime,
    uri: str,
    *,
    name: str | None = None,
    readOnly: bool = False,
    keepAlive: KeepAlive | None = None,
    login: Login | None = None,
    timeout: float = CLIENT_LIMITS.openTimeout,
) -> Deferred[Connection]:
    """
    Connect to a libvirtd or a kaserver, and open the connection.

    @param reactor: the reactor.
    @param uri: a libvirt URI (C{test+tcp://host/default}, C{qemu+unix:///system?socket=PATH},
        C{qemu:///system}), or a Twisted client endpoint string (C{tcp:host:16509}).
    @param name: the name to open; by default the URI's, or with an endpoint string the server's
        default.
    @param readOnly: whether to ask for a read-only connection.
    @param keepAlive: the interval and count for pinging the server, if it supports keepalive.
    @param login: the user's name and password, for servers that require them; by default from the
        file that the URI names in C{authfile=}.
    @param timeout: seconds until the connection is open: for resolving the host's name,
        connecting, TLS, the login and C{CONNECT_OPEN} together.
    @return: fires with the open connection, or fails; it always does one of the two.  It fails with
        L{ValueError} when the URI, or a file that it names, cannot be used; with
        L{AuthenticationFailed<kaproto.errors.AuthenticationFailed>} when one end does not accept
        the other; with L{RemoteError<kaproto.errors.RemoteError>} when the server refuses; with
        L{DeadlineMissed} after C{timeout} seconds; with L{ReactorNotRunning} in an asyncio program
        whose event loop the reactor does not use; and with the endpoint's errors.
    """
    checkInstance("reactor", reactor, IReactorTime)
    checkType("uri", uri, str)
    return Deferred.fromCoroutine(_connect(reactor, uri, name, readOnly, keepAlive, login, timeout))


async def _connect(
    reactor: IReactorTime,
    uri: str,
    name: str | None,
    readOnly: bool,
    keepAlive: KeepAlive | None,
    login: Login | None,
    seconds: float,
) -> Connection:
    _checkEventLoop(reactor)
    endpoint, uriName = endpointFor(reactor, uri, readOnly=readOnly)
    factory = KeepAliveClientFactory(
        uriName if name is None else name,
        int(readOnly),
        keepAlive,
        clock=reactor,
        authentication=authenticationFor(uri, login),
        limits=attrs.evolve(CLIENT_LIMITS, openTimeout=seconds),
    )
    clock = monotonicClock(reactor)
    opening = Deferred.fromCoroutine(_open(endpoint, factory))
    deadline = Deadline(clock, seconds, opening.cancel)
    try:
        return Connection(await opening)
    except Exception as error:
        if deadline.active():
            raise
        # CancelledError: the transport was connected, and the connection was not open yet.
        connected = isinstance(error, CancelledError)
        what = f"{uri} did not let this client open" if connected else f"no connection to {uri}"
        raise DeadlineMissed(what, seconds) from error
    finally:
        deadline.cancel()


def _checkEventLoop(reactor: object) -> None:
    """
    Refuse a reactor that will never run: in an asyncio program, a reactor that does not use the
    program's event loop.

    @raise ReactorNotRunning: for such a reactor.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if not getattr(reactor, "running", True) and _eventLoopOf(reactor) is not running:
        raise ReactorNotRunning(
            "asyncio's event loop is running, and this reactor does not use it: call "
            "twisted.internet.asyncioreactor.install(asyncio.get_running_loop()) before anything "
            "imports twisted.internet.reactor"
        )


def _eventLoopOf(reactor: object) -> object:
    # Twisted has no public name for it.
    return getattr(reactor, "_asyncioEventloop", None)


async def _open(
    endpoint: IStreamClientEndpoint, factory: KeepAliveClientFactory
) -> KeepAliveClientProtocol:
    connection = await endpoint.connect(factory)
    assert isinstance(connection, KeepAliveClientProtocol)
    try:
        return await connection.whenOpen()
    except CancelledError:
        abandoned = ConnectionClosed("the caller gave up waiting for it", CloseReason.CLIENT)
        connectionOf(connection, ClientConnection).abort(abandoned)
        raise


def endpointFor(
    reactor: object, uri: str, *, readOnly: bool = False
) -> tuple[IStreamClientEndpoint, str]:
    """
    @param uri: as for L{connect}.
    @return: the endpoint to connect to, and the name to open there.
    @raise ValueError: when the URI cannot be used.
    """
    if not isURI(uri):
        try:
            return clientFromString(reactor, uri), ""
        except Exception as error:
            raise ValueError(
                f"{uri!r} is neither a libvirt URI nor a Twisted client endpoint string: "
                f"{whyNotMade(error)}"
            ) from error
    parsed = parseURI(uri, readOnly=readOnly)
    if parsed.transport == "unix":
        return UNIXClientEndpoint(reactor, parsed.socket), parsed.name
    endpoint = HostEndpoint(reactor, parsed.host, parsed.port)
    if parsed.transport == "tls":
        pkipath = None if parsed.pkipath is None else Path(parsed.pkipath or "/")
        files = clientFiles(pkipath)
        context = ClientContextFactory(files, parsed.host, verify=parsed.verify)
        return TLSClientEndpoint(endpoint, context, IReactorTime(reactor, None)), parsed.name
    return endpoint, parsed.name


@implementer(IStreamClientEndpoint)
@attrs.frozen
class HostEndpoint:
    """
    TCP to a host.  A name is resolved in the reactor's threads.  An address needs no thread, even
    an IPv6 address with a zone or an IPv4 address such as C{127.1}.

    @ivar reactor: the reactor.
    @ivar host: a name or an address, without brackets.
    @ivar port: the TCP port.
    """

    reactor: object
    host: str
    port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: fires with the protocol; fails with L{ReactorNotRunning} for a name if the reactor
            has not been started, since resolving would never end.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        reactor = self.reactor
        endpoint = self._literal()
        if endpoint is None:
            if IReactorThreads.providedBy(reactor):
                # If the reactor does not run yet, this waits until it does.
                await deferLater(IReactorTime(reactor), 0)
                if not reactor.getThreadPool().started:
                    raise ReactorNotRunning(
                        f"the reactor has not been started, so the name {self.host} cannot be "
                        "resolved: call reactor.startRunning(installSignalHandlers=False) once in "
                        "your event loop, or use the host's address"
                    )
            endpoint = HostnameEndpoint(reactor, self.host, self.port)
        return await endpoint.connect(protocolFactory)

    def _literal(self) -> IStreamClientEndpoint | None:
        flags = AI_NUMERICHOST | AI_NUMERICSERV
        try:
            found = getaddrinfo(self.host, self.port, type=SOCK_STREAM, flags=flags)
        except OSError:
            return None
        family, *_, address = found[0]
        # Twisted requires the zone as a part of the address.
        host, _port = getnameinfo(address, NI_NUMERICHOST | NI_NUMERICSERV)
        kind = TCP6ClientEndpoint if family == AF_INET6 else TCP4ClientEndpoint
        return kind(self.reactor, host, self.port)
