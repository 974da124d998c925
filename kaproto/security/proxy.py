"""
The C{proxy:} endpoint, for servers behind a load balancer that sends PROXY headers.

The header is read before anything else on the connection, TLS included.  Only then is
C{connectionMade} called on the protocol above, so its transport has the client's address from the
beginning.  Every client can write a header, so headers are believed only from the networks that the
listener names.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final, cast

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import RemoteProtocolError
from kaproto.logbounds import BOUNDS
from kaproto.peer import Network, Peer, parseAddress
from kaproto.security.terminated import TerminatedTLS
from kaproto.security.tls import TLSIdentity
from kaproto.transport import StreamTransport, identify, unixCredentials
from kaproto.wire.proxyheader import ProxyHeader, ProxyHeaderReader

__all__ = [
    "HEADER_TIMEOUT",
    "ProxyEndpoint",
    "ProxyFactory",
    "Trust",
    "headerOf",
    "terminatedTLSOf",
]

HEADER_TIMEOUT: Final = 5.0
"""
Seconds that a balancer has for its header, which it sends in its first packet.
"""

_HEADER: Final = "kaprotoProxyHeader"
_TERMINATED: Final = "kaprotoTerminatedTLS"


@attrs.frozen
class Trust:
    """
    The load balancers whose PROXY headers are believed.

    @ivar networks: for TCP, the networks that balancers connect from.
    @ivar users: for UNIX sockets, the ids of the users that balancers run as; empty to believe
        every user who can connect.
    """

    networks: Sequence[Network] = ()
    users: Sequence[int] = ()

    @property
    def includesLoopback(self) -> bool:
        """
        Whether every program on this machine can write headers over TCP.
        """
        loopback: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1"))
        return any(
            each.overlaps(other)
            for each in self.networks
            for other in loopback
            if each.version == other.version
        )

    def problem(self, transport: StreamTransport) -> str | None:
        """
        @return: why the peer's header is not believed, C{None} if it is.
        """
        address = transport.getPeer()
        if isinstance(address, UNIXAddress):
            credentials = unixCredentials(transport)
            if not self.users or (credentials is not None and credentials.uid in self.users):
                return None
            if credentials is None:
                return "the kernel does not tell who connected, which uid= requires"
            return f"uid {credentials.uid} is not in uid="
        if isinstance(address, IPv4Address | IPv6Address):
            parsed = parseAddress(address.host)
            if any(parsed in network for network in self.networks):
                return None
        return f"{getattr(address, 'host', address)} is not in from="


def headerOf(transport: object) -> ProxyHeader | None:
    """
    Find the PROXY header at the beginning of a connection.

    @param transport: the connection's transport, with or without TLS and other protocols in
        between.
    @return: C{None} if there was none.
    """
    return cast("ProxyHeader | None", _attributeOf(transport, _HEADER))


def terminatedTLSOf(transport: object) -> tuple[TLSIdentity, str | None] | None:
    """
    Find the identity that a load balancer, which terminates TLS, has sent in its header.

    @return: the result of L{TerminatedTLS.identify}; C{None} if no balancer terminates TLS.
    """
    # The type is quoted, since making it would take longer than the look-up.
    return cast("tuple[TLSIdentity, str | None] | None", _attributeOf(transport, _TERMINATED))


def _attributeOf(transport: object | None, name: str) -> object | None:
    # Wrappers forward attributes that they lack to the transport below, so look in the dictionary
    # of each wrapper.
    while transport is not None:
        if isinstance(transport, Connection):
            # This is the lowest.  (vars() would create a dictionary of 64 bytes for it.)
            return cast("object", getattr(transport, name, None))
        found: object | None = vars(transport).get(name) if hasattr(transport, "__dict__") else None
        if found is not None:
            return found
        transport = getattr(transport, "transport", None)
    return None


class _HeaderProtocol(Protocol):
    """
    Reads the header, then hands the transport over to the protocol that the wrapped factory builds.
    """

    factory: ProxyFactory
    transport: StreamTransport  # type: ignore[assignment]
    _reader: ProxyHeaderReader | None = None
    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """
        Check who connected, and wait for the header.
        """
        self._reader = ProxyHeaderReader()
        problem = self.factory.trust.problem(self.transport)
        if problem is not None:
            self._refuse(problem)
            return
        self._deadline = self.factory.clock.callLater(
            HEADER_TIMEOUT, self._refuse, f"no PROXY header within {HEADER_TIMEOUT:g} s"
        )

    def dataReceived(self, data: bytes) -> None:
        """
        Read more of the header.
        """
        if self._reader is None:
            return
        try:
            header = self._reader.feed(data)
        except RemoteProtocolError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._handOver(header, self._reader.rest)

    def _handOver(self, header: ProxyHeader, rest: bytes) -> None:
        self._stop()
        transport = self.transport
        terminated = self.factory.terminated
        if terminated is not None:
            if header.source is None:
                # A health check of the balancer, without a client.
                transport.loseConnection()
                return
            setattr(transport, _TERMINATED, terminated.identify(header))
        setattr(transport, _HEADER, header)
        if header.source is not None and header.destination is not None:
            _pretend(transport, header.source, header.destination)
        protocol = self.factory.wrapped.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol  # type: ignore[attr-defined]
        protocol.makeConnection(cast(ITransport, transport))
        if rest:
            # The transport's protocol is now the wrapped one, or a replacement that it has chosen.
            transport.protocol.dataReceived(rest)  # type: ignore[attr-defined]

    def _refuse(self, problem: str) -> None:
        self._stop()
        self.factory.refused(identify(self.transport), problem)
        self.transport.abortConnection()

    def _stop(self) -> None:
        self._reader = None
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection ended before the header was complete, as some health checks do.
        """
        self._stop()


