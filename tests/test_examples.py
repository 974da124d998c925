"""
Tests that the examples in the documentation and the README run, and do what the pages say.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import date
from importlib import import_module
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.domain import DOMAIN
from kaproto.backends.host import EmbeddedHost
from kaproto.client import connect
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Mandatory
from kaproto.rpc.negotiation import TRANSITIONS
from kaproto.server import KeepAliveServerFactory
from tests.interop.programs import Program
from tests.interop.servers import LibvirtDaemon
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
EXAMPLES = DOCS / "examples"
POLICY = EXAMPLES / "rollout"


class ReadmeTests(SynchronousTestCase):
    """
    Tests for the README's example.
    """

    def test_client(self) -> None:
        """
        The client in the README is C{client.py}, which is tested below.
        """
        readme = (PROJECT / "README.md").read_text()
        self.assertIn(f"```python\n{(EXAMPLES / 'client.py').read_text()}```", readme)


class ScriptTestCase(InteropTestCase):
    """
    Base class for tests that run scripts as processes, over loopback sockets.
    """

    tools: tuple[str, ...] = ()

    def runExample(self, script: str, *arguments: str) -> Program:
        """
        Start an example.
        """
        return self.runPython(str(EXAMPLES / script), *arguments)

    def runPython(self, *arguments: str, path: str = "") -> Program:
        """
        Start a Python that imports kaproto from where this one does.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [path, str(PROJECT)])),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, *arguments]
        return Program.start(self, command, environment, self.privateDirectory())

    async def serve(self) -> tuple[KeepAliveServerFactory, str]:
        """
        Serve an embedded host from this process.

        @return: the factory, and the URI for clients.
        """
        factory = KeepAliveServerFactory(Mandatory(), EmbeddedHost())
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(factory.drain)
        self.addCleanup(factory.abort)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return factory, f"test+tcp://127.0.0.1:{address.port}/default"


class ScriptTests(ScriptTestCase):
    """
    Tests for the scripts.
    """

    async def test_scripts(self) -> None:
        """
        Every script does what its page says.
        """
        await together(
            self._feed(),
            self._client(),
            self._reconnecting(),
            self._people(),
            self._oneConnection(),
            self._testing(),
        )

    async def _feed(self) -> None:
        """
        The feed's client prints the server's readings, and says so when the server has exited.
        """
        server = self.runExample("feed_server.py", "tcp:0:interface=127.0.0.1")
        port = (await server.waitOutput(r"port=(\d+)"))[1]
        client = self.runExample("feed_client.py", f"tcp:127.0.0.1:{port}")
        await client.waitOutput(r"(load: \d+\n){2}")
        await server.kill()
        result = await client.finish()
        self.assertRegex(result.output, "the feed ended: ")
        self.assertEqual(result.exitCode, 0, result)

    async def _client(self) -> None:
        """
        The client of ten lines opens where keepalive is mandatory, and prints the host name.
        """
        factory, uri = await self.serve()
        client = self.runExample("client.py", uri)
        result = await client.finish()
        self.assertEqual(result.output, f"{EmbeddedHost().hostname}\n", result)
        self.assertEqual(result.exitCode, 0, result)
        self.assertEqual(factory.counters.opened, 1)

    async def _reconnecting(self) -> None:
        """
        The reconnecting client connects again after its connection was closed.
        """
        factory, uri = await self.serve()
        client = self.runExample("reconnecting.py", uri)
        await client.waitOutput("connected to .*\n$")
        factory.abort()
        await client.waitOutput("connected to .*\nlost it: .*\nconnected to ")
        await waitUntil(lambda: factory.connections, "the second connection")

    async def _people(self) -> None:
        """
        The examples that use domains, more procedures, asyncio and threads print the host's
        answers.
        """
        hostname = EmbeddedHost().hostname

        async def prints(script: str, expected: str) -> None:
            factory, uri = await self.serve()
            for each in (uri, uri.replace("127.0.0.1", "localhost")):
                result = await self.runExample(script, each).finish(30)
                self.assertEqual((result.output, result.exitCode), (expected, 0), result)
            self.assertEqual(factory.counters.opened, 2)

        await together(
            prints("domains.py", f"test {DOMAIN.uuid} RUNNING\ntest SUSPENDED\ntest RESUMED\n"),
            prints("more_calls.py", "secure: False, test starts by itself: False\n"),
            prints("asyncio_client.py", f"{hostname}\nRUNNING\n"),
            prints("threads_client.py", f"{hostname}\nSUSPENDED RESUMED\n"),
        )

    async def _oneConnection(self) -> None:
        """
        The reconnecting client keeps its one connection to a healthy server for five seconds.
        """
        factory, uri = await self.serve()
        client = self.runExample("reconnecting.py", uri)
        await client.waitOutput("connected to .*\n$")
        await pause(5)
        self.assertEqual(len(factory.connections), 1)
        self.assertEqual(factory.counters.opened, 1)
        self.assertNotIn("lost it", client.output)

    async def _testing(self) -> None:
        """
        The example that tests an application passes.
        """
        command = ["-m", "twisted.trial", "--temp-directory=trial", "test_feed"]
        trial = self.runPython(*command, path=str(EXAMPLES))
        result = await trial.finish(timeout=30)
        self.assertRegex(result.output, r"PASSED \(successes=4\)")


