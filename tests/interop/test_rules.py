"""
Tests for rules with several kinds of peers and listeners.
"""

from __future__ import annotations

import os
import signal
import time

from tests.interop.programs import startPythonLibvirt, startVirsh
from tests.interop.secure import NAME, PASSWORD, SecureServer, SecureTestCase
from tests.interop.support import together
from tests.pki import distinguished

RULES = """
[[rule]]
transport = "unix"
mode = "optional"

[[rule]]
dn = "*,CN=monitor-?"
mode = "mandatory"
interval = 0.5
count = 1

[[rule]]
network = "127.0.0.0/8"
dn = "*,CN=backup"
mode = "disable"

[[rule]]
transport = "tls"
mode = "optional"
interval = 1
count = 1

[[rule]]
network = "127.0.0.0/8"
mode = "disable"

[default]
mode = "mandatory"
"""

USER_RULES = f"""
[[rule]]
user = "{NAME[:2]}*"
mode = "disable"

[default]
mode = "mandatory"
"""

OPEN = """
def answer(credentials, data):
    for credential in credentials:
        name = credential[0] == libvirt.VIR_CRED_AUTHNAME
        credential[4] = sys.argv[2] if name else sys.argv[3]
    return 0

kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
try:
    print("open on", libvirt.openAuth(sys.argv[1], [kinds, answer, None], 0).getHostname())
except libvirt.libvirtError as error:
    print("not open:", error)
"""
"""
A program without an event loop, which does not ask for keepalive.
"""


class RulesTests(SecureTestCase):
    """
    Each peer gets the mode of the first rule that matches it.
    """

    tools = ("virsh", "python3-libvirt")

    async def serve(self, rules: str, *arguments: str) -> tuple[SecureServer, str]:
        """
        Start a server with rules.

        @return: the server, and the path of its rules.
        """
        path = os.path.join(self.privateDirectory(), "rules.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(rules)
        return await SecureServer.start(self, *arguments, f"--mode=rules:{path}"), path

    def folder(self, name: str) -> str:
        """
        Issue a certificate for a name.

        @return: the client's folder.
        """
        return self.clientFiles(self.authority.issue(distinguished(name)))

    async def openWithoutKeepAlive(self, server: SecureServer, uri: str, name: str = NAME) -> str:
        """
        Open with a program that does not ask for keepalive.

        @return: the mode that applies to it.
        """
        remarks = server.log.count("mode 2 would refuse")
        password = PASSWORD if name == NAME else "not for alice"
        result = await startPythonLibvirt(self, OPEN, uri, name, password).finish()
        if result.output.startswith("not open: operation failed: this server requires keepalive"):
            return "mandatory"
        self.assertIn("open on", result.output, result)
        return "optional" if server.log.count("mode 2 would refuse") > remarks else "disable"

    async def death(self, server: SecureServer, name: str) -> float:
        """
        Stop a virsh.

        @param name: the name in its certificate.
        @return: the seconds until the server declared it dead.
        """
        virsh = startVirsh(self, "-c", server.tls(self.folder(name)))
        await virsh.ask("hostname", os.uname().nodename)
        virsh.signal(signal.SIGSTOP)
        begun = time.monotonic()
        await server.program.waitOutput(f"CN={name}' is dead: ")
        return time.monotonic() - begun

    async def test_fiveKinds(self) -> None:
        """
        A UNIX socket, three certificates and plain TCP get the modes of their rules.
        """
        path = os.path.join(self.privateDirectory(), "sock")
        server, _rules = await self.serve(
            RULES,
            self.listener(),
            f"--listen=unix:{path}",
            "--listen=tcp:0:interface=127.0.0.1",
        )
        kinds = {
            f"test+unix:///default?socket={path}": "optional",
            server.tls(self.folder("monitor-1")): "mandatory",
            server.tls(self.folder("backup")): "disable",
            server.tls(self.folder("monitor-10")): "optional",
            f"test+tcp://127.0.0.1:{server.ports[2]}/default": "disable",
        }
        for uri, mode in kinds.items():
            self.assertEqual(await self.openWithoutKeepAlive(server, uri), mode, uri)

    async def test_intervals(self) -> None:
        """
        Each rule can have its own interval and count.
        """
        server, _rules = await self.serve(RULES, self.listener())
        slow, fast = await together(self.death(server, "alice"), self.death(server, "monitor-1"))
        self.assertLess(abs(fast - 1), 0.7)
        self.assertLess(abs(slow - 2), 0.7)

    async def test_users(self) -> None:
        """
        A rule can match the user that has logged in.
        """
        server, _rules = await self.serve(
            USER_RULES, self.listener(":verify=no"), f"--auth=file:{self.passwordFile()}"
        )
        uri = server.tls(self.nobody)
        self.assertEqual(await self.openWithoutKeepAlive(server, uri), "disable")
        self.assertEqual(await self.openWithoutKeepAlive(server, uri, "bob"), "mandatory")

    async def test_reload(self) -> None:
        """
        SIGHUP reloads the rules; if they have a mistake, the previous ones stay.
        """
        server, path = await self.serve(
            "[default]\nmode = 0\n", "--listen=tcp:0:interface=127.0.0.1"
        )
        uri = f"test+tcp://127.0.0.1:{server.ports[0]}/default"
        for text, answer, mode in [
            ("[default]\nmode = 2\n", "reloaded the rules in ", "mandatory"),
            (
                "[default]\nmode = 0\n\n[[rule]]\nmode = 0\nnetwrk = 1\n",
                "could not reload the rules in .*rules.toml: rule 1: netwrk: there is no",
                "mandatory",
            ),
        ]:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            server.program.signal(signal.SIGHUP)
            await server.program.waitOutput(answer)
            self.assertEqual(await self.openWithoutKeepAlive(server, uri), mode)
