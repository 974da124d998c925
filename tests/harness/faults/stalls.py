"""
Stalls: processes that are stopped or blocked for longer than the timeout, and the outcomes they
must have.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred

from tests.harness.faults import sleeper
from tests.harness.faults.bench import Bench
from tests.harness.faults.daemon import NamespacedDaemon
from tests.harness.faults.ends import End, OurEnd, Server
from tests.harness.faults.link import Quality
from tests.harness.faults.namespaces import CUT
from tests.harness.faults.verdicts import LATE, Record
from tests.interop.support import pause, together, waitUntil

__all__ = ["COMPARISON_LINKS", "LINKS", "STALLS", "Stall", "comparison", "run"]

_BRISK: Final = (0.4, 2)
_DEATH: Final = _BRISK[0] * (_BRISK[1] + 1)
_OPEN_TIMEOUT: Final = 1.5
_LINKS_EACH: Final = 3

Stall = Callable[[Bench, int], Coroutine[Deferred[Any], Any, list[Record]]]
"""
Runs a stall on three links, the first of which it is given.
"""


class _Company:
    """
    The clients of a server that is about to stall.

    @ivar living: clients that are alive all the time; those that ping are more patient than the
        stall is long.
    @ivar dying: clients whose link is cut during the stall.
    """

    def __init__(self, living: list[End], dying: list[End]) -> None:
        self.living = living
        self.dying = dying

    @classmethod
    async def gather(cls, bench: Bench, link: int, server: Server) -> _Company:
        """
        Connect the clients.
        """
        ours = bench.ours
        connected: list[End] = await together(
            ours.connect(server, link),
            ours.connect(server, link, 0.5, 60, "our client, pinging"),
            ours.connect(server, link, 0.1, 1000, "our client, pinging ten times a second"),
            bench.virsh(server, link),
            bench.virsh(server, link, 1, 30),
            ours.connect(server, link + 1),
            bench.virsh(server, link + 1),
        )
        await pause(2 * server.interval)
        return cls(connected[:5], connected[5:])

    async def judge(
        self, bench: Bench, fault: str, stopped: float, proceeded: float
    ) -> list[Record]:
        """
        Check that the dead are detected and the living are kept.

        @param stopped: when the stall began.
        @param proceeded: when it ended.
        """
        find = bench.judge.serverFindsAfterStall
        records = await together(*(find(fault, end, stopped, proceeded) for end in self.dying))
        death = self.living[0].server.death
        await pause(max(0.0, proceeded + death + LATE - time.monotonic()))
        return records + await _stay(bench, fault, *self.living)


async def _stay(bench: Bench, fault: str, *ends: End) -> list[Record]:
    records = []
    for each in await together(*(bench.judge.stays(fault, end) for end in ends)):
        # The seconds of silence mean nothing here: the server did not run.
        records += [attrs.evolve(record, seconds=None) for record in each]
    return records


async def _newcomer(bench: Bench, link: int, server: Server, name: str) -> End | Exception:
    try:
        return await bench.ours.connect(server, link, name=name)
    except AssertionError as error:
        return error


async def _suspend(bench: Bench, link: int, server: Server, fault: str) -> list[Record]:
    """
    Stop a server for twice the timeout, with clients of all kinds, one that connects meanwhile, and
    one that is opening, for which six packets have to arrive.
    """
    company = await _Company.gather(bench, link, server)
    slow = Quality(delay=0.15)
    await bench.namespaces.set(link + 2, slow, slow)
    known = server.present
    opening = Deferred.fromCoroutine(
        _newcomer(bench, link + 2, server, "our client, which was opening")
    )
    await waitUntil(lambda: server.present - known, "the connection that is to be opened", 5)
    stopped = server.stop()
    await pause(0.2)
    await bench.namespaces.set(link + 1, CUT, CUT)
    coming = Deferred.fromCoroutine(
        _newcomer(bench, link, server, "our client, which came meanwhile")
    )
    await pause(2 * server.death - 0.2)
    proceeded = server.proceed()
    records = await company.judge(bench, fault, stopped, proceeded)
    for waiting in (opening, coming):
        end = await waiting
        if isinstance(end, Exception):
            records.append(Record(fault, server.kind, "newcomers", "dropped", None, str(end)))
        else:
            records += await _stay(bench, fault, end)
    return records


async def _stopped(bench: Bench, link: int) -> list[Record]:
    """
    A kaserver is stopped for twice the timeout, as on a suspended machine.
    """
    server = await bench.kaserver(*_BRISK, f"--open-timeout={_OPEN_TIMEOUT}")
    return await _suspend(bench, link, server, "stopped for 2 x death time")


async def _stoppedGateway(bench: Bench, link: int) -> list[Record]:
    """
    A gateway is stopped for twice the timeout.  It does not declare its libvirtd dead, and
    libvirtd, whose default timeout is longer, does not declare it dead.
    """
    daemon = await NamespacedDaemon.inNamespace(bench.case, bench.namespaces)
    server = await bench.kaserver(
        *_BRISK,
        f"--open-timeout={_OPEN_TIMEOUT}",
        f"--upstream=unix:{daemon.socketPath}",
        f"--upstream-interval={_BRISK[0]}",
        f"--upstream-count={_BRISK[1]}",
        kind="gateway",
    )
    return await _suspend(bench, link, server, "stopped for 2 x death time")


async def _impatientLibvirtd(bench: Bench, link: int) -> list[Record]:
    """
    A gateway is stopped for longer than its libvirtd's timeout: libvirtd disconnects it, and its
    clients are disconnected when it continues.
    """
    fault = "stopped for longer than libvirtd waits"
    daemon = await NamespacedDaemon.inNamespace(bench.case, bench.namespaces, 1, 1)
    server = await bench.kaserver(*_BRISK, f"--upstream=unix:{daemon.socketPath}", kind="gateway")
    ends: list[End] = await together(bench.ours.connect(server, link), bench.virsh(server, link))
    await pause(1)
    server.stop()
    await pause(3.5)
    proceeded = server.proceed()
    told = bench.judge.clientTold
    return await together(*(told(fault, end, proceeded, LATE) for end in ends))


async def _stuttering(bench: Bench, link: int) -> list[Record]:
    """
    A kaserver is stopped repeatedly, so that it runs for a fifth of the time.  A quarter of a
    second of each stall counts as silence, so that detection takes at most twice as long.
    """
    fault = "stopped for 0.4 s, ten times"
    server = await bench.kaserver(*_BRISK)
    company = await _Company.gather(bench, link, server)
    server.stop()
    await bench.namespaces.set(link + 1, CUT, CUT)
    stutter = Deferred.fromCoroutine(_stutter(server))
    find = partial(bench.judge.serverFinds, f"{fault}: cut off meanwhile")
    records = await together(*(find(end, 2 * server.death) for end in company.dying))
    await stutter
    await pause(1)
    return records + await _stay(bench, fault, *company.living)


async def _stutter(server: Server) -> None:
    for _time in range(10):
        await pause(0.4)
        server.proceed()
        await pause(0.1)
        server.stop()
    server.proceed()


async def _blocked(bench: Bench, link: int) -> list[Record]:
    """
    An application blocks the reactor for twice the timeout.
    """
    arguments = (str(_BRISK[0]), str(_BRISK[1]), str(2 * _DEATH))
    server = await bench.kaserver(
        *_BRISK,
        command=[sys.executable, "-u", sleeper.__file__, *arguments],
        kind="an application",
    )
    company = await _Company.gather(bench, link, server)
    caller = company.living[0]
    assert isinstance(caller, OurEnd)
    calling = Deferred.fromCoroutine(caller.callProcedure(sleeper.SLEEPER, sleeper.NAP))
    await server.program.waitOutput("asleep")
    await bench.namespaces.set(link + 1, CUT, CUT)
    await calling
    ((_, asleep),) = server.program.find("asleep at (.*)")
    ((_, awake),) = server.program.find("awake at (.*)")
    stopped, proceeded = float(asleep[1]), float(awake[1])
    return await company.judge(bench, "reactor blocked for 2 x death time", stopped, proceeded)


async def _clientStopped(bench: Bench, link: int) -> list[Record]:
    """
    A client with keepalive is stopped for twice its own timeout: it does not declare the server
    dead, and later detects that the link is cut.
    """
    fault = "client stopped for 2 x its death time"
    server = await bench.kaserver(10, 5)
    client = await bench.anotherClient()
    end = await client.connect(server, link, *_BRISK)
    await pause(2 * _BRISK[0])
    client.program.signal(signal.SIGSTOP)
    await pause(2 * _DEATH)
    client.program.signal(signal.SIGCONT)
    await pause(_DEATH + LATE)
    records = await _stay(bench, fault, end)
    await bench.namespaces.set(link, CUT, CUT)
    return [*records, await bench.judge.clientFinds(f"{fault}: cut off later", end)]


async def _stoppedLibvirtd(bench: Bench, link: int) -> list[Record]:
    fault = "stopped for 2 x death time"
    server = (await NamespacedDaemon.inNamespace(bench.case, bench.namespaces, 1, 2)).server()
    bench.servers.append(server)
    living: list[End] = await together(
        bench.ours.connect(server, link),
        bench.ours.connect(server, link, 0.5, 60, "our client, pinging"),
        bench.virsh(server, link),
        bench.virsh(server, link, 1, 30),
    )
    await pause(1.5)
    server.stop()
    await pause(2 * server.death)
    server.proceed()
    await pause(server.death)
    return await _stay(bench, fault, *living)


async def _stoppedVirsh(bench: Bench, link: int) -> list[Record]:
    fault = "client stopped for 2 x its death time"
    server = await bench.kaserver(10, 5)
    virsh = await bench.virsh(server, link, 1, 2)
    await pause(1.5)
    virsh.program.signal(signal.SIGSTOP)
    await pause(2 * virsh.death)
    virsh.program.signal(signal.SIGCONT)
    await pause(virsh.death)
    return await _stay(bench, fault, virsh)


STALLS: Final[dict[str, Stall]] = {
    "stopped": _stopped,
    "stuttering": _stuttering,
    "blocked": _blocked,
    "gateway": _stoppedGateway,
    "client": _clientStopped,
}
"""
The stalls.
"""

LINKS: Final = len(STALLS) * _LINKS_EACH
"""
The number of links that all stalls need.
"""

COMPARISON_LINKS: Final = 3
"""
The number of links L{comparison} needs.
"""


async def run(bench: Bench) -> list[Record]:
    """
    Run every stall once, all at the same time, each with its own server.
    """
    found = await together(
        *(stall(bench, number * _LINKS_EACH) for number, stall in enumerate(STALLS.values()))
    )
    return [record for records in found for record in records]


async def comparison(bench: Bench, link: int) -> list[Record]:
    """
    Stop a libvirtd for twice its timeout, a virsh for twice its own, and a gateway for longer than
    its libvirtd waits.

    @param link: the first of L{COMPARISON_LINKS} links.
    """
    found = await together(
        _stoppedLibvirtd(bench, link),
        _stoppedVirsh(bench, link + 1),
        _impatientLibvirtd(bench, link + 2),
    )
    return [record for records in found for record in records]