def _pretend(transport: object, source: IAddress, destination: IAddress) -> None:
    """
    Make a transport report the client's addresses instead of the balancer's.
    """
    transport.getPeer = lambda: source  # type: ignore[attr-defined]
    transport.getHost = lambda: destination  # type: ignore[attr-defined]


class ProxyFactory(Factory):
    """
    Reads a PROXY header from each connection, then has another factory serve it.

    @ivar wrapped: the other factory.
    @ivar trust: whose headers are believed.
    @ivar clock: schedules deadlines.
    @ivar terminated: how to read identities from headers, if the balancer terminates TLS.
    """

    protocol = _HeaderProtocol  # type: ignore[assignment]
    noisy = False
    _log = Logger(observer=BOUNDS)

    def __init__(
        self,
        wrapped: IProtocolFactory,
        trust: Trust,
        clock: IReactorTime,
        terminated: TerminatedTLS | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.trust = trust
        self.clock = clock
        self.terminated = terminated

    def startFactory(self) -> None:
        """
        Start the other factory too.
        """
        self.wrapped.doStart()

    def stopFactory(self) -> None:
        """
        Stop the other factory too.
        """
        self.wrapped.doStop()

    def refused(self, peer: Peer, problem: str) -> None:
        """
        Log why a connection without a valid header is closed.
        """
        self._log.warn("refused {peer}: {problem}", peer=peer, problem=problem)


@implementer(IStreamServerEndpoint)
class ProxyEndpoint:
    """
    Listens for connections that begin with a PROXY header.

    @ivar wrapped: where to listen: an endpoint without TLS, since the header precedes it.
    @ivar trust: whose headers are believed.
    @ivar terminated: how to read identities from headers, if the balancer terminates TLS.
    """

    def __init__(
        self,
        wrapped: IStreamServerEndpoint,
        trust: Trust,
        clock: IReactorTime,
        terminated: TerminatedTLS | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.trust = trust
        self.terminated = terminated
        self._clock = clock

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @param factory: is started, and builds a protocol, with the client's address, for each
            connection whose header is complete.
        """
        return self.wrapped.listen(ProxyFactory(factory, self.trust, self._clock, self.terminated))
