"""
Tests that the output and the figures in the README are true.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.host import EmbeddedHost
from kaproto.cli.demo import Demo
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory
from tests.interop.programs import Program, runVirsh
from tests.interop.support import PYTHON, InteropTestCase, privateEnvironment, reactor

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text("utf-8")


def withoutTimes(text: str) -> str:
    """
    @return: the text with zeros for the numbers that differ from run to run: times and ports.
    """
    return re.sub(r"(?<=127\.0\.0\.1:)\d+|\d+\.\d+", "0", text)


def blockAfter(start: str) -> str:
    """
    @return: the README's block that contains this line, from there on.
    """
    return README[README.index(start) :].partition("```")[0]


class DemoTests(InteropTestCase):
    """
    Tests for C{python -m kaproto demo}.
    """

    tools = ()

    async def test_output(self) -> None:
        """
        The demo prints what the README shows, except for the times.
        """
        self.assertEqual(Demo()["interval"], 2)
        # In a quarter of the time.
        command = [sys.executable, "-m", "kaproto", "demo", "--interval=0.5"]
        program = Program.start(self, command, os.environ, str(PROJECT))
        result = await program.finish(timeout=30)
        self.assertEqual(result.exitCode, 0, result)
        lines = result.output.splitlines()
        shown = blockAfter("  0.00 s  server").splitlines()
        self.assertEqual(len(lines), len(shown))
        wanted = withoutTimes(" ".join(" ".join(shown).split()).replace(" 2 s", " 0.5 s"))
        self.assertEqual(" ".join(withoutTimes(" ".join(lines)).split()), wanted)


class ClientsTests(InteropTestCase):
    """
    Tests for clients of kaserver in mode 2.
    """

    tools = ("virsh", "python3-libvirt")

    async def serve(self) -> str:
        """
        Serve an embedded host, as C{twistd kaserver} does.

        @return: its address, as in a URI.
        """
        factory = KeepAliveServerFactory(Mandatory(), EmbeddedHost())
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(factory.drain)
        self.addCleanup(factory.abort)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return f"127.0.0.1:{address.port}"

    async def test_virsh(self) -> None:
        """
        virsh lists the host's domain.
        """
        host = await self.serve()
        command, _, output = blockAfter("$ virsh -c test+tcp").partition("\n")
        arguments = command.replace("127.0.0.1", host).split()[2:]
        result = await runVirsh(self, *arguments)
        self.assertEqual(result.output.strip("\n"), output.strip("\n"), result)

    async def test_refused(self) -> None:
        """
        A program without libvirt's event loop gets the error that the README shows.
        """
        host = await self.serve()
        command, *_dots, message = blockAfter("$ /usr/bin/python3 -c").strip("\n").splitlines()
        script = command.partition(" -c '")[2].removesuffix("'").replace("127.0.0.1", host)
        program = Program.start(
            self, [PYTHON, "-c", script], privateEnvironment(self.privateDirectory())
        )
        result = await program.finish()
        self.assertEqual(result.errors.splitlines()[-1], message)


class FiguresTests(SynchronousTestCase):
    """
    Tests for the cost per client.
    """

    def test_report(self) -> None:
        """
        The README's figures are those of the performance report.
        """
        report: Any = json.loads((PROJECT / "docs" / "performance" / "report.json").read_text())
        held = {each["server"]: each for each in report["held"] if each["clients"] == 2000}
        opened = {each["server"]: each["perSecond"] for each in report["opened"]}
        cost = {server: each["microseconds"] for server, each in held.items()}
        text = " ".join(README.split())
        for words in (
            f"cost {cost['kaserver'] / cost['floor']:.1f} times the processor time of a minimal",
            f"{cost['kaserver'] / cost['autobahn']:.2f} of Autobahn's",
            f"takes {held['kaserver']['bytesPerClient'] / 1000:.1f} kB",
            f"opens {opened['kaserver'] / opened['libvirtd']:.0f} times as many",
        ):
            self.assertIn(words, text)
        self.assertEqual(round(cost["libvirtd"] / cost["kaserver"], -1), 30)
