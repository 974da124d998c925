"""
Network faults, and the outcomes they must have.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred

from tests.harness.faults.bench import Bench
from tests.harness.faults.ends import End, Server
from tests.harness.faults.link import Quality
from tests.harness.faults.namespaces import CUT, GOOD
from tests.harness.faults.verdicts import Record
from tests.interop.support import pause, together

__all__ = ["BRISK", "FAULTS", "LINKS", "PATIENT", "Fault", "run"]

BRISK: Final = (1, 2)
"""
Interval and count for cuts: dead peers are detected after 3 s.
"""

PATIENT: Final = (1, 7)
"""
Interval and count for faults in which TCP retransmits: dead peers are detected after 8 s.
"""

_WARM: Final = 1.3
"""
Seconds until both sides have pinged once.
"""

Fault = Callable[[Bench, int, Server], Coroutine[Deferred[Any], Any, list[Record]]]
"""
Runs a fault with a server, on a link that no other fault uses.
"""


async def _ends(bench: Bench, link: int, server: Server) -> list[End]:
    """
    Connect four clients: kaproto's and virsh, each with its own keepalive and without.
    """
    interval, count = int(server.interval), server.count
    ends: list[End] = await together(
        bench.ours.connect(server, link, interval, count),
        bench.ours.connect(server, link),
        bench.virsh(server, link, interval, count),
        bench.virsh(server, link),
    )
    await pause(_WARM)
    return ends


async def _both(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Nothing arrives in either direction: each side detects that.
    """
    fault = "cut both ways"
    ends = await _ends(bench, link, server)
    await bench.namespaces.set(link, CUT, CUT)
    return await together(
        *(bench.judge.serverFinds(fault, end) for end in ends),
        *(bench.judge.clientFinds(fault, end) for end in ends if end.death),
    )


async def _toServer(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Nothing arrives at the server, which detects it.  Clients that ping see the server's close, or
    detect the cut themselves, since TCP sends them nothing new until they acknowledge the old; the
    others need not notice.
    """
    fault = "cut client to server"
    ends = await _ends(bench, link, server)
    await bench.namespaces.set(link, toServer=CUT)
    return await together(
        *(bench.judge.serverFinds(fault, end) for end in ends),
        *(bench.judge.clientLearns(fault, end) for end in ends),
    )


async def _toClient(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Nothing arrives at the clients.  Those that ping detect it, and kaproto's resets the connection,
    which the server sees at once.  From clients without pings, and from a virsh, which closes with
    FIN, the server hears nothing new: TCP sends it only when the old is acknowledged.
    """
    fault = "cut server to client"
    ends = await _ends(bench, link, server)
    await bench.namespaces.set(link, toClient=CUT)
    ours = ends[0]
    return await together(
        *(bench.judge.clientFinds(fault, end) for end in ends if end.death),
        bench.judge.serverSees(fault, ours),
        *(bench.judge.serverFinds(fault, end) for end in ends if end is not ours),
    )


async def _kept(
    bench: Bench, fault: str, link: int, server: Server, quality: Quality, seconds: float
) -> tuple[list[Record], list[End]]:
    """
    Degrade the network for C{seconds}, which all connections must survive.
    """
    ends = await _ends(bench, link, server)
    await bench.namespaces.set(link, quality, quality)
    await pause(seconds)
    records = []
    for each in await together(*(bench.judge.stays(fault, end) for end in ends)):
        records += each
    return records, ends


async def _loss(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Three packets in ten are lost, for longer than the timeout: TCP retransmits them.
    """
    fault = "30 % loss"
    quality = Quality(loss=0.3)
    records, _ends = await _kept(bench, fault, link, server, quality, server.death + 0.5)
    report = await bench.namespaces.report(link)
    for direction in (report.toServer, report.toClient):
        share = direction["lost"] / direction["packets"]
        if not 0.1 < share < 0.5:
            records.append(Record(fault, "the link", "all", "wrong", None, f"lost {share:.0%}"))
    return records


async def _delay(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Each packet takes about half a second, for longer than the timeout, so that an answer takes
    longer than the interval.  Then the link is cut.
    """
    fault = "500 ms delay, jitter 200 ms"
    quality = Quality(delay=0.5, jitter=0.2)
    records, ends = await _kept(bench, fault, link, server, quality, server.death + 1)
    worse = quality._replace(loss=1.0)
    await bench.namespaces.set(link, worse, worse)
    return records + await together(
        *(bench.judge.serverFinds("a cut after that delay", end) for end in ends)
    )


async def _reorder(bench: Bench, link: int, server: Server) -> list[Record]:
    """
    Every third packet is overtaken by those sent in the next quarter of a second, for longer than
    the timeout.
    """
    fault = "reordering"
    quality = Quality(delay=0.02, reorder=0.33, held=0.25)
    records, _ends = await _kept(bench, fault, link, server, quality, server.death + 1)
    report = await bench.namespaces.report(link)
    if not report.toServer["overtaken"] or not report.toClient["overtaken"]:
        records.append(Record(fault, "the link", "all", "wrong", None, "not overtaken"))
    return records


def _outage(share: float) -> Fault:
    """
    @param share: how long the link is cut in both directions, as a fraction of the timeout.
    """

    async def outage(bench: Bench, link: int, server: Server) -> list[Record]:
        """
        The link is cut for less than the timeout, then restored.  TCP doubles the time between
        retransmissions, so the next one is sent at most as long after the cut as the cut lasted.
        """
        seconds = share * server.death
        ends = await _ends(bench, link, server)
        await bench.namespaces.set(link, CUT, CUT)
        await pause(seconds)
        await bench.namespaces.set(link, GOOD, GOOD)
        await pause(server.death - seconds + 0.6)
        fault = f"away for {share:.0%} of the death time"
        records = []
        for each in await together(*(bench.judge.stays(fault, end) for end in ends)):
            records += each
        return records

    return outage


FAULTS: Final[dict[str, tuple[tuple[int, int], Fault]]] = {
    "both": (BRISK, _both),
    "toServer": (BRISK, _toServer),
    "toClient": (BRISK, _toClient),
    "loss": (PATIENT, _loss),
    "delay": (BRISK, _delay),
    "reorder": (BRISK, _reorder),
    "outage": (PATIENT, _outage(0.35)),
    "longOutage": (PATIENT, _outage(0.8)),
}
"""
The faults, each with its interval and count.
"""

LINKS: Final = len(FAULTS)
"""
The number of links that all faults need.
"""


async def run(
    bench: Bench, servers: Mapping[tuple[int, int], Server], first: int = 0
) -> list[Record]:
    """
    Run every fault once, all at the same time, each on its own link.

    @param servers: the servers, by interval and count.
    @param first: the first of L{LINKS} links.
    """
    found = await together(
        *(
            fault(bench, link, servers[terms])
            for link, (terms, fault) in enumerate(FAULTS.values(), first)
        )
    )
    return [record for records in found for record in records]
