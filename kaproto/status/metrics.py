"""
Metrics for Prometheus, collected from integer counters on request.

This needs C{prometheus-client}, the extra C{metrics}.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

import twisted
from kaproto import __version__
from kaproto.keepalive.histogram import Histogram
from kaproto.status.daemon import Daemon, readiness
from kaproto.status.sampler import Sampler

__all__ = ["Metrics"]

_SMALLEST: Final = 6
_LARGEST: Final = 23
"""
The smallest and the largest bucket of a histogram, as powers of two in microseconds: 64 us and
8.4 s.
"""

_AGE: Final = 1.0


class Metrics:
    """
    The contents of C{/metrics}.  No label names a client, so the number of series is bounded.
    """

    def __init__(self, daemon: Daemon, sampler: Sampler) -> None:
        self._daemon = daemon
        self._sampler = sampler
        self._registry = CollectorRegistry()
        self._registry.register(cast(Any, self))
        self._rendered: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """
        Render all metrics, at most once a second.

        @param accept: the request's C{Accept}: Prometheus can read several formats.
        @return: the text and its C{Content-Type}.
        """
        encode, contentType = choose_encoder(accept)
        now = self._daemon.factory.clock.seconds()
        at, text = self._rendered.get(contentType, (now - _AGE, b""))
        if now - at >= _AGE:
            text = cast(Callable[[CollectorRegistry], bytes], encode)(self._registry)
            self._rendered = {contentType: (now, text)}
        return text, contentType

    def collect(self) -> Iterator[Metric]:
        """
        @return: the metrics.
        """
        yield from self._connections()
        yield from self._keepAlive()
        yield from self._upstream()
        yield from self._registryMetrics()
        yield from self._process()

    def _connections(self) -> Iterator[Metric]:
        factory = self._daemon.factory
        counters = factory.counters
        connections = GaugeMetricFamily(
            "kaproto_connections",
            "Connected clients.",
            labels=["listener", "state"],
        )
        for (listener, phase), number in sorted(self._daemon.register.phases().items()):
            connections.add_metric([listener, phase], number)
        yield connections
        yield GaugeMetricFamily(
            "kaproto_connections_max",
            "The limit of connected clients; 0 for none.",
            value=factory.limits.maxClients,
        )
        for name, text, number in (
            ("kaproto_connections_accepted", "Connections accepted.", counters.accepted),
            ("kaproto_connections_opened", "Connections opened.", counters.opened),
            ("kaproto_login_failures", "Failed logins.", counters.unauthenticated),
            (
                "kaproto_opens_would_refuse",
                "Clients admitted that mode 2 would have refused.",
                counters.warned,
            ),
        ):
            yield CounterMetricFamily(name, text, value=number)
        refused = CounterMetricFamily(
            "kaproto_opens_refused", "Clients that the policy refused.", labels=["policy"]
        )
        refused.add_metric([factory.policy.name], counters.refused)
        yield refused
        closed = CounterMetricFamily(
            "kaproto_connections_closed", "Connections that ended.", labels=["reason"]
        )
        for reason, number in factory.journal.endings.counts.items():
            closed.add_metric([reason], number)
        yield closed

    def _keepAlive(self) -> Iterator[Metric]:
        trips = self._daemon.factory.roundTrips
        yield CounterMetricFamily(
            "kaproto_keepalive_pings_sent", "Pings sent to clients.", value=trips.sent
        )
        yield _histogram(
            "kaproto_keepalive_round_trip_seconds",
            "Round-trip times of pings to clients.",
            trips,
        )

    def _upstream(self) -> Iterator[Metric]:
        upstream = self._daemon.register.upstream()
        if upstream is None:
            return
        yield GaugeMetricFamily(
            "kaproto_upstream_up",
            "Whether the last attempt to open libvirtd succeeded.",
            value=upstream.problem is None,
        )
        yield GaugeMetricFamily(
            "kaproto_upstream_calls_in_flight",
            "Calls that libvirtd has not answered.",
            value=upstream.calls,
        )
        yield GaugeMetricFamily(
            "kaproto_upstream_busy",
            "Clients whose connections libvirtd does not read, though it is alive.",
            value=upstream.busy,
        )

    def _registryMetrics(self) -> Iterator[Metric]:
        status = self._daemon.registry.status()
        yield GaugeMetricFamily(
            "kaproto_registry_up",
            "Whether the registry has an up-to-date list of this node's clients, and reaches it.",
            value=status.problem is None,
        )
        yield GaugeMetricFamily(
            "kaproto_registry_stale_seconds",
            "For how long the registry's list of this node's clients may have been out of date.",
            value=status.stale,
        )

    def _process(self) -> Iterator[Metric]:
        daemon = self._daemon
        expiry = GaugeMetricFamily(
            "kaproto_tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires.",
            labels=["listener"],
        )
        for listener, end in daemon.certificateExpiry().items():
            expiry.add_metric([listener], end)
        yield expiry
        yield GaugeMetricFamily(
            "kaproto_ready",
            "Whether new clients can be served.",
            value=readiness(daemon) is None,
        )
        yield GaugeMetricFamily(
            "kaproto_uptime_seconds",
            "Time since kaserver started.",
            value=daemon.factory.journal.age,
        )
        yield _histogram(
            "kaproto_reactor_turn_seconds",
            "Delays of a timer by the reactor's turns, measured four times a second.",
            daemon.register.turns or self._sampler.turns,
        )
        yield InfoMetricFamily(
            "kaproto_build",
            "Versions of kaproto, Python and Twisted.",
            value={
                "version": __version__,
                "python": platform.python_version(),
                "twisted": twisted.__version__,
            },
        )


def _histogram(name: str, text: str, counts: Histogram) -> HistogramMetricFamily:
    buckets = [(f"{bound:g}", number) for bound, number in counts.cumulative(_SMALLEST, _LARGEST)]
    return HistogramMetricFamily(
        name, text, buckets=[*buckets, ("+Inf", counts.total)], sum_value=counts.sum
    )
