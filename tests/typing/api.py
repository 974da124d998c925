"""
How programs use kaproto, for the type checker to look at.  It is not executed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, assert_type

import attrs
from twisted.application.internet import ClientService, StreamServerEndpointService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from zope.interface import implementer

import kaproto
from kaproto.client import (
    Call,
    Connection,
    Domain,
    DomainEvent,
    DomainState,
    EventStream,
    KeepAliveClientFactory,
    KeepAliveClientProtocol,
    LifecycleEventType,
    ListFlag,
    Version,
    connect,
    endpointFor,
)
from kaproto.counters import Counters
from kaproto.errors import KeepAliveTimeout, ProtocolError, RemoteError, RemoteProtocolError
from kaproto.interfaces import (
    ADMITTED,
    Admission,
    IBackend,
    IKeepAlivePolicy,
    IProgram,
    ISession,
    OpenRequest,
    Refused,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import MODES, Mandatory, Policy
from kaproto.program import Hyper, Limit, Program, UInt, pack, procedure, unpack
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import ConnectedPair, connectedPair
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, ErrorDomain, Procedure
from kaproto.wire.xdr import Packer, Unpacker


@attrs.frozen
class MaxVCPUs:
    """
    The arguments of C{CONNECT_GET_MAX_VCPUS}.
    """

    type: str | None = None


async def useClient(reactor: IReactorTime) -> None:
    """
    Everything that a client can do.
    """
    connection = await connect(
        reactor, "qemu:///system", name="", readOnly=True, keepAlive=KeepAlive(0.5, 3)
    )
    assert_type(connection, Connection)
    connection.setKeepAlive(5, 5)
    connection.setKeepAlive(interval=0.5, count=2)
    assert_type(connection.keepAlive, KeepAlive)
    assert_type(connection.keepAliveSupported, bool)
    assert_type(connection.latency, float | None)
    assert_type(connection.ping(), Deferred[float])
    assert_type(connection.isAlive(), bool)
    assert_type(connection.hostname(), Deferred[str])
    assert_type(await connection.hostname(), str)
    assert_type(await connection.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_TYPE), bytes)
    assert_type(await connection.call(0x66656564, 1, b"", version=2), bytes)
    connection.listen(0x66656564, lambda number, payload: print(number + 1, payload.hex()))
    assert_type(await connection.libVersion(), Version)
    assert_type(connection.protocol, KeepAliveClientProtocol)
    assert_type(connection.closeReason, Exception | None)
    await watchDomains(connection)
    assert_type(await connection.whenClosed(), Exception)
    assert_type(await connection.close(), Exception)


class Libvirt(Connection):
    """
    A connection with one more procedure.
    """

    maxVCPUs = Call(5, MaxVCPUs, int)


async def watchDomains(connection: Connection) -> None:
    """
    What is there about domains, and about procedures of one's own.
    """
    assert_type(connection.listAllDomains(ListFlag.RUNNING), Deferred[list[Domain]])
    domain = await connection.domainByName("test")
    assert_type(domain.name, str)
    assert_type(domain.id, int)
    assert_type((await domain.state()).state, DomainState)
    assert_type(await domain.xml(flags=2), str)
    assert_type(domain.suspend(), Deferred[None])
    events = await connection.lifecycleEvents(domain)
    assert_type(events, EventStream[DomainEvent])
    async for event in events:
        assert_type(event.domain, Domain)
        assert_type(event.event, LifecycleEventType)
        events.stop()
    assert_type(await Libvirt(connection.protocol).maxVCPUs(type="qemu"), int)
    assert_type(await connection.perform(Libvirt.maxVCPUs), int)


def explain(reason: Exception) -> str:
    """
    The data that errors carry.
    """
    match reason:
        case KeepAliveTimeout():
            assert_type(reason.interval, float)
            assert_type(reason.count, int)
            return f"{reason.silence:.1f}"
        case RemoteError():
            assert_type(reason.message, str)
            return f"{reason.code + reason.domain + reason.level}"
        case RemoteProtocolError():
            error: ProtocolError = reason
            return str(error)
        case _:
            return ""


def useClientService(reactor: IReactorTime) -> ClientService:
    """
    A client that reconnects.
    """

    async def subscribe(connection: KeepAliveClientProtocol) -> None:
        await connection.call(0x66656564, 2)

    endpoint, name = endpointFor(reactor, "test+tcp://127.0.0.1/default")
    assert_type(endpoint, IStreamClientEndpoint)
    factory = KeepAliveClientFactory(
        name, flags=1, keepAlive=KeepAlive(), onOpen=subscribe, clock=reactor
    )
    return ClientService(endpoint, factory)


class Link(KeepAliveServerProtocol):
    """
    A subclass with a state of its own.
    """

    color = "red"

    def connectionClosed(self, reason: Exception) -> None:
        """
        Hear of the end.
        """
        assert_type(self.peer, Peer)


@implementer(IProgram)
class ByHand:
    """
    A program that is not a subclass.
    """

    number = 0x66656564
    version = 1

    def knows(self, procedure: int) -> bool:
        """
        Know everything.
        """
        return procedure > 0

    def callReceived(self, connection: Link, procedure: int, payload: bytes) -> Awaitable[bytes]:
        """
        Answer later.
        """
        later: Deferred[bytes] = Deferred()
        connection.sendEvent(self.number, procedure, payload)
        return later


class Painter(Program):
    """
    A program with procedures that answer now and later.
    """

    number = 0x7061696E

    @procedure(1, 2)
    def paint(self, connection: Link, payload: bytes) -> bytes:
        """
        Answer now.
        """
        connection.color = Unpacker(payload).string()
        return Packer().string(connection.color).uint64(2**40).packed()

    @procedure(3)
    async def dry(self, connection: Link, payload: bytes) -> bytes:
        """
        Answer later, with an error.
        """
        raise RemoteError(ErrorCode.OPERATION_FAILED, ErrorDomain.NONE, "still wet")


@attrs.frozen
class Coat:
    """
    Arguments and results of L{TypedPainter}.
    """

    color: str
    layers: UInt = 1
    thinned: Annotated[list[Hyper], Limit(3)] = attrs.Factory(list)


class TypedPainter(Program):
    """
    A program whose procedures take and return Python objects; the type checker finds those whose
    methods do not suit what they are declared to be.
    """

    number = 0x7061696F

    @procedure(1, arguments=Coat, result=str)
    def paint(self, connection: Link, coat: Coat) -> str:
        """
        Answer now.
        """
        return coat.color

    @procedure(2, arguments=str, result=Coat)
    async def coatOf(self, connection: Link, color: str) -> Coat:
        """
        Answer later.
        """
        return Coat(color)

    @procedure(3, arguments=Coat)
    def strip(self, connection: Link, coat: Coat) -> None:
        """
        Answer nothing.
        """

    @procedure(4, result=int)
    def count(self, connection: Link) -> int:
        """
        Take nothing.
        """
        return 1

    @procedure(5, arguments=None)
    async def clean(self, connection: Link) -> None:
        """
        Take and answer nothing.
        """

    @procedure(6, arguments=Coat, result=str)  # type: ignore[arg-type] # it takes a str
    def badArguments(self, connection: Link, coat: str) -> str:
        """
        Take something else.
        """
        return coat

    @procedure(7, arguments=Coat, result=str)  # type: ignore[arg-type] # it returns an int
    def badResult(self, connection: Link, coat: Coat) -> int:
        """
        Answer something else.
        """
        return 1

    @procedure(8)  # type: ignore[type-var] # it returns no bytes
    def badRaw(self, connection: Link, payload: bytes) -> int:
        """
        Answer something that is not XDR.
        """
        return 1


def useStructs() -> None:
    """
    XDR from attrs classes.
    """
    assert_type(pack(Coat("red")), bytes)
    assert_type(unpack(Coat, b""), Coat)
    assert_type(unpack(str, b""), str)
    assert_type(kaproto.Mandatory(kaproto.KeepAlive()), Mandatory)
    assert_type(kaproto.KeepAliveServerFactory(mode=2), KeepAliveServerFactory)


@implementer(ISession)
class Session:
    """
    A session of a backend.
    """

    idle = True

    def opened(self, connection: Link) -> None:
        """
        Hear of the beginning.
        """

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        Echo.
        """
        return payload

    def closed(self, reason: Exception) -> None:
        """
        Hear of the end.
        """


