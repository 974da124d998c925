"""
The ways to an upstream: processes one behind the other.
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
from benchmarks.checkout import ROOT
from benchmarks.processes import Measured, freePort
from benchmarks.servers import SERVERS, Recipe, twistd

__all__ = ["COMPARED", "RELAYS", "Relay"]


@dataclass(frozen=True)
class Relay:
    """
    A way to the upstream.

    @ivar name: what the table calls it.
    @ivar hops: the processes one behind the other, the clients' first.  Each is made from its own
        port, the next one's and a folder.
    @ivar missing: why it cannot run here, or L{None}.
    """

    name: str
    hops: Sequence[Callable[[int, int, Path], Recipe]] = ()
    missing: Callable[[], str | None] = lambda: None

    @contextmanager
    def running(self, logs: Path) -> Iterator[tuple[list[Measured], int]]:
        """
        An upstream, and this relay before it.

        @param logs: where to keep what they print.
        @return: the processes, the upstream's first, and the port to call.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="kaproto-benchmark-")))
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
            yield processes, port


def _gateway(port: int, upstream: int, _folder: Path) -> Recipe:
    return twistd(
        "kaserver",
        "--mode=2",
        f"--upstream=tcp:127.0.0.1:{upstream}",
        "--insecure",
        f"--listen=tcp:{port}:interface=127.0.0.1",
    )


def _portforward(listen: str, connect: str) -> Callable[[int, int, Path], Recipe]:
    """
    @param listen: an endpoint string up to the port.
    @param connect: the same for the next hop.
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


def _haproxy(port: int, upstream: int, folder: Path) -> Recipe:
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
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server upstream 127.0.0.1:{upstream}
"""
    )
    haproxy = _haproxyPath()
    assert haproxy is not None
    return Recipe([haproxy, "-db", "-f", str(configuration)])


RELAYS = {
    relay.name: relay
    for relay in (
        Relay("direct"),
        Relay("kaserver", [_gateway], SERVERS["kaserver"].missing),
        Relay("portforward", [_portforward("tcp", "tcp")]),
        Relay(
            "haproxy",
            [_haproxy],
            lambda: None if _haproxyPath() else "haproxy is not installed",
        ),
        Relay("portforward-twice", [_portforward("tcp", "tcp")] * 2),
        Relay(
            "tunnel", [_portforward("tcp", "keepalive:tcp"), _portforward("keepalive:tcp", "tcp")]
        ),
    )
}
"""
By their names.
"""

COMPARED = {"kaserver": "portforward", "tunnel": "portforward-twice"}
"""
Which relay is measured against which.
"""
