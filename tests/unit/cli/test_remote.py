"""
Tests for L{kaproto.cli.remote}.
"""

from __future__ import annotations

import errno
import json
import os

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.python.usage import UsageError

from kaproto.admin.client import ControlClient
from kaproto.cli.command import CommandFailed
from kaproto.cli.main import Options
from kaproto.cli.remotecommand import RemoteCommand, _unreachable
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import UnixCredentials
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure
from tests.support import OPEN
from tests.support_admin import AdminTestCase


class RemoteTests(AdminTestCase):
    """
    Tests for the commands of a single server.
    """

    def run_(self, *arguments: str) -> tuple[int, list[str]]:
        """
        Run a command.

        @return: its exit code, and the lines it prints.
        """
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(arguments)
        command = options.subOptions
        assert isinstance(command, RemoteCommand)
        lines: list[str] = []
        command.write = lines.append
        return self.finish(command.perform(self.control())), lines

    def test_list(self) -> None:
        """
        C{list} prints clients as a table or a JSON array.
        """
        client = self.openClient()
        client.peer.tlsDN = "CN=alice"
        local = self.client().protocol.peer
        local.address, local.unixCredentials = None, UnixCredentials(7, 8, 9)
        self.client().protocol.peer.user = "bob"
        code, (headings, first, second, third) = self.run_("list")
        self.assertEqual(code, 0)
        self.assertTrue(headings.startswith("ID  TRANSPORT  FROM"))
        self.assertEqual(first.split()[:4], ["1", "tcp", "127.0.0.1:54321", "CN=alice"])
        self.assertEqual(first.split()[5:8], ["open", "yes", "-"])
        self.assertIn("pid 7            unknown (uid 8)", second)
        self.assertIn("  bob  ", third)
        _code, (text,) = self.run_("list", "--json")
        self.assertEqual([each["id"] for each in json.loads(text)], [1, 2, 3])

    def connected(self, *arguments: str, problem: Exception | None = None) -> Deferred[int]:
        """
        Run a command from its connection on.

        @param problem: the error with which connecting fails.
        """
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(arguments)
        assert isinstance(options.subOptions, RemoteCommand)

        async def connect(reactor: object, path: str) -> ControlClient:
            if problem is not None:
                raise problem
            return self.control()

        self.patch(ControlClient, "connect", connect)
        return Deferred.fromCoroutine(options.subOptions.run(self.clock))

    def test_cannot(self) -> None:
        """
        A command that the server refuses fails with the server's message.
        """
        running = self.connected("show", "99")
        self.controlled.flush()
        error = self.failureResultOf(running, CommandFailed).value
        words = "Client not found: No client with matching ID '99'; kaproto list shows who is"
        self.assertIn(words, str(error))
        self.assertEqual(error.exitCode, 1)

    def test_nobody(self) -> None:
        """
        If the server cannot be reached, the exit code is 3.
        """
        running = self.connected("status", problem=ConnectError(errno.ENOENT))
        error = self.failureResultOf(running, CommandFailed).value
        self.assertEqual(error.exitCode, 3)

    def test_silent(self) -> None:
        """
        A server that does not answer counts as unreachable.
        """
        running = self.connected("status")
        self.advance(10)
        self.controlled.flush()
        error = self.failureResultOf(running, CommandFailed).value
        self.assertIn("does not answer at /run/libvirt", str(error))
        self.assertEqual(error.exitCode, 3)

    def test_latency(self) -> None:
        """
        The latency is printed in milliseconds.
        """
        self.openClient().heartbeat.latency = 0.00025
        _code, lines = self.run_("list")
        self.assertIn("0.250 ms", lines[1])

    def test_show(self) -> None:
        """
        C{show} prints everything known of a client, one item per line; options may follow the id.
        """
        self.openClient()
        _code, lines = self.run_("show", "1")
        self.assertIn("keepalive asked     yes", lines)
        _code, (text,) = self.run_("show", "1", "--json")
        self.assertEqual(json.loads(text)[0]["id"], 1)

    def test_disconnect(self) -> None:
        """
        C{disconnect} disconnects a client, and C{ended} lists it with the reason.
        """
        self.openClient()
        code, lines = self.run_("disconnect", "1", "--reason=too old")
        self.assertEqual((code, lines), (0, ["client 1 is disconnected"]))
        self._pairs[0].flush()
        _code, lines = self.run_("ended")
        self.assertTrue(lines[0].startswith("ID  ENDED"))
        self.assertIn("disconnected  an administrator disconnected this client: too old", lines[1])

    def test_refused(self) -> None:
        """
        C{refused} lists the clients that mode 2 would refuse, summed.
        """
        self.client().feed(OPEN)
        _code, (headings, line) = self.run_("refused")
        self.assertEqual(headings.split(), ["HOST", "WHO", "REFUSED", "WOULD", "REFUSE", "LAST"])
        self.assertEqual(line.split()[:4], ["192.0.2.1", "-", "0", "1"])

    def test_status(self) -> None:
        """
        The exit code of C{status} says whether new clients are accepted.
        """
        code, lines = self.run_("status")
        self.assertEqual(code, 0)
        self.assertIn("policy            optional", lines)
        self.daemon.draining = True
        code, (text,) = self.run_("status", "-j")
        self.assertEqual((code, json.loads(text)[0]["state"]), (1, "draining"))

    def test_trace(self) -> None:
        """
        C{trace} prints messages as they arrive, and finally why it ended.
        """
        for arguments in (["trace", "1", "--for=2"], ["trace", "--json", "--for=2", "1"]):
            client = self.openClient()
            client.heartbeat.start(KeepAlive(0, 0))
            arguments[arguments.index("1")] = str(client.peer.id)
            options = Options()  # type: ignore[no-untyped-call]
            options.parseOptions(arguments)
            command = options.subOptions
            lines: list[str] = []
            command.write = lines.append
            running = Deferred.fromCoroutine(command.perform(self.control()))
            self.controlled.flush()
            name = self._pairs[-2].client.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_HOSTNAME)
            name.addErrback(lambda _: None)
            self._pairs[-2].flush()
            assert client.heartbeat.onAnswer is not None
            client.heartbeat.onAnswer(0.00025)
            self.controlled.advance(3)
            self.assertEqual(self.successResultOf(running), 0)
            text = "\n".join(lines)
            if "--json" in arguments:
                call, _reply, pong = json.loads(text)
                self.assertEqual((call["name"], pong["latency_us"]), ("CONNECT_GET_HOSTNAME", 250))
            else:
                self.assertRegex(
                    text,
                    r"^    0\.000 s  client > call remote CONNECT_GET_HOSTNAME, serial \d, 28 "
                    r"bytes\n    0\.000 s  client < reply remote CONNECT_GET_HOSTNAME, serial \d, "
                    r"\d+ bytes, error\n"
                    r"    0\.000 s  client > message keepalive PONG, 0\.250 ms after the ping\n"
                    r"end of the trace: the time is over$",
                )

    def test_traceNothing(self) -> None:
        """
        A trace may have no messages.
        """
        self.client()
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(["trace", "1", "--json", "--for=1"])
        lines: list[str] = []
        options.subOptions.write = lines.append
        running = Deferred.fromCoroutine(options.subOptions.perform(self.control()))
        self.controlled.advance(2)
        self.successResultOf(running)
        self.assertEqual(lines, ["[]"])

    def test_reload(self) -> None:
        """
        C{reload} fails if a file cannot be reloaded.
        """
        self.assertEqual(self.run_("reload"), (0, ["reloaded"]))
        self.daemon.problems = ["rules.toml: no mode"]
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(["reload"])
        running = Deferred.fromCoroutine(options.subOptions.perform(self.control()))
        self.controlled.flush()
        self.failureResultOf(running, CommandFailed)

    def test_drain(self) -> None:
        """
        C{drain} prints how many clients are left.
        """
        self.assertEqual(self.run_("drain")[1], ["kaserver stops: there are no clients"])
        self.daemon.calls.clear()
        self.daemon.draining = False
        self.openClient()
        _code, lines = self.run_("drain", "--within=30")
        self.assertEqual(
            lines, ["kaserver accepts no new clients; it stops when 1 client has left"]
        )
        self.turns()
        self.assertEqual(self.daemon.calls[-1], ("drain", 30))
        self.openClient()
        _code, lines = self.run_("drain")
        self.assertIn("2 clients have left", lines[0])

    def test_ids(self) -> None:
        """
        An id must fit in 64 bits.
        """
        for text in ("x", "-1", "", str(1 << 64)):
            options = Options()  # type: ignore[no-untyped-call]
            error = self.assertRaises(UsageError, options.parseOptions, ["show", "--", text])
            self.assertIn("id is a whole number", str(error))

    def test_unreachable(self) -> None:
        """
        The error for an unreachable server gives the reason and says what to do.
        """
        for number, words in [
            (errno.EACCES, "as root"),
            (errno.ECONNREFUSED, "not running"),
            (errno.ENOENT, "--admin"),
        ]:
            text = _unreachable("/p", ConnectError(number, ""))
            self.assertIn(os.strerror(number), text)
            self.assertIn(words, text)
        self.assertIn("--socket", _unreachable("/p", ConnectError(string="timeout")))

    def test_abstract(self) -> None:
        """
        The base class cannot be run.
        """
        running = Deferred.fromCoroutine(RemoteCommand().perform(self.control()))
        self.failureResultOf(running, NotImplementedError)
