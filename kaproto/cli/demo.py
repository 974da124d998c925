"""
C{kaproto demo}: a server in mode 2 and three clients, which end in three ways.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap
from typing import ClassVar, Final

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater

from kaproto.cli.command import Command, ExitCode, number, wholeNumber
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import RemoteError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory

__all__ = ["Demo"]

_LOOPBACK: Final = "127.0.0.1"
_WIDTH: Final = 79
_INDENT: Final = " " * 18


class Demo(Command):
    """
    Serve on this machine in mode 2 and connect three clients: alice answers pings, bob does not
    ask for keepalive, and carol dies.
    """

    optParameters: ClassVar = [
        ["interval", "i", 2.0, "Seconds of silence before a ping.", number("interval", 0.1)],
        [
            "count",
            "c",
            2,
            "Unanswered pings after which a client is dead.",
            wholeNumber("count", 1),
        ],
    ]

    async def run(self, reactor: IReactorTime) -> int:
        """
        Run the demonstration, and print events as they happen.
        """
        keepAlive = KeepAlive(self["interval"], self["count"])
        factory = KeepAliveServerFactory(Mandatory(keepAlive), clock=reactor)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface=_LOOPBACK)
        port: IListeningPort = await endpoint.listen(factory)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        try:
            await _Story(reactor, factory, address.port, keepAlive, self.write).tell()
        finally:
            await maybeDeferred(port.stopListening)
            factory.abort()
        return ExitCode.OK


class _Story:
    def __init__(
        self,
        reactor: IReactorTime,
        factory: KeepAliveServerFactory,
        port: int,
        keepAlive: KeepAlive,
        write: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._factory = factory
        self._port = port
        self._keepAlive = keepAlive
        self._write = write
        self._began = reactor.seconds()
        self._names: list[str] = []

    def _say(self, who: str, text: str) -> None:
        seconds = self._reactor.seconds() - self._began
        first, *rest = wrap(text, _WIDTH - len(_INDENT))
        self._write(f"{seconds:6.2f} s  {who:<7} {first}")
        for line in rest:
            self._write(_INDENT + line)

    async def tell(self) -> None:
        """
        Connect the three clients, and print what happens to them.
        """
        interval, count = self._keepAlive.interval, self._keepAlive.count
        self._say(
            "server",
            f"listens on {_LOOPBACK}:{self._port} in mode 2 (mandatory): it pings after "
            f"{interval:g} s of silence, and gives up after {count} unanswered pings",
        )
        alice = await self._connect("alice")
        self._say("alice", "asks for keepalive and is admitted")
        try:
            await self._connect("bob", ask=False)
        except RemoteError as error:
            reason, _stop, _advice = error.message.partition(". ")
            self._say(
                "bob", f"does not ask, and is refused: {reason}; the error also says what to do"
            )
        carol = await self._connect("carol")
        self._say("carol", "asks for keepalive and is admitted")
        await deferLater(self._reactor, interval * 1.25)
        self._say(
            "server", f"has pinged both, and {self._factory.roundTrips.total} pongs came back"
        )
        dead = self._endOf("carol")
        _die(carol)
        self._say("carol", "dies: she falls silent, as if her host had lost power")
        await dead
        self._say("server", f"drops carol: {next(iter(self._factory.journal.endings)).reason}")
        rtt = await alice.ping()
        self._say("alice", f"is alive; the server answers her own ping in {rtt * 1000:.2f} ms")
        gone = self._endOf("alice")
        await alice.close()
        await gone
        self._say("alice", "closes")
        self._summarize()

    async def _connect(self, name: str, *, ask: bool = True) -> KeepAliveClientProtocol:
        factory = KeepAliveClientFactory(clock=self._reactor)
        factory.asksForKeepAlive = ask
        self._names.append(name)
        connection = await TCP4ClientEndpoint(self._reactor, _LOOPBACK, self._port).connect(factory)
        assert isinstance(connection, KeepAliveClientProtocol)
        return await connection.whenOpen()

    def _endOf(self, name: str) -> Deferred[Exception]:
        """
        @return: fires when the server has noticed the end of a client's connection.
        """
        number = self._names.index(name) + 1
        (connection,) = (each for each in self._factory.connections if each.peer.id == number)
        return connection.whenClosed()

    def _summarize(self) -> None:
        self._write("\nThree clients, three endings:\n")
        for ending in reversed(list(self._factory.journal.endings)):
            name = self._names[ending.who.id - 1]
            self._write(f"  {name:<7} {ending.kind:<18} after {ending.duration:5.2f} s")
        self._write(
            "\nWith virsh: run twistd -n kaserver --mode=2, and in another terminal\n"
            "virsh -c test+tcp://127.0.0.1/default list"
        )


def _die(client: KeepAliveClientProtocol) -> None:
    """
    Make a client neither answer nor close, as if its machine had lost power.
    """
    client.dataReceived = _drop  # type: ignore[method-assign]


def _drop(data: bytes) -> None:
    """
    Discard data.
    """
