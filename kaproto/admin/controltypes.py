"""
kaproto's own administration program, for everything that C{virt-admin} does not support.

Results are JSON, so that C{kaproto --json} prints the answers of newer and older servers unchanged.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import attrs

from kaproto.wire.structs import Limit, UHyper, UInt

__all__ = [
    "CONTROL_PROGRAM",
    "PAGE_MAX",
    "REASON_MAX",
    "ControlProcedure",
    "Disconnecting",
    "Document",
    "Draining",
    "Page",
    "Tracing",
    "Which",
]

CONTROL_PROGRAM: Final = 0x6B617072
"""
The number of the program: C{kapr} in ASCII.
"""

PAGE_MAX: Final = 200
"""
The most clients in one reply: describing them takes a few milliseconds.
"""

REASON_MAX: Final = 1024
"""
The most bytes of an administrator's reason.
"""


class ControlProcedure(IntEnum):
    """
    The procedures of L{CONTROL_PROGRAM}.
    """

    LIST = 1
    SHOW = 2
    DISCONNECT = 3
    ENDED = 4
    REFUSED = 5
    STATUS = 6
    RELOAD = 7
    DRAIN = 8
    TRACE = 9
    TRACED = 10
    REPLACE = 11


@attrs.frozen
class Document:
    """
    JSON.
    """

    json: str


@attrs.frozen
class Page:
    """
    Clients to list.

    @ivar after: the id of the last client on the page before, 0 for the first page.
    """

    after: UHyper


@attrs.frozen
class Which:
    """
    A client, by id.
    """

    id: UHyper


@attrs.frozen
class Disconnecting:
    """
    The client to disconnect, and the reason.
    """

    id: UHyper
    reason: Annotated[str, Limit(REASON_MAX)] | None


@attrs.frozen
class Draining:
    """
    Seconds that clients have to leave; by default the configured time.
    """

    within: float | None


@attrs.frozen
class Tracing:
    """
    The client to trace, and the duration in seconds.
    """

    id: UHyper
    seconds: UInt
