"""
Tests for the identity that libvirtd sees of a gateway's clients, according to C{virt-admin}.
"""

from __future__ import annotations

import os
import re

from tests.interop.programs import Program
from tests.interop.secure import SecureServer, SecureTestCase
from tests.interop.servers import reservePort
from tests.interop.support import LIBVIRTD, privateEnvironment, waitUntil

_UNPRIVILEGED = 65534
_SETTINGS = """
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{port}"
auth_tcp = "none"
auth_unix_rw = "none"
keepalive_interval = -1
log_outputs = "3:stderr"
"""


def _userOfDaemon(*directories: str) -> int | None:
    """
    Give folders to the user that libvirtd runs as.

    @return: that user's id, C{None} for the user that runs the tests.
    """
    if os.geteuid() != 0:
        return None
    for directory in directories:
        os.chown(directory, _UNPRIVILEGED, _UNPRIVILEGED)
    return _UNPRIVILEGED


class ForwardedIdentityTests(SecureTestCase):
    """
    Tests for C{--forward-identity}.
    """

    tools = ("virsh", "libvirtd")

    async def startDaemon(self) -> str:
        """
        Start a libvirtd in session mode, which has an administration socket.

        @return: the folder with its sockets.
        """
        directory = self.privateDirectory()
        environment = privateEnvironment(directory)
        runtime = environment["XDG_RUNTIME_DIR"]
        os.makedirs(runtime, mode=0o700, exist_ok=True)
        settings = os.path.join(directory, "libvirtd.conf")
        self.port = reservePort(self)
        with open(settings, "w", encoding="ascii") as file:
            file.write(_SETTINGS.format(port=self.port))
        user = _userOfDaemon(directory, runtime)
        command = [LIBVIRTD, "--listen", "--config", settings]
        command += ["--pid-file", os.path.join(directory, "pid")]
        program = Program.start(self, command, environment, directory, uid=user, gid=user)
        sockets = os.path.join(runtime, "libvirt")
        self.admin = os.path.join(sockets, "libvirt-admin-sock")
        await waitUntil(lambda: os.path.exists(self.admin), program.describe, timeout=20)
        return sockets

    async def clientInfo(self, uri: str) -> str:
        """
        Connect with virsh.

        @return: what C{virt-admin client-info} prints for libvirtd's only client.
        """
        directory = self.privateDirectory()
        virsh = Program.start(self, ["virsh", "-c", uri], privateEnvironment(directory), directory)
        await virsh.ask("hostname", re.escape(os.uname().nodename))
        listed = await self.virtAdmin("client-list libvirtd")
        match = re.search(r"(?m)^\s*(\d+)\s+(?:unix|tcp)", listed)
        assert match is not None, listed
        return await self.virtAdmin(f"client-info libvirtd {match[1]}")

    async def virtAdmin(self, command: str) -> str:
        """
        Run a virt-admin command as the daemon's user; the daemon accepts no other.
        """
        directory = self.privateDirectory()
        user = _userOfDaemon(directory)
        result = await Program.start(
            self,
            ["virt-admin", "-c", f"libvirtd+unix:///session?socket={self.admin}", command],
            privateEnvironment(directory),
            directory,
            uid=user,
            gid=user,
        ).finish(15)
        self.assertEqual(result.exitCode, 0, result)
        return result.output

    async def test_certificate(self) -> None:
        """
        libvirtd gets the name in a TLS client's certificate.  virt-admin shows names only of
        connections that are not on a UNIX socket, so the gateway connects over TCP.
        """
        await self.startDaemon()
        upstream = f"--upstream=tcp:127.0.0.1:{self.port}"
        server = await SecureServer.start(
            self, self.listener(), upstream, "--forward-identity", "--mode=2"
        )
        info = await self.clientInfo(server.tls(self.alice))
        self.assertRegex(info, r"x509\w*\s*:.*CN=alice")

    async def test_unixUser(self) -> None:
        """
        libvirtd gets the user and process ids of a client on a UNIX socket.
        """
        sockets = await self.startDaemon()
        path = os.path.join(self.privateDirectory(), "front")
        upstream = f"--upstream=unix:{sockets}/libvirt-sock"
        server = await SecureServer.start(
            self, f"--listen=unix:{path}", upstream, "--forward-identity"
        )
        info = await self.clientInfo(f"test+unix:///default?socket={path}")
        self.assertRegex(info, rf"unix_user_id\s*:\s*{os.geteuid()}\b")
        match = re.search(r"unix_process_id\s*:\s*(\d+)", info)
        assert match is not None, info
        self.assertNotEqual(int(match[1]), server.program.pid)

    async def test_notForwarded(self) -> None:
        """
        Without the option, libvirtd sees the gateway's identity.
        """
        sockets = await self.startDaemon()
        server = await SecureServer.start(
            self, self.listener(), f"--upstream=unix:{sockets}/libvirt-sock"
        )
        info = await self.clientInfo(server.tls(self.alice))
        self.assertNotIn("alice", info)
        self.assertRegex(info, rf"unix_process_id\s*:\s*{server.program.pid}\b")
