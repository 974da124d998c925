"""
Tests that newcomers get where they want to, in the environment that runs the tests.
C{python -m tests.newcomers} does the same in a new checkout and a new environment.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from kaproto.security.certificates import loadKeyMaterial
from kaproto.security.pki import CertificateFiles
from tests.interop.support import InteropTestCase, requireInterop, waitUntil
from tests.newcomers.doors import DOORS, TOOLS, certificates
from tests.newcomers.walk import Walk, WentAstray
from tests.pages import DOCS, Typed


class NewcomerTests(InteropTestCase):
    """
    One way each.
    """

    tools = ()

    def walk(self, patience: float = 20.0) -> Walk:
        """
        @return: a way that begins in a folder with the documentation and this environment.
        """
        folder = Path(self.privateDirectory())
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "docs").symlink_to(DOCS)
        return Walk(folder, patience)

    def go(self, way: Callable[[Walk], None], *tools: str) -> None:
        """
        Go that way, if the tools that it takes are here.
        """
        requireInterop(*tools)
        with self.walk() as walk:
            way(walk)

    def test_administrator(self) -> None:
        """
        The tutorial: a client is listed, one is dropped, one is refused.
        """
        self.go(DOORS["administrator"], *TOOLS["administrator"])

    def test_developer(self) -> None:
        """
        The guide for servers: a program answers.
        """
        self.go(DOORS["developer"])

    def test_author(self) -> None:
        """
        The tutorial and the guide for clients: a domain event arrives.
        """
        self.go(DOORS["author"])

    def test_certificates(self) -> None:
        """
        Certificates in five commands: virsh gets in by TLS, and another client too.
        """
        self.go(certificates, "virsh")

    async def test_operations(self) -> None:
        """
        Running kaserver day by day: its log begins anew when the job for cron says so, and two run
        side by side.
        """
        page = "howto/operations.rst"
        with self.walk() as walk:
            log, pid = walk.folder / "log", walk.folder / "kaserver.pid"
            log.mkdir()
            walk.replaced = {
                "/run/kaserver/kaserver.pid": str(pid),
                "/var/log/kaserver": str(log),
                "--mode=2": "--mode=2 --listen=tcp:0:interface=127.0.0.1",
                "--listen=tcp:16509": "--listen=tcp:0",
                "--listen=tcp:16510": "--listen=tcp:0",
            }
            walk.run(page, "twistd --pidfile=/run")
            await waitUntil(pid.exists, "the daemon's process id")
            self.addCleanup(os.kill, int(pid.read_text()), signal.SIGTERM)
            await waitUntil(lambda: "listening" in (log / "kaserver.log").read_text(), "the log")
            text = (DOCS / page).read_text("utf-8")
            for job in re.findall(r"^ +[\d* ]+  root  (.*)$", text, re.MULTILINE):
                walk.do(Typed(job, ""))
            await waitUntil((log / "kaserver.log.1").exists, "the log of yesterday")
            self.assertNotIn("listening", (log / "kaserver.log").read_text())
            walk.start(page, "twistd -n --pidfile= kaserver --listen=tcp:16509")
            walk.start(page, "twistd -n --pidfile= kaserver --listen=tcp:16510")

    def test_openssl(self) -> None:
        """
        Certificates made with openssl, as the guide says, are good for a server and a client.
        """
        with self.walk() as walk:
            walk.runAll("howto/authentication.rst", "openssl ")
            for end in ("server", "client"):
                names = ("cacert", f"{end}cert", f"{end}key")
                ca, certificate, key = (walk.folder / f"{name}.pem" for name in names)
                files = CertificateFiles(ca, certificate, key, None, server=end == "server")
                loadKeyMaterial(files)

    def test_astray(self) -> None:
        """
        What is not as shown is noticed.
        """
        with self.walk(patience=0.1) as walk:
            walk.replaced["virsh -c"] = "echo -c"
            self.assertRaises(WentAstray, walk.run, "tutorial.rst", "virsh -c")
