"""
The status page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.template import Tag, flattenString, tags

from kaproto.status.daemon import SERVER_NAME, Daemon
from kaproto.status.sampler import Sampler
from kaproto.status.sections import (
    clientTable,
    endingTable,
    overview,
    plots,
    refusalTable,
)

__all__ = ["CLIENTS_SHOWN", "Page", "View"]

CLIENTS_SHOWN: Final = 25
"""
The most clients on a page: rendering more at once would hold up the reactor.
"""

_LATEST: Final = 25
_QUERY_MAX: Final = 100
_DIGITS_MAX: Final = 19


@attrs.frozen
class View:
    """
    A selection of clients to show.

    @ivar text: a text contained in their names or addresses.
    @ivar before: only clients with a smaller id; 0 for all.
    """

    text: str = ""
    before: int = 0

    @classmethod
    def fromArguments(cls, arguments: Mapping[bytes, list[bytes]]) -> View:
        """
        @param arguments: the arguments of a request.
        """
        text = arguments.get(b"q", [b""])[0].decode("utf-8", "replace")
        before = arguments.get(b"before", [b"0"])[0]
        number = int(before) if before.isdigit() and len(before) <= _DIGITS_MAX else 0
        return cls(text.strip()[:_QUERY_MAX], number)

    def query(self, before: int = 0) -> str:
        """
        @param before: the upper bound for the ids on the next page.
        @return: the query of its URL, with the question mark.
        """
        return "?" + urlencode({"q": self.text, "before": before})


@attrs.frozen
class _Part:
    """
    A part of the page.

    @ivar make: renders the part.
    @ivar key: a value that differs whenever the part's content does, so that equal keys reuse the
        HTML; C{None} to render every time.
    """

    make: Callable[[], Tag]
    key: object = None


class Page:
    """
    Renders the page, one part in each turn of the reactor.
    """

    def __init__(self, daemon: Daemon, sampler: Sampler) -> None:
        self._daemon = daemon
        self._sampler = sampler
        self._rendered: dict[str, tuple[object, str]] = {}
        self._clock = daemon.factory.clock
        self._wallClock = daemon.factory.journal.wallClock

    @property
    def _now(self) -> float:
        return self._wallClock.timeOfDay(self._clock.seconds())

    @property
    def _today(self) -> int:
        return int(self._now // 86400)

    async def sections(self, view: View) -> dict[str, str]:
        """
        @return: the HTML of each part that changes, by its id.
        """
        await self._daemon.register.refresh()
        found = {}
        for name, make in self._parts(view).items():
            found[name] = await self._html(name, await self._inTurn(make()))
        return found

    async def _html(self, name: str, part: _Part) -> str:
        key, html = self._rendered.get(name, (None, ""))
        if part.key is None or part.key != key:
            flat: bytes = await flattenString(None, part.make())
            html = flat.decode()
        if part.key is not None:
            self._rendered[name] = part.key, html
        return html

    def _parts(self, view: View) -> Mapping[str, Callable[[], Awaitable[_Part]]]:
        daemon = self._daemon
        samples = list(self._sampler.samples)

        async def made(make: Callable[[], Tag]) -> _Part:
            return _Part(make)

        return {
            "overview": lambda: made(lambda: overview(daemon, samples)),
            "plots": lambda: made(lambda: plots(samples)),
            "clients": lambda: self._clients(view),
            "ended": self._endings,
            "refused": self._refusals,
        }

    async def _inTurn(self, making: Awaitable[_Part]) -> _Part:
        await deferLater(self._clock, 0)
        return await making

    async def _tag(self, making: Awaitable[_Part]) -> Tag:
        return (await self._inTurn(making)).make()

    async def _clients(self, view: View) -> _Part:
        register = self._daemon.register
        # Ask for one client more than the page shows, to learn whether there are older ones.
        found = await register.newest(view.text.lower(), view.before, CLIENTS_SHOWN + 1)
        shown = found[:CLIENTS_SHOWN]

        def make() -> Tag:
            table = clientTable(shown, self._now, len(register))
            if len(found) <= CLIENTS_SHOWN:
                return table
            older = view.query(shown[-1].who.id)
            return tags.div(table, tags.p(tags.a("older clients", href=older), class_="more"))

        return _Part(make)

    async def _endings(self) -> _Part:
        endings = await self._daemon.register.endings(_LATEST)
        return _Part(
            lambda: endingTable(endings, self._wallClock, self._now),
            (self._today, [each.who.id for each in endings]),
        )

    async def _refusals(self) -> _Part:
        refusals = await self._daemon.register.refusals(_LATEST)
        return _Part(
            lambda: refusalTable(refusals, self._wallClock, self._now),
            (self._today, [(each.caller, each.refused, each.wouldRefuse) for each in refusals]),
        )

    async def document(self, view: View) -> bytes:
        """
        @return: the whole page.
        """
        await self._daemon.register.refresh()
        # The template waits for each part, which lets the reactor run in between.
        parts = {name: self._tag(make()) for name, make in self._parts(view).items()}
        count = len(self._daemon.register)
        page = tags.html(
            tags.head(
                tags.meta(charset="utf-8"),
                tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
                tags.noscript(Tag("meta", {"http-equiv": "refresh", "content": "5"})),
                tags.title(f"{SERVER_NAME}: {count:,} client{'' if count == 1 else 's'}"),
                tags.link(rel="stylesheet", href="/kaproto.css"),
                Tag("script", {"src": "/kaproto.js", "defer": "defer"}),
            ),
            tags.body(
                tags.header(
                    tags.h1(SERVER_NAME),
                    tags.span(id="live"),
                    Tag("nav")(
                        tags.a("clients", href="#clients-heading"),
                        tags.a("endings", href="#ended-heading"),
                        tags.a("refused", href="#refused-heading"),
                    ),
                ),
                Tag("main")(
                    _section("overview", parts),
                    _section("plots", parts),
                    tags.h2("Clients", id="clients-heading"),
                    _searchForm(view),
                    _section("clients", parts),
                    tags.h2("Latest endings", id="ended-heading"),
                    _section("ended", parts),
                    tags.h2("Refused, or would be in mode 2", id="refused-heading"),
                    _section("refused", parts),
                ),
                **{"data-events": "/events" + view.query(view.before)},
            ),
            lang="en",
        )
        flat: bytes = await flattenString(None, page)
        return b"<!DOCTYPE html>\n" + flat


def _section(name: str, parts: Mapping[str, Coroutine[Deferred[Any], Any, Tag]]) -> Tag:
    return tags.section(parts[name], id=name)


def _searchForm(view: View) -> Tag:
    return tags.form(
        tags.input(
            type="search",
            name="q",
            value=view.text,
            placeholder="name or address",
            maxlength=str(_QUERY_MAX),
            **{"aria-label": "show clients whose name or address contains this"},
        ),
        tags.button("search", type="submit"),
        tags.a("all", href="/") if view.text or view.before else "",
        method="get",
        action="/",
    )
