"""
Matches replies to a client's calls, and fails the calls that will not be answered.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from kaproto.errors import RemoteProtocolError
from kaproto.wire.message import Message, MessageType, Status, packMessage, unpackError

__all__ = ["Replies"]

_SERIALS: Final = 2**32


class _Call:
    """
    An unanswered call.  It is kept after its caller has cancelled it, because the reply will still
    arrive.
    """

    __slots__ = ("procedure", "program", "result")

    def __init__(self, program: int, procedure: int) -> None:
        self.program = program
        self.procedure = procedure
        self.result: Deferred[bytes] | None = Deferred(self._cancelled)

    def _cancelled(self, _result: Deferred[bytes]) -> None:
        self.result = None


class Replies:
    """
    The unanswered calls of one connection.

    @ivar serial: the serial of the next call; all programs share one sequence.
    """

    def __init__(self) -> None:
        self.serial = 0
        self._calls: dict[int, _Call] = {}

    def __contains__(self, serial: int) -> bool:
        return serial in self._calls

    def expect(
        self, program: int, procedure: int, payload: bytes, version: int
    ) -> tuple[bytes, Deferred[bytes]]:
        """
        Record a new call.

        @return: the message to send, and a Deferred that fires with the results in XDR or fails.
        @raise kaproto.errors.LocalProtocolError: when the payload is too large.
        """
        serial = self.serial
        self.serial = (serial + 1) % _SERIALS
        packed = packMessage(
            Message(program, version, procedure, MessageType.CALL, serial, Status.OK, payload)
        )
        call = self._calls[serial] = _Call(program, procedure)
        assert call.result is not None, "a new call has not been cancelled"
        return packed, call.result

    def received(self, message: Message) -> None:
        """
        A reply arrived: fire its call's Deferred.

        @raise RemoteProtocolError: when it answers no call, or is malformed.
        """
        call = self._calls.get(message.serial)
        if call is None:
            raise RemoteProtocolError(
                f"a reply with serial {message.serial} from procedure {message.procedure}, which "
                "answers no call"
            )
        if (message.program, message.procedure) != (call.program, call.procedure):
            raise RemoteProtocolError(
                f"a reply with serial {message.serial} from procedure {message.procedure} of "
                f"program {message.program:#x} to a call of procedure {call.procedure} of program "
                f"{call.program:#x}"
            )
        if message.status not in (Status.OK, Status.ERROR):
            raise RemoteProtocolError(f"a reply with status {message.status}")
        error = unpackError(message.payload) if message.status == Status.ERROR else None
        del self._calls[message.serial]
        if call.result is None:
            return
        if error is not None:
            call.result.errback(error)
        else:
            call.result.callback(message.payload)

    def fail(self, reason: Exception) -> None:
        """
        The connection has ended: fail every unanswered call.
        """
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.result is not None:
                call.result.errback(reason)
