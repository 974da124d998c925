"""
The parts of the status page, made with C{twisted.web.template}, which escapes all values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from twisted.web.template import Tag, tags

from kaproto import __version__
from kaproto.records.endings import Ending
from kaproto.records.refusals import Refusal
from kaproto.records.wallclock import WallClock
from kaproto.records.who import Caller, Who
from kaproto.status.clients import ClientStatus
from kaproto.status.daemon import Daemon, readiness
from kaproto.status.sampler import INTERVAL, KEPT, Sample
from kaproto.status.texts import elapsed, milliseconds, shortTime, timeOfDay

__all__ = ["clientTable", "endingTable", "overview", "plots", "refusalTable"]

_WIDTH: Final = 300.0
_HEIGHT: Final = 60.0

_LONG: Final = frozenset({"Who", "Opened", "Message"})
"""
Columns whose text may wrap.
"""

_NOTHING: Final = frozenset({"-", "0", "no"})
"""
Values that are hidden on narrow screens.
"""


def overview(daemon: Daemon, samples: Sequence[Sample]) -> Tag:
    """
    @return: the state of the daemon, and its main numbers.
    """
    factory = daemon.factory
    counters, journal, limits = factory.counters, factory.journal, factory.limits
    problem = readiness(daemon)
    state = "serving" if problem is None else "draining" if daemon.draining else "not ready"
    latest = next((each.roundTrip for each in reversed(samples) if each.roundTrip), None)
    most = f"of {limits.maxClients:,}" if limits.maxClients else "connected"
    return tags.div(
        tags.p(
            tags.span(state, class_="badge good" if problem is None else "badge bad"),
            f" mode {factory.policy.name}, up {elapsed(journal.age)}, kaproto {__version__}",
            "" if problem in (None, state) else tags.strong(f" {problem}"),
        ),
        *_registry(daemon),
        tags.ul(
            _tile("clients", f"{len(daemon.register):,}", most),
            _tile("opened", f"{counters.opened:,}", "since the start"),
            _tile("dead", f"{counters.dead:,}", "by keepalive"),
            _tile("refused", f"{counters.refused:,}", "by the policy"),
            _tile("would be refused", f"{counters.warned:,}", "in mode 2"),
            _tile("round trip", milliseconds(latest), "mean of 2 s"),
            class_="tiles",
        ),
    )


def _registry(daemon: Daemon) -> list[Tag]:
    """
    @return: the registry's problem, if there is one.
    """
    registry = daemon.registry.status()
    if registry.problem is None:
        return []
    age = elapsed(registry.stale)
    return [
        tags.p(
            tags.span("registry", class_="badge bad"),
            f" {registry.where} has not listed these clients for {age}: {registry.problem}",
        )
    ]


def _tile(name: str, value: str, note: str) -> Tag:
    return tags.li(tags.span(name), tags.strong(value), tags.small(note))


def plots(samples: Sequence[Sample]) -> Tag:
    """
    @return: plots of the number of clients and of their round trips, over the last ten minutes.
    """
    clients = [float(each.clients) for each in samples]
    trips = [None if each.roundTrip is None else each.roundTrip * 1000 for each in samples]
    return tags.div(
        _plot("clients", clients, lambda value: f"{value:,.0f}"),
        _plot("round trip", trips, lambda value: f"{value:.2f} ms"),
        class_="plots",
    )


def _plot(name: str, values: Sequence[float | None], show: object) -> Tag:
    assert callable(show)
    known = [each for each in values if each is not None]
    most = max(known, default=0.0)
    minutes = KEPT * INTERVAL / 60
    caption = f"{name}, last {minutes:.0f} minutes"
    if known:
        caption += f": now {show(known[-1])}, most {show(most)}"
    return tags.figure(tags.figcaption(caption), _curve(values, most or 1.0))


def _curve(values: Sequence[float | None], most: float) -> Tag:
    """
    @return: a line for each run of known values.
    """
    step = _WIDTH / (KEPT - 1)
    first = KEPT - len(values)
    lines: list[list[str]] = [[]]
    for number, value in enumerate(values, first):
        if value is None:
            lines.append([])
        else:
            # SVG's y axis points down.  Leave a margin of 2 above and below the curve.
            height = _HEIGHT - 2 - value / most * (_HEIGHT - 4)
            lines[-1].append(f"{number * step:.1f},{height:.1f}")
    svg = Tag(
        "svg",
        {
            "viewBox": f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-hidden": "true",
        },
    )
    for points in lines:
        if points:
            # Draw a single point as a line of length zero: its round ends are visible.
            path = points * 2 if len(points) == 1 else points
            svg(Tag("polyline", {"points": " ".join(path)}))
    return svg


def clientTable(clients: Sequence[ClientStatus], now: float, total: int) -> Tag:
    """
    @param now: the time, in seconds since 1970.
    @param total: the number of all clients.
    """
    if not clients:
        return tags.p("no clients" if not total else "no client matches", class_="none")
    headings = ("ID", "From", "Who", "Connected", "Phase", "Keepalive", "Heard", "Opened", "Calls")
    return _table(headings, (_clientRow(each, now) for each in clients))


def _clientRow(client: ClientStatus, now: float) -> list[Tag | str]:
    asked = "pinged" if client.interval else "asked" if client.keepAliveAsked else "no"
    keepAlive = f"{asked}, {milliseconds(client.latency)}" if client.latency else asked
    calls = str(client.calls)
    if client.upstream is not None and client.upstream != "answering":
        calls += f", libvirtd {client.upstream}"
    return [
        str(client.who.id),
        _where(client.who),
        _caller(client.who.caller),
        tags.span(f"{elapsed(max(0.0, now - client.since))} ago", title=timeOfDay(client.since)),
        tags.span(client.phase, class_=f"badge {client.phase}"),
        keepAlive,
        "-" if client.silence is None else f"{client.silence:.1f} s ago",
        (client.name or "-") + (" (read-only)" if client.readOnly else ""),
        calls,
    ]


def endingTable(endings: Iterable[Ending], wallClock: WallClock, now: float) -> Tag:
    """
    @param now: the time, in seconds since 1970.
    @return: connections that ended, the latest first.
    """
    headings = ("ID", "From", "Who", "Ended", "After", "Reason", "Message")
    return _table(
        headings,
        (
            [
                str(each.who.id),
                _where(each.who),
                _caller(each.who.caller),
                shortTime(wallClock.timeOfDay(each.endedAt), now),
                elapsed(each.duration),
                tags.span(each.kind.replace("_", " "), class_=f"badge {each.kind}"),
                each.reason,
            ]
            for each in endings
        ),
        "none yet",
    )


def refusalTable(refusals: Iterable[Refusal], wallClock: WallClock, now: float) -> Tag:
    """
    @param now: the time, in seconds since 1970.
    @return: clients that were refused, or would be in mode 2, the latest first.
    """
    headings = ("Host", "Who", "Refused", "Would be", "Last")
    return _table(
        headings,
        (
            [
                each.caller.host or "this machine",
                _caller(each.caller),
                str(each.refused),
                str(each.wouldRefuse),
                shortTime(wallClock.timeOfDay(each.last), now),
            ]
            for each in refusals
        ),
        "nobody",
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[Tag | str]], none: str = "none") -> Tag:
    body = [
        tags.tr(_cell(heading, cell) for heading, cell in zip(headings, row, strict=True))
        for row in rows
    ]
    if not body:
        return tags.p(none, class_="none")
    return tags.table(
        tags.thead(tags.tr(tags.th(each, scope="col") for each in headings)), tags.tbody(body)
    )


def _cell(heading: str, content: Tag | str) -> Tag:
    attributes = {"data-label": heading}
    if heading in _LONG:
        attributes["class"] = f"long {heading.lower()}"
    elif isinstance(content, str) and content in _NOTHING:
        attributes["class"] = "nothing"
    return tags.td(content, **attributes)


def _where(who: Who) -> str:
    return f"{who.transport} {who.address or f'pid {who.pid}'}"


def _caller(caller: Caller) -> str:
    if caller.user is not None:
        return caller.user
    if caller.dn is not None:
        return caller.dn
    return "-" if caller.uid is None else f"{caller.program or 'unknown'} (uid {caller.uid})"
