"""
Fakes and helpers for unit tests: a clock, connections without a network, the log.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import ClassVar, Final, Generic, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import RemoteError
from kaproto.interfaces import IBackend, IKeepAlivePolicy, IProgram, ISession, OpenRequest
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.program import Program, procedure
from kaproto.rpc.protocol import KeepAliveProtocol
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import ConnectedPair, connectedPair
from kaproto.wire.message import (
    Message,
    MessageReader,
    MessageType,
    Status,
    packMessage,
    unpackError,
)
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = [
    "ADDRESS",
    "FEATURE_KEEPALIVE",
    "KEEPALIVE",
    "OPEN",
    "ClockTestCase",
    "Cycle",
    "FakeBackend",
    "FakeSession",
    "Probe",
    "Wire",
    "call",
    "errorOf",
    "feature",
    "freezeOlder",
    "opening",
]

ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 54321)
"""
The address of every L{Wire}'s peer.
"""

KEEPALIVE: Final = KeepAlive(1, 2)
"""
The tests' default: a peer is dead 3 seconds after it was last heard.
"""

_P = TypeVar("_P", bound=KeepAliveProtocol)


def call(
    procedure: int,
    payload: bytes = b"",
    serial: int = 0,
    *,
    program: int = REMOTE_PROGRAM,
    version: int = PROGRAM_VERSION,
    kind: int = MessageType.CALL,
    status: int = Status.OK,
) -> Message:
    """
    @return: a call, by default of the remote program.
    """
    return Message(program, version, procedure, kind, serial, status, payload)


def opening(name: str | None = "", flags: int = 0, serial: int = 0) -> Message:
    """
    @return: the call that opens a connection.
    """
    arguments = Packer().optionalString(name).uint32(flags).packed()
    return call(Procedure.CONNECT_OPEN, arguments, serial)


def feature(number: int, serial: int = 0) -> Message:
    """
    @return: the call that queries a feature.
    """
    return call(Procedure.CONNECT_SUPPORTS_FEATURE, Packer().int32(number).packed(), serial)


def errorOf(reply: Message) -> tuple[int, int, int, str]:
    """
    @return: the code, domain, level and message of the error in a reply.
    """
    assert (reply.type, reply.status) == (MessageType.REPLY, Status.ERROR), reply
    error = unpackError(reply.payload)
    return error.code, error.domain, error.level, error.message


OPEN: Final = opening()
FEATURE_KEEPALIVE: Final = feature(Feature.PROGRAM_KEEPALIVE)


class Probe(Program):
    """
    An application's program, with a procedure for each kind of reply.

    @ivar waiting: the unanswered calls of L{LATER}, oldest first.
    @ivar calls: the procedures called, in order.
    """

    number: ClassVar[int] = 0x2F000001
    ECHO: ClassVar[int] = 1
    LATER: ClassVar[int] = 2
    FAIL: ClassVar[int] = 3
    BREAK: ClassVar[int] = 4
    DECODE: ClassVar[int] = 5

    def __init__(self) -> None:
        self.waiting: list[Deferred[bytes]] = []
        self.calls: list[int] = []

    @procedure(ECHO)
    def echo(self, connection: object, payload: bytes) -> bytes:
        """
        Reply with the payload.
        """
        self.calls.append(self.ECHO)
        return payload

    @procedure(LATER)
    def later(self, connection: object, payload: bytes) -> Deferred[bytes]:
        """
        Reply when the test fires the Deferred.
        """
        self.calls.append(self.LATER)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @procedure(FAIL)
    def fail(self, connection: object, payload: bytes) -> bytes:
        """
        Reply with an error.
        """
        self.calls.append(self.FAIL)
        raise RemoteError(88, 55, "no entry", 1)

    @procedure(BREAK)
    async def breakDown(self, connection: object, payload: bytes) -> bytes:
        """
        Raise an unexpected exception, as a bug would.
        """
        self.calls.append(self.BREAK)
        raise ZeroDivisionError("a bug")

    @procedure(DECODE)
    def decode(self, connection: object, payload: bytes) -> bytes:
        """
        Decode a string, and reply with it.
        """
        self.calls.append(self.DECODE)
        return Packer().string(Unpacker(payload).string()).packed()

    @classmethod
    def message(cls, procedure: int, payload: bytes = b"", serial: int = 0) -> Message:
        """
        @return: a call to this program.
        """
        return call(procedure, payload, serial, program=cls.number)


@implementer(ISession)
class FakeSession:
    """
    The session of a L{FakeBackend}.  It replies to each call with the payload.

    @ivar idle: see L{ISession}.
    @ivar connections: the arguments of L{opened}.
    @ivar reasons: the arguments of L{closed}.
    """

    idle = True

    def __init__(self) -> None:
        self.connections: list[object] = []
        self.reasons: list[Exception] = []

    def opened(self, connection: object) -> None:
        """
        Record the connection.
        """
        self.connections.append(connection)

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        Reply with the payload.
        """
        return payload

    def closed(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.reasons.append(reason)


@implementer(IBackend)
class FakeBackend:
    """
    A backend whose result the test chooses.

    @ivar session: the session that it opens, at once unless C{later} is set.
    @ivar later: returned instead of the session, unless C{None}.
    @ivar error: raised instead of opening, unless C{None}.
    @ivar requests: the requests to open.
    """

    PROCEDURE: ClassVar[int] = 300
    features: frozenset[int] = frozenset({Feature.REMOTE_EVENT_CALLBACK})

    def __init__(self) -> None:
        self.session = FakeSession()
        self.later: Deferred[ISession] | None = None
        self.error: Exception | None = None
        self.requests: list[OpenRequest] = []

    def knows(self, procedure: int) -> bool:
        """
        @return: whether this is C{PROCEDURE}, the only one.
        """
        return procedure == self.PROCEDURE

    def open(self, peer: Peer, request: OpenRequest) -> ISession | Deferred[ISession]:
        """
        Record the request, and open, fail or wait.
        """
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return ISession(self.session) if self.later is None else self.later


class Cycle:
    """
    An object that only the garbage collector can free.
    """

    def __init__(self) -> None:
        self.itself = self


def freezeOlder(test: SynchronousTestCase) -> None:
    """
    Restrict the garbage collector to objects that the test creates, so that full collections are
    cheap. Collections of fewer generations would miss objects that an automatic one has already
    promoted.
    """
    gc.freeze()
    test.addCleanup(gc.unfreeze)


class Wire(Generic[_P]):
    """
    One end of a connection; the test takes the place of the peer.

    @ivar protocol: the protocol under test.
    @ivar transport: the protocol's transport.
    @ivar lost: whether C{connectionLost} was called.
    """

    def __init__(self, protocol: _P, address: IAddress = ADDRESS) -> None:
        self.protocol = protocol
        self.lost = False
        self.transport = StringTransport(peerAddress=address)
        self._reader = MessageReader()
        protocol.makeConnection(self.transport)

    def feed(self, *parts: bytes | Message) -> None:
        """
        Deliver bytes and messages to the protocol, all in one read.
        """
        self.protocol.dataReceived(
            b"".join(packMessage(part) if isinstance(part, Message) else part for part in parts)
        )

    def taken(self) -> bytes:
        """
        @return: the bytes written since the last call.
        """
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def take(self) -> list[Message]:
        """
        @return: the messages written since the last call.
        """
        self._reader.feed(self.taken())
        return list(iter(self._reader.next, None))

    def takeOne(self) -> Message:
        """
        @return: the only message written since the last call.
        """
        (message,) = self.take()
        return message

    def ask(self, *parts: bytes | Message) -> Message:
        """
        Deliver bytes and messages, and return the only message written in response.
        """
        self.feed(*parts)
        return self.takeOne()

    @property
    def reading(self) -> bool:
        """
        Whether the transport is reading, and not paused.
        """
        return self.transport.producerState == "producing"

    @property
    def closing(self) -> bool:
        """
        Whether the protocol has begun to close the connection, with or without an abort.
        """
        return self.transport.disconnecting

    @property
    def aborted(self) -> bool:
        """
        Whether the protocol has aborted the connection, which discards unsent bytes.
        """
        return self.transport.disconnected

    def lose(self, reason: BaseException | None = None) -> None:
        """
        Call C{connectionLost}, unless it was called before.
        """
        if not self.lost:
            self.lost = True
            self.transport.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone() if reason is None else reason))


