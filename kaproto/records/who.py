"""
A client's identity for operators: a copy that is safe to keep, print and show.
"""

from __future__ import annotations

from typing import Final

import attrs
from twisted.internet.address import IPv4Address, IPv6Address

from kaproto.peer import Peer

__all__ = ["TEXT_MAX", "Caller", "Who", "clean"]

TEXT_MAX: Final = 256
"""
The most characters kept of a name that a client chooses.
"""


def clean(text: str) -> str:
    """
    @return: the text on one line, cut to L{TEXT_MAX} characters, with everything escaped that is
        unsafe for logs and terminals: control characters, line ends, invisible characters and bytes
        that are not UTF-8.
    """
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _cleanOrNone(text: str | None) -> str | None:
    return None if text is None else clean(text)


@attrs.frozen
class Caller:
    """
    A client's identity without its port.  Refusals are counted per such identity.

    @ivar user: the name it logged in with (SASL).
    @ivar dn: the name in its TLS certificate.
    @ivar host: its IP address.
    @ivar uid: its user on this machine, for a UNIX socket.
    @ivar program: the name of its program, for a UNIX socket.
    """

    user: str | None
    dn: str | None
    host: str | None
    uid: int | None
    program: str | None = None

    @classmethod
    def of(cls, peer: Peer) -> Caller:
        """
        @return: the identity of a peer.
        """
        credentials = peer.unixCredentials
        return cls(
            _cleanOrNone(peer.user),
            _cleanOrNone(peer.tlsDN),
            _cleanOrNone(peer.host),
            None if credentials is None else credentials.uid,
            _cleanOrNone(peer.program),
        )


@attrs.frozen
class Who:
    """
    One client.

    @ivar id: the number of its connection, from 1, never reused.
    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar address: its address, such as C{192.0.2.1:5}; C{None} for a UNIX socket.
    @ivar caller: its identity.
    @ivar pid: its process on this machine, for a UNIX socket.
    """

    id: int
    transport: str
    address: str | None
    caller: Caller
    pid: int | None

    @classmethod
    def of(cls, peer: Peer) -> Who:
        """
        @return: who a peer is.
        """
        match peer.address:
            case IPv4Address(host=host, port=port):
                address: str | None = f"{host}:{port}"
            case IPv6Address(host=host, port=port):
                address = f"[{host}]:{port}"
            case _:
                address = None
        credentials = peer.unixCredentials
        pid = None if credentials is None else credentials.pid
        return cls(peer.id, peer.transport, address, Caller.of(peer), pid)
