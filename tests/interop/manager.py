"""
The part of systemd that a service sees: passed sockets, notifications and the watchdog.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.interop.programs import Program
from tests.interop.support import InteropTestCase, reactor, waitUntil

__all__ = ["Manager", "Told"]

_START = """
import os, sys
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""
Puts the process id into the environment, as systemd does, and runs the program.
"""


class Told(NamedTuple):
    """
    One notification from the service.

    @ivar at: when it arrived, on the monotonic clock.
    @ivar values: its assignments.
    """

    at: float
    values: dict[str, str]


class Manager:
    """
    Runs one service.

    @ivar sockets: the sockets passed to it, by name.
    @ivar told: its notifications so far.
    @ivar program: the process.
    """

    program: Program

    def __init__(self, case: InteropTestCase, watchdog: float = 60) -> None:
        """
        @param watchdog: seconds of silence after which the service has failed.
        """
        self.sockets: dict[str, socket.socket] = {}
        self.told: list[Told] = []
        self.watchdog = watchdog
        self._case = case
        self._path = os.path.join(case.privateDirectory(), "notify")
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._notified.close)
        self._notified.setblocking(False)
        self._notified.bind(self._path)

    def listenTCP(self, name: str) -> int:
        """
        Listen on a loopback port.

        @return: its number.
        """
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._case.addCleanup(listening.close)
        self.sockets[name] = listening
        port: int = listening.getsockname()[1]
        return port

    def listenUNIX(self, name: str, path: str, mode: int, owner: int = -1) -> None:
        """
        Listen on a UNIX socket.

        @param owner: the id of the user and group that own it.
        """
        listening = socket.socket(socket.AF_UNIX)
        self._case.addCleanup(listening.close)
        listening.bind(path)
        os.chmod(path, mode)
        os.chown(path, owner, owner)
        listening.listen(64)
        self.sockets[name] = listening

    def start(self, command: Sequence[str]) -> None:
        """
        Start the service with the sockets and the environment that systemd gives to one.
        """
        program = Program(os.path.basename(command[0]))
        environment = os.environ | {
            "NOTIFY_SOCKET": self._path,
            "WATCHDOG_USEC": str(int(self.watchdog * 1_000_000)),
            "LISTEN_FDS": str(len(self.sockets)),
            "LISTEN_FDNAMES": ":".join(self.sockets),
        }
        files = {3 + number: each.fileno() for number, each in enumerate(self.sockets.values())}
        reactor.spawnProcess(
            program,
            sys.executable,
            [sys.executable, "-c", _START, *command],
            env=environment,
            path=self._case.privateDirectory(),
            childFDs={0: "w", 1: "r", 2: "r", **files},
        )
        self._case.addCleanup(program.kill)
        self.program = program

    def listen(self) -> list[Told]:
        """
        Read new notifications.

        @return: all so far.
        """
        while True:
            try:
                message = self._notified.recv(10_000).decode()
            except BlockingIOError:
                return self.told
            pairs = (line.split("=", 1) for line in message.split("\n"))
            self.told.append(Told(time.monotonic(), dict(pairs)))

    def tellings(self, key: str) -> list[str]:
        """
        @return: the values the service has sent for a key, in order.
        """
        return [each.values[key] for each in self.listen() if key in each.values]

    async def waitTold(self, key: str, value: str, times: int = 1) -> None:
        """
        Wait until the service has sent C{key=value} C{times} times.
        """
        await waitUntil(
            lambda: self.tellings(key).count(value) >= times,
            lambda: f"{key}={value} {times} times, told {self.told} by {self.program.describe()}",
            timeout=20,
        )

    @property
    def silence(self) -> float:
        """
        Seconds since the service last notified the watchdog.
        """
        fed = [each.at for each in self.listen() if "WATCHDOG" in each.values]
        return time.monotonic() - fed[-1]

    async def superviseUntilSilent(self, timeout: float) -> bool:
        """
        Wait until the service misses a watchdog notification, then abort it, as systemd does.

        @param timeout: seconds to wait at most.
        @return: whether that happened.
        """
        deadline = time.monotonic() + timeout
        await waitUntil(
            lambda: self.silence > self.watchdog or time.monotonic() > deadline,
            "silence",
            timeout + 5,
        )
        if self.silence <= self.watchdog:
            return False
        self.program.signal(signal.SIGABRT)
        await self.program.finish(5)
        return True
