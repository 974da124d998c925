"""
Tests for L{kaproto.workers.traces}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred

from kaproto.admin.controltypes import ControlProcedure, Document, Tracing
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure
from kaproto.wire.structs import pack
from tests.support_workers import Administrator, LocalMember, TeamTestCase


class TraceTests(TeamTestCase):
    """
    Tests for L{TeamTraces}, together with the programs of parent and workers.
    """

    def test_trace(self) -> None:
        """
        The administrator gets the events from the client's worker until the trace ends.
        """
        events = self.caller.events
        self.call(self.control_, ControlProcedure.TRACE, Tracing(5, 3))
        self._pairs[1].client.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_TYPE).addErrback(str)
        self._pairs[1].flush()
        seen = [(each["id"], each["direction"], each["name"]) for each in events]
        self.assertEqual(seen, [(5, way, "CONNECT_GET_TYPE") for way in ("in", "out")])
        self.clock.advance(3)
        self.assertEqual(events[-1]["end"], "the time is over")
        self.caller.closed.callback(ConnectionClosed("left"))
        self.assertIsNone(self.clients[1].incoming.trace)

    def test_traceLeft(self) -> None:
        """
        When the administrator disconnects, the trace ends, even if a worker does not answer.
        """
        self.call(self.control_, ControlProcedure.TRACE, Tracing(4, 60))
        self.call(self.control_, ControlProcedure.TRACE, Tracing(5, 60))
        self.members[0].answers = False
        self.caller.closed.callback(ConnectionClosed("left"))
        self.clock.advance(0)
        self.assertIsNone(self.clients[1].incoming.trace)
        self.assertEqual(self.caller.events, [])
        self.clock.advance(60)

    def test_traceTaken(self) -> None:
        """
        Only one administrator at a time can trace a client.  A trace that failed to start does not
        count.
        """
        other = cast(KeepAliveServerProtocol, Administrator(self.server))
        trace = ControlProcedure.TRACE
        self.call(self.control_, trace, Tracing(5, 60))
        with self.assertRaisesRegex(RemoteError, "client 5 is being traced by another"):
            self.control_.callReceived(other, trace, pack(Tracing(5, 60)))
        connection = cast(KeepAliveServerProtocol, self.caller)
        for each in (connection, other):
            answer = self.control_.callReceived(each, trace, pack(Tracing(9, 60)))
            failure = self.failureResultOf(cast(Deferred[bytes], answer), RemoteError)
            self.assertIn("No client with matching ID '9'", str(failure.value))

    def echo(self) -> None:
        """
        Make the second worker's client send a call.
        """
        self._pairs[1].client.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_TYPE).addErrback(str)
        self._pairs[1].flush()

    def test_workerEnds(self) -> None:
        """
        When the client's worker ends, the trace ends with the reason, and another administrator may
        trace the client.  Traces at other workers continue.
        """
        for number in (4, 5):
            self.call(self.control_, ControlProcedure.TRACE, Tracing(number, 60))
        self.team.ended(self.members[0], "killed by SIGKILL")
        end = {"id": 4, "end": "worker 0 has ended: killed by SIGKILL", "missed": 0}
        self.assertEqual(self.caller.events, [end])
        self.control_.traced(pack(Document('{"id": 4, "name": "late"}')))
        self.echo()
        self.assertEqual([each["id"] for each in self.caller.events[1:]], [5, 5])
        self.team.ended(self.members[1], "exited with 0")
        self.team.members.append(self.members[1])
        other = cast(KeepAliveServerProtocol, Administrator(self.server))
        self.control_.callReceived(other, ControlProcedure.TRACE, pack(Tracing(5, 60)))

    def test_workerLeaves(self) -> None:
        """
        A trace at a worker that is being replaced continues, and ends with the client.
        """
        self.call(self.control_, ControlProcedure.TRACE, Tracing(5, 60))
        self.members[1].leaving = True
        self.team.members.append(LocalMember(3, self.daemons[0]))
        self.echo()
        self.assertEqual(len(self.caller.events), 2)
        self.clients[1].abort(ConnectionClosed("left"))
        self._pairs[1].flush()
        self.assertIn("end", self.caller.events[-1])
        self.team.ended(self.members[1], "exited with 0")
        self.assertEqual(len(self.caller.events), 3)

    def test_slowAdministrator(self) -> None:
        """
        Messages that the administrator does not read in time are left out and counted; the end of
        the trace is always sent.
        """
        self.call(self.control_, ControlProcedure.TRACE, Tracing(5, 3))
        self.caller.congested = True
        self.echo()
        self.clock.advance(3)
        (end,) = self.caller.events
        self.assertEqual((end["end"], end["missed"]), ("the time is over", 2))
