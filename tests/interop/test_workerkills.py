"""
Tests for killing workers repeatedly, with clients that answer pings and are replaced.

C{python -m tests.harness.workers} runs them with more clients, and for longer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from itertools import count
from pathlib import Path
from typing import Final

from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer
from tests.interop.support import pause, together, waitUntil
from tests.interop.test_workers import WorkersTestCase

CLIENTS: Final = int(os.environ.get("KAPROTO_KILLS_CLIENTS", "60"))
"""
The number of clients at any time.
"""

SECONDS: Final = float(os.environ.get("KAPROTO_KILLS_SECONDS", "0"))
"""
Seconds for which workers are killed, after each of the two has been killed once.
"""

EVERY: Final = float(os.environ.get("KAPROTO_KILLS_EVERY", "0"))
"""
Seconds between two kills.
"""

REPORT: Final = os.environ.get("KAPROTO_KILLS_REPORT", os.devnull)
"""
A file to which a line of JSON is added for each kill.
"""

_MEMORY: Final = 4096
_ROWS: Final = 4


class KillsTests(WorkersTestCase):
    """
    Tests for C{kill -9} of one worker after another.
    """

    tools = ()
    timeout = 60 + 2 * int(SECONDS)

    async def test_kills(self) -> None:
        """
        Each kill ends all clients of that worker and no others.  Afterwards the counts are correct,
        and the parent has as many open files and as much memory as before.
        """
        server = await self.start("--interval=0.5", "--count=3", f"--max-clients={CLIENTS}")
        await self.status()  # count its connection among the files
        clients = await self.join(server, [])
        files, memory = self.files(server), 0
        until = time.monotonic() + SECONDS
        for kill in count():
            if kill >= 2 and time.monotonic() > until:
                break
            begun = time.monotonic()
            clients, took = await self.kill(server, clients, kill)
            await waitUntil(lambda: self.files(server) == files, "its files to be closed")
            memory = memory or self.memory(server)
            report = {
                "lost": CLIENTS - len(clients),
                "seconds": took,
                "files": files,
                "memory": self.memory(server),
            }
            with Path(REPORT).open("a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
            self.assertLess(self.memory(server) - memory, _MEMORY)
            clients = await self.join(server, clients)
            await pause(max(0, begun + EVERY - time.monotonic()))
        await together(*(each.disconnect() for each in clients))

        async def gone() -> bool:
            return [each["clients"] for each in await self.workers()] == [0, 0]

        await self.eventually(gone)
        self.assertNotIn("Traceback", server.log)

    async def join(self, server: KaServer, clients: list[RawClient]) -> list[RawClient]:
        """
        Connect as many clients as are allowed; those that ended are no longer counted.
        """
        new = await self.connect(server, CLIENTS - len(clients))
        await together(*(each.open() for each in new))
        clients = clients + new
        workers = await self.workers()
        self.assertEqual(sum(each["clients"] for each in workers), CLIENTS)
        return clients

    async def kill(
        self, server: KaServer, clients: list[RawClient], number: int
    ) -> tuple[list[RawClient], float]:
        """
        Kill a worker.

        @return: the remaining clients, and the seconds until a new worker served.
        """
        listed = {each["address"]: each["id"] for each in await self.control.clients()}
        self.assertEqual(set(listed), {each.address for each in clients})
        victim = (await self.workers())[number % 2]
        begun = time.monotonic()
        served = len(re.findall(r"\) serves", server.log))
        os.kill(victim["pid"], signal.SIGKILL)
        await waitUntil(
            lambda: len([each for each in clients if each.lostAt]) >= victim["clients"],
            "its clients to end",
        )
        await self.serves(server, served + 1)
        took = time.monotonic() - begun
        await together(*(each.succeed(66) for each in clients if not each.lostAt))
        left = [each for each in clients if not each.lostAt]
        self.assertEqual(len(left), CLIENTS - victim["clients"])
        rows = [
            {listed[each.address] % _ROWS for each in clients if bool(each.lostAt) is lost}
            for lost in (False, True)
        ]
        self.assertEqual([len(each) for each in rows], [1, 1])
        self.assertNotEqual(*rows)
        counted = await self.workers()
        self.assertEqual(sorted(each["clients"] for each in counted), [0, len(left)])
        return left, took

    def files(self, server: KaServer) -> int:
        """
        @return: how many files the parent has open.
        """
        return len(os.listdir(f"/proc/{server.program.pid}/fd"))

    def memory(self, server: KaServer) -> int:
        """
        @return: the parent's resident memory in KiB.
        """
        status = Path(f"/proc/{server.program.pid}/status").read_text("ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
