"""
Connects a client, a gateway and a libvirtd in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.backends.connections import UpstreamProtocol
from kaproto.backends.gateway import Gateway
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from kaproto.limits import Limits
from kaproto.policies import Disable
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import ConnectedPair, connectedPair
from kaproto.wire.message import Message, MessageType, Status, packMessage
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    REMOTE_PROGRAM,
    KeepAliveProcedure,
    Procedure,
)
from kaproto.wire.xdr import Packer

__all__ = [
    "DESCRIPTION",
    "WATCHED",
    "FarEnd",
    "NearEnd",
    "Party",
    "ThreeParties",
    "Upstream",
    "WatchTestCase",
    "call",
    "feature",
    "stream",
]

DESCRIPTION = "unix:/run/libvirt/libvirt-sock"
"""
The name of the libvirtd in the gateway's messages.
"""

Pair = ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]


def call(
    procedure: int,
    payload: bytes = b"",
    serial: int = 77,
    program: int = REMOTE_PROGRAM,
    kind: int = MessageType.CALL,
) -> Message:
    """
    A client's call.
    """
    return Message(program, 1, procedure, kind, serial, Status.OK, payload)


def feature(number: int, serial: int = 77) -> Message:
    """
    A call that queries a feature of the server.
    """
    return call(Procedure.CONNECT_SUPPORTS_FEATURE, Packer().int32(number).packed(), serial)


def stream(serial: int, status: int = Status.CONTINUE, payload: bytes = b"") -> Message:
    """
    A message of a stream: data, or its end.
    """
    return Message(REMOTE_PROGRAM, 1, 208, MessageType.STREAM, serial, status, payload)


class Party:
    """
    One of the two outer parties: it records what arrives once the connection is open.

    @ivar messages: the messages received after opening, without keepalive.
    @ivar pings: the number of pings received.
    @ivar pongs: the number of pongs received.
    @ivar answering: whether to answer pings.
    @ivar closedBecause: the reason why the connection was closed, C{None} while it is open.
    """

    transport: Any

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.pings = 0
        self.pongs = 0
        self.answering = True
        self.closedBecause: Exception | None = None

    def write(self, *data: Message | bytes) -> None:
        """
        Write messages, or arbitrary bytes.
        """
        for each in data:
            self.transport.write(packMessage(each) if isinstance(each, Message) else each)

    def notes(self, message: Message) -> bool:
        """
        Record a message if it is keepalive.

        @return: whether to handle the message as usual.
        """
        if message.program != KEEPALIVE_PROGRAM:
            return True
        if message.type == MessageType.MESSAGE:
            self.pings += message.procedure == KeepAliveProcedure.PING
            self.pongs += message.procedure == KeepAliveProcedure.PONG
        return self.answering


class NearConnection(ClientConnection):
    """
    Opens like every client, and records messages after that.
    """

    def messageReceived(self, message: Message) -> None:
        """
        Record a message, unless it is a reply to a call of the client's own, such as open.
        """
        if message.type == MessageType.REPLY and message.serial in self._replies:
            super().messageReceived(message)
        else:
            cast(Party, self.hooks).messages.append(message)

    def received(self, message: Message) -> None:
        """
        Record keepalive, and handle the message as usual, unless the test forbids it.
        """
        if cast(Party, self.hooks).notes(message):
            super().received(message)


class NearEnd(Party, KeepAliveClientProtocol, isBase=True):
    """
    The client.  It opens like every client; after that the test makes its calls.
    """

    _kaprotoConnection = NearConnection

    def dataReceived(self, data: bytes) -> None:
        """
        Parse in two pieces, since a pong that arrives alone is recognized without parsing.
        """
        super().dataReceived(data[:1])
        super().dataReceived(data[1:])

    def connectionClosed(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.closedBecause = reason


class FarConnection(ServerConnection):
    """
    Serves calls until the connection is open, and records them after that.
    """

    def messageReceived(self, message: Message) -> None:
        """
        Record a message, and serve it while the connection is not open.
        """
        end = cast(FarEnd, self.hooks)
        if end.scripted:
            end.messages.append(message)
        else:
            end.before.append(message)
            if not end.answers(message):
                super().messageReceived(message)

    def received(self, message: Message) -> None:
        """
        Record keepalive, and handle the message as usual, unless the test forbids it.
        """
        if cast(Party, self.hooks).notes(message):
            super().received(message)


class FarEnd(Party, KeepAliveServerProtocol, isBase=True):
    """
    libvirtd's end: it serves calls until it is open; after that the test writes its replies.

    @ivar scripted: whether the test has taken over.
    @ivar before: the messages before that.
    @ivar raw: all bytes received after that.
    """

    _kaprotoConnection = FarConnection

    def __init__(self) -> None:
        super().__init__()
        self.scripted = False
        self.before: list[Message] = []
        self.raw = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes, and parse them in two pieces, as L{NearEnd} does.
        """
        if self.scripted:
            self.raw += data
        super().dataReceived(data[:1])
        super().dataReceived(data[1:])

    def answers(self, message: Message) -> bool:
        """
        Override it to answer a call in another way than usual.

        @return: whether the call was answered.
        """
        return False

    def connectionClosed(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.closedBecause = reason


@implementer(IStreamClientEndpoint)
class Upstream:
    """
    The endpoint of libvirtd.

    @ivar factory: libvirtd's factory; a test may set its policy or backend.
    @ivar error: the error that connecting fails with.
    @ivar deaf: whether connecting never completes.
    @ivar mute: whether connecting completes but nothing is read, as with a libvirtd that hangs or
        does not accept.
    @ivar pairs: the connections made so far.
    @ivar cancelled: how many times connecting was cancelled.
    """

    def __init__(self, clock: Clock) -> None:
        self.factory = KeepAliveServerFactory(clock=clock, limits=Limits(openTimeout=10_000))
        self.factory.protocol = FarEnd
        self.error: Exception | None = None
        self.deaf = False
        self.mute = False
        self.pairs: list[Pair] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect in memory, fail or never complete, as the attributes say.
        """
        if self.error is not None:
            return fail(self.error)
        if self.deaf:
            return Deferred(self._cancel)
        assert isinstance(protocolFactory, KeepAliveClientFactory)
        pair = connectedPair(self.factory, protocolFactory, flush=False)
        self.pairs.append(pair)
        if self.mute:
            pair.serverTransport.pauseProducing()
        return succeed(pair.client)

    def _cancel(self, connecting: Deferred[IProtocol]) -> None:
        self.cancelled += 1
        connecting.errback(ConnectingCancelledError(None))


class ThreeParties:
    """
    A gateway, its libvirtd, and clients.

    @ivar clock: the clock of all three.
    @ivar upstream: the endpoint that the gateway connects to.
    @ivar gateway: the backend.
    @ivar factory: the gateway's server.
    """

    def __init__(
        self,
        policy: IKeepAlivePolicy | None = None,
        upstreamKeepAlive: KeepAlive = KeepAlive(5, 5),
        *,
        ask: bool = True,
    ) -> None:
        """
        @param policy: the gateway's, by default mode 0.
        @param upstreamKeepAlive: the gateway's keepalive towards libvirtd.
        @param ask: whether the gateway asks libvirtd for keepalive.
        """
        self.clock = Clock()
        self.upstream = Upstream(self.clock)
        self.gateway = Gateway(self.upstream, DESCRIPTION, upstreamKeepAlive, self.clock, ask=ask)
        self.factory = KeepAliveServerFactory(policy or Disable(), self.gateway, clock=self.clock)
        self._pairs: list[Pair] = []

    def connect(
        self, *, farewell: bool = False, name: str = "test:///default", flags: int = 0
    ) -> NearEnd:
        """
        Connect another client, and run all that happens without advancing the clock.

        @param farewell: whether the client registers a close callback.
        """
        clientFactory = KeepAliveClientFactory(name, flags, clock=self.clock)
        clientFactory.protocol = NearEnd
        clientFactory.registersCloseCallback = farewell
        pair = connectedPair(self.factory, clientFactory, flush=False)
        self._pairs.append(pair)
        self.flush()
        assert isinstance(pair.client, NearEnd)
        return pair.client

    def opened(self, *, farewell: bool = False) -> tuple[NearEnd, FarEnd]:
        """
        Connect a client that opens.

        @return: the client's end, and libvirtd's.
        """
        near = self.connect(farewell=farewell)
        assert near.isAlive(), "it should be open"
        far = self.toUpstream.server
        assert isinstance(far, FarEnd)
        far.scripted = True
        return near, far

    @property
    def toClient(self) -> Pair:
        """
        The newest connection between a client and the gateway.
        """
        return self._pairs[-1]

    @property
    def toUpstream(self) -> Pair:
        """
        The gateway's newest connection to libvirtd on behalf of a client.
        """
        return [pair for pair in self.upstream.pairs if isinstance(pair.client, UpstreamProtocol)][
            -1
        ]

    @property
    def probes(self) -> list[Pair]:
        """
        The gateway's connections that probe whether libvirtd is alive.
        """
        return [
            pair for pair in self.upstream.pairs if not isinstance(pair.client, UpstreamProtocol)
        ]

    @property
    def pairs(self) -> list[Pair]:
        """
        All connections.
        """
        return self._pairs + self.upstream.pairs

    def forget(self) -> None:
        """
        Drop all references to the connections.
        """
        self._pairs.clear()
        self.upstream.pairs.clear()

    def flush(self) -> None:
        """
        Deliver all written bytes, and those written in response, until none are left.
        """
        moving = True
        while moving:
            self.clock.advance(0)
            moving = False
            for pair in self.pairs:
                for transport in (pair.clientTransport, pair.serverTransport):
                    moving |= transport.deliver()

    def advance(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """
        Advance the clock in small steps.

        @param each: called in every step.
        """
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 0:
            self.clock.advance(min(TICK, left))
            each()
            self.flush()


WATCHED = KeepAlive(2, 2)


def answer(asked: Message) -> Message:
    """
    The reply to a call.
    """
    return asked._replace(type=MessageType.REPLY, status=Status.OK, payload=b"")


class WatchTestCase(SynchronousTestCase):
    """
    Base class for tests of a libvirtd that stops reading some of its connections.
    """

    ask = False

    def setUp(self) -> None:
        """
        Create a client, a gateway and a libvirtd.
        """
        self.log = cast(list[LogEvent], self.enterContext(capturedLogs()))
        self.parties = ThreeParties(upstreamKeepAlive=WATCHED, ask=self.ask)

    def calling(self, number: int = 5) -> tuple[NearEnd, FarEnd]:
        """
        Connect a client and make calls that libvirtd does not answer.  With five or more, libvirtd
        also stops reading from the connection.
        """
        near, far = self.parties.opened()
        self.parties.advance(0.5)
        near.write(*(call(14, serial=serial) for serial in range(10, 10 + number)))
        self.parties.flush()
        if number >= 5:
            far.transport.pauseProducing()
        return near, far

    def unblock(self, far: FarEnd) -> None:
        """
        Answer all calls, and resume reading.
        """
        far.transport.resumeProducing()
        self.parties.flush()
        far.write(*map(answer, far.messages))
        self.parties.flush()

    def assertGone(self) -> None:
        """
        Check that all probes are closed.
        """
        for pair in self.parties.probes:
            self.assertTrue(pair.clientTransport.disconnected)

    def logged(self, text: str) -> int:
        """
        @return: the number of log lines that contain this text.
        """
        return sum(text in (formatEvent(event) or "") for event in self.log)
