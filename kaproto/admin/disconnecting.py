"""
Disconnects a client for an administrator.
"""

from __future__ import annotations

from kaproto.errors import Disconnected
from kaproto.records.who import clean
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.programs import CloseReason

__all__ = ["disconnectClient"]


def disconnectClient(client: ServerConnection, reason: str | None = None) -> None:
    """
    Disconnect a client.  Its outstanding calls fail with a message that gives the administrator's
    reason.  A C{virsh} without outstanding calls prints that it was disconnected.

    @param reason: the reason, which also goes to the log and the list of endings.
    """
    words = "an administrator disconnected this client"
    if reason:
        words += f": {clean(reason)}"
    client.expel(Disconnected(words, CloseReason.EOF))
