"""
Tests for starting kaserver with twistd and twist, with options and with a file, and as a gateway
without C{--listen}.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import sys
from collections.abc import Sequence

from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import Program, Result, runVirsh
from tests.interop.servers import LibvirtDaemon, twistdCommand
from tests.interop.support import InteropTestCase, together

_TWIST = [sys.executable, "-m", "twisted"]
_TCP = "--listen=tcp:0:interface=127.0.0.1"


class TwistTests(InteropTestCase):
    """
    Tests for C{twist kaserver}.
    """

    async def test_serves(self) -> None:
        """
        kaserver listens, logs in the requested format, serves and stops.
        """
        program = Program.start(
            self, [*_TWIST, "kaserver", "--mode=2", _TCP, "--log-format=json"], os.environ
        )
        port = (await program.waitOutput(r"listening on tcp 127\.0\.0\.1:(\d+)"))[1]
        result = await runVirsh(self, "-c", f"test+tcp://127.0.0.1:{port}/default", "hostname")
        self.assertEqual(result.exitCode, 0)
        program.signal(signal.SIGTERM)
        ended = await program.finish()
        entries = [json.loads(line) for line in ended.output.splitlines()]
        audited = [each for each in entries if each["logger"] == "kaproto.audit"]
        self.assertEqual([each["event"] for each in audited], ["open", "end"])
        self.assertNotIn("Traceback", ended.output + ended.errors)

    async def test_mistakes(self) -> None:
        """
        With twist and twistd, a mistake on the command line and an address that cannot be bound are
        reported in one line.
        """

        async def reported(command: Sequence[str], argument: str, words: str) -> None:
            program = Program.start(self, [*command, "kaserver", argument], os.environ)
            ended = await program.finish()
            self.assertEqual(ended.exitCode, 1)
            lines = (ended.output + ended.errors).splitlines()
            self.assertIn(f"kaserver: {argument}: ", lines[-1])
            self.assertIn(words, lines[-1])
            self.assertLess(len(lines), 5)

        mistakes = {
            "--listen=16509": "is --listen=tcp:16509:interface=127.0.0.1 meant?",
            "--listen=unix:/nonexistent/s": "No such file or directory; a socket needs a folder",
        }
        await together(
            *(
                reported(command, *mistake)
                for command in (_TWIST, [*twistdCommand(), "-n", "--pidfile="])
                for mistake in mistakes.items()
            )
        )


class GatewayTests(GatewayTestCase):
    """
    Tests for gateways.
    """

    async def test_defaultSocket(self) -> None:
        """
        By default a gateway listens on a UNIX socket for its owner and group, in the folder that
        systemd has made, and logs the command that connects to it.
        """
        daemon = await LibvirtDaemon.start(self)
        folder = self.privateDirectory()
        upstream = f"--upstream=test+unix:///default?socket={daemon.socketPath}"
        program = Program.start(
            self,
            [*twistdCommand(), "-n", "--pidfile=", "kaserver", "--mode=2", upstream],
            os.environ | {"RUNTIME_DIRECTORY": folder},
            folder,
        )
        command = (await program.waitOutput(r"connect with: (.*)"))[1]
        path = os.path.join(folder, "libvirt-sock")
        self.assertIn(path, command)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        virsh, *arguments = shlex.split(command)
        self.assertEqual(virsh, "virsh")
        direct = await runVirsh(self, "-c", daemon.uri, "hostname")
        self.assertEqual(await runVirsh(self, *arguments, "hostname"), direct)
        program.signal(signal.SIGTERM)
        await program.finish()
        self.assertNotIn("libvirt-sock", os.listdir(folder))

    async def test_unauthenticated(self) -> None:
        """
        Over TCP, even on loopback, a gateway refuses to serve clients without authentication,
        unless C{--insecure} is given.  The message names both alternatives.
        """
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", _TCP, "--upstream=unix:/x"]
        ended = await Program.start(self, command, os.environ, self.privateDirectory()).finish()
        self.assertEqual(ended.exitCode, 1)
        self.assertIn("--listen=unix:/run/kaserver/libvirt-sock", ended.errors)
        self.assertIn("--insecure", ended.errors)
        program = Program.start(self, [*command, "--insecure"], os.environ, self.privateDirectory())
        await program.waitOutput("listening on tcp 127.0.0.1")


class ConfigTests(InteropTestCase):
    """
    Tests for C{--config}.
    """

    async def run_(self, *arguments: str) -> Result:
        """
        Run kaserver, and wait for its end.
        """
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", *arguments]
        return await Program.start(self, command, os.environ, self.directory).finish()

    async def test_file(self) -> None:
        """
        kaserver follows the file, in which each listener can have its own authentication.
        C{--check} prints the settings with their sources.
        """
        self.directory = self.privateDirectory()
        users = os.path.join(self.directory, "users")
        with open(users, "w", encoding="ascii") as file:
            file.write("alice:sesame\n")
        open_, closed = (os.path.join(self.directory, name) for name in ("open", "closed"))
        config = os.path.join(self.directory, "kaserver.toml")
        with open(config, "w", encoding="ascii") as file:
            file.write(
                f'mode = "mandatory"\nauth = "file:{users}"\n'
                f'[[listen]]\nendpoint = "unix:{open_}"\nauth = []\n'
                f'[[listen]]\nendpoint = "unix:{closed}"\n'
            )
        checked = await self.run_(f"--config={config}", "--check", "--count=3")
        self.assertEqual(checked.exitCode, 0)
        self.assertRegex(checked.output, rf'(?m)^mode = "mandatory" +# {re.escape(config)}$')
        self.assertRegex(checked.output, r"(?m)^count = 3 +# --count$")
        program = Program.start(
            self,
            [*twistdCommand(), "-n", "--pidfile=", "kaserver", f"--config={config}"],
            os.environ,
            self.directory,
        )
        await program.waitOutput(f"listening on unix {closed}")
        login = os.path.join(self.directory, "auth.conf")
        for path, password, exitCode in ((open_, "x", 0), (closed, "x", 1), (closed, "sesame", 0)):
            with open(login, "w", encoding="ascii") as file:
                file.write(
                    f"[credentials-a]\nauthname=alice\npassword={password}\n"
                    "[auth-libvirt-default]\ncredentials=a\n"
                )
            uri = f"test+unix:///default?socket={path}&authfile={login}"
            result = await runVirsh(self, "-c", uri, "hostname")
            self.assertEqual(result.exitCode, exitCode, result)

    async def test_mistake(self) -> None:
        """
        The message about a mistake names the file and the key.
        """
        self.directory = self.privateDirectory()
        config = os.path.join(self.directory, "kaserver.toml")
        with open(config, "w", encoding="ascii") as file:
            file.write("intervall = 5")
        ended = await self.run_(f"--config={config}", "--check")
        self.assertEqual((ended.exitCode, ended.output), (1, ""))
        self.assertEqual(
            ended.errors,
            f"kaserver: --config={config}: there is no key 'intervall'; is interval meant?\n",
        )
