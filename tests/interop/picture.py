"""
Makes the pictures of the status page from a real kaserver with real clients in a real browser: one
as wide as a desktop's, one as narrow as a phone's.

It takes two minutes, and is no test::

    trial tests.interop.picture

writes C{docs/pictures/status.png} and C{docs/pictures/status-phone.png}.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import sys
from pathlib import Path

from cryptography.x509.oid import NameOID

from tests.interop.browser import Browser
from tests.interop.programs import Program, startPythonLibvirt, startVirsh
from tests.interop.secure import SecureServer, SecureTestCase
from tests.interop.support import pause, together

_FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
_PEOPLE = ("alice", "bob", "build-7", "monitor")
_PAGE = re.compile(r"127\.0\.0\.1:(\d+) \(status page\)")


class Picture(SecureTestCase):
    """
    Takes the pictures.
    """

    tools = ("virsh", "chromium", "python3-libvirt")
    timeout = 300

    def setUp(self) -> None:
        """
        Issue certificates.
        """
        super().setUp()
        names = {
            each: [
                (NameOID.COUNTRY_NAME, "GB"),
                (NameOID.ORGANIZATION_NAME, "Example Ltd"),
                (NameOID.COMMON_NAME, each),
            ]
            for each in (*_PEOPLE, "backup")
        }
        self.people = {
            each: self.clientFiles(self.authority.issue(name)) for each, name in names.items()
        }

    async def come(self, who: str) -> Program:
        """
        Connect a virsh that stays connected.
        """
        virsh = startVirsh(self, "-c", self.server.tls(self.people[who]))
        await virsh.ask("hostname", r"hostname\n\S+\n")
        return virsh

    async def make(self) -> None:
        """
        Run a server whose clients connect, leave, die, are disconnected and are refused.
        """
        self.path = os.path.join(self.privateDirectory(), "libvirt-sock")
        self.server = await SecureServer.start(
            self,
            self.listener(),
            f"--listen=unix:{self.path}",
            "--mode=2",
            "--interval=2",
            "--count=2",
            f"--admin={self.path}.admin",
            "--status=tcp:0:interface=127.0.0.1",
        )
        match = await self.server.program.waitOutput(_PAGE.pattern)
        self.page = f"http://127.0.0.1:{match[1]}/"
        there: list[Program] = []
        for number in range(13):
            there.append(await self.come(_PEOPLE[number % len(_PEOPLE)]))
            if number % 4 == 3:
                there.pop(0).send("quit")
            if number == 7:
                there.pop().signal(signal.SIGSTOP)
            if number in (3, 4):
                uri = self.server.tls(self.people["backup"])
                await startPythonLibvirt(self, "libvirt.open(sys.argv[1])", uri).finish()
            await pause(5)
        local = startVirsh(self, "-c", f"test+unix:///default?socket={self.path}")
        await local.ask("hostname", r"hostname\n\S+\n")
        command = ["kaproto", f"--socket={self.path}.admin", "disconnect", "15"]
        await Program.start(
            self,
            ["/bin/sh", "-c", '"$@"', "sh", *command, "--reason=kernel update at 12"],
            os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        ).finish()
        await pause(4)

    async def take(self, name: str, width: int, height: int) -> None:
        """
        Write a picture of the page.

        @param height: its greatest height in pixels.
        """
        browser = await Browser.start(self, width, height)
        await browser.show(self.page)
        await browser.waitFor(
            "document.getElementById('live').className", lambda found: found == "badge good"
        )
        await browser.call("Emulation.setScrollbarsHidden", hidden=True)
        bottom = await browser.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, bottom), "scale": 1}
        picture = await browser.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        (_FOLDER / name).write_bytes(base64.b64decode(picture["data"]))

    async def test_pictures(self) -> None:
        """
        Write both pictures.
        """
        await self.make()
        await together(
            self.take("status.png", 1280, 1600), self.take("status-phone.png", 390, 1250)
        )
