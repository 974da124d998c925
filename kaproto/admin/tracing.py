"""
Shows an administrator the messages of one client, for a time.
"""

from __future__ import annotations

import json
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Document
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.filter import Header
from kaproto.wire.message import MessageType, Status
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    LXC_PROGRAM,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    KeepAliveProcedure,
    Procedure,
)
from kaproto.wire.structs import pack

__all__ = ["Trace"]

_PROGRAMS: Final = {
    REMOTE_PROGRAM: "remote",
    QEMU_PROGRAM: "qemu",
    LXC_PROGRAM: "lxc",
    KEEPALIVE_PROGRAM: "keepalive",
}
_PONG: Final = ("in", KEEPALIVE_PROGRAM, KeepAliveProcedure.PONG)
_NAMES: Final = {REMOTE_PROGRAM: Procedure, KEEPALIVE_PROGRAM: KeepAliveProcedure}


class Trace:
    """
    Sends the headers of a client's messages to an administrator, as they come and go, and at the
    end why it ends.  Headers have no secrets in them, and messages are not kept.

    While an administrator does not read as fast as the client calls, messages are left out, and
    counted.
    """

    def __init__(
        self, administrator: KeepAliveServerProtocol, client: ServerConnection, clock: IReactorTime
    ) -> None:
        self._administrator = administrator
        self._client = client
        self._clock = clock
        self._began = clock.seconds()
        self._missed = 0
        self._timer: IDelayedCall | None = None

    def start(self, seconds: float) -> None:
        """
        Begin.  A client has one trace at a time: an earlier one is not sent any more.
        """
        self._client.trace = self._record
        self._client.heartbeat.watchAnswers(self._answered)
        self._timer = self._clock.callLater(seconds, self._end, "the time is over")
        self._client.closing.whenClosed().addCallback(lambda reason: self._end(str(reason)))
        self._administrator.whenClosed().addCallback(lambda _: self._stop())

    def _record(self, direction: str, header: Header) -> None:
        length, program, _version, procedure, kind, serial, status = header
        if (direction, program, procedure) == _PONG:
            # Most pongs do not come by here; see L{_answered}.
            return
        names = _NAMES.get(program)
        known = names is not None and procedure in list(names)
        self._send(
            {
                "direction": direction,
                "type": _name(MessageType, kind),
                "program": _PROGRAMS.get(program, f"{program:#x}"),
                "procedure": procedure,
                "name": names(procedure).name if names is not None and known else None,
                "serial": serial,
                "status": _name(Status, status),
                "bytes": length,
            }
        )

    def _answered(self, latency: float) -> None:
        self._send(
            {
                "direction": "in",
                "type": "message",
                "program": "keepalive",
                "procedure": int(KeepAliveProcedure.PONG),
                "name": KeepAliveProcedure.PONG.name,
                "latency_us": round(latency * 1e6),
            }
        )

    def _send(self, what: dict[str, object]) -> None:
        if self._administrator.congested:
            self._missed += 1
            return
        at = round((self._clock.seconds() - self._began) * 1000, 3)
        payload = pack(Document(json.dumps({"id": self._client.peer.id, "at_ms": at, **what})))
        self._administrator.sendEvent(CONTROL_PROGRAM, ControlProcedure.TRACED, payload)

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._stop()
            self._send({"end": reason, "missed": self._missed})

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        if timer.active():
            timer.cancel()
        if self._client.trace == self._record:
            self._client.trace = None
            self._client.heartbeat.onAnswer = None


def _name(kind: type[MessageType | Status], number: int) -> str:
    return kind(number).name.lower() if number in list(kind) else str(number)
