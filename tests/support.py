"""
What the unit tests stand on: time that only a test advances, ends of connections without a
network, the log.
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
Where the other end of every L{Wire} is.
"""

KEEPALIVE: Final = KeepAlive(1, 2)
"""
What the tests ping at: the peer is dead 3 seconds after it was last heard.
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
    @return: a call of the remote program's, or whatever the other arguments make of it.
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
    @return: the call that asks for a feature.
    """
    return call(Procedure.CONNECT_SUPPORTS_FEATURE, Packer().int32(number).packed(), serial)


def errorOf(reply: Message) -> tuple[int, int, int, str]:
    """
    @return: the code, domain, level and message of the error that a reply carries.
    """
    assert (reply.type, reply.status) == (MessageType.REPLY, Status.ERROR), reply
    error = unpackError(reply.payload)
    return error.code, error.domain, error.level, error.message


OPEN: Final = opening()
FEATURE_KEEPALIVE: Final = feature(Feature.PROGRAM_KEEPALIVE)


class Probe(Program):
    """
    An application's program, with a procedure for each way to answer.

    @ivar waiting: the calls of L{LATER} that have not been answered, oldest first.
    @ivar calls: the procedures that have been called, in order.
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
        Answer with what came.
        """
        self.calls.append(self.ECHO)
        return payload

    @procedure(LATER)
    def later(self, connection: object, payload: bytes) -> Deferred[bytes]:
        """
        Answer when the test says so.
        """
        self.calls.append(self.LATER)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @procedure(FAIL)
    def fail(self, connection: object, payload: bytes) -> bytes:
        """
        Answer with an error.
        """
        self.calls.append(self.FAIL)
        raise RemoteError(88, 55, "no entry", 1)

    @procedure(BREAK)
    async def breakDown(self, connection: object, payload: bytes) -> bytes:
        """
        Fail as programs do that have a bug.
        """
        self.calls.append(self.BREAK)
        raise ZeroDivisionError("a bug")

    @procedure(DECODE)
    def decode(self, connection: object, payload: bytes) -> bytes:
        """
        Answer with the string that came.
        """
        self.calls.append(self.DECODE)
        return Packer().string(Unpacker(payload).string()).packed()

    @classmethod
    def message(cls, procedure: int, payload: bytes = b"", serial: int = 0) -> Message:
        """
        @return: a call of this program.
        """
        return call(procedure, payload, serial, program=cls.number)


@implementer(ISession)
class FakeSession:
    """
    What a L{FakeBackend} opens.  It answers each call with what came.

    @ivar idle: see L{ISession}.
    @ivar connections: whom it was told to be open for.
    @ivar reasons: why it was closed.
    """

    idle = True

    def __init__(self) -> None:
        self.connections: list[object] = []
        self.reasons: list[Exception] = []

    def opened(self, connection: object) -> None:
        """
        Remember the connection.
        """
        self.connections.append(connection)

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        Answer with what came.
        """
        return payload

    def closed(self, reason: Exception) -> None:
        """
        Remember the reason.
        """
        self.reasons.append(reason)


@implementer(IBackend)
class FakeBackend:
    """
    A backend that opens as the test says.

    @ivar session: what it opens, at once unless L{later} is set.
    @ivar later: what to give instead, if anything.
    @ivar error: what to raise instead, if anything.
    @ivar requests: what it was asked to open.
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
        There is one procedure.
        """
        return procedure == self.PROCEDURE

    def open(self, peer: Peer, request: OpenRequest) -> ISession | Deferred[ISession]:
        """
        Open.
        """
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return ISession(self.session) if self.later is None else self.later


class Cycle:
    """
    An object that only a collector can free.
    """

    def __init__(self) -> None:
        self.itself = self


def freezeOlder(test: SynchronousTestCase) -> None:
    """
    Have the garbage collector look only at what the test makes, so that full collections are cheap.
    Collections of fewer generations would miss what an automatic one has found in use before.
    """
    gc.freeze()
    test.addCleanup(gc.unfreeze)


class Wire(Generic[_P]):
    """
    One end of a connection, with the test in the place of the network.

    @ivar protocol: the end.
    @ivar transport: what it writes to.
    @ivar lost: whether it has been told that the connection is gone.
    """

    def __init__(self, protocol: _P, address: IAddress = ADDRESS) -> None:
        self.protocol = protocol
        self.lost = False
        self.transport = StringTransport(peerAddress=address)
        self._reader = MessageReader()
        protocol.makeConnection(self.transport)

    def feed(self, *parts: bytes | Message) -> None:
        """
        Have bytes arrive, all in one read.
        """
        self.protocol.dataReceived(
            b"".join(packMessage(part) if isinstance(part, Message) else part for part in parts)
        )

    def taken(self) -> bytes:
        """
        @return: the bytes that were written since the last time.
        """
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def take(self) -> list[Message]:
        """
        @return: the messages that were written since the last time.
        """
        self._reader.feed(self.taken())
        return list(iter(self._reader.next, None))

    def takeOne(self) -> Message:
        """
        @return: the one message that was written since the last time.
        """
        (message,) = self.take()
        return message

    def ask(self, *parts: bytes | Message) -> Message:
        """
        Have bytes arrive that are answered with one message.
        """
        self.feed(*parts)
        return self.takeOne()

    @property
    def reading(self) -> bool:
        """
        Whether the end wants to read.
        """
        return self.transport.producerState == "producing"

    @property
    def closing(self) -> bool:
        """
        Whether the end has begun to close, in whatever way.
        """
        return self.transport.disconnecting

    @property
    def aborted(self) -> bool:
        """
        Whether the end wants to close without sending what it wrote.
        """
        return self.transport.disconnected

    def lose(self, reason: BaseException | None = None) -> None:
        """
        End the connection, if it has not ended yet.
        """
        if not self.lost:
            self.lost = True
            self.transport.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone() if reason is None else reason))


class ClockTestCase(SynchronousTestCase):
    """
    A test of connections.  When it is over, all of them are gone, and so must be every timer.

    @ivar clock: the time of everything in the test.
    """

    def setUp(self) -> None:
        """
        Stop the time and keep the log.
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
        Let time pass in steps as small as those of a reactor that has nothing else to do.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def turns(self, count: int = 8) -> None:
        """
        Let those who have sent much at once have their turns, while no time passes.
        """
        self.clock.pump([0] * count)

    def wire(self, protocol: _P, address: IAddress = ADDRESS) -> Wire[_P]:
        """
        Connect an end to the test.
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
        Make a server to which one client, the test, has connected.
        """
        return self.accept(
            KeepAliveServerFactory(policy, backend, programs, IReactorTime(self.clock))
        )

    def accept(
        self, factory: KeepAliveServerFactory, address: IAddress = ADDRESS
    ) -> Wire[KeepAliveServerProtocol]:
        """
        Connect to a server.
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
        @return: the lines that kaproto has logged so far, all or those of one level.
        """
        return [
            formatEvent(event)
            for event in self._log
            if event["log_namespace"].startswith("kaproto") and level in (None, event["log_level"])
        ]
