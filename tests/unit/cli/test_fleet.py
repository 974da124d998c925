"""
Tests for L{kaproto.cli.fleet}.
"""

from __future__ import annotations

import json
import sys
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from kaproto.cli.command import CommandFailed, ExitCode
from kaproto.cli.fleet import FleetCommand
from kaproto.cli.main import Options
from kaproto.registry.location import Location
from kaproto.registry.schema import LEASE
from tests.support_registry import FakeNode, RegistryTestCase

URL = "--registry=redis://redis.example"
WHO = {"user": None, "dn": None, "uid": None, "program": None, "host": "192.0.2.1"}
CLIENT = {**WHO, "transport": "tls", "address": "192.0.2.1:5", "phase": "open", "pid": None}


class FleetTests(RegistryTestCase):
    """
    Tests for the commands that read the registry.
    """

    def setUp(self) -> None:
        """
        Create two nodes.
        """
        super().setUp()
        self.nodes = {name: FakeNode() for name in ("host1", "host2")}
        for name, node in self.nodes.items():
            node.clients = {1: {"id": 1, **CLIENT, "user": name}}
            node.refusals = [{**WHO, "refused": 3, "would_refuse": 0, "last": "today"}]
            self.registry(node, name)
        self.nodes["host2"].set(2, **{**CLIENT, "dn": "CN=ann"})
        self.nodes["host2"].set(
            3, **{**CLIENT, "uid": 0, "program": None, "address": None, "pid": 7}
        )
        self.nodes["host2"].set(4, **{**CLIENT, "node": "forged", "epoch": 0})
        self.wait(2)
        self.patch(Location, "endpoint", lambda *_: self.redis)

    def command(self, *arguments: str) -> FleetCommand:
        """
        @return: the command, which records what it prints.
        """
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(arguments)
        command = options.subOptions
        assert isinstance(command, FleetCommand)
        self.printed: list[str] = []
        command.write = self.printed.append
        return command

    def run_(self, *arguments: str) -> list[str]:
        """
        @return: the lines that a successful command prints.
        """
        code = self.result(self.command(URL, *arguments).run(IReactorTime(self.clock)), 7)
        self.assertEqual(code, ExitCode.OK)
        return self.printed

    def objects(self, *arguments: str) -> list[dict[str, object]]:
        """
        @return: the objects that a command prints as JSON.
        """
        (text,) = self.run_(*arguments, "--json")
        found: list[dict[str, object]] = json.loads(text)
        return found

    def assertFails(self, words: str, exitCode: int, *arguments: str) -> None:
        """
        Check that a command fails with these words and this exit code.
        """
        command = self.command(*arguments)
        error = self.assertRaises(
            CommandFailed, self.result, command.run(IReactorTime(self.clock)), 7
        )
        self.assertIn(words, str(error))
        self.assertEqual(error.exitCode, exitCode)

    def test_nodes(self) -> None:
        """
        Nodes are listed with their state and number of clients.
        """
        _headings, first, second = self.run_("nodes")
        self.assertEqual(first.split()[:3], ["host1", "serving", "1"])
        self.assertEqual(second.split()[:3], ["host2", "serving", "4"])
        self.assertEqual([each["node"] for each in self.objects("nodes")], ["host1", "host2"])

    def test_gone(self) -> None:
        """
        A node that has not written lately is gone, and its list of clients is the last one it
        wrote.
        """
        self.redis.leases["kaproto:lease:host1"] -= LEASE
        self.redis.hashes["kaproto:node:host2"]["complete"] = "0"
        command = self.command(URL, "nodes")
        self.assertEqual(self.result(command.run(IReactorTime(self.clock)), 0), ExitCode.FAILED)
        self.assertIn("gone", self.printed[1])
        lines = self.run_("list")
        self.assertIn("it had when it last wrote: host1", "\n".join(lines))

    def test_list(self) -> None:
        """
        Clients are listed by node and id, which a client's own data cannot override.
        """
        _headings, first, second, third, fourth, _fifth = self.run_("list")
        self.assertEqual(first.split()[:4], ["host1/1", "tls", "192.0.2.1:5", "host1"])
        self.assertIn("CN=ann", self.run_("list", "host2")[2])
        self.assertEqual(second.split()[0], "host2/1")
        self.assertIn("CN=ann", third)
        self.assertIn("pid 7", fourth)
        self.assertIn("unknown (uid 0)", fourth)

    def test_listJSON(self) -> None:
        """
        JSON objects have the node, the id and all stored data.
        """
        found = self.objects("list")
        self.assertEqual(
            [(each["node"], each["id"], each["epoch"]) for each in found],
            [("host1", 1, 1000), *(("host2", number, 1000) for number in (1, 2, 3, 4))],
        )
        self.assertEqual(found[0]["address"], "192.0.2.1:5")

    def test_refused(self) -> None:
        """
        Refused clients are listed with their node.
        """
        _headings, first, _second = self.run_("refused")
        self.assertEqual(first.split()[:4], ["host1", "192.0.2.1", "-", "3"])
        self.assertEqual(self.objects("refused")[1]["node"], "host2")

    def test_disconnect(self) -> None:
        """
        A client's node disconnects it, with the reason.
        """
        (line,) = self.run_("disconnect", "host2/2", "--reason=updates")
        self.assertEqual(line, "client host2/2 is disconnected")
        self.assertEqual(self.nodes["host2"].told, [("disconnect", 2, "updates")])
        self.assertFails("no client 2", ExitCode.FAILED, URL, "disconnect", "host2/2")
        self.assertFails("kaproto nodes", ExitCode.FAILED, URL, "disconnect", "host3/2")

    def test_drain(self) -> None:
        """
        A node can be drained.
        """
        self.assertIn("host1 accepts no new clients", self.run_("drain", "host1")[0])
        self.assertEqual(self.nodes["host1"].told, [("drain",)])

    def test_mistakes(self) -> None:
        """
        Invalid names of clients and nodes are usage errors.
        """
        for arguments in (
            (URL, "disconnect", "2"),
            (URL, "disconnect", "host1/x"),
            (URL, "disconnect", f"host1/{1 << 64}"),
            (URL, "disconnect", "-x/2"),
            (URL, "drain"),
            (URL, "list", "a/b"),
            (URL, "show", "2"),
        ):
            self.assertRaises(UsageError, self.command, *arguments)

    def test_unreachable(self) -> None:
        """
        The error for an unreachable registry names its URL or says what to do.
        """
        self.assertFails("--registry=URL", ExitCode.USAGE, "nodes")
        self.assertFails("redis://HOST", ExitCode.USAGE, "--registry=x", "nodes")
        with patch.dict(sys.modules, {"txredisapi": None}):
            self.assertFails("kaproto[redis]", ExitCode.USAGE, URL, "nodes")
        self.redis.password = "secret"
        self.assertFails("NOAUTH", ExitCode.UNREACHABLE, URL, "nodes")
        password = self.mktemp()
        with open(password, "w", encoding="utf-8") as file:
            file.write("secret\n")
        self.result(
            self.command(URL, f"--registry-password-file={password}", "nodes").run(
                IReactorTime(self.clock)
            )
        )
        self.redis.refuses = True
        self.assertFails("redis://redis.example", ExitCode.UNREACHABLE, URL, "nodes")

    def test_interrupted(self) -> None:
        """
        An interrupted command closes its connection.
        """
        self.redis.hangs = True
        ended: list[object] = []
        running = Deferred.fromCoroutine(self.command(URL, "nodes").run(IReactorTime(self.clock)))
        running.addErrback(ended.append)
        running.cancel()
        self.wait(1)
        self.assertIsInstance(ended[0], Failure)
