"""
Tests for L{kaproto.status.metrics}.
"""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from kaproto import __version__
from kaproto.policies import Mandatory
from kaproto.status.metrics import Metrics
from kaproto.status.sampler import Sampler
from tests.support import FEATURE_KEEPALIVE, KEEPALIVE, OPEN
from tests.support_admin import AdminTestCase
from tests.support_daemon import SickRegistry


class MetricsTests(AdminTestCase):
    """
    Tests for the metrics for Prometheus.
    """

    def setUp(self) -> None:
        """
        Create a server in mode 2.
        """
        super().setUp()
        self.daemon = self.makeDaemon(Mandatory(KEEPALIVE))
        self.sampler = Sampler(self.daemon)
        self.metrics = Metrics(self.daemon, self.sampler)

    def scrape(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """
        @return: the samples by name and labels, parsed by Prometheus's own parser.
        """
        self.clock.advance(1)
        text, _contentType = self.metrics.render("")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """
        @return: the value of one sample.
        """
        return self.scrape()[name, tuple(sorted(labels.items()))]

    def test_clients(self) -> None:
        """
        Clients are counted by listener and state, and by whether they were opened or refused.
        """
        self.client().feed(FEATURE_KEEPALIVE, OPEN)
        refused = self.client()
        refused.feed(OPEN)
        self.client()
        self.assertEqual(self.value("kaproto_connections", listener="", state="open"), 1)
        self.assertEqual(self.value("kaproto_connections", listener="", state="closing"), 1)
        self.assertEqual(self.value("kaproto_connections", listener="", state="ready"), 1)
        self.assertEqual(self.value("kaproto_connections_accepted_total"), 3)
        self.assertEqual(self.value("kaproto_connections_opened_total"), 1)
        self.assertEqual(self.value("kaproto_opens_refused_total", policy="mandatory"), 1)
        refused.lose()
        self.assertEqual(self.value("kaproto_connections_closed_total", reason="refused"), 1)
        self.assertEqual(
            self.value("kaproto_connections_closed_total", reason="keepalive_timeout"), 0
        )

    def test_keepAlive(self) -> None:
        """
        Pings are counted, and their round trips are in a histogram.
        """
        pair = self.pair(self.server)
        pair.advance(3)
        self.server.roundTrips.add(0.0002)
        sent = self.value("kaproto_keepalive_pings_sent_total")
        self.assertGreaterEqual(sent, 2)
        name = "kaproto_keepalive_round_trip_seconds"
        self.assertEqual(self.value(f"{name}_count"), sent + 1)
        self.assertEqual(self.value(f"{name}_bucket", le="0.000128"), sent)
        self.assertEqual(self.value(f"{name}_bucket", le="0.000256"), sent + 1)
        self.assertEqual(self.value(f"{name}_bucket", le="+Inf"), sent + 1)
        self.assertAlmostEqual(self.value(f"{name}_sum"), 0.0002)

    def test_upstream(self) -> None:
        """
        A gateway has metrics of its upstream; other servers have none.
        """
        self.assertNotIn(("kaproto_upstream_up", ()), self.scrape())
        gateway = self.daemon.becomeGateway()
        gateway.busy = {1, 2}
        self.assertEqual(self.value("kaproto_upstream_up"), 1)
        self.assertEqual(self.value("kaproto_upstream_busy"), 2)
        self.assertEqual(self.value("kaproto_upstream_calls_in_flight"), 0)
        gateway.health.failed("it is away")
        self.assertEqual(self.value("kaproto_upstream_up"), 0)
        self.assertEqual(self.value("kaproto_ready"), 1, "the fake answers at once")
        gateway.health.close()

    def test_registry(self) -> None:
        """
        The metrics say whether the registry works, and for how long it has not.
        """
        self.assertEqual(self.value("kaproto_registry_up"), 1)
        self.daemon.registry = SickRegistry("host1")
        self.assertEqual(self.value("kaproto_registry_up"), 0)
        self.assertEqual(self.value("kaproto_registry_stale_seconds"), 75)

    def test_process(self) -> None:
        """
        There are metrics for certificates, the build, the reactor and readiness.
        """
        self.daemon.expiry = {"libvirttls:16514": 1.8e9}
        found = self.scrape()
        name = "kaproto_tls_certificate_expiry_timestamp_seconds"
        self.assertEqual(found[name, (("listener", "libvirttls:16514"),)], 1.8e9)
        (labels,) = (dict(labels) for (name, labels) in found if name == "kaproto_build_info")
        self.assertEqual(labels["version"], __version__)
        self.sampler.turns.add(0.02)
        self.assertEqual(self.value("kaproto_reactor_turn_seconds_count"), 1)
        self.assertEqual(self.value("kaproto_uptime_seconds"), self.clock.seconds())
        self.assertEqual(self.value("kaproto_ready"), 1)
        self.daemon.draining = True
        self.assertEqual(self.value("kaproto_ready"), 0)

    def test_formats(self) -> None:
        """
        The format follows the request's C{Accept} header.
        """
        text, contentType = self.metrics.render("application/openmetrics-text; version=1.0.0")
        self.assertIn("application/openmetrics-text", contentType)
        self.assertTrue(text.endswith(b"# EOF\n"))

    def test_oncePerSecond(self) -> None:
        """
        The metrics are rendered at most once per second.
        """
        first = self.metrics.render("")
        self.client()
        self.clock.advance(0.9)
        self.assertEqual(self.metrics.render(""), first)
        self.clock.advance(0.1)
        self.assertNotEqual(self.metrics.render(""), first)

    def test_noNames(self) -> None:
        """
        Metrics contain no text that a client chose.
        """
        wire = self.client()
        wire.protocol.peer.user, wire.protocol.peer.tlsDN = "alice", "CN=alice"
        text, _contentType = self.metrics.render("")
        self.assertNotIn(b"alice", text)
        self.assertNotIn(b"192.0.2.1", text)
