"""
Tests that the guide to monitoring, the alerts and the dashboard match the real metrics.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.records.endings import KINDS
from kaproto.server import KeepAliveServerFactory
from kaproto.status.metrics import Metrics
from kaproto.status.sampler import Sampler
from tests.support_daemon import FakeDaemon
from tests.unit.status.test_sections import STATUS

DOCS = Path(__file__).resolve().parent.parent / "docs"
GUIDE = (DOCS / "howto" / "monitoring.rst").read_text("utf-8")
MONITORING = DOCS / "monitoring"


def metrics() -> set[str]:
    """
    @return: the names of all metrics, as Prometheus names them.
    """
    clock = Clock()
    daemon = FakeDaemon(KeepAliveServerFactory(clock=clock))
    daemon.becomeGateway()
    daemon.expiry = {"libvirttls:16514": 1.0}
    text, _type = Metrics(daemon, Sampler(daemon)).render("")
    return set(re.findall(r"^# TYPE (\w+) ", text.decode(), re.MULTILINE)) | {
        f"{each}_bucket"
        for each in re.findall(r"^# TYPE (\w+) histogram", text.decode(), re.MULTILINE)
    }


class GuideTests(SynchronousTestCase):
    """
    Tests for C{docs/howto/monitoring.rst}.
    """

    def test_metrics(self) -> None:
        """
        The guide explains all metrics, and no others.
        """
        shown = set()
        for first, *rest in re.findall(
            r"``(kaproto_\w+)(?:{\w+(?:,\w+)*})?``(?:, ``(\w+)``)?", GUIDE
        ):
            shown.add(first)
            for each in filter(None, rest):
                shown.add(
                    each if each.startswith("kaproto") else first.replace("_accepted_total", each)
                )
        self.assertEqual(shown, {each for each in metrics() if not each.endswith("_bucket")})

    def test_clientInfo(self) -> None:
        """
        The guide explains all parameters of C{client-info} that libvirtd does not have.
        """
        names = {*STATUS.parameters(), "rule", "upstream", "listener", "opened"}
        text = GUIDE.replace("``_count``", "``keepalive_count``")
        for name in names:
            self.assertIn(f"``{name}``", text)


class MonitoringTests(SynchronousTestCase):
    """
    Tests for the files in C{docs/monitoring}.
    """

    def test_metrics(self) -> None:
        """
        Alerts and dashboard use only metrics and reasons that exist.
        """
        for name in ("alerts.yml", "grafana.json"):
            text = (MONITORING / name).read_text("utf-8")
            used = set(re.findall(r"kaproto_\w+", text))
            self.assertEqual(used - metrics(), set(), name)
            reasons = set(re.findall(r'reason=\\?"(\w+)', text))
            self.assertLessEqual(reasons, set(KINDS.values()))

    def test_alerts(self) -> None:
        """
        There are four alerts, each with a severity and instructions.
        """
        text = (MONITORING / "alerts.yml").read_text("utf-8")
        self.assertEqual(text.count("- alert: "), 4)
        for word in ("expr:", "severity:", "summary:", "description:"):
            self.assertEqual(text.count(word), 4, word)

    def test_dashboard(self) -> None:
        """
        Panels have unique numbers and do not overlap.
        """
        panels = json.loads((MONITORING / "grafana.json").read_text("utf-8"))["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = [
            (place["x"] + right, place["y"] + down)
            for place in (panel["gridPos"] for panel in panels)
            for right in range(place["w"])
            for down in range(place["h"])
        ]
        self.assertEqual(len(set(taken)), len(taken))
