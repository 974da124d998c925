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
        Whether the server answered 1 to the feature check, so that it may be pinged.
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
        Ping the server from now on, in place of any earlier interval and count
        (C{virConnectSetKeepAlive}).  When it is dead, the connection closes with
        L{kaproto.errors.KeepAliveTimeout}.

        @param interval: seconds of silence before a ping; 0 stops keepalive.
        @param count: pings sent in a row without hearing anything; 0 stops keepalive.
        @raise TypeError: when one is not a number, or count not a whole one.
        @raise ValueError: when one is negative or not finite, or the interval is above 0 and below
            L{kaproto.keepalive.liveness.NETWORK_INTERVAL_MIN}.
        @raise KeepAliveUnsupported: when the server answered 0, or an error, to the feature
            check, or has not been asked yet.
        @raise ConnectionClosed: when the connection has been closed; other reasons are raised
            as they are.
        """
        self._kaproto.setKeepAlive(interval, count)

    def ping(self) -> Deferred[float]:
        """
        Ping the server once, now, whether it is watched or not.

        @return: fires with the seconds that its answer took.  It waits as long as the server
            takes, so add a timeout.  Fails with L{KeepAliveUnsupported} as
            L{setKeepAlive} raises it, and with the reason when the connection closes first.
        """
        return self._kaproto.ping()

    def isAlive(self) -> bool:
        """
        @return: whether the connection is open and, as far as is known, works
            (C{virConnectIsAlive}).
        """
        return self._kaproto.isAlive()

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Have a function called with each of the server's messages that answers no call, such as an
        event.  Messages of programs without a listener are ignored.

        @param program: the number of the program; a second listener replaces the first.
        @param listener: called with the number of the procedure and the payload in XDR.
        """
        self._kaproto.listen(program, listener)

    def whenOpen(self) -> Deferred[KeepAliveClientProtocol]:
        """
        @return: fires with this connection once it is open and the factory's C{onOpen} has
            ended; fails when the connection ends before that.  Pass it to
            L{twisted.application.internet.ClientService} as C{prepareConnection}, so that a
            server that refuses counts as a failed attempt.
        """
        return self._kaproto.whenOpen().addCallback(lambda _: self)

    def close(self) -> Deferred[Exception]:
        """
        Say goodbye and close.  A server that does not answer is given C{limits.closeTimeout}
        seconds.

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

    @ivar name: what to open, such as C{"qemu:///system"}; C{""} for the server's default; C{None}
        to log in without opening anything.
    @ivar flags: 1 for a read-only connection.
    @ivar keepAlive: how to ping the server after each open, if it supports keepalive; by default
        zeros, so that it is not pinged.
    @ivar authentication: how to authenticate: with a login, or with none.
    @ivar onOpen: called with each connection once it is open; C{whenOpen} waits for what it
        returns.
    @ivar asksForKeepAlive: whether to ask the server for keepalive, and so to say that this client
        answers pings.  A server that was not asked does not ping, and may refuse to open.
    @ivar registersCloseCallback: whether to ask the server to say why when it closes.
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
