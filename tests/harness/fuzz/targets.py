"""
The targets of attacks: a server, one that requires a login, a client, and a gateway from both
sides, each in every relevant state, on a clock that only the attack advances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final
from unittest import mock

import attrs
from scramp import ScramClient
from scramp.core import Nonce
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from kaproto.backends.gateway import Gateway
from kaproto.backends.host import EmbeddedHost
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import RemoteError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.monitor import Monitor
from kaproto.limits import Limits
from kaproto.policies import Mandatory, Optional
from kaproto.program import Program, procedure
from kaproto.security.admission import AccessControl
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.security.scram import IScramCredentials
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import Message, MessageReader, packMessage
from kaproto.wire.programs import REMOTE_PROGRAM
from kaproto.wire.sasl import (
    SASLResult,
    packMechanisms,
    packResult,
    packStart,
    packStep,
    unpackResult,
)
from kaproto.wire.xdr import Packer, Unpacker
from tests.harness.fuzz.tap import Tap
from tests.support import FEATURE_KEEPALIVE, OPEN, Probe, call, opening

__all__ = ["TARGETS", "Subject", "Target", "sameNonces"]

_TCP: Final = IPv4Address("TCP", "192.0.2.1", 54321)
_UNIX: Final = UNIXAddress("/run/libvirt/libvirt-sock")
_ALICE = Authentication(Login("alice", "secret"))
_TERMS: Final = KeepAlive(1, 2)
_NONCE: Final = "CLIENTNONCE"
_KEYS: Final = ScramKeys.fromPassword("secret", b"0123456789abcdef")
_LONG: Final = 65636
"""
The size of a payload whose message is relayed in pieces.
"""

_HALF: Final = packMessage(call(316, bytes(_LONG), 1, kind=2))[:-68]


@contextmanager
def sameNonces() -> Iterator[None]:
    """
    Make SCRAM's nonces the same each time, so that two runs of an attack can be compared.
    """
    with mock.patch.object(Nonce, "create", lambda: Nonce(_NONCE)):
        yield


@attrs.define
class Subject:
    """
    A connection under attack.

    @ivar near: the attacked transport.
    @ivar far: the other connection of a gateway.
    @ivar script: the procedures that a client has called and will call, by serial.
    @ivar serial: the first of them without an answer.
    @ivar sasl: SASL data that is valid in the current login.
    @ivar waiting: what must have fired when the connection is gone.
    @ivar relaying: whether messages are relayed.
    @ivar owed: the serials of the client's calls without an answer.
    """

    near: Tap
    far: Tap | None = None
    script: Sequence[int] = ()
    serial: int = 0
    sasl: Sequence[bytes] = ()
    waiting: list[Deferred[Any]] = attrs.field(factory=list)
    relaying: bool = False
    owed: Sequence[int] = ()

    @property
    def taps(self) -> list[Tap]:
        """
        All transports.
        """
        return [self.near] if self.far is None else [self.near, self.far]


class Target:
    """
    A target; its connections follow one another.

    @ivar clock: the clock for everything.
    @ivar toServer: whether the attacker is a client.
    @ivar states: the states of a connection in which it can be attacked.
    """

    name: ClassVar[str]
    toServer: ClassVar[bool] = True
    states: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.clock = Clock()

    def connect(self, state: str) -> Subject:
        """
        @return: a new connection in that state.
        """
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """
        @return: what is left although all connections are gone.
        """
        return [f"a timer: {each}" for each in self.clock.getDelayedCalls()]


class Application(Program):
    """
    An application's own program.
    """

    number: ClassVar[int] = Probe.number

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    @procedure(Probe.ECHO)
    def echo(self, connection: object, payload: bytes) -> bytes:
        """
        Answer with the payload.
        """
        return payload

    @procedure(Probe.LATER)
    def later(self, connection: object, payload: bytes) -> Deferred[bytes]:
        """
        Answer with the payload, a little later.
        """
        return deferLater(self._clock, 0.125, lambda: payload)

    @procedure(Probe.FAIL)
    def fail(self, connection: object, payload: bytes) -> bytes:
        """
        Answer with an error.
        """
        raise RemoteError(88, 55, "no entry", 1)

    @procedure(Probe.DECODE)
    def decode(self, connection: object, payload: bytes) -> bytes:
        """
        Answer with the string in the payload.
        """
        return Packer().string(Unpacker(payload).string()).packed()


def _left(name: str, clock: Clock) -> list[str]:
    pacemaker = Monitor.of(clock).pacemaker
    return [f"{name} watches {len(pacemaker)}"] if len(pacemaker) or pacemaker._slots else []


class _ServerTarget(Target):
    factory: KeepAliveServerFactory

    def accept(self, address: IAddress = _TCP, *said: Message) -> Tap:
        """
        Connect a client that sends messages.

        @return: its transport.
        """
        tap = Tap(self.clock, address)
        protocol = self.factory.buildProtocol(address)
        assert isinstance(protocol, KeepAliveServerProtocol)
        tap.attach(protocol)
        for message in said:
            tap.feed(packMessage(message))
        return tap

    def leftovers(self) -> list[str]:
        """
        @return: timers, watched connections and counts that are left.
        """
        factory = self.factory
        found = super().leftovers() + _left("the server", self.clock)
        if factory.connections:
            found.append(f"{len(factory.connections)} connections")
        if factory.clients.anonymous or factory.clients._unopened:
            found.append("arrivals")
        return found


_SERVER_STATES: Final[dict[str, tuple[Message, ...]]] = {
    "fresh": (),
    "asked": (FEATURE_KEEPALIVE,),
    "open": (OPEN,),
    "watched": (FEATURE_KEEPALIVE, OPEN),
    "farewell": (FEATURE_KEEPALIVE, OPEN, call(360)),
}


class Server(_ServerTarget):
    """
    A server with the embedded host, and an application's program.
    """

    name = "server"
    states = tuple(_SERVER_STATES)

    def __init__(self) -> None:
        super().__init__()
        host = EmbeddedHost()
        clock = IReactorTime(self.clock)
        programs = [Application(clock)]
        self.lenient = KeepAliveServerFactory(Optional(_TERMS), host, programs, clock)
        self.strict = KeepAliveServerFactory(Mandatory(_TERMS), host, programs, clock)
        self.factory = self.strict

    def connect(self, state: str) -> Subject:
        """
        @return: a connection in that state.
        """
        self.factory = self.lenient if state == "open" else self.strict
        return Subject(self.accept(_TCP, *_SERVER_STATES[state]))


@implementer(ICredentialsChecker)
class _Alice:
    """
    Knows one user, and spends no time on hashing.
    """

    credentialInterfaces = (IUsernamePassword, IScramCredentials)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """
        Check the password, or the proof.
        """
        known = credentials.username == b"alice"
        if not IScramCredentials.providedBy(credentials):
            right = known and credentials.password == b"secret"
            return succeed(b"alice") if right else fail(UnauthorizedLogin())

        def settled(proven: bool) -> bytes:
            if not (proven and known):
                raise UnauthorizedLogin
            return b"alice"

        keys = _KEYS if known else ScramKeys.fake(credentials.username, b"secret", {_KEYS.shape})
        challenged: Deferred[bool] = credentials.challenge(keys)
        return challenged.addCallback(settled)


class Auth(_ServerTarget):
    """
    A server that requires a login, on a UNIX socket so that PLAIN is allowed.
    """

    name = "auth"
    states = ("fresh", "begun", "challenged", "failed", "in", "watched")

    def __init__(self) -> None:
        super().__init__()
        accessControl = AccessControl(portal=makePortal([_Alice()]))
        clock = IReactorTime(self.clock)
        self.factory = KeepAliveServerFactory(
            Mandatory(_TERMS),
            EmbeddedHost(),
            [Application(clock)],
            clock,
            accessControl,
            # All attacks fail as one user, and would otherwise soon have to wait.
            Limits(loginGuesses=1_000_000),
        )

    def connect(self, state: str) -> Subject:
        """
        @return: a connection in that state.
        """
        init = call(67)
        plain = call(68, packStart("PLAIN", b"\0alice\0secret"))
        wrong = call(68, packStart("PLAIN", b"\0alice\0wrong"))
        scram = ScramClient(["SCRAM-SHA-256"], "alice", "secret")
        first = call(68, packStart("SCRAM-SHA-256", scram.get_client_first().encode()))
        said = {
            "fresh": (),
            "begun": (init,),
            "challenged": (init, first),
            "failed": (init, wrong, init, wrong),
            "in": (init, plain),
            "watched": (init, plain, FEATURE_KEEPALIVE, OPEN),
        }[state]
        tap = self.accept(_UNIX, *said)
        if state == "failed":
            # The second attempt begins when the first has been answered.
            self.clock.pump([1, 1])
        if state != "challenged":
            return Subject(tap)
        scram.set_server_first((unpackResult(_messages(tap)[-1].payload).data or b"").decode())
        return Subject(tap, sasl=(scram.get_client_final().encode(),))


class Client(Target):
    """
    A client.
    """

    name = "client"
    toServer = False
    states = (
        "fresh",
        "asking",
        "opening",
        "farewell",
        "open",
        "calls",
        "closing",
        "login",
        "scram",
        "alone",
        "alone with a login",
    )

    def __init__(self) -> None:
        super().__init__()
        self.factories: list[KeepAliveClientFactory] = []
        clock = IReactorTime(self.clock)
        self.factory = KeepAliveClientFactory("test:///default", keepAlive=_TERMS, clock=clock)
        self.loginFactory = KeepAliveClientFactory(clock=clock, authentication=_ALICE)

    def connect(self, state: str) -> Subject:
        """
        @return: a connection in that state.
        """
        login = state in ("login", "scram", "alone with a login")
        factory = self.loginFactory if login else self.factory
        address = _UNIX if login else _TCP
        protocol = factory.buildProtocol(address)
        assert isinstance(protocol, KeepAliveClientProtocol)
        tap = Tap(self.clock, address)
        tap.attach(protocol)
        script = [66, 67, 68, 69, 60, 1, 60, 360] if login else [66, 60, 1, 60, 360, 59, 3, 59, 59]
        waiting: list[Deferred[Any]] = [protocol.whenClosed()]
        if not state.startswith("alone"):
            waiting.append(protocol.whenOpen())
        answers = {
            "fresh": 0,
            "asking": 1,
            "opening": 2,
            "farewell": 3,
            "open": 5,
            "calls": 5,
            "closing": 5,
            "login": 0,
            "scram": 2,
            "alone": 0,
            "alone with a login": 0,
        }[state]
        for serial, called in enumerate(script[:answers]):
            tap.feed(_answer(serial, called, login=login))
        if state in ("calls", "closing"):
            waiting += [protocol.call(REMOTE_PROGRAM, number) for number in (59, 3, 59)]
        if state == "closing":
            script[8] = 2
            waiting.append(protocol.close())
        first = b"r=CLIENTNONCE123,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4"
        return Subject(tap, None, script, answers, (first,), waiting)

    def leftovers(self) -> list[str]:
        """
        @return: timers and watched connections that are left.
        """
        return super().leftovers() + _left("the client", self.clock)


def _answer(serial: int, procedure: int, *, login: bool = False) -> bytes:
    """
    @return: the answer of a correct server to a call.
    """
    payload = {
        66: Packer().uint32(1).int32(int(login)).packed(),
        60: Packer().int32(1).packed(),
        67: packMechanisms(["SCRAM-SHA-256"]),
        68: packResult(SASLResult(complete=False, data=b"")),
        69: packStep(b""),
    }.get(procedure, b"")
    return packMessage(call(procedure, payload, serial, kind=1))


def _messages(tap: Tap) -> list[Message]:
    reader = MessageReader()
    reader.feed(bytes(tap.written))
    return list(iter(reader.next, None))


@implementer(IStreamClientEndpoint)
class _Upstream:
    """
    The endpoint of libvirtd.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect at once.
        """
        self.tap = Tap(self._clock, _UNIX)
        protocol = protocolFactory.buildProtocol(_UNIX)
        assert isinstance(protocol, KeepAliveClientProtocol)
        self.tap.attach(protocol)
        return succeed(protocol)


class _GatewayTarget(_ServerTarget):
    def __init__(self) -> None:
        super().__init__()
        self.upstream = _Upstream(self.clock)
        clock = IReactorTime(self.clock)
        self.gateway = Gateway(
            self.upstream, "unix:libvirt-sock", _TERMS, clock, authentication=_ALICE
        )
        self.factory = KeepAliveServerFactory(Optional(_TERMS), self.gateway, clock=clock)

    def through(self, *said: Message, opened: bool = True) -> tuple[Tap, Tap]:
        """
        Open a client through the gateway.

        @return: the client's transport, and libvirtd's.
        """
        client = self.accept(_TCP, *said, opening("test:///default"))
        upstream = self.upstream.tap
        for serial, called in enumerate((66, 60, 1) if opened else ()):
            upstream.feed(_answer(serial, called))
        if opened:
            assert _messages(client)[-1].status == 0, "it should be open"
        return client, upstream

    def leftovers(self) -> list[str]:
        """
        @return: timers, watched connections and counts that are left.
        """
        return super().leftovers() + _left("the gateway", self.clock)


class GatewayClient(_GatewayTarget):
    """
    A gateway, attacked by a client.
    """

    name = "gateway, by a client"
    states = ("fresh", "asked", "opening", "open", "watched", "mid")

    def connect(self, state: str) -> Subject:
        """
        @return: a connection in that state.
        """
        if state in ("fresh", "asked"):
            # Its opens hang, since no libvirtd answers.
            return Subject(self.accept(_TCP, *_SERVER_STATES[state]))
        said = [FEATURE_KEEPALIVE] if state in ("watched", "mid") else []
        client, upstream = self.through(*said, opened=state != "opening")
        if state == "mid":
            upstream.feed(_HALF)
        if state == "opening":
            return Subject(client, upstream, owed=(0,))
        return Subject(client, upstream, relaying=True)


class GatewayUpstream(_GatewayTarget):
    """
    A gateway, attacked by its libvirtd.
    """

    name = "gateway, by libvirtd"
    toServer = False
    states = ("opening", "asked", "open", "calls", "mid")

    def connect(self, state: str) -> Subject:
        """
        @return: a connection in that state.
        """
        opened = state not in ("opening", "asked")
        client, upstream = self.through(FEATURE_KEEPALIVE, opened=opened)
        script = [66, 60, 1]
        owed: tuple[int, ...] = ()
        serial = 3
        if not opened:
            serial = int(state == "asked")
            if serial:
                upstream.feed(_answer(0, 66))
        elif state == "calls":
            owed = (3, 4, 5)
            script += [59, 3, 59]
            for number in owed:
                client.feed(packMessage(call(script[number], serial=number)))
        elif state == "mid":
            owed = (3,)
            client.feed(packMessage(call(7, bytes(_LONG), 3))[:-68])
        return Subject(upstream, client, (*script, 59, 59), serial, relaying=opened, owed=owed)


TARGETS: Final[tuple[type[Target], ...]] = (Server, Auth, Client, GatewayClient, GatewayUpstream)
"""
All targets.
"""
