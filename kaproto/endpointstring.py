"""
Twisted's endpoint strings, for endpoints that stand in front of another one, as in
C{proxy:tcp:16509:from=192.0.2.0/24}.

Twisted splits the whole string into arguments before it looks for the endpoint.  So the outer
endpoint takes its own keywords out, and puts the string of the inner one together again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["LayeredEndpoint", "quoted", "takeKeywords", "unparsed"]


@runtime_checkable
class LayeredEndpoint(Protocol):
    """
    A server endpoint that adds something, such as TLS, to the connections of another one.
    """

    def beneath(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint], /
    ) -> IStreamServerEndpoint:
        """
        @param wrap: makes an endpoint of the other one, which sees each connection first.
        @return: an equal endpoint on what C{wrap} makes.
        """


def quoted(text: str) -> str:
    """
    @return: C{text} as one value in an endpoint string.
    """
    return "".join(f"\\{each}" if each in "\\:=" else each for each in text)


def unparsed(arguments: Iterable[str], keywords: Mapping[str, str]) -> str:
    """
    Put an endpoint string together.

    Unlike Twisted's own function of this purpose it quotes C{=} too, without which a value such as
    C{O=Red Hat} changes its meaning.

    @param arguments: the endpoint's name and its positional arguments.
    @param keywords: its keyword arguments.
    @return: the string that Twisted splits into these.
    """
    pairs = (f"{quoted(name)}={quoted(value)}" for name, value in keywords.items())
    return ":".join([*map(quoted, arguments), *pairs])


def takeKeywords(keywords: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    """
    Take an outer endpoint's own keywords out of those of the whole string.

    @param keywords: what Twisted has found; those taken are removed from it.
    @param names: the outer endpoint's.
    """
    return {name: keywords.pop(name) for name in names if name in keywords}
