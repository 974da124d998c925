"""
Endpoint strings that wrap another endpoint string, as in C{proxy:tcp:16509:from=192.0.2.0/24}.

Twisted splits the whole string into arguments before it looks up the endpoint.  So the outer
endpoint removes its own keywords, and joins the rest to the string of the inner endpoint again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["LayeredEndpoint", "innerEndpoint", "quoted", "takeKeywords", "unparsed", "whyNotMade"]


@runtime_checkable
class LayeredEndpoint(Protocol):
    """
    A server endpoint that adds a layer, such as TLS, to another endpoint.
    """

    def beneath(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint], /
    ) -> IStreamServerEndpoint:
        """
        Insert a layer beneath this one.

        @param wrap: makes the new layer from the other endpoint.  The new layer handles each
            connection before this one does.
        @return: a copy of this endpoint, on top of the new layer.
        """


def quoted(text: str) -> str:
    """
    @return: C{text} as one value in an endpoint string.
    """
    return "".join(f"\\{each}" if each in "\\:=" else each for each in text)


def unparsed(arguments: Iterable[str], keywords: Mapping[str, str]) -> str:
    """
    Compose an endpoint string.

    Unlike Twisted's own function, this quotes C{=} too, so that a value such as C{O=Red Hat} stays
    one value.

    @param arguments: the endpoint's name and its positional arguments.
    @param keywords: its keyword arguments.
    @return: the string, which Twisted splits into the same arguments again.
    """
    pairs = (f"{quoted(name)}={quoted(value)}" for name, value in keywords.items())
    return ":".join([*map(quoted, arguments), *pairs])


def takeKeywords(keywords: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    """
    Remove the outer endpoint's keywords from those of the whole string.

    @param keywords: all keywords of the string; the outer endpoint's are removed.
    @param names: the names of the outer endpoint's keywords.
    @return: the outer endpoint's keywords.
    """
    return {name: keywords.pop(name) for name in names if name in keywords}


_T = TypeVar("_T")


def innerEndpoint(
    fromString: Callable[[Any, str], _T],
    reactor: object,
    outer: str,
    own: Iterable[str],
    arguments: Sequence[str],
    keywords: Mapping[str, str],
) -> _T:
    """
    Make the inner endpoint.

    @param fromString: C{serverFromString} or C{clientFromString}.
    @param outer: the outer endpoint's name.
    @param own: the keywords of the outer endpoint.
    @param arguments: the inner endpoint's name and its positional arguments.
    @param keywords: the inner endpoint's keywords.
    @raise ValueError: when there is no such endpoint, it does not accept these arguments, or it
        cannot read a file.
    """
    inner = unparsed(arguments, keywords)
    try:
        return fromString(reactor, inner)
    except (TypeError, ValueError, LookupError, OSError) as error:
        hint = ""
        if "" in arguments[1:] or "" in keywords.values():
            name = next((name for name, value in keywords.items() if not value), "host")
            hint = f"; in an IPv6 address write \\: for each colon, as in {name}=\\:\\:1"
        raise ValueError(
            f"{outer}: takes {', '.join(f'{name}=' for name in own)}, and the rest, {inner!r}, is "
            f"not an endpoint: {whyNotMade(error)}{hint}"
        ) from error


def whyNotMade(error: Exception) -> str:
    """
    @param error: what C{serverFromString} or C{clientFromString} raised.
    @return: why Twisted cannot make the endpoint, without the names of its functions.
    """
    text = str(error)
    for pattern, reason in _REASONS.items():
        found = re.search(pattern, text)
        if found is not None:
            return found.expand(reason)
    if isinstance(error, KeyError):
        return f"systemd has passed no socket named {text}"
    if isinstance(error, IndexError):
        return "systemd has passed no socket with this index"
    return text or repr(error)


_REASONS: Final = {
    "unexpected keyword argument '(.*)'": r"it takes no \1=",
    "missing .* arguments?: (.*)": r"it needs \1",
    "Unknown endpoint type: (.*)": r"there is no endpoint \1",
    "invalid literal for int": "ports, backlogs and indexes are numbers",
}
"""
Patterns that match error messages of Python and Twisted, each with a clearer message.
"""
