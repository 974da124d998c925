"""
Tests for the names of hostile clients, shown in a real browser, in every kind of log and in a
terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from urllib.parse import quote

from cryptography.x509.oid import NameOID

from tests.interop.browser import Browser
from tests.interop.programs import Program, startVirsh
from tests.interop.secure import PASSWORD, SecureTestCase
from tests.interop.servers import twistdCommand
from tests.interop.support import (
    VIRT_ADMIN,
    privateEnvironment,
    together,
)
from tests.pki import distinguished

SCRIPT = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
HOSTILE = SCRIPT[:40] + "\n<2>[kaproto#critical] FORGED\nFORGED \x1b[31m\u202e"
ENCODED, HARMLESS = quote(SCRIPT, safe=""), quote(HOSTILE, safe="")

SHOWN = r"\nFORGED \x1b[31m\u202e"
"""
How newlines and escape sequences are shown.
"""

_JOURNAL = 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1); exec "$@"'
_PLACES = re.compile(r"127\.0\.0\.1:(\d+)( \(status page\))?")


class HostileNamesTests(SecureTestCase):
    """
    Tests for a malicious certificate, user name and URI, sent by real virsh clients.
    """

    tools = ("virsh", "virt-admin", "chromium")

    def setUp(self) -> None:
        """
        Make the certificate, and the file of users.
        """
        super().setUp()
        self.folder = self.privateDirectory()
        self.users = os.path.join(self.folder, "users")
        with open(self.users, "w", encoding="utf-8") as file:
            file.write(f"{SCRIPT}:{PASSWORD}\n")
        identity = self.authority.issue(
            [*distinguished("mallory"), (NameOID.ORGANIZATION_NAME, HOSTILE)]
        )
        self.files = self.clientFiles(identity)

    async def start(self, name: str, *arguments: str, shell: str | None = None) -> Program:
        """
        Start a server that requires a certificate over TLS, and a password on a UNIX socket.
        """
        path = os.path.join(self.folder, name)
        with open(f"{path}.toml", "w", encoding="utf-8") as file:
            file.write(
                f'mode = 1\nadmin = "{path}.admin"\nstatus = "tcp:0:interface=127.0.0.1"\n'
                f'[[listen]]\nendpoint = "libvirttls:0:interface=127.0.0.1:pki={self.pki}"\n'
                f'[[listen]]\nendpoint = "unix:{path}.sock"\nauth = "file:{self.users}"\n'
            )
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", f"--config={path}.toml"]
        command += arguments
        if shell is not None:
            command = ["/bin/sh", "-c", shell, "sh", *command]
        program = Program.start(self, command, os.environ, self.folder)
        await program.waitOutput(re.escape(f"{path}.sock ("), timeout=20)
        await program.waitOutput(r"\(status page\)")
        return program

    async def visit(self, name: str, server: Program) -> None:
        """
        Connect two clients that stay, and one that is refused.
        """
        port = next(port for port, page in _PLACES.findall(server.output) if not page)
        unix = f"test+unix:///default?socket={self.folder}/{name}.sock&x={ENCODED}"
        tls = (
            f"test+tls://127.0.0.1:{port}/default?pkipath={self.files}&x={quote(HOSTILE, safe='')}"
        )
        refused = startVirsh(self, "-c", unix + self.authFile(SCRIPT + "\\nFORGED"), "hostname")
        staying = [startVirsh(self, "-c", each) for each in (tls, unix + self.authFile(SCRIPT))]
        await together(*(each.ask("hostname", r"hostname\n\S+\n") for each in staying))
        self.assertIn("authentication failed", (await refused.finish()).errors)

    async def test_everywhere(self) -> None:
        """
        The names are shown as text on one line.
        """
        names = ("text", "json", "journal")
        servers = await together(
            self.start("text"),
            self.start("json", "--log-format=json"),
            self.start("journal", shell=_JOURNAL),
        )
        await together(*map(self.visit, names, servers))
        await together(self.onThePage(servers[0]), self.inTerminals())
        for server in servers:
            self.assertNotIn("\x1b", server.output)
            self.assertNotIn("\u202e", server.output)
        text, structured, journal = (server.output.splitlines() for server in servers)
        for line in text:
            self.assertRegex(line, r"^20\d\d-\S+ \[[\w.#-]+\] (?!FORGED)")
        for line in journal:
            self.assertRegex(line, r"^<[4-6]>(?!\d|FORGED)")
        events = [json.loads(line) for line in structured]
        self.assertNotIn("critical", {each["level"] for each in events})
        for lines in (text, structured, journal):
            self.assertTrue(any("FORGED" in line for line in lines), lines)
        self.assertIn(SCRIPT, {each["peer"].get("user") for each in events if "peer" in each})

    async def onThePage(self, server: Program) -> None:
        """
        The status page shows the names as text, and runs no script in them.
        """
        browser = await Browser.start(self)
        port = next(port for port, page in _PLACES.findall(server.output) if page)
        await browser.show(f"http://127.0.0.1:{port}/")
        rows = "document.querySelectorAll('#clients tbody tr').length"
        await browser.waitFor(rows, lambda found: found == 2)
        shown = await browser.evaluate("document.body.innerText")
        for each in (SCRIPT, SHOWN, ENCODED):
            self.assertIn(each, shown)
        self.assertEqual(
            await browser.evaluate("document.querySelectorAll('main img, main script').length"), 0
        )
        self.assertRegex(await browser.evaluate("document.title"), "^kaserver")

    async def inTerminals(self) -> None:
        """
        C{kaproto} and C{virt-admin} show the names on one line each.
        """
        admin = f"{self.folder}/text.admin"
        kaproto = [sys.executable, "-m", "kaproto", f"--socket={admin}"]
        virtAdmin = [VIRT_ADMIN, "-c", f"kaserver:///?socket={admin}", "client-info", "kaserver"]
        environment = privateEnvironment(self.folder)
        outputs = [
            (await Program.start(self, command, environment, "/").finish()).output
            for command in (
                [*kaproto, "list"],
                [*kaproto, "ended"],
                [*kaproto, "list", "--json"],
                *([*virtAdmin, str(number)] for number in (1, 2, 3)),
            )
        ]
        listed, ended, found, *infos = outputs
        for each in outputs:
            self.assertNotIn("\x1b", each)
            self.assertNotRegex(each, r"(?m)^(<2>|FORGED)")
        self.assertIn(SCRIPT, listed)
        self.assertIn(SHOWN, listed)
        self.assertEqual(len(ended.splitlines()), 2, ended)
        self.assertEqual(len(json.loads(found)), 2)
        self.assertIn("FORGED", "".join(infos))
