"""
Tests for the C{kaproto} command: pings to real servers, and the demo.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, ServerFactory
from twisted.trial.unittest import TestCase

from kaproto.cli.command import Command, CommandFailed
from kaproto.cli.demo import Demo
from kaproto.cli.ping import Ping
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Disable, Mandatory, Policy
from kaproto.server import KeepAliveServerFactory
from tests.interop.programs import Program
from tests.interop.servers import LibvirtDaemon
from tests.interop.support import InteropTestCase, reactor, waitUntil


class Mute(Disable):
    """
    A policy that does not offer keepalive.
    """

    def advertises(self, peer: object) -> bool:
        """
        @return: C{False}.
        """
        return False


class CommandTestCase(TestCase):
    """
    A test of a command in this process, with servers on loopback.
    """

    timeout = 30

    def listen(self, factory: Factory) -> str:
        """
        Listen on a loopback port.

        @return: the endpoint to connect to.
        """
        port = reactor.listenTCP(0, cast(ServerFactory, factory), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return f"tcp:127.0.0.1:{address.port}"

    def serve(self, policy: Policy) -> tuple[KeepAliveServerFactory, str]:
        """
        Start a server.

        @return: the server, and the endpoint to connect to.
        """
        factory = KeepAliveServerFactory(policy, clock=reactor)
        endpoint = self.listen(factory)
        self.addCleanup(self.disconnectAll, factory)
        return factory, endpoint

    async def disconnectAll(self, factory: KeepAliveServerFactory) -> None:
        """
        Disconnect the remaining clients.
        """
        factory.abort()
        await waitUntil(lambda: not factory.connections, "no connection")

    async def run_(self, command: Command, *arguments: str) -> tuple[int, list[str]]:
        """
        Run a command.

        @return: its exit code, and the lines it printed.
        """
        lines: list[str] = []
        command.write = lines.append
        command.parseOptions(arguments)
        return await command.run(reactor), lines


class PingTests(CommandTestCase):
    """
    Tests for C{kaproto ping}.
    """

    async def test_ping(self) -> None:
        """
        Each answer is printed, then the statistics.
        """
        _factory, endpoint = self.serve(Mandatory())
        code, lines = await self.run_(Ping(), "--count=3", "--interval=0.1", endpoint)
        self.assertEqual(code, 0)
        first, *answers, _blank, total, rtt = lines
        self.assertRegex(first, rf"^PING {endpoint}: open in [\d.]+ ms, keepalive yes$")
        for number, line in enumerate(answers, 1):
            self.assertRegex(line, rf"^answer: seq={number} time=[\d.]+ ms$")
        self.assertRegex(total, r"^3 sent, 3 answered, 0% lost, time 0\.[2-9] s$")
        self.assertRegex(rtt, r"^rtt min/avg/max/mdev = ([\d.]+/){3}[\d.]+ ms$")
        self.assertEqual(_blank, f"\n--- {endpoint} ping statistics ---")

    async def test_json(self) -> None:
        """
        With C{--json} the statistics are printed as an object.
        """
        _factory, endpoint = self.serve(Mandatory())
        _code, (line,) = await self.run_(Ping(), "--json", "-c1", endpoint)
        found = json.loads(line)
        self.assertEqual((found["uri"], found["keepalive"]), (endpoint, True))
        self.assertEqual((found["sent"], found["answered"], found["loss"]), (1, 1, 0))
        self.assertLessEqual(found["min_ms"], found["avg_ms"])

    async def test_withoutKeepAlive(self) -> None:
        """
        With a server without keepalive, or with C{--no-ask}, calls are timed instead of pings.
        """
        _factory, endpoint = self.serve(Mute())
        code, lines = await self.run_(Ping(), "-c1", endpoint)
        self.assertEqual(code, 0)
        self.assertIn("keepalive no (calls are timed instead)", lines[0])
        _code, lines = await self.run_(Ping(), "-c1", "--no-ask", "--quiet", endpoint)
        self.assertEqual(lines[1], "1 sent, 1 answered, 0% lost, time 0.0 s")
        _code, lines = await self.run_(Ping(), "-c1", "--no-ask", endpoint)
        self.assertIn("keepalive not asked for", lines[0])

    async def test_noAsk(self) -> None:
        """
        Mode 2 refuses a client that does not ask for keepalive, and its message is printed.
        """
        _factory, endpoint = self.serve(Mandatory())
        error = await self.assertFailure(
            Deferred.fromCoroutine(self.run_(Ping(), "--no-ask", endpoint)), CommandFailed
        )
        self.assertIn("refused: operation failed: this server requires keepalive", str(error))

    async def test_freeze(self) -> None:
        """
        With C{--freeze} the client stops answering; the server's pings and the reason of its close
        are printed.
        """
        _factory, endpoint = self.serve(Mandatory(KeepAlive(0.2, 2)))
        code, lines = await self.run_(Ping(), "--freeze", endpoint)
        self.assertEqual(code, 0)
        self.assertEqual(
            [re.sub(r"^ *[\d.]+ s  ", "", line) for line in lines[1:]],
            [
                "this client answers no more",
                "the server pings",
                "the server pings",
                "the server closed the connection because of a keepalive timeout",
            ],
        )

    async def test_unanswered(self) -> None:
        """
        Unanswered pings are reported as lost.  If none is answered the command fails.
        """
        factory, endpoint = self.serve(Mandatory())
        lines: list[str] = []

        def write(line: str) -> None:
            lines.append(line)
            for connection in factory.connections:
                connection._kaproto.transport.pauseProducing()
            if "no answer: seq=2" in line:
                # Or the client, which closes now, would wait for the server to notice.
                factory.abort()

        command = Ping()
        command.write = write
        command.parseOptions(["-c2", "-i0.1", "--wait=0.2", endpoint])
        self.assertEqual(await command.run(reactor), 1)
        self.assertIn("no answer: seq=2 after 0.2 s", lines)
        self.assertIn("2 sent, 0 answered, 100% lost", lines[-1])

    async def test_lost(self) -> None:
        """
        When the server closes, the reason and the statistics are printed.
        """
        factory, endpoint = self.serve(Mandatory())
        command = Ping()
        lines: list[str] = []
        command.write = lines.append
        command.parseOptions(["-i0.1", endpoint])
        running = Deferred.fromCoroutine(command.run(reactor))
        await waitUntil(lambda: len(lines) > 2, "two answers")
        await factory.drain()
        self.assertEqual(await running, 0)
        self.assertIn(
            "connection lost: the server closed the connection because of end of file", lines
        )
        self.assertIn("rtt min", lines[-1])

    async def test_interrupted(self) -> None:
        """
        The statistics are printed when the user interrupts.
        """
        factory, endpoint = self.serve(Mandatory())
        command = Ping()
        lines: list[str] = []
        command.write = lines.append
        command.parseOptions(["--quiet", endpoint])
        running = Deferred.fromCoroutine(command.run(reactor))
        await waitUntil(lambda: factory.counters.opened, "it is open")
        reactor.callLater(0.2, running.cancel)
        self.assertEqual(await running, 0)
        self.assertIn("rtt", lines[-1])

    async def test_interruptedWhileFrozen(self) -> None:
        """
        A frozen ping can be interrupted before the server closes.
        """
        _factory, endpoint = self.serve(Disable())
        command = Ping()
        lines: list[str] = []
        command.write = lines.append
        command.parseOptions(["--freeze", endpoint])
        running = Deferred.fromCoroutine(command.run(reactor))
        await waitUntil(lambda: len(lines) == 2, "it is frozen")
        running.cancel()
        self.assertEqual(await running, 1)
        self.assertIn("interrupted before the server closed", lines[-1])

    async def test_cannot(self) -> None:
        """
        The error says why it could not open: an invalid URI, no listener, or a server that does not
        answer.
        """
        silent = self.listen(Factory.forProtocol(Protocol))
        for uri, words, exitCode in [
            ("qemu+udp://host/system", "is not one of tcp, tls, unix", 2),
            ("tcp:127.0.0.1:1", "Connection was refused", 1),
            (silent, "not open within 0.2 s", 1),
        ]:
            running = Deferred.fromCoroutine(self.run_(Ping(), "--wait=0.2", uri))
            error = await self.assertFailure(running, CommandFailed)
            self.assertIn(words, str(error))
            self.assertEqual(getattr(error, "exitCode", None), exitCode)

    async def test_interruptedOpening(self) -> None:
        """
        A command can be interrupted while it opens.
        """
        command = Ping()
        endpoint = self.listen(Factory.forProtocol(Protocol))
        command.parseOptions([endpoint])
        running = Deferred.fromCoroutine(command.run(reactor))
        reactor.callLater(0.1, running.cancel)
        await self.assertFailure(running, CancelledError)

    async def test_check(self) -> None:
        """
        With C{--check} it prints one line with figures, and exits with the code that monitoring
        systems expect.
        """
        _factory, endpoint = self.serve(Mandatory())
        _mute, mute = self.serve(Mute())
        silent = self.listen(Factory.forProtocol(Protocol))
        for arguments, code, pattern in [
            (
                ["-c2", "-i0.1", endpoint],
                0,
                r"OK - 2 of 2 pings answered, [\d.]+ ms, keepalive yes"
                r"\|rta=[\d.]+ms;;;0; pl=0%;;;0;100",
            ),
            (["-c1", "-w0", endpoint], 1, r"WARNING - 1 of 1 .*\|rta=[\d.]+ms;0;;0; "),
            (["-c1", "-w0", "-C0", endpoint], 2, r"CRITICAL - .*\|rta=[\d.]+ms;0;0;0; "),
            (["-c1", mute], 0, r"OK - 1 of 1 .*keepalive no"),
            (["--no-ask", endpoint], 2, "CRITICAL - .*refused: operation failed"),
            (["--wait=0.2", silent], 2, "CRITICAL - .*not open within"),
            (["qemu+udp://host/system"], 3, "UNKNOWN - .*is not one of"),
        ]:
            found, (line,) = await self.run_(Ping(), "--check", *arguments)
            self.assertEqual(found, code, line)
            self.assertRegex(line, "^KAPROTO " + pattern)

    async def test_checkLost(self) -> None:
        """
        A connection lost during the check is critical.
        """
        factory, endpoint = self.serve(Mandatory())
        running = Deferred.fromCoroutine(self.run_(Ping(), "--check", endpoint))
        await waitUntil(lambda: factory.counters.opened, "it is open")
        factory.abort()
        code, (line,) = await running
        self.assertEqual(code, 2)
        self.assertIn("connection lost", line)


class DemoTests(CommandTestCase):
    """
    Tests for C{kaproto demo}.
    """

    async def test_story(self) -> None:
        """
        Three clients connect, and each ends for another reason, in the time given by the arguments.
        """
        began = reactor.seconds()
        code, lines = await self.run_(Demo(), "--interval=0.2", "--count=2")
        self.assertLess(reactor.seconds() - began, 3)
        self.assertEqual(code, 0)
        story = " ".join(" ".join(lines).split())
        for words in (
            "in mode 2 (mandatory): it pings after 0.2 s of silence",
            "alice asks for keepalive and is admitted",
            "bob does not ask, and is refused: operation failed: this server requires keepalive",
            "server has pinged both, and 2 pongs came back",
            "carol dies",
            "server drops carol: connection closed due to keepalive timeout",
            "alice is alive",
        ):
            self.assertIn(words, story)
        ends = [line.split()[:2] for line in lines if re.match(r"  \w+ +\w+ +after", line)]
        self.assertEqual(
            ends, [["bob", "refused"], ["carol", "keepalive_timeout"], ["alice", "closed"]]
        )
        self.assertLess(max(map(len, "\n".join(lines).splitlines())), 80)


class ProcessTests(InteropTestCase):
    """
    Tests for the command as a process.
    """

    tools = ("libvirtd",)

    async def test_libvirtd(self) -> None:
        """
        A real libvirtd answers pings; Ctrl-C ends the command with the statistics.
        """
        daemon = await LibvirtDaemon.start(self)
        program = Program.start(
            self, [sys.executable, "-m", "kaproto", "ping", "-i0.1", daemon.uri], os.environ
        )
        await program.waitOutput("seq=3")
        program.signal(signal.SIGINT)
        result = await program.finish()
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        self.assertIn("keepalive yes", result.output)
        self.assertRegex(result.output, r"\d+ sent, \d+ answered, 0% lost")
        self.assertIn("rtt min/avg/max/mdev", result.output)
