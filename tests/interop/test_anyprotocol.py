"""
Tests for keepalive below applications that do not know about it: the examples, run as processes
over loopback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from benchmarks.processes import freePort
from tests.interop.programs import Program
from tests.interop.support import InteropTestCase, pause, reactor, together, unavailable

PROJECT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = PROJECT / "docs" / "examples" / "keepalive"
AUTOBAHN = PROJECT / "benchmarks" / "peers" / "autobahn.py"
DEATH = 3.0
"""
Seconds after which all of these declare a silent peer dead.
"""

TERMS = "interval=1:count=2"


class Case(NamedTuple):
    """
    An application's two ends.

    @ivar server: the server's arguments, without the port.
    @ivar client: the client's arguments.
    @ivar plain: the arguments of a client without keepalive.
    """

    server: Sequence[str]
    client: Sequence[str]
    plain: Sequence[str] = ()


LISTEN = "tcp:0:interface=127.0.0.1"
CONNECT = "tcp:host=127.0.0.1:port=%s"
WATCHED = {
    name: Case(
        (f"{name}_watched.py", "serve", LISTEN),
        (f"{name}_watched.py", role, CONNECT),
        (f"{name}.py", role, CONNECT),
    )
    for name, role in (("chat", "join"), ("sums", "ask"), ("records", "send"))
}
_TAKE_MODE = {case.server[0] for case in WATCHED.values()}
TUNNELED = {
    name: Case(
        (f"{name}.py", serve, f"keepalive:{LISTEN}:policy=%s:{TERMS}"),
        (f"{name}.py", role, f"keepalive:{CONNECT}:{TERMS}"),
        (f"{name}.py", role, CONNECT),
    )
    for name, serve, role in (
        ("chat", "serve", "join"),
        ("sums", "serve", "ask"),
        ("records", "serve", "send"),
        ("jobs", "master", "worker"),
    )
}


QUIET_JOBS = TUNNELED["jobs"]._replace(
    client=("jobs.py", "worker", f"keepalive:{CONNECT}:interval=0")
)
"""
A worker that answers its master's pings, and sends none.
"""

TICKER = Case(
    ("ticker_watched.py", "serve", LISTEN),
    ("ticker_watched.py", "read", "ws://127.0.0.1:%s/ticker"),
    ("ticker.py", "read", "ws://127.0.0.1:%s/ticker"),
)

STALLING = """
import runpy, signal, sys, time
from twisted.internet import reactor

def stall(seconds, *more):
    time.sleep(seconds)
    if more:
        reactor.callLater(0, stall, *more)
    else:
        print("stalled", flush=True)

signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(stall, 5, 3))
reactor.callWhenRunning(print, "running", flush=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""
Runs a script whose reactor SIGUSR1 blocks for five seconds, then for three.
"""

ANSWERING = """
import sys
from importlib import import_module
from pathlib import Path
from twisted.internet.task import react
from kaproto import KeepAlive

module = import_module(Path(sys.argv[1]).stem)
module.KEEPALIVE = KeepAlive(0, 0)
react(module.main, sys.argv[2:])
"""
"""
Runs an example that answers pings, and sends none.
"""


class AnyProtocolTestCase(InteropTestCase):
    """
    Runs applications as processes.
    """

    tools = ()

    def run_(self, arguments: Sequence[str], *, runner: str = "") -> Program:
        """
        Start an example.

        @param runner: Python code that runs the script; C{""} to run it directly.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(PROJECT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        script, *rest = arguments
        command = [sys.executable, *(["-c", runner] if runner else []), str(EXAMPLES / script)]
        return Program.start(self, [*command, *rest], environment, self.privateDirectory())

    async def serve(
        self, arguments: Sequence[str], mode: str, *, runner: str = ""
    ) -> tuple[Program, str]:
        """
        Start a server.

        @return: the process and its port.
        """
        filled = [each % mode if "%s" in each else each for each in arguments]
        if arguments[0] in _TAKE_MODE:
            filled.append(mode)
        server = self.run_(filled, runner=runner)
        found = await server.waitOutput(r"listening on .*port=(\d+)")
        return server, found[1]

    def client(self, arguments: Sequence[str], port: str, *, runner: str = "") -> Program:
        """
        Start a client.
        """
        filled = [each % port if "%s" in each else each for each in arguments]
        return self.run_(filled, runner=runner)

    def assertNotLost(self, *programs: Program) -> None:
        """
        Check that no program has lost a connection or ended.
        """
        for each in programs:
            self.assertNotIn("lost:", each.output)
            self.assertTrue(each.running, each.output)


class LifeTests(AnyProtocolTestCase):
    """
    Tests for idle and stopped peers, and for clients without keepalive.
    """

    async def lives(self, case: Case) -> None:
        """
        A server and two clients stay connected while idle.  When one client is stopped, the server
        finds it dead; when the server is stopped, the other client finds it dead.
        """
        server, port = await self.serve(case.server, "2")
        clients = [self.client(case.client, port) for _ in range(2)]
        for client in clients:
            await client.waitOutput("connected|heard", timeout=20)
        await pause(DEATH + 1.5)
        self.assertNotLost(server, *clients)
        await self.finds(server, clients[0])
        await self.finds(clients[1], server)

    async def finds(self, program: Program, victim: Program) -> None:
        """
        Stop a process, and check that another finds it dead in time.
        """
        os.kill(victim.pid, signal.SIGSTOP)
        begun = monotonic()
        await program.waitOutput("lost:", timeout=DEATH + 3)
        took = monotonic() - begun
        # The last message arrived up to an interval before the stop.
        self.assertTrue(DEATH - 1.2 < took < DEATH + 1, took)

    async def test_lives(self) -> None:
        """
        Idle peers stay connected and stopped ones are found dead in time, with lines, AMP,
        netstrings and WebSockets in a wrapper, with lines that have their own heartbeat, and with
        Perspective Broker in a tunnel.
        """
        heartbeat = Case(
            ("chat_heartbeat.py", "serve", LISTEN), ("chat_heartbeat.py", "join", CONNECT)
        )
        cases = [*WATCHED.values(), TUNNELED["jobs"], heartbeat, TICKER]
        await together(*map(self.lives, cases))

    async def test_modesAndStalls(self) -> None:
        """
        Clients without keepalive are refused in mode 2 and served in mode 1.  A server that stalls
        kills no healthy client.
        """
        # All are mostly waiting.
        await together(self._refused(), self._served(), self._stalled())

    async def _stalled(self) -> None:
        """
        A server blocked for five seconds and then for three, with one turn of the reactor in
        between, disconnects no healthy client with any of these.  Autobahn, with the same interval
        and a timeout of 2 seconds, disconnects its client: the ping of that turn is not sent until
        the next turn, when its timeout is over.
        """

        async def stalls(server: Program, client: Program) -> None:
            await client.waitOutput("connected|heard", timeout=20)
            await pause(1.5)
            server.signal(signal.SIGUSR1)
            await server.waitOutput("stalled", timeout=20)

        async def survives(case: Case, runner: str = "") -> None:
            server, port = await self.serve(case.server, "2", runner=STALLING)
            client = self.client(case.client, port, runner=runner)
            await stalls(server, client)
            await pause(DEATH + 1)
            self.assertNotLost(server, client)

        async def kills() -> None:
            port = str(freePort())
            server = self.run_([str(AUTOBAHN), port, "1", "2"], runner=STALLING)
            await server.waitOutput("running", timeout=20)
            client = self.client(TICKER.plain, port)
            await stalls(server, client)
            await client.waitOutput("lost:", timeout=DEATH + 3)

        if find_spec("autobahn") is None:
            unavailable("autobahn is not installed")
        await together(
            *(survives(case, ANSWERING) for case in WATCHED.values()),
            survives(QUIET_JOBS),
            survives(TICKER._replace(client=TICKER.plain)),
            kills(),
        )

    async def _refused(self) -> None:
        """
        Mode 2 refuses a client without keepalive, and the application never sees it.
        """

        async def refused(case: Case) -> None:
            server, port = await self.serve(case.server, "2")
            client = self.client(case.plain, port)
            # A client that sends nothing by itself is refused after ten seconds.
            await client.waitOutput("lost:|Traceback|ConnectionDone", timeout=20)
            self.assertNotRegex(server.output, "connected|heard")

        cases = [*WATCHED.values(), *TUNNELED.values()]
        # A Perspective Broker call does not report the loss of its connection.
        cases.remove(TUNNELED["jobs"])
        await together(*map(refused, cases))

    async def _served(self) -> None:
        """
        Mode 1 serves a client without keepalive.
        """

        async def served(case: Case) -> None:
            server, port = await self.serve(case.server, "1")
            client = self.client(case.plain, port)
            await client.waitOutput("heard", timeout=15)
            self.assertIn("connected", server.output)

        await together(
            *map(
                served,
                [
                    each
                    for each in (*WATCHED.values(), *TUNNELED.values())
                    if "join" not in each.client
                ],
            )
        )


class TwistdTests(AnyProtocolTestCase):
    """
    Tests for C{twistd}'s own servers behind a tunnel, without any code.
    """

    def pages(self) -> str:
        """
        @return: a folder with an index page.
        """
        folder = self.privateDirectory()
        Path(folder, "index.html").write_text("welcome")
        return folder

    async def fetched(self, place: str) -> str:
        """
        @return: a web server's response, C{""} if it closes.
        """
        endpoint = clientFromString(reactor, place)
        fetch = await endpoint.connect(Factory.forProtocol(Fetch))
        assert isinstance(fetch, Fetch)
        answer: bytes = await fetch.answer
        return answer.decode()

    async def test_web(self) -> None:
        """
        The web server answers clients through a tunnel.  Mode 1 serves plain clients, mode 2
        refuses them.
        """
        folder = self.pages()

        async def serves(mode: str, *, isPlainServed: bool) -> None:
            listen = f"keepalive:{LISTEN}:policy={mode}:{TERMS}"
            arguments = ("-m", "twisted", "web", f"--listen={listen}", f"--path={folder}")
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            server = Program.start(self, [sys.executable, *arguments], environment, folder)
            port = (await server.waitOutput(r"starting on (\d+)", timeout=20))[1]
            place = f"tcp:127.0.0.1:{port}"
            self.assertIn("welcome", await self.fetched(f"keepalive:{place}"))
            self.assertEqual("welcome" in await self.fetched(place), isPlainServed)

        await together(serves("1", isPlainServed=True), serves("2", isPlainServed=False))


class Fetch(Protocol):
    """
    Requests the index page of a web server.
    """

    def connectionMade(self) -> None:
        """
        Send the request.
        """
        assert self.transport is not None
        self.answer: Deferred[bytes] = Deferred()
        self._heard = b""
        self.transport.write(b"GET / HTTP/1.0\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        """
        Collect the response.
        """
        self._heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fire C{answer} with the response.
        """
        self.answer.callback(self._heard)
