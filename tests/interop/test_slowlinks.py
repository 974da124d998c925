"""
Tests for live peers on a slow link, where one message takes longer than the keepalive timeout, and
for a link that is cut in the middle of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, serverFromString
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from kaproto.backends.gateway import Gateway
from kaproto.backends.host import EmbeddedHost
from kaproto.client import connect
from kaproto.errors import KeepAliveTimeout, RemoteError
from kaproto.interfaces import IBackend
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.interop.slowrelay import SlowRelay
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil
from tests.pki import Authority, distinguished
from tests.support import Probe

_KEEP_ALIVE: Final = KeepAlive(0.5, 2)
_DEATH: Final = 1.5
_LOOPBACK: Final = "127.0.0.1"
_TERMS: Final = "interval=0.5:count=2"


@attrs.define
class Ends:
    """
    Two ends of a slow link that watch each other with keepalive.

    @ivar relay: the link.
    @ivar echo: sends bytes to the other end, and waits until they are back.
    @ivar lost: when each end lost its connection, by the end's name.
    """

    relay: SlowRelay
    echo: Callable[[bytes], Coroutine[Any, Any, bytes]]
    lost: dict[str, float]


class Echo(Protocol):
    """
    An application in a tunnel.  The server's end sends back what it receives.

    @ivar received: what has been received.
    """

    transport: ITransport

    def __init__(self, name: str, lost: dict[str, float]) -> None:
        self.received = b""
        self._name = name
        self._lost = lost

    def dataReceived(self, data: bytes) -> None:
        """
        Send the bytes back, or keep them.
        """
        if self._name == "server":
            self.transport.write(data)
        else:
            self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        Record when the connection ended.
        """
        self._lost[self._name] = time.monotonic()

    async def echo(self, data: bytes) -> bytes:
        """
        Send bytes to the server, and wait until they are back.
        """
        self.received = b""
        self.transport.write(data)
        await waitUntil(lambda: len(self.received) == len(data) or self._lost, "the echo", 20)
        return self.received


