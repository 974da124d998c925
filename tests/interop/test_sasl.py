"""
Tests for names and passwords between kaproto and libvirt's own programs.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import statistics
import time
from functools import partial

from kaproto.client import connect
from kaproto.errors import AuthenticationFailed
from kaproto.security.saslclient import Login
from kaproto.security.scramkeys import ScramKeys
from kaproto.wire.programs import Procedure
from kaproto.wire.sasl import packStart
from tests.interop import wire
from tests.interop.programs import startPythonLibvirt
from tests.interop.secure import NAME, PASSWORD, SecureDaemon, SecureServer, SecureTestCase
from tests.interop.servers import reservePort
from tests.interop.support import pause, reactor, together
from tests.interop.wire import FrameReader

REFUSED = "authentication failed: authentication failed"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256")


def keyFile(case: SecureTestCase) -> str:
    """
    @return: the path of a file with the salted keys of a user.
    """
    path = os.path.join(case.privateDirectory(), "keys")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{NAME}:{ScramKeys.fromPassword(PASSWORD).toText()}\n")
    return path


class VirshTests(SecureTestCase):
    """
    Tests for virsh logging in to kaserver.
    """

    async def checkAll(self, uri: str) -> None:
        """
        Check that with every mechanism the right password is accepted, and a wrong one and an
        unknown name are refused.
        """
        attempts = []
        for mechanism in MECHANISMS:
            chosen = f"&auth=sasl.{mechanism}"
            attempts.append(self.letIn(uri + self.authFile() + chosen))
            for name, password in ((NAME, "wrong"), ("nobody", PASSWORD)):
                rest = self.authFile(name, password) + chosen
                attempts.append(self.refused(uri + rest, REFUSED))
        await together(*attempts)

    async def test_logins(self) -> None:
        """
        virsh can log in by every mechanism, whatever the server has been given and has met.
        """
        await together(
            self._modes(),
            self._keys(),
            self._unix(),
            self._strongest(),
            self._nothingIsLeaked(),
            self._unicode(),
            self._reload(),
            self._guesses(),
            self._python(),
        )

    async def _modes(self) -> None:
        """
        Logins work over TLS in every mode with every mechanism.
        """
        await together(*(self.checkMode(mode) for mode in range(3)))

    async def checkMode(self, mode: int) -> None:
        """
        Check logins over TLS in one mode.
        """
        server = await SecureServer.start(
            self,
            self.listener(),
            f"--auth=file:{self.passwordFile()}",
            f"--mode={mode}",
            "--auth-delay=0.1",
        )
        await self.checkAll(server.tls(self.alice))
        self.assertIn(f"failed to log in as {NAME!r} by PLAIN", server.log)
        self.assertIn("failed to log in as 'nobody' by SCRAM-SHA-256", server.log)

    async def _keys(self) -> None:
        """
        Logins work with a file of salted keys, and without client certificates.
        """
        server = await SecureServer.start(
            self, self.listener(":verify=no"), f"--auth=scram:{keyFile(self)}", "--auth-delay=0.1"
        )
        await self.checkAll(server.tls(self.nobody))

    async def _unix(self) -> None:
        """
        Logins work on a UNIX socket.
        """
        path = os.path.join(self.privateDirectory(), "sock")
        server = await SecureServer.start(
            self,
            f"--listen=unix:{path}",
            f"--auth=file:{self.passwordFile()}",
            "--auth-delay=0.1",
        )
        await self.checkAll(f"test+unix:///default?socket={path}")
        self.assertIn(f"uid={os.getuid()}", server.log)

    async def _strongest(self) -> None:
        """
        By default virsh uses the mechanism that does not reveal the password.
        """
        server = await SecureServer.start(
            self, self.listener(), f"--auth=file:{self.passwordFile()}", "--auth-delay=0"
        )
        await self.letIn(server.tls(self.alice, self.authFile()))
        await self.refused(server.tls(self.alice, self.authFile(password="wrong")), REFUSED)
        self.assertIn("by SCRAM-SHA-256", server.log)

    async def _nothingIsLeaked(self) -> None:
        """
        The log never has a password.
        """
        server = await SecureServer.start(
            self, self.listener(), f"--auth=file:{self.passwordFile()}", "--auth-delay=0"
        )
        await together(
            *(
                self.hostname(
                    server.tls(
                        self.alice, f"{self.authFile(password=password)}&auth=sasl.{mechanism}"
                    )
                )
                for password in (PASSWORD, "another secret")
                for mechanism in MECHANISMS
            )
        )
        self.assertIn("failed to log in", server.log)
        for secret in (PASSWORD, "another secret", "not for alice"):
            self.assertNotIn(secret, server.log)

    async def _unicode(self) -> None:
        """
        Names and passwords can have non-ASCII characters.
        """
        name, password = "zo\u00e9", "p\u00e4ss w\u00f6rd#1"
        users = os.path.join(self.privateDirectory(), "users")
        with open(users, "w", encoding="utf-8") as file:
            file.write(f"# people\n{name}:{password}\n")
        server = await SecureServer.start(self, self.listener(), f"--auth=file:{users}")
        login = self.authFile(name, password)
        await together(
            *(
                self.letIn(server.tls(self.alice, f"{login}&auth=sasl.{each}"))
                for each in MECHANISMS
            )
        )

    async def _reload(self) -> None:
        """
        SIGHUP reloads the users; if the file has a mistake, the previous ones stay.
        """
        for make, kind in ((self.passwordFile, "file"), (partial(keyFile, self), "scram")):
            path = make()
            server = await SecureServer.start(
                self, self.listener(), f"--auth={kind}:{path}", "--auth-delay=0.1"
            )
            with open(path, encoding="utf-8") as file:
                lines = file.read()
            with open(path, "w", encoding="utf-8") as file:
                file.write(lines + f"{NAME}:again\n")
            server.program.signal(signal.SIGHUP)
            number = lines.count("\n") + 1
            await server.program.waitOutput(
                f"keeping the previous version: {path}, line {number}: '{NAME}' is in line"
            )
            await self.letIn(server.tls(self.alice, self.authFile()))
            with open(path, "w", encoding="utf-8") as file:
                file.write(lines.replace(f"{NAME}:", "carol:"))
            server.program.signal(signal.SIGHUP)
            await server.program.waitOutput("reloaded the users in ")
            await self.letIn(server.tls(self.alice, self.authFile("carol")))
            await self.refused(server.tls(self.alice, self.authFile()), REFUSED)

    async def _guesses(self) -> None:
        """
        After ten failed logins from its address virsh can still log in, after its wait.
        """
        server = await SecureServer.start(
            self, self.listener(), f"--auth=file:{self.passwordFile()}", "--auth-delay=0.5"
        )
        wrong = server.tls(self.alice, self.authFile("bob", "wrong"))
        await together(*(self.refused(wrong, REFUSED) for _ in range(10)))
        right = server.tls(self.alice, self.authFile())
        await together(
            *(self.letIn(f"{right}&auth=sasl.{each}") for each in MECHANISMS),
            self.refused(wrong, REFUSED),
        )
        self.assertIn("network 127.0.0.1: 10 logins failed within 60 s", server.log)

    async def _python(self) -> None:
        """
        A Python program with libvirt's bindings can log in with C{openAuth()}, but not with
        C{open()}.
        """
        server = await SecureServer.start(
            self, self.listener(), f"--auth=file:{self.passwordFile()}"
        )
        script = """