class ClockTestCase(SynchronousTestCase):
    """
    Base class for tests of connections.  When a test ends, all its connections are lost, and no
    timer may be left.

    @ivar clock: the clock of all connections.
    """

    def setUp(self) -> None:
        """
        Create a clock, and capture the log.
        """
        self.clock = Clock()
        self._wires: list[Wire[KeepAliveProtocol]] = []
        self._pairs: list[ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]] = []
        self._log = self.enterContext(capturedLogs())
        BOUNDS.clear()
        self.addCleanup(self._endAll)

    def _endAll(self) -> None:
        for wire in self._wires:
            wire.lose()
        for pair in self._pairs:
            for transport in (pair.serverTransport, pair.clientTransport):
                transport.abortConnection()
            pair.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in steps of L{TICK}, as an idle reactor would.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def turns(self, count: int = 8) -> None:
        """
        Run some turns of the reactor without advancing the clock, so that peers who have sent much
        at once get their turns.
        """
        self.clock.pump([0] * count)

    def wire(self, protocol: _P, address: IAddress = ADDRESS) -> Wire[_P]:
        """
        Connect a protocol to a L{Wire}.
        """
        wire = Wire(protocol, address)
        self._wires.append(wire)  # type: ignore[arg-type]
        return wire

    def serve(
        self,
        policy: IKeepAlivePolicy | None = None,
        backend: IBackend | None = None,
        programs: Iterable[IProgram] = (),
    ) -> Wire[KeepAliveServerProtocol]:
        """
        Create a server, and connect a client, which the test plays.
        """
        return self.accept(
            KeepAliveServerFactory(policy, backend, programs, IReactorTime(self.clock))
        )

    def accept(
        self, factory: KeepAliveServerFactory, address: IAddress = ADDRESS
    ) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client, which the test plays, to a server.
        """
        protocol = factory.buildProtocol(address)
        assert isinstance(protocol, KeepAliveServerProtocol)
        return self.wire(protocol, address)

    def pair(
        self,
        server: KeepAliveServerFactory | None = None,
        client: KeepAliveClientFactory | None = None,
        *,
        flush: bool = True,
    ) -> ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]:
        """
        Connect a server and a client to each other.
        """
        pair = connectedPair(
            KeepAliveServerFactory(clock=self.clock) if server is None else server,
            KeepAliveClientFactory(clock=self.clock) if client is None else client,
            flush=flush,
        )
        self._pairs.append(pair)
        return pair

    def logged(self, level: LogLevel | None = None) -> list[str]:
        """
        @return: the lines that kaproto has logged, all or those of one level.
        """
        return [
            formatEvent(event)
            for event in self._log
            if event["log_namespace"].startswith("kaproto") and level in (None, event["log_level"])
        ]
