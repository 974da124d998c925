"""
Conditions on a peer, used in rules and in C{--except}.

    - C{network}: an address, or a network such as C{10.0.0.0/8}
    - C{transport}: C{tcp}, C{tls} or C{unix}
    - C{dn}: the distinguished name in its certificate
    - C{cn}: the common name in its certificate, from a load balancer that terminates TLS
    - C{user}: the name it logged in with
    - C{program}: the name of its program, on a UNIX socket

In the last four, C{*} matches any characters and C{?} matches one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from kaproto.peer import Network, Peer, parseAddress, parseNetwork
from kaproto.security.dn import matchesGlob

__all__ = ["CONDITIONS", "ConditionError", "Conditions", "exceptionFor", "parseCondition"]

_TRANSPORTS: Final = ("tcp", "tls", "unix")
_COMM_MAX: Final = 15
_WILDCARDS: Final = frozenset("*?")
_OFFER_MAX: Final = 50
_ODD: Final = _WILDCARDS | {" "}


class ConditionError(ValueError):
    """
    A condition cannot be used; the message says why and names the value.
    """


@attrs.frozen
class _Condition:
    """
    One kind of condition.

    @ivar parse: parses a value, or raises a C{ValueError}.
    @ivar fits: tests whether a peer fits a parsed value.
    """

    parse: Callable[[str], Any]
    fits: Callable[[Peer, Any], bool]


def _parseTransport(text: str) -> str:
    if text not in _TRANSPORTS:
        raise ValueError(f"{text!r} is not one of {', '.join(_TRANSPORTS)}")
    return text


def _parseDN(text: str) -> str:
    if "=" not in text and not _WILDCARDS & set(text):
        raise ValueError(
            f"{text!r} is not a distinguished name such as O=Example,CN=alice, or *,CN=alice"
        )
    return text


def _parseUser(text: str) -> str:
    if not text:
        raise ValueError("the name is empty")
    return text


def _parseProgram(text: str) -> str:
    """
    @return: the first 15 bytes of the name, since the kernel keeps no more of a program's name.
    """
    if not text or "/" in text:
        raise ValueError(f"{text!r} is not a program name such as virt-install")
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= _COMM_MAX:
        return text
    if _WILDCARDS & set(text):
        raise ValueError(
            f"{text!r} is too long: the kernel keeps {_COMM_MAX} bytes of a program's name, so "
            f"end the pattern with * before that"
        )
    return data[:_COMM_MAX].decode("utf-8", "backslashreplace")


def _isWithin(peer: Peer, network: Network) -> bool:
    return peer.host is not None and parseAddress(peer.host) in network


def _matches(text: str | None, pattern: str) -> bool:
    return text is not None and matchesGlob(text, pattern)


CONDITIONS: Final[Mapping[str, _Condition]] = {
    "network": _Condition(parseNetwork, _isWithin),
    "transport": _Condition(_parseTransport, lambda peer, value: peer.transport == value),
    "dn": _Condition(_parseDN, lambda peer, pattern: _matches(peer.tlsDN, pattern)),
    "cn": _Condition(_parseUser, lambda peer, pattern: _matches(peer.commonName, pattern)),
    "user": _Condition(_parseUser, lambda peer, pattern: _matches(peer.user, pattern)),
    "program": _Condition(_parseProgram, lambda peer, pattern: _matches(peer.program, pattern)),
}
"""
The kinds of conditions, by name.
"""


@attrs.frozen
class Conditions:
    """
    A set of conditions, all of which must fit a peer.

    @ivar values: the parsed values of each condition, one of which must fit.
    """

    values: Mapping[str, Sequence[Any]]

    @classmethod
    def parse(cls, written: Mapping[str, Sequence[str]]) -> Conditions:
        """
        @param written: the values of each condition, as text.
        @raise ConditionError: when a value cannot be used; the message names it and its condition.
        """
        return cls({word: _parseAll(word, texts) for word, texts in written.items()})

    def fit(self, peer: Peer) -> bool:
        """
        @return: whether all conditions fit the peer.
        """
        return all(
            any(CONDITIONS[word].fits(peer, value) for value in values)
            for word, values in self.values.items()
        )


def _parseAll(word: str, texts: Sequence[str]) -> list[Any]:
    try:
        return [CONDITIONS[word].parse(text) for text in texts]
    except ValueError as error:
        raise ConditionError(f"{word}: {error}") from error


def parseCondition(text: str) -> Conditions:
    """
    @param text: one condition such as C{user=alice}, as C{--except} takes it.
    @raise ConditionError: when there is no such condition, or its value cannot be used.
    """
    word, equals, value = text.partition("=")
    names = ", ".join(CONDITIONS)
    if not equals:
        raise ConditionError(
            "a condition has a name and a value, such as program=virt-install or user=alice; the "
            f"names are {names}"
        )
    if word not in CONDITIONS:
        close = difflib.get_close_matches(word, CONDITIONS, 1)
        meant = f"is {close[0]}={value} meant?" if close else f"there are {names}"
        raise ConditionError(f"there is no condition {word!r}; {meant}")
    return Conditions.parse({word: [value]})


def exceptionFor(peer: Peer) -> str:
    """
    @return: the argument for C{--except} that exempts this peer, for an error message: the first
        of its user, DN, program and address that is short, plain and without wildcards (which
        would exempt others as well); C{WHO} if there is none.
    """
    for word, value in (
        ("user", peer.user),
        ("dn", peer.tlsDN),
        ("program", peer.program),
        ("network", peer.host),
    ):
        text = f"{word}={value}"
        plain = text.isprintable() and not _ODD & set(text)
        if value and plain and len(text) <= _OFFER_MAX:
            return text
    return "WHO"