@implementer(IBackend)
class Backend:
    """
    A backend that opens later.
    """

    features: frozenset[int] = frozenset()

    def knows(self, procedure: int) -> bool:
        """
        Know everything.
        """
        return True

    async def open(self, peer: Peer, request: OpenRequest) -> Session:
        """
        Open what is to be only read.
        """
        if not request.readOnly:
            raise RemoteError(ErrorCode.OPERATION_DENIED, ErrorDomain.NONE, f"{peer} writes")
        return Session()


@attrs.frozen
class Polite(Policy):
    """
    A policy that is a subclass, with a setting of its own.
    """

    name = "polite"
    greeting: str = "hello"

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        Ping other machines.
        """
        return self.terms if peer.host else None

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Admit who asked.
        """
        return ADMITTED if peer.asked else Refused(self.greeting)


@implementer(IPlugin, IKeepAlivePolicy)
class Strict:
    """
    A policy that is not a subclass.
    """

    name = "strict"
    description = "admit nobody"
    argumentFormat = ""

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Strict:
        """
        Take no settings.
        """
        return self

    def advertises(self, peer: Peer) -> bool:
        """
        Keep it secret.
        """
        return False

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        Ping nobody.
        """
        return None

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Admit nobody.
        """
        return Refused("not today")


def useServer(reactor: IReactorTime, endpoint: IStreamServerEndpoint) -> KeepAliveServerFactory:
    """
    Servers of all kinds.
    """

    class LinkFactory(KeepAliveServerFactory):
        protocol = Link

    KeepAliveServerFactory()
    KeepAliveServerFactory(Strict(), programs=[ByHand()])
    assert_type(MODES, tuple[Policy, ...])
    factory = LinkFactory(Mandatory(KeepAlive(2, 3)), Backend(), [Painter()], clock=reactor)
    factory.limits = Limits(openTimeout=2.5)
    factory.policy = Polite()
    StreamServerEndpointService(endpoint, factory)
    assert_type(factory.counters, Counters)
    assert_type(factory.connections, list[KeepAliveServerProtocol])
    assert_type(factory.drain(), Deferred[None])
    for each in factory.connections:
        assert_type(each.whenClosed(), Deferred[Exception])
    factory.abort()
    return factory


def useTesting() -> bytes:
    """
    The two ends in memory.
    """
    clock = Clock()
    pair = connectedPair(
        KeepAliveServerFactory(clock=clock), KeepAliveClientFactory(clock=clock), flush=False
    )
    assert_type(pair, ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol])
    pair.flush()
    pair.blackhole()
    pair.advance(1.5)
    ((_at, data),) = pair.writtenBy("server")
    return data