class SlowLinkTests(InteropTestCase):
    """
    Tests with both ends pinging at an interval of 0.5 s and a count of 2.
    """

    tools = ()

    async def _listen(self, factory: Any, endpoint: str) -> int:
        port = await serverFromString(reactor, endpoint).listen(factory)
        self.addCleanup(maybeDeferred, port.stopListening)
        return cast(IPv4Address, port.getHost()).port

    async def _server(
        self,
        lost: dict[str, float],
        endpoint: str = "tcp:0:interface=127.0.0.1",
        backend: IBackend | None = None,
    ) -> int:
        class Noted(KeepAliveServerProtocol):
            def connectionClosed(self, reason: Exception) -> None:
                lost.setdefault("server", time.monotonic())

        programs = [Probe()] if backend is None else []
        factory = KeepAliveServerFactory(
            Mandatory(_KEEP_ALIVE), backend or EmbeddedHost(), programs, clock=reactor
        )
        factory.protocol = Noted
        port = await self._listen(factory, endpoint)
        self.addCleanup(factory.drain)
        self.addCleanup(factory.abort)
        return port

    async def _client(self, uri: str, relay: SlowRelay, lost: dict[str, float]) -> Ends:
        connection = await connect(reactor, uri, keepAlive=_KEEP_ALIVE)
        self.addCleanup(connection.close)

        def ended(_reason: object) -> None:
            lost["client"] = time.monotonic()

        connection.whenClosed().addBoth(ended)

        async def echo(data: bytes) -> bytes:
            return await connection.call(Probe.number, Probe.ECHO, data)

        return Ends(relay, echo, lost)

    async def tcp(self) -> Ends:
        """
        @return: the library's client and server over TCP.
        """
        lost: dict[str, float] = {}
        relay = SlowRelay(self, await self._server(lost))
        return await self._client(f"tcp:{_LOOPBACK}:{relay.port}", relay, lost)

    async def tls(self) -> Ends:
        """
        @return: the library's client and server over TLS.
        """
        lost: dict[str, float] = {}
        authority = Authority()
        server = authority.issue(distinguished("server"), hosts=[_LOOPBACK])
        client = authority.issue(distinguished("alice"))
        pki = authority.write(self.privateDirectory(), server)
        endpoint = f"libvirttls:0:interface={_LOOPBACK}:pki={pki}"
        relay = SlowRelay(self, await self._server(lost, endpoint))
        files = authority.writeFlat(self.privateDirectory(), client)
        uri = f"test+tls://{_LOOPBACK}:{relay.port}/default?pkipath={files}"
        return await self._client(uri, relay, lost)

    def _gateway(self, port: int) -> Gateway:
        return Gateway(
            TCP4ClientEndpoint(reactor, _LOOPBACK, port), "the server", _KEEP_ALIVE, reactor
        )

    async def beforeGateway(self) -> Ends:
        """
        @return: a client and a gateway.
        """
        lost: dict[str, float] = {}
        gateway = self._gateway(await self._server({}))
        relay = SlowRelay(self, await self._server(lost, backend=gateway))
        return await self._client(f"tcp:{_LOOPBACK}:{relay.port}", relay, lost)

    async def behindGateway(self) -> Ends:
        """
        @return: a gateway and the server behind it.  The client's connection ends when the
            gateway's does.
        """
        lost: dict[str, float] = {}
        relay = SlowRelay(self, await self._server(lost))
        port = await self._server({}, backend=self._gateway(relay.port))
        return await self._client(f"tcp:{_LOOPBACK}:{port}", relay, lost)

    async def tunnel(self) -> Ends:
        """
        @return: an application's two ends in a tunnel.
        """
        lost: dict[str, float] = {}
        server = Factory.forProtocol(lambda: Echo("server", lost))
        endpoint = f"keepalive:tcp:0:interface={_LOOPBACK}:policy=2:{_TERMS}"
        relay = SlowRelay(self, await self._listen(server, endpoint))
        endpoint = f"keepalive:tcp:host={_LOOPBACK}:port={relay.port}:{_TERMS}"
        client: Any = Factory.forProtocol(lambda: Echo("client", lost))
        application = cast(Echo, await clientFromString(reactor, endpoint).connect(client))
        return Ends(relay, application.echo, lost)

    async def _livesAndDies(
        self,
        make: Callable[[], Coroutine[Any, Any, Ends]],
        size: int,
        part: float,
        latest: float = _DEATH,
    ) -> None:
        """
        Check that both ends live while bytes pass slowly, and die in time when the link is cut.

        @param size: how many bytes to echo; each direction takes two seconds.
        @param part: the fraction of the echo's time after which the link is cut.
        @param latest: seconds within which both ends must find that the link is cut.
        """
        name = f"{make.__name__}, {part}"
        ends = await make()
        ends.relay.rate = size // 2
        data = os.urandom(size)
        self.assertEqual(await ends.echo(data), data, name)
        self.assertEqual(ends.lost, {}, name)
        echoing: Deferred[object] = Deferred.fromCoroutine(ends.echo(data))
        echoing.addErrback(lambda failure: failure.trap(KeepAliveTimeout, RemoteError))
        await pause(4 * part)
        self.assertEqual(ends.lost, {}, name)
        ends.relay.rate = 0
        cut = time.monotonic()
        await waitUntil(lambda: len(ends.lost) == 2, lambda: f"deaths: {name}, {ends.lost}", 10)
        for end, at in ends.lost.items():
            took = at - cut
            self.assertTrue(_DEATH - 0.6 < took < latest + 0.6, f"{name}: {end} after {took:.2f} s")
        await echoing

    async def test_slow(self) -> None:
        """
        A message of 240 kB takes longer than the keepalive timeout in either direction, and so does
        a single TLS record: no peer is declared dead.  When the link is cut in the middle, both
        ends detect it in time.  A gateway probes a server that owes a reply before it gives it up,
        which takes two intervals more.
        """
        record, message = 16_000, 240_000
        probed = _DEATH + 2 * _KEEP_ALIVE.interval
        situations = [
            (self.tcp, message, _DEATH),
            (self.tls, record, _DEATH),
            (self.tls, message, _DEATH),
            (self.beforeGateway, message, _DEATH),
            (self.behindGateway, message, probed),
            (self.tunnel, message, _DEATH),
        ]
        await together(
            *(
                self._livesAndDies(make, size, part, latest)
                for make, size, latest in situations
                for part in (0.25, 0.75)
            )
        )
