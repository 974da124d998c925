"""
Traces of clients for administrators: the clients' workers record them, the parent passes them on.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Document, Tracing
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ErrorCode
from kaproto.wire.structs import pack, unpack
from kaproto.workers.team import Member, Team

__all__ = ["TeamTraces"]


@attrs.define(eq=False)
class _Trace:
    """
    One client's trace.

    @ivar member: the client's worker.
    @ivar missed: messages left out because the administrator reads too slowly.
    """

    administrator: KeepAliveServerProtocol
    member: Member
    missed: int = 0


class TeamTraces:
    """
    The traces under way.  Each ends with an event that says why: the client's worker sends it or,
    if the worker ends first, the parent.
    """

    def __init__(self, team: Team) -> None:
        self._traces: dict[int, _Trace] = {}
        team.onEnd = self._workerEnded

    def start(
        self, number: int, member: Member, administrator: KeepAliveServerProtocol, payload: bytes
    ) -> Deferred[bytes]:
        """
        Trace a client.

        @param number: its id.
        @param member: its worker.
        @param payload: the arguments of the administrator's call.
        @return: fires with the worker's answer.
        @raise kaproto.errors.RemoteError: when another administrator traces this client.
        """
        trace = self._traces.setdefault(number, _Trace(administrator, member))
        if trace.administrator is not administrator:
            raise rpcError(
                f"operation failed: client {number} is being traced by another administrator; with "
                "--workers only one can watch a client at a time",
                ErrorCode.OPERATION_FAILED,
            )
        administrator.whenClosed().addCallback(lambda _: self._left(number, trace))
        answer = member.call(CONTROL_PROGRAM, ControlProcedure.TRACE, payload)
        return answer.addErrback(self._notTraced, number)

    def _notTraced(self, failure: Failure, number: int) -> Failure:
        self._traces.pop(number, None)
        return failure

    def _left(self, number: int, trace: _Trace) -> None:
        if self._traces.get(number) is trace:
            del self._traces[number]
            # End the worker's trace: one of 0 seconds replaces it, and ends at once.
            nothing = pack(Tracing(number, 0))
            trace.member.call(CONTROL_PROGRAM, ControlProcedure.TRACE, nothing).addErrback(_ignore)

    def received(self, payload: bytes) -> None:
        """
        A worker has sent an event of a traced client.
        """
        event = json.loads(unpack(Document, payload).json)
        trace = self._traces.get(event["id"])
        if trace is None:
            return
        if "end" in event:
            self._end(event["id"], event)
        elif trace.administrator.congested:
            trace.missed += 1
        else:
            trace.administrator.sendEvent(CONTROL_PROGRAM, ControlProcedure.TRACED, payload)

    def _end(self, number: int, event: dict[str, Any]) -> None:
        trace = self._traces.pop(number)
        payload = pack(Document(json.dumps({**event, "missed": event["missed"] + trace.missed})))
        trace.administrator.sendEvent(CONTROL_PROGRAM, ControlProcedure.TRACED, payload)

    def _workerEnded(self, member: Member, how: str) -> None:
        lost = [number for number, each in self._traces.items() if each.member is member]
        for number in lost:
            self._end(number, {"id": number, "end": f"{member} has ended: {how}", "missed": 0})


def _ignore(failure: Failure) -> None:
    """
    Ignore that the client or its worker is gone.
    """
