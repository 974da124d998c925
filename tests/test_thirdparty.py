"""
Tests for a third-party policy, installed with pip and chosen on the command line.

The package is the documentation's example, C{docs/examples/rollout}.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from twisted.internet.address import IPv4Address

from kaproto.peer import Peer
from kaproto.policies import refusalFor
from tests.interop import wire
from tests.interop.programs import Program
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer, twistdCommand
from tests.interop.support import InteropTestCase

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "docs" / "examples" / "rollout"


@cache
def installPolicy() -> str:
    """
    Install the package from source, without the network, once for all tests.

    @return: the folder that it is installed in, which has nothing else.
    """
    target = tempfile.mkdtemp(prefix="policy-", dir=Path.cwd())
    flags = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", f"--target={target}"]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, PACKAGE],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert pip.returncode == 0, pip.stdout.decode()
    return target


class ThirdPartyTests(InteropTestCase):
    """
    Tests for the policy C{rollout}, which is like optional until the date in its argument, and like
    mandatory from then on.
    """

    tools = ()

    def setUp(self) -> None:
        """
        Install the package, unless another test did.
        """
        super().setUp()
        self.target = installPolicy()

    def path(self) -> str:
        """
        @return: the value of C{PYTHONPATH}.
        """
        return os.pathsep.join([self.target, str(PROJECT)])

    async def kaserver(self, *arguments: str) -> Program:
        """
        Run C{twistd kaserver} to its end.
        """
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", *arguments]
        environment = {**os.environ, "PYTHONPATH": self.path()}
        program = Program.start(self, command, environment, self.target)
        await program.finish(timeout=30)
        return program

    async def start(self, mode: str) -> KaServer:
        """
        Start C{twistd kaserver} with a mode.
        """
        twistd = ["/usr/bin/env", f"PYTHONPATH={self.path()}", *twistdCommand()]
        return await KaServer.start(self, f"--mode={mode}", twistd=twistd)

    async def test_described(self) -> None:
        """
        C{--help-policies} shows the policy and its argument, after kaproto's own policies.
        """
        program = await self.kaserver("--help-policies")
        self.assertRegex(
            program.output,
            r"(?s)disable.*optional.*mandatory.*\n"
            r"  rollout:YYYY-MM-DD +like optional until a date, like mandatory from then on",
        )

    async def test_wrongArgument(self) -> None:
        """
        An invalid or missing argument is a usage error with the policy's own message.
        """
        for argument, words in (
            (":soon", "--mode=rollout:soon: policy rollout: Invalid isoformat string: 'soon'"),
            ("", "--mode=rollout: policy rollout: from which date? for example rollout:2027-03-01"),
        ):
            program = await self.kaserver(f"--mode=rollout{argument}")
            result = await program.finish()
            self.assertEqual(result.exitCode, 1, result)
            self.assertIn(words, result.output + result.errors)

    async def test_argument(self) -> None:
        """
        The policy gets its argument: a client without keepalive opens before the date, with a
        warning, and is refused after it.
        """
        server = await self.start("rollout:2999-01-01")
        self.assertIn("mode rollout", server.log)
        client = await RawClient.connect(self, server.port)
        await client.open(ask=False)
        self.assertIn("keepalive, which is mandatory from 2999-01-01", server.log)
        server = await self.start("rollout:2026-01-01")
        client = await RawClient.connect(self, server.port)
        reply = await client.call(wire.OPEN, wire.OPEN_ARGUMENTS)
        assert reply.error is not None
        self.assertEqual(reply.error.message, refusalFor(Peer(IPv4Address("TCP", "127.0.0.1", 0))))
        await client.waitLost()
