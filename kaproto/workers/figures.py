"""
The statistics of one worker, and the sums of all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from kaproto.keepalive.histogram import Histogram
from kaproto.server import KeepAliveServerFactory
from kaproto.status.daemon import Daemon
from kaproto.status.register import Upstream

__all__ = ["Figures", "Totals"]


@attrs.frozen
class Figures:
    """
    The statistics of one worker: totals since its start, and current numbers.

    @ivar counters: its L{Counters}.
    @ivar ended: connections that ended, counted by reason.
    @ivar trips: its L{Histogram} of round trips.
    @ivar turns: its L{Histogram} of the reactor's turns.
    @ivar phases: its clients, as triples of listener, phase and number.
    @ivar anonymous: the number of its clients that have not finished the TLS handshake or have not
        logged in.
    @ivar upstream: the state of its upstream, if it is a gateway.
    @ivar certificates: when its certificates expire, by listener.
    """

    counters: Mapping[str, int]
    ended: Mapping[str, int]
    trips: Sequence[int]
    turns: Sequence[int]
    phases: Sequence[tuple[str, str, int]] = ()
    anonymous: int = 0
    upstream: Upstream | None = None
    certificates: Mapping[str, float] = attrs.Factory(dict)

    @classmethod
    def of(cls, daemon: Daemon, turns: Histogram) -> Figures:
        """
        @param daemon: the server of this process.
        @param turns: the durations of its reactor's turns.
        """
        factory, register = daemon.factory, daemon.register
        return cls(
            attrs.asdict(factory.counters),
            factory.journal.endings.counts,
            list(factory.roundTrips),
            list(turns),
            [(*key, number) for key, number in register.phases().items()],
            register.anonymous,
            register.upstream(),
            daemon.certificateExpiry(),
        )

    def toJSON(self) -> str:
        """
        @return: these figures, for L{fromJSON}.
        """
        return json.dumps(attrs.asdict(self))

    @classmethod
    def fromJSON(cls, text: str) -> Figures:
        """
        @param text: the output of L{toJSON}.
        """
        found: dict[str, Any] = json.loads(text)
        upstream = found.pop("upstream")
        return cls(**found, upstream=None if upstream is None else Upstream(**upstream))


class Totals:
    """
    The sums over all workers, including those that have ended: Prometheus would take a decreasing
    total for a restart.

    @ivar turns: the durations of the reactors' turns.
    @ivar phases: the number of clients, by listener and phase.
    @ivar anonymous: the number of clients that have not finished the TLS handshake or have not
        logged in.
    @ivar upstream: the state of the upstreams, if the workers are gateways.
    @ivar certificates: when certificates expire, by listener.
    """

    def __init__(self, factory: KeepAliveServerFactory) -> None:
        """
        @param factory: receives the sums of counters, endings and round trips, as if it served all
            clients itself.
        """
        self._factory = factory
        self._ended: list[Figures] = []
        self.turns = Histogram()
        self.phases: Counter[tuple[str, str]] = Counter()
        self.anonymous = 0
        self.upstream: Upstream | None = None
        self.certificates: Mapping[str, float] = {}

    def ended(self, figures: Figures) -> None:
        """
        Add the figures of a worker that has ended.

        @param figures: its last figures.
        """
        self._ended.append(figures)
        if len(self._ended) > 1:
            self._ended = [
                Figures(
                    _sum(each.counters for each in self._ended),
                    _sum(each.ended for each in self._ended),
                    _sumOfLists([each.trips for each in self._ended]),
                    _sumOfLists([each.turns for each in self._ended]),
                )
            ]

    def update(self, workers: Collection[Figures]) -> None:
        """
        Compute the sums again.

        @param workers: the latest figures of the running workers.
        """
        everything = [*self._ended, *workers]
        factory = self._factory
        for name, value in _sum(each.counters for each in everything).items():
            setattr(factory.counters, name, value)
        factory.journal.endings.counts.update(_sum(each.ended for each in everything))
        factory.roundTrips[:] = _sumOfLists([Histogram(), *(each.trips for each in everything)])
        self.turns[:] = _sumOfLists([Histogram(), *(each.turns for each in everything)])
        self.phases = Counter()
        self.certificates = {}
        for each in workers:
            for listener, phase, number in each.phases:
                self.phases[listener, phase] += number
            self.certificates = {**self.certificates, **each.certificates}
        self.anonymous = sum(each.anonymous for each in workers)
        self.upstream = _together([each.upstream for each in workers if each.upstream is not None])


def _together(upstreams: Sequence[Upstream]) -> Upstream | None:
    if not upstreams:
        return None
    return Upstream(
        next((each.problem for each in upstreams if each.problem is not None), None),
        sum(each.calls for each in upstreams),
        sum(each.busy for each in upstreams),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _sumOfLists(lists: Iterable[Sequence[int]]) -> list[int]:
    return [sum(each) for each in zip(*lists, strict=True)]
