"""
The two ends of a connection that suffers a fault.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from typing import Any, ClassVar, Protocol

from tests.harness.faults import client
from tests.harness.faults.link import clientAddress, serverAddress
from tests.harness.faults.namespaces import Namespaces, TimedProgram, established
from tests.interop import wire
from tests.interop.support import InteropTestCase, waitUntil

__all__ = ["End", "OurClient", "OurEnd", "Server", "VirshEnd"]


class Server:
    """
    A server in the servers' namespace.

    @ivar kind: C{"kaserver"}, C{"libvirtd"} or another name.
    @ivar program: its process.
    @ivar port: the port it listens on, on all addresses of its namespace.
    @ivar interval: seconds of silence before it pings.
    @ivar count: pings without an answer before it disconnects a client.
    @ivar lost: when each client's connection had gone from the kernel's table, on the monotonic
        clock, by C{HOST:PORT}.
    """

    def __init__(
        self, program: TimedProgram, port: int, interval: float, count: int, kind: str = "kaserver"
    ) -> None:
        self.kind = kind
        self.program = program
        self.port = port
        self.interval = interval
        self.count = count
        self.lost: dict[str, float] = {}
        self._known: set[str] = set()

    @property
    def death(self) -> float:
        """
        Seconds of silence after which a client is declared dead.
        """
        return self.interval * (self.count + 1)

    @property
    def judged(self) -> bool:
        """
        Whether it is tested, and not there for comparison.
        """
        return self.kind != "libvirtd"

    def look(self) -> None:
        """
        Record which connections have appeared and gone.
        """
        now = time.monotonic()
        try:
            present = established(self.program.pid, self.port)
            if self._known - present:
                # The kernel's table is not read atomically, so read it again.
                present |= established(self.program.pid, self.port)
        except OSError:
            # The process has ended.
            return
        for address in self._known - present:
            self.lost[address] = now
        self._known = present

    def knows(self, address: str) -> bool:
        """
        @return: whether it has a connection with that client.
        """
        return address in self._known

    @property
    def present(self) -> frozenset[str]:
        """
        The clients that it has a connection with.
        """
        return frozenset(self._known)

    def uri(self, link: int) -> str:
        """
        @return: the URI for a client at the other end of a link.
        """
        return f"test+tcp://{serverAddress(link)}:{self.port}/default"

    def deaths(self, address: str) -> list[tuple[float, str]]:
        """
        @return: when and why a client was declared dead, according to the log.
        """
        found = self.program.find(f"tcp {re.escape(address)} is dead: (.*)")
        return [(at, match[1]) for at, match in found]

    def stop(self) -> float:
        """
        Stop the process.

        @return: when that was.
        """
        self.program.signal(signal.SIGSTOP)
        return time.monotonic()

    def proceed(self) -> float:
        """
        Continue the process.

        @return: when that was.
        """
        at = time.monotonic()
        self.program.signal(signal.SIGCONT)
        return at


class End(Protocol):
    """
    A client's end of a connection.

    @ivar kind: C{"our client"} or C{"virsh"}.
    @ivar name: its name in records.
    @ivar link: the number of its link.
    @ivar port: its local port.
    @ivar server: the server it is connected to.
    @ivar death: seconds of silence after which it closes the connection; 0 for never.
    """

    kind: ClassVar[str]
    name: str
    link: int
    port: int
    server: Server
    death: float

    @property
    def address(self) -> str:
        """
        Its local address, as C{HOST:PORT}.
        """
        return f"{clientAddress(self.link)}:{self.port}"

    def lostAt(self) -> tuple[float, str] | None:
        """
        @return: when and why it noticed the loss of the connection; C{None} if it has not.
        """

    async def call(self) -> None:
        """
        Make a call, and wait for the answer.

        @raise AssertionError: when none arrives.
        """


class OurClient:
    """
    A process with connections of kaproto's client, see L{client}.
    """

    def __init__(self, program: TimedProgram) -> None:
        self.program = program
        self._connections = 0

    @classmethod
    def start(cls, case: InteropTestCase, namespaces: Namespaces) -> OurClient:
        """
        Start it in the clients' namespace.
        """
        command = [*namespaces.inClients(), sys.executable, "-u", client.__file__]
        return cls(TimedProgram.start(case, command, os.environ, case.privateDirectory()))

    def event(self, name: str, event: str) -> dict[str, Any] | None:
        """
        @return: the latest event of that kind on a connection.
        """
        for _at, line in reversed(self.program.lines):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                if found["name"] == name and found["event"] == event:
                    return found
        return None

    async def wait(self, name: str, event: str, timeout: float = 10.0) -> dict[str, Any]:
        """
        Wait for an event of a connection.

        @raise AssertionError: when the connection fails first.
        """

        def happened() -> dict[str, Any] | None:
            failed = self.event(name, "failed")
            if failed is not None:
                raise AssertionError(f"{name}: {failed['reason']}")
            return self.event(name, event)

        return await waitUntil(
            happened, lambda: f"{event!r} of {name}: {self.program.describe()}", timeout
        )

    def order(self, *what: Any) -> None:
        """
        Send it an order.
        """
        self.program.send(json.dumps(what))

    async def connect(
        self, server: Server, link: int, interval: float = 0, count: int = 0, name: str = ""
    ) -> OurEnd:
        """
        Open a connection.

        @param interval: its keepalive interval in seconds, 0 for no pings.
        @param count: see L{kaproto.keepalive.liveness.KeepAlive}.
        @param name: its name in records, instead of one made from its settings.
        """
        self._connections += 1
        key = f"connection {self._connections}"
        self.order("open", key, server.uri(link), interval, count)
        opened = await self.wait(key, "open", 15)
        shown = name or ("our client" if interval else "our client, never pinging")
        return OurEnd(self, key, shown, link, opened["port"], server, interval * (count + 1))


class OurEnd(End):
    """
    A connection of kaproto's client.
    """

    kind = "our client"

    def __init__(
        self,
        process: OurClient,
        key: str,
        name: str,
        link: int,
        port: int,
        server: Server,
        death: float,
    ) -> None:
        self.process = process
        self.name = name
        self.link = link
        self.port = port
        self.server = server
        self.death = death
        self._key = key
        self._calls = 0

    def lostAt(self) -> tuple[float, str] | None:
        """
        @return: the time and the reason of its C{closed} event; C{None} before it.
        """
        event = self.process.event(self._key, "closed")
        return None if event is None else (event["at"], f"{event['kind']}: {event['reason']}")

    async def call(self) -> None:
        """
        Ask for the host name.
        """
        await self.callProcedure(wire.REMOTE, wire.GET_HOSTNAME)

    async def callProcedure(self, program: int, procedure: int) -> None:
        """
        Make a call that must succeed.
        """
        before = self.process.event(self._key, "answer")
        self.process.order("call", self._key, program, procedure)

        def answered() -> bool:
            failed = self.process.event(self._key, "failed")
            if failed is not None:
                raise AssertionError(f"{self.name}: {failed['reason']}")
            return self.process.event(self._key, "answer") != before

        await waitUntil(answered, f"an answer to {self.name}", 15)


class VirshEnd(End):
    """
    An interactive virsh.
    """

    kind = "virsh"

    def __init__(
        self, program: TimedProgram, name: str, link: int, port: int, server: Server, death: float
    ) -> None:
        self.program = program
        self.name = name
        self.link = link
        self.port = port
        self.server = server
        self.death = death

    def lostAt(self) -> tuple[float, str] | None:
        """
        @return: the time and the reason that virsh prints, or when it ended; C{None} if it has done
            neither.
        """
        found = self.program.find("Disconnected from .*? due to (.*)|(client socket is closed)")
        if found:
            at, match = found[0]
            return at, match[1] or match[2]
        return (self.program.endedAt, "it ended") if self.program.endedAt is not None else None

    async def call(self) -> None:
        """
        Ask for the host name.
        """
        await self.program.ask("hostname", r"hostname\n\S+\n", 15)
