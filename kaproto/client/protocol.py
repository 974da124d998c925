"""
The client's end of a connection: a Protocol and a Factory to subclass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from zope.interface import implementer

from kaproto.arguments import checkType
from kaproto.client.connection import ClientConnection
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import CLIENT_LIMITS, Limits
from kaproto.rpc.protocol import KeepAliveFactory, KeepAliveProtocol
from kaproto.security.clientauth import Authentication
from kaproto.wire.programs import PROGRAM_VERSION

__all__ = ["KeepAliveClientFactory", "KeepAliveClientProtocol"]


@implementer(IHandshakeListener)
class KeepAliveClientProtocol(KeepAliveProtocol, isBase=True):
    """
    A connection to a server.
    """

    factory: KeepAliveClientFactory
    _kaprotoConnection = ClientConnection
    _kaproto: ClientConnection

    @property
    def keepAliveSupported(self) -> bool:
        """
        Whether the server's answer to the feature check was 1, so that it may be pinged.
        """
        return self._kaproto.keepAliveSupported

    def call(
        self, program: int, procedure: int, payload: bytes = b"", version: int = PROGRAM_VERSION
    ) -> Deferred[bytes]:
        """
        Call a procedure on the server.

        @param program: the number of the program, such as
            L{kaproto.wire.programs.REMOTE_PROGRAM}.
        @param procedure: the number of the procedure.
        @param payload: the arguments in XDR, see L{kaproto.wire.xdr.Packer}.
        @param version: the version of the program.
        @return: fires with the results in XDR; fails with L{RemoteError} when the server answers
            with an error, with L{LocalProtocolError} before the connection is open or when the
            payload is too large, and with the reason when the connection closes first.
        """
        return self._kaproto.call(program, procedure, payload, version)

    def setKeepAlive(self, interval: float, count: int) -> None:
        """
        Start pinging the server, or change interval and count (C{virConnectSetKeepAlive}).  When
        the server is found dead, the connection closes with L{kaproto.errors.KeepAliveTimeout}.

        @param interval: seconds of silence before a ping; 0 stops keepalive.
        @param count: unanswered pings after which the server is dead; 0 stops keepalive.
        @raise TypeError: when one is not a number, or C{count} is not a whole number.
        @raise ValueError: when one is negative or not finite, or the interval is above 0 and below
            L{kaproto.keepalive.liveness.NETWORK_INTERVAL_MIN}.
        @raise KeepAliveUnsupported: when the server answered 0, or an error, to the feature
            check, or has not been asked yet.
        @raise ConnectionClosed: when the connection has been closed.  If it has ended in any other
            way, the reason for that is raised.
        """
        self._kaproto.setKeepAlive(interval, count)

    def ping(self) -> Deferred[float]:
        """
        Send one ping now, even if keepalive is off.

        @return: fires with the round-trip time in seconds.  It has no timeout, so add one.  It
            fails with L{KeepAliveUnsupported} in the cases where L{setKeepAlive} raises that, and
            with the reason when the connection closes first.
        """
        return self._kaproto.ping()

    def isAlive(self) -> bool:
        """
        @return: whether the connection is open and has not been found dead (C{virConnectIsAlive}).
        """
        return self._kaproto.isAlive()

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Call a function with each message of the server that is not a reply, such as an event.
        Messages of programs without a listener are ignored.

        @param program: the number of the program; a second listener replaces the first.
        @param listener: called with the number of the procedure and the payload in XDR.
        """
        self._kaproto.listen(program, listener)

    def whenOpen(self) -> Deferred[KeepAliveClientProtocol]:
        """
        @return: fires with this connection once it is open and the factory's C{onOpen} has
            finished; fails when the connection ends before that.  Pass this method to
            L{twisted.application.internet.ClientService} as C{prepareConnection}: then a server
            that refuses counts as a failed attempt.
        """
        return self._kaproto.whenOpen().addCallback(lambda _: self)

    def close(self) -> Deferred[Exception]:
        """
        Send C{CONNECT_CLOSE} and close.  Wait at most C{limits.closeTimeout} seconds for the
        server's reply.

        @return: fires as C{whenClosed} does.
        """
        return self._kaproto.close()

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is done.
        """
        self._kaproto.handshakeCompleted()


class KeepAliveClientFactory(KeepAliveFactory):
    """
    Builds connections that open one name.

    @ivar name: the name to open, such as C{"qemu:///system"}; C{""} for the server's default;
        C{None} to log in without opening anything.
    @ivar flags: 1 for a read-only connection.
    @ivar keepAlive: the interval and count for pinging the server after each open, if it supports
        keepalive; by default zeros, so that it is not pinged.
    @ivar authentication: how to authenticate: with a login, or with none.
    @ivar onOpen: called with each connection once it is open; C{whenOpen} waits for its result.
    @ivar asksForKeepAlive: whether to ask the server for keepalive, which promises that this
        client answers pings.  A server that was not asked does not ping, and may refuse to open.
    @ivar registersCloseCallback: whether to ask the server to send the reason when it closes.
    @ivar startsOpen: whether the connection is open at once, without C{CONNECT_OPEN}: for servers
        made with C{KeepAliveServerFactory(startsOpen=True)}.
    @ivar limits: how long to wait for the server.
    """

    protocol = KeepAliveClientProtocol
    asksForKeepAlive = True
    registersCloseCallback = True
    startsOpen = False

    def __init__(
        self,
        name: str | None = "",
        flags: int = 0,
        keepAlive: KeepAlive | None = None,
        onOpen: Callable[[KeepAliveClientProtocol], Awaitable[object] | None] | None = None,
        clock: IReactorTime | None = None,
        authentication: Authentication | None = None,
        limits: Limits = CLIENT_LIMITS,
    ) -> None:
        """
        @raise TypeError: when an argument has a wrong type.
        @raise ValueError: when the interval of C{keepAlive} is too short, see
            L{KeepAliveClientProtocol.setKeepAlive}.
        """
        super().__init__(clock, limits)
        if name is not None:
            checkType("name", name, str)
        checkType("flags", flags, int)
        self.authentication = authentication or Authentication()
        self.name = name
        self.flags = flags
        self.keepAlive = KeepAlive(0, 0) if keepAlive is None else keepAlive
        checkType("keepAlive", self.keepAlive, KeepAlive)
        self.keepAlive.checkForNetwork()
        self.onOpen = onOpen
