"""
The messages that a server sends to a client besides replies.
"""

from __future__ import annotations

from typing import Final

from kaproto.rpc.outgoing import Outgoing
from kaproto.wire.message import Message, MessageType, Status, packMessage
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM, CloseReason, Procedure
from kaproto.wire.xdr import Packer

__all__ = ["Events"]

_SERIAL: Final = 1


class Events:
    """
    Sends messages other than replies to one client.

    @ivar closeCallbackRegistered: whether the client has asked to be told the reason when this end
        closes.
    """

    __slots__ = ("_outgoing", "closeCallbackRegistered")

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.closeCallbackRegistered = False

    def send(
        self, program: int, procedure: int, payload: bytes, version: int = PROGRAM_VERSION
    ) -> None:
        """
        Send a message.
        """
        message = Message(
            program, version, procedure, MessageType.MESSAGE, _SERIAL, Status.OK, payload
        )
        self._outgoing.write(packMessage(message))

    def closing(self, reason: CloseReason) -> None:
        """
        Tell a client that registered a close callback why this end closes.  C{virsh} prints it.
        """
        if self.closeCallbackRegistered:
            self.send(
                REMOTE_PROGRAM,
                Procedure.CONNECT_EVENT_CONNECTION_CLOSED,
                Packer().int32(reason).packed(),
            )
