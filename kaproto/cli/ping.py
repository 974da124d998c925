"""
C{kaproto ping}: ping(8) for libvirt hosts.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import ClassVar, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionClosed as TransportClosed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.usage import UsageError

from kaproto.cli.command import Command, CommandFailed, ExitCode, number, wholeNumber
from kaproto.cli.freeze import freeze
from kaproto.cli.roundtrips import RoundTrips
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol, endpointFor
from kaproto.client.connection import ClientConnection
from kaproto.errors import KaprotoError, RemoteError
from kaproto.rpc.protocol import connectionOf
from kaproto.security.authfile import authenticationFor
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure

__all__ = ["Ping"]

_FASTEST: Final = 0.1
_LOST: Final = (KaprotoError, TransportClosed)
_OK, _WARNING, _CRITICAL, _UNKNOWN = range(4)
_WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


class Ping(Command):
    """
    Open a connection as virsh does, and measure how long keepalive pings take to be answered.
    """

    synopsis = "[options] URI"
    longdesc = (
        "URI is a libvirt URI such as qemu+tls://host/system, or a Twisted endpoint such as "
        "tcp:host:16509. If the server has no keepalive, calls are timed. Exits with 0 if "
        "any ping was answered, else 1; with --check as monitoring plugins do: 0 for OK, 1 "
        "warning, 2 critical, 3 unknown."
    )
    optParameters: ClassVar = [
        ["count", "c", None, "Stop after this many pings.", wholeNumber("count", 1)],
        ["interval", "i", 1.0, "Seconds between pings.", number("interval", _FASTEST)],
        ["wait", "W", 5.0, "Seconds to wait for an answer, and to open.", number("wait", 0.1)],
        ["warning", "w", None, "With --check: warn above this many ms.", number("warning")],
        ["critical", "C", None, "With --check: critical above this many ms.", number("critical")],
    ]
    optFlags: ClassVar = [
        ["quiet", "q", "Print the statistics only."],
        ["check", None, "Print one line for a monitoring system; five pings unless --count."],
        ["json", "j", "Print the statistics as a JSON object."],
        ["no-ask", None, "Do not ask for keepalive before opening: mode 2 refuses that."],
        ["freeze", None, "Stop answering once open, and report when the server closes."],
    ]

    def parseArgs(self, uri: str) -> None:  # type: ignore[override]
        """
        Take the URI.
        """
        self["uri"] = uri

    def postOptions(self) -> None:
        """
        Check the combination of options.

        @raise UsageError: when options contradict each other.
        """
        if self["freeze"] and (self["no-ask"] or self["check"]):
            raise UsageError("--freeze goes with neither --no-ask nor --check")
        if self["check"] and self["json"]:
            raise UsageError("--check prints one line for a monitoring system: leave --json out")

    async def run(self, reactor: IReactorTime) -> int:
        """
        Ping.

        @raise CommandFailed: when the server cannot be reached, or refuses.
        """
        if self["check"]:
            return await self._check(reactor)
        connection, opened = await self._open(reactor)
        if not self._silent:
            self.write(f"PING {self['uri']}: open in {_ms(opened)}, {_describe(connection)}")
        if self["freeze"]:
            return await freeze(reactor, connection, self.write)
        trips = RoundTrips()
        began = reactor.seconds()
        try:
            await self._measure(reactor, connection, trips, self["count"])
        except CancelledError:
            pass
        except _LOST as error:
            self.write(f"connection lost: {error}")
        await _close(connection)
        self._summarize(connection, trips, reactor.seconds() - began)
        return ExitCode.OK if trips.answered else ExitCode.FAILED

    @property
    def _silent(self) -> bool:
        return bool(self["quiet"] or self["json"] or self["check"])

    async def _open(self, reactor: IReactorTime) -> tuple[KeepAliveClientProtocol, float]:
        """
        @return: the connection, and the seconds it took to open.
        """
        uri, began = self["uri"], reactor.seconds()
        try:
            endpoint, name = endpointFor(reactor, uri)
            authentication = authenticationFor(uri)
        except ValueError as error:
            raise CommandFailed(str(error), ExitCode.USAGE) from error
        factory = KeepAliveClientFactory(name, clock=reactor, authentication=authentication)
        factory.asksForKeepAlive = not self["no-ask"]
        opening = Deferred.fromCoroutine(_openBy(endpoint, factory))
        try:
            connection = await opening.addTimeout(self["wait"], reactor)
        except DeferredTimeout as error:
            raise CommandFailed(f"{uri}: not open within {self['wait']:g} s") from error
        except CancelledError:
            raise
        except RemoteError as error:
            raise CommandFailed(f"{uri}: refused: {error.message}") from error
        except Exception as error:
            raise CommandFailed(f"{uri}: {error}") from error
        return connection, reactor.seconds() - began

    async def _measure(
        self,
        reactor: IReactorTime,
        connection: KeepAliveClientProtocol,
        trips: RoundTrips,
        count: int | None,
    ) -> None:
        while True:
            began = reactor.seconds()
            trips.sent += 1
            asked = _ask(reactor, connection).addTimeout(self["wait"], reactor)
            try:
                seconds = await asked
            except DeferredTimeout:
                line = f"no answer: seq={trips.sent} after {self['wait']:g} s"
            else:
                trips.add(seconds)
                line = f"answer: seq={trips.sent} time={_ms(seconds)}"
            if not self._silent:
                self.write(line)
            if trips.sent == count:
                return
            await deferLater(reactor, max(0.0, began + self["interval"] - reactor.seconds()))

    def _summarize(
        self, connection: KeepAliveClientProtocol, trips: RoundTrips, seconds: float
    ) -> None:
        if self["json"]:
            self.write(json.dumps(_object(self["uri"], connection, trips)))
            return
        self.write(f"\n--- {self['uri']} ping statistics ---")
        self.write(
            f"{trips.sent} sent, {trips.answered} answered, {trips.loss:.0%} lost, "
            f"time {seconds:.1f} s"
        )
        if trips.answered:
            figures = (trips.least, trips.average, trips.most, trips.deviation)
            shown = "/".join(f"{each * 1000:.3f}" for each in figures)
            self.write(f"rtt min/avg/max/mdev = {shown} ms")

    async def _check(self, reactor: IReactorTime) -> int:
        """
        Ping for a monitoring system, which expects one line and an exit code.
        """
        trips = RoundTrips()
        try:
            connection, _opened = await self._open(reactor)
            await self._measure(reactor, connection, trips, self["count"] or 5)
        except CommandFailed as error:
            state = _UNKNOWN if error.exitCode == ExitCode.USAGE else _CRITICAL
            return self._report(state, str(error))
        except _LOST as error:
            return self._report(_CRITICAL, f"connection lost: {error}")
        await _close(connection)
        average = trips.average * 1000
        if not trips.answered or _isAbove(average, self["critical"]):
            state = _CRITICAL
        elif trips.loss or _isAbove(average, self["warning"]):
            state = _WARNING
        else:
            state = _OK
        return self._report(
            state,
            f"{trips.answered} of {trips.sent} pings answered, {average:.3f} ms, "
            f"{_describe(connection)}|rta={average:.3f}ms;{_threshold(self['warning'])};"
            f"{_threshold(self['critical'])};0; pl={trips.loss:.0%};;;0;100",
        )

    def _report(self, state: int, text: str) -> int:
        self.write(f"KAPROTO {_WORDS[state]} - {' '.join(text.split())}")
        return state


async def _openBy(
    endpoint: IStreamClientEndpoint, factory: KeepAliveClientFactory
) -> KeepAliveClientProtocol:
    connection = await endpoint.connect(factory)
    assert isinstance(connection, KeepAliveClientProtocol)
    try:
        return await connection.whenOpen()
    except CancelledError as error:
        connectionOf(connection, ClientConnection).abort(error)
        raise


def _ask(reactor: IReactorTime, connection: KeepAliveClientProtocol) -> Deferred[float]:
    """
    @return: fires with the round-trip time, in seconds.
    """
    if connection.keepAliveSupported:
        return connection.ping()

    async def call() -> float:
        began = reactor.seconds()
        with suppress(RemoteError):  # An error is an answer too.
            await connection.call(REMOTE_PROGRAM, Procedure.AUTH_LIST)
        return reactor.seconds() - began

    return Deferred.fromCoroutine(call())


async def _close(connection: KeepAliveClientProtocol) -> None:
    if connection.isAlive():
        await connection.close()


def _describe(connection: KeepAliveClientProtocol) -> str:
    if connection.keepAliveSupported:
        return "keepalive yes"
    if connection.factory.asksForKeepAlive:
        return "keepalive no (calls are timed instead)"
    return "keepalive not asked for (calls are timed instead)"


def _object(uri: str, connection: KeepAliveClientProtocol, trips: RoundTrips) -> dict[str, object]:
    asked = connection.factory.asksForKeepAlive
    return {
        "uri": uri,
        "keepalive": connection.keepAliveSupported if asked else None,
        "sent": trips.sent,
        "answered": trips.answered,
        "loss": round(trips.loss, 4),
        "min_ms": round(trips.least * 1000, 3),
        "avg_ms": round(trips.average * 1000, 3),
        "max_ms": round(trips.most * 1000, 3),
        "mdev_ms": round(trips.deviation * 1000, 3),
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


def _isAbove(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _threshold(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
