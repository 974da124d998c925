"""
The audit log: a line when a client opens, and a line when its connection ends.

The lines are logged as C{kaproto.audit}.  L{BOUNDS} limits them like all lines about clients, and
is asked before a line is composed.  This module composes text and event itself, since Twisted's
logger would take four times as long: when all clients of a server reconnect at once, there are
thousands of lines to write.
"""

from __future__ import annotations

import time
from typing import Final

from twisted.logger import Logger, LogLevel

from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer

__all__ = ["auditClosed", "auditOpened"]

_logger: Final = Logger("kaproto.audit", observer=BOUNDS)


def _log(**event: object) -> None:
    event |= {
        "log_logger": _logger,
        "log_source": None,
        "log_namespace": _logger.namespace,
        "log_level": LogLevel.info,
        "log_format": "{text}",
        "log_time": time.time(),
    }
    BOUNDS.admitted(event)


def auditOpened(peer: Peer, policy: str) -> None:
    """
    Log that a client has opened.

    @param policy: the policy that admitted it.
    """
    if not BOUNDS.admits(peer):
        return
    name = peer.requested or ""
    access = "read-only" if peer.readOnly else "read-write"
    asked = "asked" if peer.asked else "not asked"
    rule = "" if peer.rule is None else f" ({peer.rule})"
    _log(
        text=f"connection {peer.id}: {peer} opened {name!r} ({access}, keepalive {asked}), "
        f"admitted by policy {policy}{rule}",
        event="open",
        connection=peer.id,
        peer=peer,
        name=name,
        readOnly=peer.readOnly,
        keepAliveAsked=peer.asked,
        policy=policy,
        rule=peer.rule,
    )


def auditClosed(peer: Peer, kind: str, reason: str, seconds: float) -> None:
    """
    Log that the connection of a client that had opened has ended.

    @param kind: the reason's name, one of L{kaproto.records.endings.KINDS}.
    @param reason: the reason in words.
    @param seconds: how long it was connected.
    """
    if not BOUNDS.admits(peer):
        return
    _log(
        text=f"connection {peer.id}: {peer} ended after {seconds:.1f} s: {reason}",
        event="end",
        connection=peer.id,
        peer=peer,
        name=peer.requested or "",
        kind=kind,
        reason=reason,
        seconds=round(seconds, 3),
    )
