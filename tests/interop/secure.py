"""
Servers that authenticate their clients: kaserver and libvirtd with TLS and SASL.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from tests.interop.programs import Program, Result, startVirsh
from tests.interop.servers import reservePort, twistdCommand
from tests.interop.support import (
    LIBVIRTD,
    PYTHON,
    InteropTestCase,
    privateEnvironment,
    waitUntil,
)
from tests.pki import Authority, Identity, distinguished

__all__ = ["NAME", "PASSWORD", "SecureDaemon", "SecureServer", "SecureTestCase"]

NAME: Final = "alice"
PASSWORD: Final = "open sesame"

_UNPRIVILEGED: Final = 65534
_LISTENING: Final = re.compile(r"listening on (?:tcp|tls|unix)[^\n]*?(?::(\d+)|(/\S+)) \(")

_MAKE_DATABASE: Final = """
import ctypes, sys
sasl = ctypes.CDLL("libsasl2.so.2")
assert sasl.sasl_server_init(None, b"libvirt") == 0
connection = ctypes.c_void_p()
assert sasl.sasl_server_new(b"libvirt", None, None, None, None, None, 0,
                            ctypes.byref(connection)) == 0
name, password = (each.encode() for each in sys.argv[1:])
SET_CREATE = 1
result = sasl.sasl_setpass(connection, name, password, len(password), None, 0, SET_CREATE)
assert result == 0, result
"""
"""
Does what C{saslpasswd2} does, so that its package need not be installed.
"""

_DAEMON_SETTINGS: Final = """
listen_tls = 1
listen_tcp = {tcp}
tcp_port = "{tcpPort}"
auth_tcp = "sasl"
listen_addr = "127.0.0.1"
tls_port = "{port}"
auth_tls = "{auth}"
auth_unix_rw = "sasl"
auth_unix_ro = "none"
unix_sock_dir = "{directory}"
ca_file = "{directory}/pki/CA/cacert.pem"
cert_file = "{directory}/pki/libvirt/servercert.pem"
key_file = "{directory}/pki/libvirt/private/serverkey.pem"
keepalive_interval = -1
log_filters = "1:rpc 4:*"
log_outputs = "1:stderr"
"""


class SecureServer:
    """
    A kaserver with several listeners.

    @ivar program: the process; its output is the log.
    @ivar ports: the ports it listens on and the paths of its UNIX sockets, in the order of the
        arguments.
    """

    def __init__(self, program: Program, ports: list[str]) -> None:
        self.program = program
        self.ports = ports

    @classmethod
    async def start(
        cls,
        case: InteropTestCase,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ) -> SecureServer:
        """
        Start it, and wait until its log says that it listens.

        @param environment: variables to add.
        """
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", *arguments]
        directory = case.privateDirectory()
        program = Program.start(case, command, os.environ | dict(environment or {}), directory)
        count = sum(argument.startswith("--listen=") for argument in arguments)
        server = cls(program, [])

        def listening() -> bool:
            server.ports = [port or path for port, path in _LISTENING.findall(server.log)]
            assert program.running, program.describe()
            return len(server.ports) >= count

        await waitUntil(listening, program.describe, timeout=20)
        return server

    @property
    def log(self) -> str:
        """
        The log so far.
        """
        return self.program.output + self.program.errors

    def tls(
        self, pkipath: str, rest: str = "", *, listener: int = 0, host: str = "127.0.0.1"
    ) -> str:
        """
        @param listener: the index of the listener.
        @return: the URI for virsh.
        """
        return f"test+tls://{host}:{self.ports[listener]}/default?pkipath={pkipath}{rest}"


class SecureTestCase(InteropTestCase):
    """
    A test with a certificate authority and certificates signed by it.
    """

    def setUp(self) -> None:
        """
        Create the authority and the server's certificate.
        """
        super().setUp()
        self.authority = Authority()
        self.serverIdentity = self.authority.issue(
            distinguished("server"), hosts=["127.0.0.1", "localhost"]
        )
        self.pki = self.authority.write(self.privateDirectory(), self.serverIdentity)

    @cached_property
    def alice(self) -> str:
        """
        The folder of a client with a valid certificate.
        """
        return self.clientFiles(self.authority.issue(distinguished("alice")))

    @cached_property
    def nobody(self) -> str:
        """
        The folder of a client without a certificate.
        """
        return self.clientFiles(None)

    def clientFiles(self, identity: Identity | None) -> str:
        """
        Write the certificate files of a client.

        @return: the folder.
        """
        return self.authority.writeFlat(self.privateDirectory(), identity)

    def listener(self, rest: str = "") -> str:
        """
        @return: the argument that makes kaserver listen with TLS.
        """
        return f"--listen=libvirttls:0:interface=127.0.0.1:pki={self.pki}{rest}"

    def passwordFile(self) -> str:
        """
        @return: the path of a file with the names and passwords of two users.
        """
        path = os.path.join(self.privateDirectory(), "users")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"bob:not for alice\n{NAME}:{PASSWORD}\n")
        return path

    def authFile(self, name: str = NAME, password: str = PASSWORD) -> str:
        """
        @return: the part of a URI that gives virsh a name and a password.
        """
        path = os.path.join(self.privateDirectory(), "auth.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"[credentials-x]\nauthname={name}\npassword={password}\n"
                "[auth-libvirt-default]\ncredentials=x\n"
            )
        return f"&authfile={path}"

    def startHostname(self, uri: str) -> Program:
        """
        Start a virsh that asks for the host name.
        """
        return startVirsh(self, "-c", uri, "hostname")

    async def hostname(self, uri: str) -> Result:
        """
        Run a virsh that asks for the host name.
        """
        return await self.startHostname(uri).finish(15)

    async def letIn(self, uri: str) -> None:
        """
        Check that virsh can connect.
        """
        result = await self.hostname(uri)
        self.assertEqual((result.exitCode, result.errors), (0, ""), uri)
        self.assertEqual(result.output.strip(), os.uname().nodename)

    async def refused(self, uri: str, words: str) -> None:
        """
        Check that virsh is refused.

        @param words: part of its error message.
        """
        result = await self.hostname(uri)
        self.assertEqual(result.exitCode, 1, result)
        self.assertIn(words, result.errors)


class SecureDaemon:
    """
    A real libvirtd with the test driver, TLS and SASL, which shares nothing with any other.

    @ivar program: the process; its standard error is a log with all RPC messages.
    @ivar port: the port for TLS.
    @ivar socketPath: the path of its UNIX socket, which requires a password.
    """

    def __init__(self, program: Program, port: int, socketPath: str) -> None:
        self.program = program
        self.port = port
        self.socketPath = socketPath

    @classmethod
    async def start(
        cls,
        case: SecureTestCase,
        *,
        auth: str = "sasl",
        settings: str = "",
        mechanisms: str = "scram-sha-256 plain",
        tcpPort: int = 0,
    ) -> SecureDaemon:
        """
        Start it, and wait until it accepts connections.

        @param auth: C{auth_tls}: what it requires over TLS besides a certificate.
        @param settings: more lines for its C{libvirtd.conf}.
        @param mechanisms: the SASL mechanisms it offers.
        @param tcpPort: the port for plain TCP with a password; 0 for none.
        """
        directory = case.privateDirectory()
        environment = privateEnvironment(directory) | {"SASL_CONF_PATH": directory}
        os.makedirs(environment["XDG_RUNTIME_DIR"], mode=0o700)
        case.authority.write(os.path.join(directory, "pki"), case.serverIdentity)
        with open(os.path.join(directory, "libvirt.conf"), "w", encoding="ascii") as file:
            file.write(
                f"mech_list: {mechanisms}\npwcheck_method: auxprop\n"
                f"auxprop_plugin: sasldb\nsasldb_path: {directory}/passwd.db\n"
            )
        command = [PYTHON, "-c", _MAKE_DATABASE, NAME, PASSWORD]
        made = await Program.start(case, command, environment, directory).finish()
        assert made.exitCode == 0, made
        port = reservePort(case)
        path = os.path.join(directory, "libvirtd.conf")
        with open(path, "w", encoding="ascii") as file:
            common = _DAEMON_SETTINGS.format(
                port=port, directory=directory, auth=auth, tcp=int(tcpPort > 0), tcpPort=tcpPort
            )
            file.write(common + settings)
        user = None
        if os.geteuid() == 0:
            user = _UNPRIVILEGED
            os.chown(directory, user, user)
            for folder, folders, files in os.walk(directory):
                for name in (*folders, *files):
                    os.chown(os.path.join(folder, name), user, user)
        pidFile = os.path.join(directory, "libvirtd.pid")
        program = Program.start(
            case,
            [LIBVIRTD, "--listen", "--config", path, "--pid-file", pidFile],
            environment,
            directory,
            uid=user,
            gid=user,
        )

        def accepts() -> bool:
            assert program.running, program.describe()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await waitUntil(accepts, "libvirtd to listen", timeout=20)
        return cls(program, port, os.path.join(directory, "libvirt-sock"))
