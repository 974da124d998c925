"""
The relays: chains of processes in front of an upstream.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.build import build
from benchmarks.checkout import BEFORE, ROOT
from benchmarks.generator import Calls
from benchmarks.processes import Measured, freePort
from benchmarks.servers import SERVERS, TLS_ENDPOINT, Recipe, noneBefore, twistd
from kaproto.cli.certificates import makeCertificates

__all__ = ["COMPARED", "RELAYS", "TLS_RELAYS", "Relay"]


@dataclass(frozen=True)
class Relay:
    """
    A chain of processes in front of an upstream.

    @ivar name: its name in the table.
    @ivar hops: the processes in the chain, starting with the one that clients connect to.  Each is
        a function of its own port, the next process's port and a folder.
    @ivar missing: why it cannot run here; L{None} if it can.
    @ivar tls: whether clients speak TLS.
    @ivar confirms: whether it sends the byte by which libvirt accepts a client over TLS.
    """

    name: str
    hops: Sequence[Callable[[int, int, Path], Recipe]] = ()
    missing: Callable[[], str | None] = lambda: None
    tls: bool = False
    confirms: bool = False

    @contextmanager
    def running(self, logs: Path) -> Iterator[tuple[list[Measured], Calls]]:
        """
        Start an upstream, and this relay in front of it.

        @param logs: the folder for their output.
        @return: the processes, starting with the upstream's, and a load for them.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="kaproto-benchmark-")))
            credentials = _issue(folder) if self.tls else None
            port = freePort()
            program = [str(build("upstream")), str(port)]
            behind = stack.enter_context(Measured(program, logs / "upstream.log"))
            behind.waitListening(port)
            processes = [behind]
            for hop in reversed(self.hops):
                target, port = port, freePort()
                log = logs / f"relay-{self.name}-{len(processes)}.log"
                process = stack.enter_context(hop(port, target, folder).start(log))
                process.waitListening(port)
                processes.append(process)
            yield processes, Calls(port, credentials=credentials, confirmed=self.confirms)


def _issue(folder: Path) -> tuple[str, str]:
    """
    Make certificates for a relay and a client.

    @return: the paths of the client's certificate and key.
    """
    list(makeCertificates(folder, ["127.0.0.1"], ["benchmark"]))
    own = folder / "libvirt"
    server = [own / "servercert.pem", own / "private" / "serverkey.pem"]
    (folder / "server.pem").write_bytes(b"".join(each.read_bytes() for each in server))
    return str(own / "clientcert.pem"), str(own / "private" / "clientkey.pem")


def _gateway(
    listen: str, checkout: Path | None = None, *more: str
) -> Callable[[int, int, Path], Recipe]:
    def recipe(port: int, upstream: int, folder: Path) -> Recipe:
        return twistd(
            "kaserver",
            "--mode=2",
            f"--upstream=tcp:127.0.0.1:{upstream}",
            "--insecure",
            f"--listen={listen.format(port=port, folder=folder)}",
            *more,
            checkout=checkout,
        )

    return recipe


def _portforward(listen: str, connect: str) -> Callable[[int, int, Path], Recipe]:
    """
    @param listen: an endpoint string up to the port.
    @param connect: an endpoint string for the next hop, up to the port.
    """

    def recipe(port: int, upstream: int, _folder: Path) -> Recipe:
        places = [
            f"{listen}:{port}:interface=127.0.0.1:backlog=4096",
            f"{connect}:127.0.0.1:{upstream}",
        ]
        command = [sys.executable, "-m", "benchmarks.peers.portforward", *places]
        return Recipe(command, {"PYTHONPATH": str(ROOT)})

    return recipe


def _haproxyPath() -> str | None:
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _haproxyMissing() -> str | None:
    return None if _haproxyPath() else "haproxy is not installed"


def _haproxy(bind: str = "") -> Callable[[int, int, Path], Recipe]:
    """
    @param bind: more options for the C{bind} line.
    """

    def recipe(port: int, upstream: int, folder: Path) -> Recipe:
        configuration = folder / "haproxy.cfg"
        configuration.write_text(
            f"""
global
    nbthread 1
    maxconn 2000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend front
    bind 127.0.0.1:{port} {bind.format(folder=folder)}
    default_backend back
backend back
    server upstream 127.0.0.1:{upstream}
"""
        )
        haproxy = _haproxyPath()
        assert haproxy is not None
        return Recipe([haproxy, "-db", "-f", str(configuration)])

    return recipe


def _stunnel(port: int, upstream: int, folder: Path) -> Recipe:
    configuration = folder / "stunnel.conf"
    configuration.write_text(
        f"""
foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[relay]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{upstream}
cert = {folder}/server.pem
CAfile = {folder}/CA/cacert.pem
verifyChain = yes
"""
    )
    return Recipe(["stunnel", str(configuration)])


_CHECKOUT = Path(BEFORE or ".").absolute()
_TCP = "tcp:{port}:interface=127.0.0.1"
_TLS = TLS_ENDPOINT + ":{port}:interface=127.0.0.1:pki={folder}"

RELAYS = {
    relay.name: relay
    for relay in (
        Relay("direct"),
        Relay("kaserver", [_gateway(_TCP)], SERVERS["kaserver"].missing),
        Relay(
            "kaserver-workers",
            [_gateway(_TCP, None, "--workers=2")],
            SERVERS["kaserver"].missing,
        ),
        Relay("kaserver-before", [_gateway(_TCP, _CHECKOUT)], noneBefore),
        Relay("portforward", [_portforward("tcp", "tcp")]),
        Relay("haproxy", [_haproxy()], _haproxyMissing),
        Relay("portforward-twice", [_portforward("tcp", "tcp")] * 2),
        Relay(
            "tunnel", [_portforward("tcp", "keepalive:tcp"), _portforward("keepalive:tcp", "tcp")]
        ),
    )
}
"""
All relays, by name.
"""

TLS_RELAYS = {
    relay.name: relay
    for relay in (
        Relay(
            "kaserver-tls",
            [_gateway(_TLS)],
            SERVERS["kaserver-tls"].missing,
            tls=True,
            confirms=True,
        ),
        Relay(
            "kaserver-tls-before",
            [_gateway(_TLS, _CHECKOUT)],
            lambda: SERVERS["kaserver-tls"].missing() or noneBefore(),
            tls=True,
            confirms=True,
        ),
        Relay(
            "haproxy-tls",
            [
                _haproxy(
                    "ssl crt {folder}/server.pem ca-file {folder}/CA/cacert.pem verify required"
                )
            ],
            _haproxyMissing,
            tls=True,
        ),
        Relay(
            "stunnel",
            [_stunnel],
            lambda: None if shutil.which("stunnel") else "stunnel is not installed",
            tls=True,
        ),
    )
}
"""
The relays whose clients speak TLS, in front of an upstream without TLS.
"""

COMPARED = {
    "kaserver": "portforward",
    "tunnel": "portforward-twice",
    "kaserver-tls": "haproxy-tls",
    "kaserver-tls-before": "haproxy-tls",
    "stunnel": "haproxy-tls",
}
"""
The relay that each relay is compared with.
"""
