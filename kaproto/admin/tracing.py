"""
Traces the messages of a client for administrators.
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

__all__ = ["Traces"]

_PROGRAMS: Final = {
    REMOTE_PROGRAM: "remote",
    QEMU_PROGRAM: "qemu",
    LXC_PROGRAM: "lxc",
    KEEPALIVE_PROGRAM: "keepalive",
}
_PONG: Final = ("in", KEEPALIVE_PROGRAM, KeepAliveProcedure.PONG)
_NAMES: Final = {REMOTE_PROGRAM: Procedure, KEEPALIVE_PROGRAM: KeepAliveProcedure}


class Traces:
    """
    The traced clients, each with any number of administrators.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._audiences: dict[ServerConnection, _Audience] = {}

    def start(
        self, administrator: KeepAliveServerProtocol, client: ServerConnection, seconds: float
    ) -> None:
        """
        Send a client's message headers to an administrator for a limited time, and then the reason
        why the trace ended.  This replaces an earlier trace of the same client by the same
        administrator.
        """
        audience = self._audiences.get(client)
        if audience is None:
            audience = self._audiences[client] = _Audience(client)
        trace = _Trace(administrator, client, self._clock)
        audience.add(trace)

        def end(reason: str | None) -> None:
            if trace not in audience.traces:
                return
            audience.traces.remove(trace)
            trace.end(reason)
            if not audience.traces:
                del self._audiences[client]
                audience.leave()

        trace.timer = self._clock.callLater(seconds, end, "the time is over")
        client.closing.whenClosed().addCallback(lambda reason: end(str(reason)))
        administrator.whenClosed().addCallback(lambda _: end(None))


class _Audience:
    """
    The administrators who trace one client.  Only headers are shown, which contain no secrets, and
    nothing is stored.

    @ivar traces: one trace for each administrator.
    """

    def __init__(self, client: ServerConnection) -> None:
        self.traces: list[_Trace] = []
        self._client = client
        client.incoming.trace = client.outgoing.trace = self._record
        client.heartbeat.watchAnswers(self._answered)

    def add(self, trace: _Trace) -> None:
        """
        Add a trace, and end an earlier one of the same administrator.
        """
        for each in list(self.traces):
            if each.administrator is trace.administrator:
                self.traces.remove(each)
                each.end(None)
        self.traces.append(trace)

    def leave(self) -> None:
        """
        Stop tracing the client, which removes the overhead from its connection.
        """
        self._client.incoming.trace = self._client.outgoing.trace = None
        self._client.heartbeat.onAnswer = None

    def _show(self, what: dict[str, object]) -> None:
        for each in self.traces:
            each.send(what)

    def _record(self, direction: str, header: Header) -> None:
        length, program, _version, procedure, kind, serial, status = header
        if (direction, program, procedure) == _PONG:
            # Most pongs bypass this method, so L{_answered} reports all of them.
            return
        names = _NAMES.get(program)
        known = names is not None and procedure in list(names)
        self._show(
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
        self._show(
            {
                "direction": "in",
                "type": "message",
                "program": "keepalive",
                "procedure": int(KeepAliveProcedure.PONG),
                "name": KeepAliveProcedure.PONG.name,
                "latency_us": round(latency * 1e6),
            }
        )


class _Trace:
    """
    One administrator's trace.  While the administrator reads too slowly, messages are dropped and
    counted; the end is always sent.

    @ivar administrator: the administrator's connection.
    @ivar timer: the timer that ends the trace.
    """

    timer: IDelayedCall

    def __init__(
        self, administrator: KeepAliveServerProtocol, client: ServerConnection, clock: IReactorTime
    ) -> None:
        self.administrator = administrator
        self._client = client
        self._clock = clock
        self._began = clock.seconds()
        self._missed = 0

    def send(self, what: dict[str, object]) -> None:
        """
        Send an event, unless the administrator reads too slowly.
        """
        if self.administrator.congested:
            self._missed += 1
        else:
            self._send(what)

    def _send(self, what: dict[str, object]) -> None:
        at = round((self._clock.seconds() - self._began) * 1000, 3)
        payload = pack(Document(json.dumps({"id": self._client.peer.id, "at_ms": at, **what})))
        self.administrator.sendEvent(CONTROL_PROGRAM, ControlProcedure.TRACED, payload)

    def end(self, reason: str | None) -> None:
        """
        End the trace.

        @param reason: the reason to send; C{None} to send none, since the administrator has left or
            has started a new trace.
        """
        if self.timer.active():
            self.timer.cancel()
        if reason is not None:
            self._send({"end": reason, "missed": self._missed})


def _name(kind: type[MessageType | Status], number: int) -> str:
    return kind(number).name.lower() if number in list(kind) else str(number)
