"""
The load generator's process, and its reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.build import build, missingCompiler
from benchmarks.processes import processorTime

__all__ = ["Calls", "Generator", "Load"]


@dataclass(frozen=True)
class Load:
    """
    The load on a server.

    @ivar port: the server's port, on the loopback address.
    @ivar clients: the number of connections.
    @ivar interval: seconds after which the server pings a silent client.
    @ivar count: unanswered pings after which a client is dead.
    @ivar protocol: C{libvirt}, C{websocket}, C{lines} or C{tunnel}.
    @ivar rate: connections to start per second; 0 for as fast as the server opens them.
    @ivar inflight: connections that may be opening at once.
    @ivar timeout: seconds that one connection may take to open.
    @ivar deadline: seconds that all may take.
    @ivar tls: whether to speak TLS.
    @ivar credentials: the client's certificate and key, as files.
    @ivar source: the number of the loopback address to connect from: 0 for 127.0.0.1, 1 for the
        next one.
    @ivar spread: whether each client has its own interval, as the plugin C{benchmark-spread}
        assigns them.
    """

    port: int
    clients: int
    interval: float = 2.0
    count: int = 5
    protocol: str = "libvirt"
    rate: float = 0.0
    inflight: int = 256
    timeout: float = 30.0
    deadline: float = 120.0
    tls: bool = False
    credentials: tuple[str, str] | None = None
    spread: bool = False
    source: int = 0

    def command(self) -> list[str]:
        """
        The command for the load generator: the one in C, or the one in Python if there is no
        compiler.

        @return: the program and its arguments.
        @raise BuildError: if it cannot be compiled.
        """
        if missingCompiler() is None:
            return [str(build("load", tls=self.tls)), *self._options()]
        return [sys.executable, "-m", "benchmarks.load", *self._options()]

    def _options(self) -> list[str]:
        names = ("port", "clients", "interval", "count", "rate", "inflight", "timeout", "deadline")
        options = [f"--{name}={getattr(self, name)}" for name in names]
        if self.protocol != "libvirt":
            options.append(f"--{self.protocol}")
        if self.tls:
            options.append("--tls")
        if self.credentials is not None:
            options += [f"--certificate={self.credentials[0]}", f"--key={self.credentials[1]}"]
        if self.source:
            options.append(f"--source={self.source}")
        if self.spread:
            options.append("--spread")
        return options


@dataclass(frozen=True)
class Calls:
    """
    The load on a relay.

    @ivar port: the relay's port, on the loopback address.
    @ivar work: C{calls}, C{download} or C{upload}.
    @ivar connections: the number of connections that make calls at once.
    @ivar depth: the number of outstanding calls of each connection.
    @ivar credentials: a client's certificate and key, as files, for TLS.
    @ivar confirmed: whether the relay sends the byte with which libvirt accepts a client over TLS.
    """

    port: int
    work: str = "calls"
    connections: int = 1
    depth: int = 1
    credentials: tuple[str, str] | None = None
    confirmed: bool = False

    def command(self) -> list[str]:
        """
        The command for the generator of calls.

        @return: the program and its arguments.
        @raise BuildError: if it cannot be compiled.
        """
        program = str(build("calls", tls=self.credentials is not None))
        command = [program, str(self.port), self.work, str(self.connections), str(self.depth)]
        if self.credentials is not None:
            command += [*self.credentials, str(int(self.confirmed))]
        return command


class Generator:
    """
    A running generator.  Its clients live until the end of the C{with} block.

    @ivar pid: its process id.
    """

    def __init__(self, load: Load | Calls) -> None:
        """
        Start the generator, which begins to open connections.

        @param load: the load to generate.
        @raise BuildError: if it cannot be compiled.
        """
        self._process = subprocess.Popen(
            load.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        """
        @return: this object.
        """
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """
        End the generator, see L{end}.

        @param kind: not used.
        @param error: not used.
        @param where: not used.
        """
        self.end()

    def end(self) -> None:
        """
        Kill the process, if it is still running, and so close all connections at once.
        """
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def _event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with status {self._process.wait()}")
        event: dict[str, Any] = json.loads(line)
        return event

    def _tell(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        return self._event()

    def cpu(self) -> float:
        """
        The processor time used so far.

        @return: seconds.
        """
        return processorTime(self._process.pid)

    def opened(self) -> dict[str, Any]:
        """
        Wait until every connection has opened or failed.

        @return: C{opened}, and for a L{Load} C{refused}, C{timedOut}, C{notTried}, C{seconds},
            C{opensPerSecond} and C{firstError}.
        """
        return self._event()

    def mark(self) -> None:
        """
        Begin a window.
        """
        self._tell("mark")

    def report(self) -> dict[str, Any]:
        """
        Get the figures since the last mark.

        @return: C{seconds}, C{generatorCpu} (the share of one processor that it used) and, for a
            L{Load}, C{roundTrips}, C{held}, C{lost} and, if there were any, C{ping}, C{pong} and
            C{death}: how late they were, in seconds; for L{Calls}, C{calls}, C{bytes} and the
            latencies C{p50} and C{p99} in seconds.
        """
        return self._tell("report")

    def mute(self) -> None:
        """
        Stop answering pings, for a L{Load}, and begin a window.
        """
        self._tell("mute")
