"""
Tests that subclasses of the two protocols may use any names, and need not call C{super()}.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import ConnectionClosed, KeepAliveTimeout
from kaproto.keepalive.liveness import KeepAlive
from kaproto.program import Program, procedure
from kaproto.rpc.connection import Connection
from kaproto.rpc.protocol import KeepAliveProtocol
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import ConnectedPair
from kaproto.wire.message import PING
from tests.support import ClockTestCase, FakeBackend, Probe

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "protocols.rst"

PUBLIC_MAX = 25
"""
The most public names that each of the two protocols may have.
"""

TAKEN = (
    "connectionMade",
    "connectionLost",
    "dataReceived",
    "makeConnection",
    "handshakeCompleted",
    "fileDescriptorReceived",
)
"""
The methods that the transport calls.
"""

BOTH = (KeepAliveServerProtocol, KeepAliveClientProtocol)


def publicNames(kind: type) -> set[str]:
    """
    @return: the names that a subclass inherits and could define by mistake.
    """
    return {
        *(name for name in dir(kind) if not name.startswith("_")),
        *(
            name
            for each in kind.__mro__
            for name in inspect.get_annotations(each)
            if name[0] != "_"
        ),
    }


class NamesTests(ClockTestCase):
    """
    Tests for the names of the two protocols.
    """

    def test_few(self) -> None:
        """
        The number of public names is limited, including the eight of Twisted's own, and every
        private name contains C{kaproto}.
        """
        for kind in BOTH:
            names = publicNames(kind)
            self.assertLessEqual(len(names), PUBLIC_MAX, sorted(names))
            self.assertEqual(len(names & publicNames(Protocol)), 8)
            private = {name for name in dir(kind) if re.match("_[a-z]", name)}
            self.assertEqual({name for name in private if "kaproto" not in name.lower()}, set())

    def test_documented(self) -> None:
        """
        The reference documents exactly the public names.
        """
        page = REFERENCE.read_text("utf-8")
        for kind in BOTH:
            table = page.partition(f"{kind.__name__}\n---")[2].partition("\n\n\n")[0]
            listed = set(re.findall(r"^   \* - ``(\w+)", table, re.MULTILINE))
            self.assertEqual(listed, publicNames(kind) - publicNames(Protocol), kind)

    def test_taken(self) -> None:
        """
        A subclass that overrides a method the transport calls is refused when its class is created.
        The error has the class, the method and what to use instead; a mixin makes no difference.
        """
        for kind in BOTH:
            for name in TAKEN:
                mixin = type("Mixin", (), {name: lambda *_: None})
                for bases, members in (((kind,), {name: None}), ((mixin, kind), {})):
                    with self.assertRaisesRegex(
                        TypeError, rf"Mine defines {name}, which {kind.__name__} .*\. Use \w+"
                    ):
                        type("Mine", bases, members)

    def test_subclassOfSubclass(self) -> None:
        """
        A subclass of a subclass is refused as well.
        """

        class Mine(KeepAliveServerProtocol):
            color = "red"

        with self.assertRaisesRegex(TypeError, "Hers defines connectionLost"):
            type("Hers", (Mine,), {"connectionLost": None})

    def test_everyNameIsFree(self) -> None:
        """
        A subclass may use every internal name of the connection, with any value, and keepalive
        works.
        """
        inside = {
            name
            for kind in (Connection, ServerConnection)
            for name in (*dir(kind), *kind.__slots__)
            if not name.startswith("__")
        }
        others = {
            "_log",
            "_open",
            "_closed",
            "_reason",
            "_session",
            "_state",
            "ping",
            "beat",
            "slot",
        }
        names = (inside | others) - publicNames(KeepAliveServerProtocol)
        self.assertGreater(len(names), 50)
        self.assertGoesOn(type("Mine", (KeepAliveServerProtocol,), dict.fromkeys(names, 17)))

    def test_publicNamesAreFree(self) -> None:
        """
        A subclass may use every public name, except those the transport calls and Twisted's own.
        """
        names = publicNames(KeepAliveServerProtocol) - publicNames(Protocol) - {*TAKEN}
        hooks = {"connectionOpened", "connectionClosed"}
        members: dict[str, Any] = dict.fromkeys(names - hooks, 17)
        self.assertGoesOn(type("Mine", (KeepAliveServerProtocol,), members))

    def pinging(
        self, kind: type[KeepAliveServerProtocol], *programs: Program
    ) -> ConnectedPair[Any, Any]:
        """
        Connect a client to a server of this class, which pings it once a second.
        """
        factory = KeepAliveServerFactory(2, FakeBackend(), [Probe(), *programs], clock=self.clock)
        factory.policy = factory.policy.configured(None, KeepAlive(1, 3))
        factory.protocol = kind
        pair = self.pair(factory, KeepAliveClientFactory(clock=self.clock))
        self.assertTrue(pair.client.isAlive())
        return pair

    def assertGoesOn(
        self, kind: type[KeepAliveServerProtocol], *programs: Program
    ) -> ConnectedPair[Any, Any]:
        """
        Check that a healthy client is pinged 20 times in 20 seconds, and stays connected.
        """
        pair = self.pinging(kind, *programs)
        pair.advance(20.5)
        pings = [data for _, data in pair.writtenBy("server") if data == PING]
        self.assertEqual(len(pings), 20)
        self.assertTrue(pair.client.isAlive())
        return pair

    def test_ping(self) -> None:
        """
        A subclass may have a method C{ping}.
        """

        class Device(KeepAliveServerProtocol):
            def ping(self) -> str:
                return "the device behind this client"

        self.assertGoesOn(Device)

    def test_beat(self) -> None:
        """
        A subclass may have a method C{beat}.
        """

        class Metronome(KeepAliveServerProtocol):
            def beat(self, tempo: float) -> float:
                return 60 / tempo

        self.assertGoesOn(Metronome)

    def test_closed(self) -> None:
        """
        If a subclass defines C{closed}, or the hook without calling super, the session is still
        closed and a dead client counted.
        """

        class Forgetful(KeepAliveServerProtocol):
            reasons: list[Exception] = []  # noqa: RUF012

            def closed(self, reason: Exception) -> None:
                raise AssertionError(reason)

            def connectionClosed(self, reason: Exception) -> None:
                self.reasons.append(reason)

        pair = self.assertGoesOn(Forgetful)
        session = pair.server.session
        pair.blackhole()
        pair.advance(5)
        (reason,) = Forgetful.reasons
        self.assertIsInstance(reason, KeepAliveTimeout)
        self.assertEqual(pair.server.factory.counters.dead, 1)
        self.assertEqual(session.reasons, [reason])
        self.assertEqual(pair.server.factory.connections, [])

    def test_procedures(self) -> None:
        """
        A program whose procedures have the names of its own attributes works, or is refused when
        its class is created.
        """
        for name in ("version", "number", "knows", "callReceived"):

            def answer(self: object, connection: object, payload: bytes) -> bytes:
                return b"answered"

            members = {"number": 0x30000000, name: procedure(1)(answer)}
            try:
                kind = type("Mine", (Program,), members)
            except TypeError as error:
                self.assertIn("Mine", str(error))
                self.assertIn(name, str(error))
                continue
            pair = self.assertGoesOn(KeepAliveServerProtocol, kind())
            called = pair.client.call(0x30000000, 1)
            pair.flush()
            self.assertEqual(self.successResultOf(called), b"answered")


class HooksTests(ClockTestCase):
    """
    Tests for the hooks of a subclass.
    """

    def setUp(self) -> None:
        """
        Create a list of the hooks called.
        """
        super().setUp()
        self.events: list[str] = []

    def connect(self, **hooks: Any) -> ConnectedPair[Any, Any]:
        """
        Connect protocols that record their hooks.

        @param hooks: further actions, by name.
        """
        events = self.events

        def kind(name: str, base: type[KeepAliveProtocol]) -> Any:
            def connectionOpened(self: KeepAliveProtocol) -> None:
                events.append(f"{name} opened")
                hooks.get(f"{name}Opened", lambda: None)()

            def connectionClosed(self: KeepAliveProtocol, reason: Exception) -> None:
                events.append(f"{name} closed: {reason}")

            return type(
                name,
                (base,),
                {"connectionOpened": connectionOpened, "connectionClosed": connectionClosed},
            )

        server = KeepAliveServerFactory(hooks.get("mode"), clock=self.clock)
        client = KeepAliveClientFactory(clock=self.clock)
        client.asksForKeepAlive = "mode" not in hooks
        server.protocol = kind("server", KeepAliveServerProtocol)
        client.protocol = kind("client", KeepAliveClientProtocol)
        return self.pair(server, client)

    def test_openedAndClosed(self) -> None:
        """
        On each end, C{connectionOpened} is called once, and C{connectionClosed} once with the
        reason.
        """
        pair = self.connect()
        self.assertEqual(self.events, ["server opened", "client opened"])
        pair.client.close()
        pair.flush()
        self.assertEqual(
            sorted(self.events[2:]),
            [
                "client closed: this client closed the connection",
                "server closed: the client closed the connection",
            ],
        )

    def test_neverOpened(self) -> None:
        """
        For a connection that never opens, only C{connectionClosed} is called.
        """
        self.connect(mode=2)
        self.assertEqual(
            [each.split(":")[0] for each in self.events], ["server closed", "client closed"]
        )

    def test_beforeWhenClosed(self) -> None:
        """
        C{connectionClosed} is called before C{whenClosed} fires.
        """
        pair = self.connect()
        pair.server.whenClosed().addCallback(lambda _: self.events.append("told"))
        pair.server.abort(ConnectionClosed("enough"))
        pair.flush()
        own = [each for each in self.events if not each.startswith("client")]
        self.assertEqual(own, ["server opened", "server closed: enough", "told"])

    def test_openedFails(self) -> None:
        """
        An error in C{connectionOpened} is logged, and closes the connection.
        """
        pair = self.connect(serverOpened=lambda: 1 / 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("server closed: division by zero", self.events)
        self.assertFalse(pair.client.isAlive())
