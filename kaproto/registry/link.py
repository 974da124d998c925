"""
One connection to Redis: txredisapi's protocol, watched by our own keepalive.

txredisapi notices a lost connection only if the connection ends, and a subscriber may wait for
messages for days.  So it would never notice that Redis hangs or that the network is cut.  Here a
silent Redis is pinged, like our other peers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import shorten
from kaproto.registry.location import Location, Password
from kaproto.security.handshake import explainTLS

__all__ = [
    "KEEPALIVE",
    "MissingExtra",
    "RedisError",
    "RedisFactory",
    "RedisLink",
    "connectLink",
    "inWords",
    "requireExtra",
]

KEEPALIVE: Final = KeepAlive(2, 2)
"""
Redis counts as gone after six seconds of silence.
"""


class MissingExtra(Exception):
    """
    txredisapi is not installed.
    """

    def __init__(self) -> None:
        super().__init__("it needs txredisapi: pip install 'kaproto[redis]'")


class RedisError(Exception):
    """
    Redis replied with an error, or the connection was lost before it replied.
    """


def requireExtra() -> Any:  # noqa: ANN401 - the module has no types
    """
    Import txredisapi.  That installs a reactor, so it must not happen when this module is imported.

    @return: the module.
    @raise MissingExtra: when it is not installed.
    """
    try:
        import txredisapi
    except ImportError as error:
        raise MissingExtra from error
    return txredisapi


class RedisLink(Protocol):
    """
    One connection to Redis.

    @ivar message: called with each message of the channel that this connection has subscribed to.
    """

    def __init__(self, location: Location, password: Password, clock: IReactorTime) -> None:
        self.message: Callable[[object], object] | None = None
        self._location = location
        self._password = password
        self._clock = clock
        self._why: str | None = None
        self._isOver = False
        self._waiting: list[Deferred[str]] = []
        self._redis = requireExtra().RedisProtocol(convertNumbers=False)
        self._redis.callLater = clock.callLater
        self._redis.replyReceived = self._replied
        self._heartbeat: Heartbeat

    def connectionMade(self) -> None:
        """
        Start pinging Redis.
        """
        self._redis.makeConnection(self.transport)
        self._heartbeat = Heartbeat(self.transport, self._ping, died=self._died, clock=self._clock)
        self._heartbeat.start(KEEPALIVE)

    def _ping(self) -> None:
        self._redis.execute_command("PING").addErrback(lambda _failure: None)

    def _died(self, reason: Exception) -> None:
        self.abort(f"Redis does not answer: {reason}")

    def dataReceived(self, data: bytes) -> None:
        """
        Handle replies and messages of Redis.
        """
        self._heartbeat.heard()
        try:
            self._redis.dataReceived(data)
        except Exception as error:  # noqa: BLE001 - the peer does not speak Redis
            self.abort(f"this is not Redis: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        self._heartbeat.stop()
        if self._why is None:
            self._why = _explain(reason)
        self._isOver = True
        self._redis.connectionLost(reason)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._why)

    def whenEnded(self) -> Deferred[str]:
        """
        @return: fires with the reason when the connection has ended.
        """
        ended: Deferred[str] = Deferred()
        if self._isOver and self._why is not None:
            ended.callback(self._why)
        else:
            self._waiting.append(ended)
        return ended

    def abort(self, why: str) -> None:
        """
        End the connection at once.
        """
        if self._why is None:
            self._why = why
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    @property
    def isEnded(self) -> bool:
        """
        Whether the connection has ended, or is about to.
        """
        return self._why is not None

    async def command(self, *words: str | int) -> Any:  # noqa: ANN401 - texts, numbers and lists
        """
        Send a command.  It needs no timeout beside the heartbeat: Redis replies in order, so the
        pong of a ping arrives after the replies to earlier commands.

        @return: the reply.
        @raise RedisError: when the reply is an error, or the connection ends before the reply.
        """
        try:
            return await self._redis.execute_command(*words)
        except CancelledError:
            raise
        except Exception as error:
            raise RedisError(self._why or str(error).strip() or type(error).__name__) from error

    async def prepare(self) -> None:
        """
        Log in, and choose the database.

        @raise RedisError: when Redis refuses.
        """
        location = self._location
        if self._password.text is not None:
            user = () if location.user is None else (location.user,)
            await self.command("AUTH", *user, self._password.text)
        await self.command("SELECT", location.database)

    def _replied(self, reply: object) -> None:
        # txredisapi's SubscriberProtocol does this too, but cuts other replies to three elements.
        if self.message is not None and isinstance(reply, list) and reply[:1] == ["message"]:
            self.message(reply[-1])
        else:
            self._redis.replyQueue.put(reply)


class RedisFactory(Factory):
    """
    Makes connections to one Redis.
    """

    noisy = False

    def __init__(self, location: Location, password: Password, clock: IReactorTime) -> None:
        self._arguments = location, password, clock

    def buildProtocol(self, addr: IAddress | None) -> RedisLink:
        """
        @return: a connection that is not prepared.
        """
        return RedisLink(*self._arguments)


async def connectLink(
    endpoint: IStreamClientEndpoint,
    factory: RedisFactory,
    prepare: Callable[[RedisLink], Awaitable[None]] = RedisLink.prepare,
) -> RedisLink:
    """
    @return: a new connection that is prepared.
    @raise RedisError: when Redis refuses.
    """
    link = await endpoint.connect(factory)
    assert isinstance(link, RedisLink)
    try:
        await prepare(link)
    except BaseException:
        link.abort("it was not prepared in time")
        raise
    return link


def _explain(reason: Failure) -> str:
    match reason.value:
        case ConnectionDone():
            return "Redis has ended the connection"
        case SSLError() as error:
            return f"TLS failed: {explainTLS(error)}"
    return reason.getErrorMessage()


def inWords(problem: str) -> str:
    """
    @return: a problem reported by Redis or the connection, shortened for use within a sentence.
    """
    return shorten(problem.partition(" script: ")[0]).rstrip(".")
