"""
A client, the gateway and a libvirtd, three parties connected in memory.
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
What the gateway calls its libvirtd.
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
    A call as a client makes it.
    """
    return Message(program, 1, procedure, kind, serial, Status.OK, payload)


def feature(number: int, serial: int = 77) -> Message:
    """
    The question whether the server has a feature.
    """
    return call(Procedure.CONNECT_SUPPORTS_FEATURE, Packer().int32(number).packed(), serial)


def stream(serial: int, status: int = Status.CONTINUE, payload: bytes = b"") -> Message:
    """
    A piece of a stream, or its end.
    """
    return Message(REMOTE_PROGRAM, 1, 208, MessageType.STREAM, serial, status, payload)


class Party:
    """
    One of the outer two of the three: it notes whatever comes once the connection is open.

    @ivar messages: what came after open but keepalive.
    @ivar pings: how many pings came.
    @ivar pongs: how many answers to pings came.
    @ivar answering: whether pings are answered.
    @ivar closedBecause: why the connection was closed, C{None} while it is not.
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
        Write messages, or bytes that need not be any.
        """
        for each in data:
            self.transport.write(packMessage(each) if isinstance(each, Message) else each)

    def notes(self, message: Message) -> bool:
        """
        Note keepalive.

        @return: whether it is to be handled as usual.
        """
        if message.program != KEEPALIVE_PROGRAM:
            return True
        if message.type == MessageType.MESSAGE:
            self.pings += message.procedure == KeepAliveProcedure.PING
            self.pongs += message.procedure == KeepAliveProcedure.PONG
        return self.answering


class NearConnection(ClientConnection):
    """
    Opens as any client's does, and gives what comes after that to the test.
    """

    def messageReceived(self, message: Message) -> None:
        """
        Note what came, but for the answers to the calls by which it opens.
        """
        if message.type == MessageType.REPLY and message.serial in self._replies:
            super().messageReceived(message)
        else:
            cast(Party, self.hooks).messages.append(message)

    def received(self, message: Message) -> None:
        """
        Note it, and answer as usual unless told not to.
        """
        if cast(Party, self.hooks).notes(message):
            super().received(message)


class NearEnd(Party, KeepAliveClientProtocol, isBase=True):
    """
    The client, which opens as any client does and then lets the test make its calls.
    """

    _kaprotoConnection = NearConnection

    def dataReceived(self, data: bytes) -> None:
        """
        Parse it in two pieces, since a pong that arrives alone is not parsed at all.
        """
        super().dataReceived(data[:1])
        super().dataReceived(data[1:])

    def connectionClosed(self, reason: Exception) -> None:
        """
        Note why.
        """
        self.closedBecause = reason


class FarConnection(ServerConnection):
    """
    Serves until it is open, and gives what comes after that to the test.
    """

    def messageReceived(self, message: Message) -> None:
        """
        Note what came, and let the server do what brings the connection to be open.
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
        Note it, and answer as usual unless told not to.
        """
        if cast(Party, self.hooks).notes(message):
            super().received(message)


class FarEnd(Party, KeepAliveServerProtocol, isBase=True):
    """
    libvirtd's end: it lets itself be opened, and then does nothing but what the test says.

    @ivar scripted: whether that time has come.
    @ivar before: what came until then.
    @ivar raw: every byte that came after that.
    """

    _kaprotoConnection = FarConnection

    def __init__(self) -> None:
        super().__init__()
        self.scripted = False
        self.before: list[Message] = []
        self.raw = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """
        Note what came, byte for byte; in two pieces as at the other end.
        """
        if self.scripted:
            self.raw += data
        super().dataReceived(data[:1])
        super().dataReceived(data[1:])

    def answers(self, message: Message) -> bool:
        """
        Answer a call, if this is not to be as usual.  Override it.

        @return: whether it was answered.
        """
        return False

    def connectionClosed(self, reason: Exception) -> None:
        """
        Note why.
        """
        self.closedBecause = reason


@implementer(IStreamClientEndpoint)
class Upstream:
    """
    Where libvirtd listens.

    @ivar factory: what answers there; put in a policy or a backend of the test's own.
    @ivar error: what connecting fails with.
    @ivar deaf: whether connecting takes for ever.
    @ivar mute: whether it is connected, and then nothing that is written arrives: this is how a
        libvirtd that hangs, or accepts nobody, looks.
    @ivar pairs: the connections made so far.
    @ivar cancelled: how many times connecting was given up.
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
        See L{IStreamClientEndpoint.connect}.
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

    @ivar clock: the time of all three.
    @ivar upstream: where the gateway connects to.
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
        @param upstreamKeepAlive: how closely the gateway watches libvirtd.
        @param ask: whether it asks libvirtd for keepalive.
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
        Connect another client, and let everything happen that happens at once.

        @param farewell: whether it asks to be told why, when it is disconnected.
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
        Connect a client, which opens.

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
        The newest connection between the gateway and libvirtd that is made for a client.
        """
        return [pair for pair in self.upstream.pairs if isinstance(pair.client, UpstreamProtocol)][
            -1
        ]

    @property
    def probes(self) -> list[Pair]:
        """
        The connections made to ask whether libvirtd is alive.
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
        Keep no reference to the connections made so far.
        """
        self._pairs.clear()
        self.upstream.pairs.clear()

    def flush(self) -> None:
        """
        Deliver everything that was written, and what is written in answer, until all is quiet.
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
        Let time pass in small steps.

        @param each: what to do in every step.
        """
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 0:
            self.clock.advance(min(TICK, left))
            each()
            self.flush()


WATCHED = KeepAlive(2, 2)


def answer(asked: Message) -> Message:
    """
    The answer to a call.
    """
    return asked._replace(type=MessageType.REPLY, status=Status.OK, payload=b"")


class WatchTestCase(SynchronousTestCase):
    """
    Three parties, of which libvirtd does not read every connection.
    """

    ask = False

    def setUp(self) -> None:
        """
        Start the gateway.
        """
        self.log = cast(list[LogEvent], self.enterContext(capturedLogs()))
        self.parties = ThreeParties(upstreamKeepAlive=WATCHED, ask=self.ask)

    def calling(self, number: int = 5) -> tuple[NearEnd, FarEnd]:
        """
        Connect a client that makes calls which block, and after five libvirtd does not read.
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
        Answer all calls, and read on.
        """
        far.transport.resumeProducing()
        self.parties.flush()
        far.write(*map(answer, far.messages))
        self.parties.flush()

    def assertGone(self) -> None:
        """
        Nothing of the probes is left.
        """
        for pair in self.parties.probes:
            self.assertTrue(pair.clientTransport.disconnected)

    def logged(self, text: str) -> int:
        """
        @return: how many lines have this in them.
        """
        return sum(text in (formatEvent(event) or "") for event in self.log)