class WatchHostsTests(ScriptTestCase):
    """
    Tests for the script that watches hosts, two of them real libvirtds.
    """

    tools = ("libvirtd",)

    async def test_fiveHosts(self) -> None:
        """
        The script prints which hosts are up and down, their latency, and their domains' events;
        when a host returns, it says that events may have been missed.
        """
        daemons = [await LibvirtDaemon.start(self) for _ in range(2)]
        served = [await self.serve() for _ in range(3)]
        uris = [each.unixURI for each in daemons] + [uri for _factory, uri in served]
        watching = self.runExample("watch_hosts.py", *uris)
        for uri in uris:
            await watching.waitOutput(rf"{re.escape(uri)} test is running\n")
            domain = await (await connect(reactor, uri)).domainByName("test")
            await domain.suspend()
            await watching.waitOutput(rf"{re.escape(uri)} test suspended\n")
            await domain.connection.close()
        for uri in uris:
            await watching.waitOutput(rf"{re.escape(uri)} answers in \d+\.\d ms\n")
        await daemons[0].kill()
        (factory, uri) = served[0]
        factory.abort()
        lost, returned = map(re.escape, (uris[0], uri))
        await watching.waitOutput(rf"{lost} down: ")
        await watching.waitOutput(rf"{returned} down: [^$]*{returned} up\n")
        await watching.waitOutput(rf"{returned} may have missed what happened in \d+\.\d s\n")
        await watching.waitOutput(rf"{returned} test is paused\n")
        await watching.waitOutput(rf"{lost} is down\n")
        await daemons[0].restart()
        await watching.waitOutput(rf"{lost} is down\n[^$]*{lost} test is running\n")


def load(folder: Path, name: str) -> ModuleType:
    """
    @return: a module from a folder that is not in C{sys.path}.
    """
    with patch.object(sys, "path", [str(folder), *sys.path]):
        return import_module(name)


class PolicyTests(SynchronousTestCase):
    """
    Tests for the example policy.
    """

    def setUp(self) -> None:
        """
        Create the policy as the command line would.
        """
        self.example = load(POLICY, "rollout").Rollout()
        self.policy = self.example.configured("2027-03-01", KeepAlive(7, 3))

    def admit(self, day: str, *, asked: bool) -> Admission | Refused:
        """
        @return: the policy's answer to a client on this day.
        """
        policy = attrs.evolve(self.policy, today=lambda: date.fromisoformat(day))
        answer: Admission | Refused = policy.admit(Peer(asked=asked))
        return answer

    def test_asked(self) -> None:
        """
        A client that has asked for keepalive is admitted on any day, and pinged.
        """
        for day in ("2027-02-28", "2027-03-01"):
            self.assertEqual(self.admit(day, asked=True), ADMITTED)
        self.assertEqual(self.policy.keepAlive(Peer()), KeepAlive(7, 3))

    def test_before(self) -> None:
        """
        Before the date, a client that has not asked is admitted with a warning that names the date.
        """
        answer = self.admit("2027-02-28", asked=False)
        assert isinstance(answer, Admission)
        self.assertIn("mandatory from 2027-03-01", str(answer.warning))

    def test_after(self) -> None:
        """
        From the date on, a client that has not asked is refused.
        """
        self.assertIsInstance(self.admit("2027-03-01", asked=False), Refused)

    def test_argument(self) -> None:
        """
        The argument must be a date: without one, or with another text, there is an error.
        """
        for argument in (None, "", "soon"):
            self.assertRaises(ValueError, self.example.configured, argument, KeepAlive())


def follow(lines: list[str], row: int, column: int) -> int:
    """
    Follow a line of the drawing from here to the right, and then up or down.

    @return: the row of the box that the line leads to.
    """
    while lines[row][column] in "-|":
        column += 1
    ends = [row]
    for step in (-1, 1):
        each = row + step
        while 0 <= each < len(lines) and lines[each][column : column + 1] in ("|", "+"):
            if lines[each][column] == "+":
                ends.append(each)
            each += step
    (arrival,) = (each for each in ends if "|<-" in lines[each])
    return arrival


def readDrawing(drawing: str) -> dict[str, dict[str, str]]:
    """
    @return: the transition table that the drawing shows.
    """
    lines = drawing.splitlines()
    boxes: dict[int, str] = {}
    for row, line in enumerate(lines):
        if (box := re.match(r"\|( +(\w+) +| +)\|", line)) is not None:
            boxes[row] = box[2] or boxes[row - 1]
    table: dict[str, dict[str, str]] = {state: {} for state in boxes.values()}
    for row, state in boxes.items():
        if (side := re.search(r"\|-- (.*?) -", lines[row])) is not None:
            after = boxes[follow(lines, row, side.end() - 1)]
            table[state].update(dict.fromkeys(side[1].split(", "), after))
    for row, line in enumerate(lines):
        if (down := re.match(r" +\| ([a-z][a-z, ]*?)(  |$)", line)) is not None:
            before = boxes[max(each for each in boxes if each < row)]
            after = boxes[min(each for each in boxes if each > row)]
            table[before].update(dict.fromkeys(down[1].split(", "), after))
    return table


class DrawingTests(SynchronousTestCase):
    """
    Tests for the documentation's drawing of a connection's phases.
    """

    def setUp(self) -> None:
        """
        Draw the phases.
        """
        self.drawing: str = load(DOCS, "generate").drawHandshake()

    def test_tellsTheTable(self) -> None:
        """
        The drawing's lines show the same transitions as the server's table.
        """
        table = {
            phase.value: {event.value: after.value for event, after in events.items()}
            for phase, events in TRANSITIONS.items()
        }
        self.assertEqual(readDrawing(self.drawing), table)

    def test_narrow(self) -> None:
        """
        The drawing fits on a page.
        """
        self.assertLessEqual(max(map(len, self.drawing.splitlines())), 100)
