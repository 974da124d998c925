"""
Suggests corrections of invalid endpoint strings.
"""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_address
from typing import Final

from kaproto.endpointstring import quoted
from kaproto.uri import TCP_PORT

__all__ = ["LAYERS", "quoteAddress", "suggestServer", "suggestUpstream"]

LAYERS: Final = ("haproxy", "keepalive", "proxy", "tcpkeepalive")
"""
The prefixes of endpoints that wrap another one.
"""

_KINDS: Final = (*LAYERS, "libvirttls", "stdio", "systemd", "tcp", "tcp6", "unix")


def suggestServer(description: str) -> str | None:
    """
    @param description: text that is not a server endpoint.
    @return: the endpoint string that was probably meant; C{None} if there is no guess.
    """
    description = _withoutScheme(description)
    kind, colon, rest = description.partition(":")
    if description.startswith("/"):
        return f"unix:{quoted(description)}"
    port = description.removeprefix(":")
    place = ("127.0.0.1", port) if port.isdecimal() else _hostAndPort(description)
    if place is not None:
        return f"tcp:{place[1]}:interface={quoted(place[0])}"
    if colon and kind in _KINDS:
        host, _colon, port = rest.rpartition(":")
        if kind in ("tcp", "tcp6", "libvirttls") and port.isdecimal() and host:
            return f"{kind}:{port}:interface={quoted(host)}"
        return None
    close = difflib.get_close_matches(kind.lower(), _KINDS, 1, 0.7)
    return f"{close[0]}{colon}{rest}" if colon and close else None


def _withoutScheme(text: str) -> str:
    """
    @return: the text without C{tcp://} or C{unix://}.
    """
    match = re.fullmatch("(?:tcp|unix)://(.*?)/?", text)
    return text if match is None else match[1]


def _hostAndPort(text: str) -> tuple[str, str] | None:
    """
    @return: the IP address and the port in C{ADDRESS}, C{ADDRESS:PORT} or C{[ADDRESS]:PORT}.
    """
    match = re.fullmatch(r"\[(.*)\](?::(\d+))?|([\d.]+|localhost)(?::(\d+))?", text)
    host, port = (text, None) if match is None else (match[1] or match[3], match[2] or match[4])
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            return None
    return "127.0.0.1" if host == "localhost" else host, port or str(TCP_PORT)


def quoteAddress(description: str) -> str:
    """
    @return: the string with the colons of an IPv6 address quoted.
    """
    # The address ends at the next argument, as in interface=::1:backlog=50.
    match = re.search(r"interface=([\w:.%]+?)(?=:[a-z]+=|$)", description)
    if match is None or ":" not in match[1]:
        return description
    return description[: match.start(1)] + quoted(match[1]) + description[match.end() :]


def suggestUpstream(description: str) -> str | None:
    """
    @param description: text that is neither a client endpoint nor a URI.
    @return: the endpoint string that was probably meant; C{None} if there is no guess.
    """
    description = _withoutScheme(description)
    if description.startswith("/"):
        return f"unix:{quoted(description)}"
    place = _hostAndPort(description)
    if place is not None:
        return f"tcp:{quoted(place[0])}:{place[1]}"
    host, colon, port = description.rpartition(":")
    if colon and port.isdecimal() and re.fullmatch(r"[\w.-]+", host) and host not in _KINDS:
        return f"tcp:{description}"
    return None
