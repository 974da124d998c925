"""
What was meant by text that is no endpoint.
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
What goes before another endpoint.
"""

_KINDS: Final = (*LAYERS, "libvirttls", "stdio", "systemd", "tcp", "tcp6", "unix")


def suggestServer(description: str) -> str | None:
    """
    @param description: text that is not a server endpoint.
    @return: the one that was probably meant.
    """
    kind, colon, rest = description.partition(":")
    if description.startswith("/"):
        return f"unix:{quoted(description)}"
    if description.isdecimal():
        return f"tcp:{description}:interface=127.0.0.1"
    place = _hostAndPort(description)
    if place is not None:
        host, port = place
        return f"tcp:{port}:interface={quoted(host)}"
    if colon and kind in _KINDS:
        host, _colon, port = rest.rpartition(":")
        if kind in ("tcp", "tcp6", "libvirttls") and port.isdecimal() and host:
            return f"{kind}:{port}:interface={quoted(host)}"
        return None
    close = difflib.get_close_matches(kind, _KINDS, 1, 0.7)
    return f"{close[0]}{colon}{rest}" if colon and close else None


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
    match = re.search(r"interface=([\w:.%]+?)(?=:[a-z]+=|$)", description)
    if match is None or ":" not in match[1]:
        return description
    return description[: match.start(1)] + quoted(match[1]) + description[match.end() :]


def suggestUpstream(description: str) -> str | None:
    """
    @param description: what is neither a client endpoint nor a URI.
    @return: what was probably meant.
    """
    if description.startswith("/"):
        return f"unix:{quoted(description)}"
    host, colon, port = description.rpartition(":")
    if colon and port.isdecimal() and re.fullmatch(r"[\w.-]+", host) and host not in _KINDS:
        return f"tcp:{description}"
    return None
