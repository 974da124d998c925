"""
Disconnecting a client because an administrator says so.
"""

from __future__ import annotations

from kaproto.errors import Disconnected
from kaproto.records.who import clean
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.programs import CloseReason

__all__ = ["disconnectClient"]


def disconnectClient(client: ServerConnection, reason: str | None = None) -> None:
    """
    Disconnect a client.  Calls that it waits for fail, with a message that says who disconnected
    it and why; if it waits for none, C{virsh} prints that it was disconnected.

    @param reason: why, also for the log and the list of endings.
    """
    words = "an administrator disconnected this client"
    if reason:
        words += f": {clean(reason)}"
    client.expel(Disconnected(words, CloseReason.EOF))
