"""
Tests for L{kaproto.status.sections}.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import Tag, flattenString

from kaproto.errors import KeepAliveTimeout
from kaproto.peer import Peer, UnixCredentials
from kaproto.records.endings import Endings
from kaproto.records.refusals import Refusals
from kaproto.records.wallclock import WallClock
from kaproto.records.who import Who
from kaproto.status.clients import ClientStatus
from kaproto.status.sampler import KEPT, Sample
from kaproto.status.sections import (
    clientTable,
    endingTable,
    overview,
    plots,
    refusalTable,
)
from tests.support_admin import AdminTestCase
from tests.support_daemon import SickRegistry

EVIL = "<script>alert(1)</script>\" ' & <img src=x onerror=alert(2)>"
WALL = WallClock(lambda: 0.0, lambda: 1764125677.0)
NOW = 1764125790.0
PEER = Peer(IPv4Address("TCP", "192.0.2.1", 5), "tls", id=7)
STATUS = ClientStatus(
    who=Who.of(PEER),
    since=1764125677.0,
    listener=None,
    phase="open",
    name="qemu:///system",
    readOnly=False,
    keepAliveAsked=True,
    policy="optional",
    rule=None,
    interval=5,
    count=5,
    silence=1.25,
    latency=0.00025,
    calls=0,
    upstream=None,
    received=0,
    sent=0,
)


def html(case: SynchronousTestCase, tag: Tag) -> str:
    """
    @return: the tag as HTML.
    """
    flat: bytes = case.successResultOf(flattenString(None, tag))
    return flat.decode()


def words(text: str) -> list[str]:
    """
    @return: the text between tags.
    """
    return [each for each in re.split(r"<[^>]*>", text) if each]


class TableTests(SynchronousTestCase):
    """
    Tests for the tables of clients, endings and refusals.
    """

    def test_client(self) -> None:
        """
        A client's row shows its most important data.
        """
        shown = words(html(self, clientTable([STATUS], 1764125689.0, 1)))
        self.assertEqual(
            shown[9:],
            [
                "7",
                "tls 192.0.2.1:5",
                "-",
                "12s ago",
                "open",
                "pinged, 0.25 ms",
                "1.2 s ago",
                "qemu:///system",
                "0",
            ],
        )

    def test_states(self) -> None:
        """
        A row shows whether a client is pinged, read-only, local, or waiting for libvirtd.
        """
        local = Peer(
            None, "unix", unixCredentials=UnixCredentials(12, 107, 107), program="virt-install"
        )
        table: list[tuple[dict[str, Any], str]] = [
            ({"interval": 0, "latency": None}, "asked"),
            ({"interval": 0, "latency": None, "keepAliveAsked": False}, "no"),
            ({"latency": None}, "pinged"),
            ({"silence": None}, "-"),
            ({"name": None}, "-"),
            ({"readOnly": True}, "qemu:///system (read-only)"),
            ({"upstream": "answering"}, "0"),
            ({"calls": 5, "upstream": "busy for 12 s"}, "5, libvirtd busy for 12 s"),
            ({"who": Who.of(local)}, "virt-install (uid 107)"),
            ({"who": Who.of(local)}, "unix pid 12"),
            ({"who": Who.of(attrs.evolve(PEER, user="alice", tlsDN="CN=x"))}, "alice"),
            ({"who": Who.of(attrs.evolve(PEER, tlsDN="CN=x"))}, "CN=x"),
        ]
        for changes, word in table:
            status = attrs.evolve(STATUS, **changes)
            self.assertIn(word, words(html(self, clientTable([status], 0, 1))))

    def test_none(self) -> None:
        """
        An empty table says that it is empty.
        """
        for table, text in [
            (clientTable([], 0, 0), "no clients"),
            (clientTable([], 0, 5), "no client matches"),
            (endingTable([], WALL, NOW), "none yet"),
            (refusalTable([], WALL, NOW), "nobody"),
        ]:
            self.assertEqual(words(html(self, table)), [text])

    def test_ending(self) -> None:
        """
        An ending is shown with its reason and a message.
        """
        endings = Endings()
        endings.ended(PEER, KeepAliveTimeout(1, 2, 3), 65)
        shown = words(html(self, endingTable(endings, WALL, NOW)))
        self.assertEqual(
            shown[7:13],
            ["7", "tls 192.0.2.1:5", "-", "02:55:42 UTC", "1m5s", "keepalive timeout"],
        )
        self.assertIn("2 pings unanswered", shown[13])

    def test_refusals(self) -> None:
        """
        Refusals of the same client are summed.
        """
        refusals = Refusals()
        refusals.add(PEER, 1, refused=True)
        refusals.add(Peer(unixCredentials=UnixCredentials(1, 2, 3)), 2, refused=False)
        shown = words(html(self, refusalTable(refusals, WALL, NOW)))
        self.assertEqual(shown[5:9], ["this machine", "unknown (uid 2)", "0", "1"])
        self.assertEqual(shown[10:14], ["192.0.2.1", "-", "1", "0"])

    @given(st.text())
    @example(EVIL)
    def test_hostile(self, text: str) -> None:
        """
        Text from clients, however hostile, adds no tags.
        """
        peer = attrs.evolve(PEER, user=text, tlsDN=text, requested=text)
        endings, refusals = Endings(), Refusals()
        endings.ended(peer, ValueError(text), 0)
        refusals.add(peer, 0, refused=True)
        status = attrs.evolve(STATUS, who=Who.of(peer), name=text)
        for table in (
            clientTable([status], 0, 1),
            endingTable(endings, WALL, NOW),
            refusalTable(refusals, WALL, NOW),
        ):
            tags = set(re.findall(r"<\s*([^\s/>]+)", html(self, table)))
            self.assertLessEqual(tags, {"table", "thead", "tbody", "tr", "th", "td", "span", "p"})


class PlotTests(SynchronousTestCase):
    """
    Tests for plots.
    """

    def curves(self, samples: list[Sample]) -> tuple[list[str], list[str]]:
        """
        @return: the captions, and the points of each line.
        """
        text = html(self, plots(samples))
        return words(text), re.findall(r'points="([^"]*)"', text)

    def test_none(self) -> None:
        """
        A plot without samples has no line.
        """
        captions, lines = self.curves([])
        self.assertEqual((captions[0], lines), ("clients, last 10 minutes", []))

    def test_lines(self) -> None:
        """
        The latest sample is at the right edge, and missing values split the line.
        """
        samples = [Sample(0, None), Sample(5, 0.001), Sample(10, None), Sample(1500, 0.002)]
        captions, lines = self.curves(samples)
        self.assertEqual(
            captions,
            [
                "clients, last 10 minutes: now 1,500, most 1,500",
                "round trip, last 10 minutes: now 2.00 ms, most 2.00 ms",
            ],
        )
        self.assertEqual(lines[0].split()[0], "297.0,58.0")
        self.assertEqual(lines[0].split()[-1], "300.0,2.0")
        self.assertEqual(lines[1:], ["298.0,30.0 298.0,30.0", "300.0,2.0 300.0,2.0"])

    def test_full(self) -> None:
        """
        Samples of ten minutes fill the width, even if all values are zero.
        """
        _captions, lines = self.curves([Sample(0, None)] * KEPT)
        points = lines[0].split()
        self.assertEqual((len(points), points[0], points[-1]), (KEPT, "0.0,58.0", "300.0,58.0"))


class OverviewTests(AdminTestCase):
    """
    Tests for the overview.
    """

    def shown(self) -> list[str]:
        """
        @return: the text between tags.
        """
        return words(html(self, overview(self.daemon, [Sample(0, 0.002), Sample(0, None)])))

    def test_registry(self) -> None:
        """
        The registry is shown only if it does not work.
        """
        self.assertNotIn("registry", self.shown())
        self.daemon.registry = SickRegistry("host1")
        shown = self.shown()
        self.assertIn(" redis://x has not listed these clients for 1m15s: it hangs", shown)

    def test_serving(self) -> None:
        """
        The overview shows the figures of a running server.
        """
        self.client()
        shown = self.shown()
        self.assertEqual(shown[0], "serving")
        self.assertIn("mode optional, up 0s, kaproto", shown[1])
        self.assertEqual(shown[2:5], ["clients", "1", "connected"])
        self.assertIn("2.00 ms", shown)
        self.server.limits = attrs.evolve(self.server.limits, maxClients=1000)
        self.assertIn("of 1,000", self.shown())

    def test_problem(self) -> None:
        """
        The overview shows why a server is not ready.
        """
        self.daemon.draining = True
        self.assertEqual(self.shown()[0], "draining")
        self.daemon.draining = False
        gateway = self.daemon.becomeGateway()
        gateway.health.failed("libvirtd is away")
        shown = self.shown()
        self.assertEqual((shown[0], shown[2]), ("not ready", " libvirtd is away"))
        gateway.health.close()
