"""
Tests for kaserver behind a real haproxy: it gets the client's address and name over TCP, over TLS
that is passed through, and over TLS that ends at haproxy.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from textwrap import indent

from twisted.internet.threads import deferToThread

from tests.interop.programs import Program, startVirsh
from tests.interop.secure import SecureServer, SecureTestCase
from tests.interop.servers import LibvirtDaemon, reservePort
from tests.interop.support import pause, privateEnvironment, waitUntil

BALANCER = "127.0.0.3"
"""
The address haproxy connects from, which differs from the client's.
"""

FROM = f"from={BALANCER}"
DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
CONFIGURATION = DOCS / "haproxy" / "haproxy.cfg"
_STATE, _ADMIN_STATE = 5, 6
"""
The columns of "show servers state" with a server's state and its administrative state.
"""
_FORCED_DRAIN = 0x08
HAPROXY = which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "haproxy"


class HaproxyTestCase(SecureTestCase):
    """
    A test that starts haproxy.
    """

    tools = (*SecureTestCase.tools, "haproxy", "libvirtd")

    async def balance(self, port: str, *, bind: str = "", server: str = "send-proxy-v2") -> int:
        """
        Put haproxy in front of a port.

        @param bind: options to add to haproxy's C{bind} line.
        @param server: options to add to haproxy's C{server} line.
        @return: the port haproxy listens on.
        """
        return await self.run_(
            f"frontend clients\n  bind 127.0.0.1:PORT {bind}\n  default_backend hosts\n"
            f"backend hosts\n  source {BALANCER}\n  server a 127.0.0.1:{port} {server}\n"
        )

    async def run_(self, configuration: str) -> int:
        """
        Start haproxy, and wait until it listens.

        @param configuration: with C{PORT} in the place of the port.
        @return: the port.
        """
        directory = self.privateDirectory()
        front = reservePort(self)
        path = Path(directory) / "haproxy.cfg"
        path.write_text(
            "defaults\n"
            "  mode tcp\n"
            "  timeout connect 5s\n"
            "  timeout client 60s\n"
            "  timeout server 60s\n" + configuration.replace("PORT", str(front))
        )
        program = Program.start(
            self,
            [HAPROXY, "-db", "-f", str(path)],
            privateEnvironment(directory),
            directory,
        )

        def listens() -> bool:
            assert program.running, program.describe()
            sockets = map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            return any(each[1].endswith(f":{front:04X}") and each[3] == "0A" for each in sockets)

        await waitUntil(listens, program.describe)
        return front

    def rules(self, text: str) -> str:
        """
        Write a file of rules.

        @return: the argument that names it.
        """
        path = Path(self.privateDirectory()) / "rules.toml"
        path.write_text(text)
        return f"--mode=rules:{path}"


class PassThroughTests(HaproxyTestCase):
    """
    Tests for haproxy forwarding the client's bytes after a PROXY header.
    """

    async def test_tcp(self) -> None:
        """
        Rules and the log see the client's address, not haproxy's.  A client that bypasses haproxy
        is refused.
        """
        rules = self.rules('[default]\nmode = 2\n[[rule]]\nnetwork = "127.0.0.1"\nmode = 0\n')
        for header in ("send-proxy", "send-proxy-v2"):
            server = await SecureServer.start(
                self, f"--listen=proxy:tcp:0:interface=127.0.0.1:{FROM}", "--insecure", rules
            )
            front = await self.balance(server.ports[0], server=header)
            await self.letIn(f"test+tcp://127.0.0.1:{front}/default")
            self.assertRegex(server.log, r"tcp 127\.0\.0\.1:\d+")
            self.assertNotIn(f"{BALANCER}:", server.log)
            await self.refused(f"test+tcp://127.0.0.1:{server.ports[0]}/default", "")
            await server.program.waitOutput("127.0.0.1 is not in from=")
            await server.program.kill()

    async def test_tls(self) -> None:
        """
        TLS is passed through after the header.
        """
        listen = self.listener(f":{FROM}").replace("--listen=", "--listen=proxy:")
        server = await SecureServer.start(
            self, listen, "--mode=2", "--insecure", "--tls-allowed-dn=*CN=alice"
        )
        front = await self.balance(server.ports[0])
        await self.letIn(f"test+tls://127.0.0.1:{front}/default?pkipath={self.alice}")
        await server.program.waitOutput(r"tls 127\.0\.0\.1:\d+ dn='C=GB")


class GuideTests(HaproxyTestCase):
    """
    Tests for the configuration in the guide.
    """

    def test_configuration(self) -> None:
        """
        haproxy accepts the file, and the guide shows it unchanged.
        """
        text = CONFIGURATION.read_text("utf-8")
        shown = indent(text, "   ", lambda line: bool(line.strip()))
        self.assertIn(shown, (DOCS / "howto" / "fleet.rst").read_text("utf-8"))
        folder = Path(self.privateDirectory())
        pki = Path(self.pki)
        (folder / "libvirt.pem").write_bytes(
            (pki / "libvirt/servercert.pem").read_bytes()
            + (pki / "libvirt/private/serverkey.pem").read_bytes()
        )
        (folder / "libvirt-ca.pem").write_bytes((pki / "CA/cacert.pem").read_bytes())
        path = folder / "haproxy.cfg"
        path.write_text(text.replace("/etc/haproxy", str(folder)), "utf-8")
        checked = subprocess.run(
            [HAPROXY, "-c", "-f", str(path)], capture_output=True, text=True, check=False
        )
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))


class TerminatedTests(HaproxyTestCase):
    """
    Tests for haproxy terminating TLS.
    """

    async def terminate(self, *arguments: str) -> tuple[SecureServer, int]:
        """
        Start kaserver, and haproxy in front of it, which verifies client certificates.

        @return: kaserver, and the port haproxy listens on.
        """
        server = await SecureServer.start(
            self,
            f"--listen=proxy:tcp:0:interface=127.0.0.1:{FROM}:tls=terminated",
            "--insecure",
            *arguments,
        )
        pki = Path(self.pki)
        bundle = Path(self.privateDirectory()) / "server.pem"
        bundle.write_bytes(
            (pki / "libvirt/servercert.pem").read_bytes()
            + (pki / "libvirt/private/serverkey.pem").read_bytes()
        )
        ca = pki / "CA/cacert.pem"
        front = await self.balance(
            server.ports[0],
            bind=f"ssl crt {bundle} ca-file {ca} verify optional ssl-max-ver TLSv1.2 "
            "no-tls-tickets",
            server="send-proxy-v2-ssl-cn",
        )
        return server, front

    async def test_commonName(self) -> None:
        """
        virsh gets the confirmation byte that it waits for.  Rules match the common name, and there
        is no distinguished name.
        """
        rules = self.rules('[default]\nmode = 2\n[[rule]]\ncn = "al*"\nmode = 1\nreadonly = true\n')
        server, front = await self.terminate(rules)
        await self.letIn(f"test+tls://127.0.0.1:{front}/default?pkipath={self.alice}")
        await server.program.waitOutput(r"tls 127\.0\.0\.1:\d+ cn='alice'")
        self.assertNotIn("dn=", server.log)

    async def test_noCertificate(self) -> None:
        """
        A client without a certificate, which haproxy let pass, is refused.
        """
        server, front = await self.terminate("--mode=2")
        uri = f"test+tls://127.0.0.1:{front}/default?pkipath={self.nobody}&no_sanity=1"
        await self.refused(uri, "server verification (of our certificate or IP address) failed")
        await server.program.waitOutput("does not say that it verified a client certificate")


class HostsTests(HaproxyTestCase):
    """
    Tests for two kaservers behind haproxy, in front of a real libvirtd.
    """

    async def test_drain(self) -> None:
        """
        While one kaserver drains, virsh commands through haproxy succeed: its agent has told
        haproxy.  When libvirtd is killed, the other's agent reports it.
        """
        daemon = await LibvirtDaemon.start(self)
        servers = [
            await SecureServer.start(
                self,
                f"--listen=proxy:tcp:0:interface=127.0.0.1:{FROM}",
                f"--upstream=unix:{daemon.socketPath}",
                "--agent=tcp:0:interface=127.0.0.1",
                "--insecure",
                "--mode=2",
            )
            for _ in range(2)
        ]
        agents = [
            (await each.program.waitOutput(r"127\.0\.0\.1:(\d+) \(haproxy's agent"))[1]
            for each in servers
        ]
        lines = "".join(
            f"  server s{number} 127.0.0.1:{each.ports[0]} send-proxy-v2 check inter 200 fall 1 "
            f"agent-check agent-port {agent} agent-inter 200\n"
            for number, (each, agent) in enumerate(zip(servers, agents, strict=True))
        )
        stats = str(Path(self.privateDirectory()) / "stats")
        front = await self.run_(
            "  option redispatch\n"
            f"global\n  stats socket {stats}\n"
            f"listen hosts\n  bind 127.0.0.1:PORT\n  source {BALANCER}\n{lines}"
        )
        uri = f"test+tcp://127.0.0.1:{front}/default"
        stay = [startVirsh(self, "-c", uri) for _ in servers]
        for each in stay:
            await each.ask("hostname", os.uname().nodename)
        results = []
        for number in range(12):
            if number == 4:
                servers[0].program.signal(signal.SIGUSR2)
            results.append(await self.hostname(uri))
        self.assertEqual([each.exitCode for each in results], [0] * 12, results)
        self.assertEqual(results[0].output.strip(), os.uname().nodename)

        async def says(server: int, condition: Callable[[list[str]], bool]) -> None:
            while True:
                found = await deferToThread(command, stats, "show servers state hosts")
                if condition(found.splitlines()[2 + server].split()):
                    return
                await pause(0.05)

        await says(0, lambda words: bool(int(words[_ADMIN_STATE]) & _FORCED_DRAIN))
        self.assertTrue(servers[0].program.running)
        await daemon.kill()
        self.assertNotEqual((await self.hostname(uri)).exitCode, 0)
        await says(1, lambda words: words[_STATE] == "0")


def command(path: str, text: str) -> str:
    """
    @return: haproxy's answer to a command.
    """
    with socket.socket(socket.AF_UNIX) as stats:
        stats.settimeout(10)
        stats.connect(path)
        stats.sendall(f"{text}\n".encode())
        with stats.makefile("rb") as answer:
            return answer.read().decode()