def answer(credentials, data):
    for credential in credentials:
        name = credential[0] == libvirt.VIR_CRED_AUTHNAME
        credential[4] = sys.argv[2] if name else sys.argv[3]
    return 0

kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
connection = libvirt.openAuth(sys.argv[1], [kinds, answer, None], 0)
print(connection.getHostname())
"""
        uri = server.tls(self.alice)
        program = startPythonLibvirt(self, script, uri, NAME, PASSWORD)
        result = await program.finish()
        self.assertEqual(result.output.strip(), os.uname().nodename, result)
        script = "libvirt.open(sys.argv[1])"
        result = await startPythonLibvirt(self, script, uri + self.authFile()).finish()
        self.assertIn("No worthy mechs found", result.errors)


class ClientTests(SecureTestCase):
    """
    Tests for kaproto's client logging in to libvirtd.
    """

    tools = ("libvirtd", "python3-libvirt")

    async def test_all(self) -> None:
        """
        Over TLS and a UNIX socket, with every mechanism, the right password is accepted, and a
        wrong one and an unknown name are refused.
        """
        daemon = await SecureDaemon.start(self)
        for uri in (
            f"test+tls://127.0.0.1:{daemon.port}/default?pkipath={self.alice}",
            f"test+unix:///default?socket={daemon.socketPath}",
        ):
            for mechanism in (None, *MECHANISMS):
                login = Login(NAME, PASSWORD, mechanism)
                connection = await connect(reactor, uri, login=login)
                self.assertEqual(await connection.hostname(), os.uname().nodename)
                await connection.close()
                for name, password in ((NAME, "wrong"), ("nobody", PASSWORD)):
                    with self.assertRaisesRegex(AuthenticationFailed, f"refuses '{name}'"):
                        await connect(reactor, uri, login=Login(name, password, mechanism))

    async def test_file(self) -> None:
        """
        The name and password can be in the file that libvirt's own clients read.
        """
        daemon = await SecureDaemon.start(self)
        uri = f"test+unix:///default?socket={daemon.socketPath}{self.authFile()}"
        connection = await connect(reactor, uri)
        self.assertEqual(await connection.hostname(), os.uname().nodename)
        await connection.close()

    async def test_tcp(self) -> None:
        """
        libvirtd offers only DIGEST-MD5 over plain TCP, which kaproto does not support; the error
        says what to do.
        """
        port = reservePort(self)
        mechanisms = "digest-md5 scram-sha-256 plain"
        await SecureDaemon.start(self, mechanisms=mechanisms, tcpPort=port)
        with self.assertRaisesRegex(AuthenticationFailed, "has SCRAM-SHA-256, .* connect by TLS"):
            await connect(
                reactor, f"test+tcp://127.0.0.1:{port}/default", login=Login(NAME, PASSWORD)
            )

    async def test_none(self) -> None:
        """
        Without a name and password the error says that authentication is required.
        """
        daemon = await SecureDaemon.start(self)
        uri = f"test+unix:///default?socket={daemon.socketPath}"
        with self.assertRaisesRegex(AuthenticationFailed, "authentication by sasl"):
            await connect(reactor, uri)


class TimingTests(SecureTestCase):
    """
    The time of an answer does not reveal whether a user exists.
    """

    alone = True
    timeout = 120
    tools = ()

    def ask(self, path: str, mechanism: str, data: bytes) -> float:
        """
        Begin to log in.

        @return: the seconds until the answer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            reader = FrameReader()

            def call(procedure: int, payload: bytes) -> float:
                begun = time.perf_counter()
                connection.sendall(wire.encode(procedure, payload))
                while not reader.feed(connection.recv(65536), 0):
                    pass
                return time.perf_counter() - begun

            call(Procedure.AUTH_SASL_INIT, b"")
            return call(Procedure.AUTH_SASL_START, packStart(mechanism, data))

    async def compare(
        self, auth: str, mechanism: str, known: bytes, unknown: bytes, count: int
    ) -> None:
        """
        Check that a known and an unknown user are answered in the same time: that their medians
        differ by no more than chance explains.
        """
        path = os.path.join(self.privateDirectory(), "sock")
        await SecureServer.start(
            self,
            f"--listen=unix:{path}",
            f"--auth={auth}",
            "--auth-delay=0.008",
            "--auth-guesses=100000",
        )
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(2 * count):
            # The order keeps effects that change with time from favoring either.
            which = (number ^ number >> 1) & 1
            times[which].append(self.ask(path, mechanism, (known, unknown)[which]))
            await pause(0)
        medians = [statistics.median(each) for each in times]
        errors = [
            1.48 * statistics.median(abs(one - median) for one in each) * 1.25 / math.sqrt(count)
            for each, median in zip(times, medians, strict=True)
        ]
        # By chance one in about ten thousand such tests would fail.
        self.assertLess(abs(medians[0] - medians[1]), 4 * math.hypot(*errors) + 2e-5, medians)

    async def test_plain(self) -> None:
        """
        With PLAIN, a wrong password and an unknown name are refused after the same time.
        """
        for auth in (f"file:{self.passwordFile()}", f"scram:{keyFile(self)}"):
            await self.compare(auth, "PLAIN", f"\0{NAME}\0wrong".encode(), b"\0nobody\0wrong", 40)

    async def test_scram(self) -> None:
        """
        With SCRAM, known and unknown names are challenged after the same time.
        """
        for auth in (f"file:{self.passwordFile()}", f"scram:{keyFile(self)}"):
            await self.compare(
                auth,
                "SCRAM-SHA-256",
                f"n,,n={NAME},r=abcdefgh".encode(),
                b"n,,n=carol,r=abcdefgh",
                120,
            )
