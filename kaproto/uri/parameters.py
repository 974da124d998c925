"""
The query of a libvirt URI: separates the client's parameters from those for the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["decoded", "parameters"]

_SOCKET_PATH_MAX: Final = 107
"""
The most bytes in the path of a UNIX socket (C{sun_path}, less its final NUL).
"""


def decoded(text: str) -> str:
    """
    Decode percent-escapes.  Bytes that are not UTF-8 become lone surrogates, as in C{os.fsdecode}.
    """
    decoded = unquote(text, errors="surrogateescape")
    if "\0" in decoded:
        raise ValueError("%00 ends a C string, and libvirt ignores what follows")
    return decoded


def parameters(query: str) -> tuple[Mapping[str, str], str]:
    """
    @return: the client's parameters, by their names in lower case, and the query for the server,
        which has all other parameters.
    """
    own: dict[str, str] = {}
    others: list[str] = []
    for section in _sections(query):
        key, _equals, value = section.partition("=")
        if not key:
            continue
        key, value = decoded(key), decoded(value)
        if key.lower() in _OWN_PARAMETERS:
            own[key.lower()] = _OWN_PARAMETERS[key.lower()](key, value)
        else:
            # libvirt's client escapes only the value.
            others.append(f"{key}={quote(value, '', errors='surrogateescape')}")
    return own, "?" + "&".join(others) if others else ""


def _sections(query: str) -> list[str]:
    """
    Split at ampersands, and the text after the last ampersand at semicolons.

    C{a=1;b=2&c=3;d=4} is C{a=1;b=2}, C{c=3}, C{d=4}.
    """
    *sections, rest = query.split("&")
    return sections + rest.split(";")


def _text(_key: str, value: str) -> str:
    return value


def _path(key: str, value: str) -> str:
    size = len(os.fsencode(value))
    if not 1 <= size <= _SOCKET_PATH_MAX:
        raise ValueError(f"{key}= has {size} bytes; a UNIX socket's path has 1 to 107")
    return value


def _oneOf(words: tuple[str, ...], key: str, value: str) -> str:
    if value not in words:
        raise ValueError(f"{key}={value} is not one of {', '.join(words)}")
    return value


def _flag(key: str, value: str) -> str:
    """
    Parse 0 or 1, in any form that C's C{strtol} accepts.

    libvirt's client treats every other number as 1, which is the insecure value of C{no_verify}.
    """
    match = re.fullmatch(r"[ \t-\r]*\+?0*([01])", value)
    if match is None:
        raise ValueError(f"{key}={value} is neither 0 nor 1")
    return match[1]


def _authentication(key: str, value: str) -> str:
    if not value.lower().startswith("sasl.") and value.lower() not in ("sasl", "polkit"):
        raise ValueError(f"{key}={value} is not one of sasl, sasl.MECHANISM, polkit")
    return value


_OWN_PARAMETERS: Final[Mapping[str, Callable[[str, str], str]]] = {
    "auth": _authentication,
    "authfile": _text,
    "command": _text,
    "keyfile": _text,
    "known_hosts": _text,
    "known_hosts_verify": _text,
    "mode": partial(_oneOf, ("auto", "direct", "legacy")),
    "name": _text,
    "netcat": _text,
    "no_sanity": _flag,
    "no_tty": _flag,
    "no_verify": _flag,
    "pkipath": _text,
    "proxy": partial(_oneOf, ("auto", "native", "netcat")),
    "socket": _path,
    "sshauth": _text,
    "tls_priority": _text,
}
"""
The client's parameters, each with the function that checks its value.  libvirt accepts them with
every transport, in upper or lower case.
"""
