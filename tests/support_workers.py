"""
Helpers for tests of a parent and its workers, without processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.testing import MemoryReactorClock

from kaproto.admin.control import ControlProgram
from kaproto.admin.controltypes import (
    Document,
)
from kaproto.admin.types import (
    ServerName,
)
from kaproto.admin.virtadmin import AdminProgram
from kaproto.errors import ConnectionClosed
from kaproto.keepalive.histogram import Histogram
from kaproto.policies import Optional
from kaproto.program import Program
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.daemon import Daemon
from kaproto.wire.structs import pack, unpack
from kaproto.workers.administration import TeamAdmin, TeamControl
from kaproto.workers.channel import WorkerProgram
from kaproto.workers.crew import NotReplaced
from kaproto.workers.figures import Figures, Totals
from kaproto.workers.handover import Handover
from kaproto.workers.places import SharedCounts
from kaproto.workers.process import WorkerProcess
from kaproto.workers.team import Team, TeamRegister
from tests.support import KEEPALIVE, FakeBackend
from tests.support_admin import AdminTestCase
from tests.support_daemon import FakeDaemon

__all__ = ["SERVER", "Administrator", "LocalMember", "SpawningReactor", "TeamTestCase"]

_T = TypeVar("_T")
SERVER = ServerName("kaserver")


class LocalMember:
    """
    A worker in the test's own process.

    @ivar answers: whether it answers calls.
    """

    pid: int | None = 1
    leaving = False

    def __init__(
        self, row: int, daemon: Daemon, connection: KeepAliveServerProtocol | None = None
    ) -> None:
        """
        @param connection: its parent's connection, for tests that need it.
        """
        self.row = row
        self.figures: Figures | None = None
        self.answers = True
        self._connection = connection
        programs: Sequence[Program] = (
            AdminProgram(daemon),
            ControlProgram(daemon),
            WorkerProgram(daemon, Histogram()),
        )
        self._programs = {each.number: each for each in programs}

    def __str__(self) -> str:
        return f"worker {self.row}"

    def call(self, program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
        """
        Call one of its procedures.
        """
        if not self.answers:
            return fail(ConnectionClosed("the worker has ended"))
        answer = self._programs[program].callReceived
        return maybeDeferred(_fired, answer, self._connection, procedure, payload)


def _fired(call, connection, procedure, payload):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    result = call(connection, procedure, payload)
    return Deferred.fromCoroutine(result) if hasattr(result, "send") else result


class SpawningReactor(MemoryReactorClock):
    """
    A reactor that records processes instead of starting them.

    @ivar started: for each process the worker, its arguments, and its L{Handover}.
    @ivar files: the last process's files, by their number there.
    @ivar connected: the factories for the connections to workers.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.started: list[tuple[WorkerProcess, list[str], Handover]] = []
        self.files: dict[int, int] = {}
        self.stops = 0
        self.connected: list[Any] = []

    def spawnProcess(
        self,
        worker: WorkerProcess,
        program: str,
        arguments: list[str],
        environment: dict[str, str],
        childFDs: dict[int, int],
    ) -> None:
        """
        Record a process.
        """
        handover = Handover.read(os.dup(childFDs[int(arguments[-1])]))
        sockets = [number for some in handover.sockets.values() for number in some]
        for number in (handover.counts, handover.channel, *sockets):
            os.fstat(childFDs[number])
        worker.makeConnection(cast(Any, self))  # type: ignore[no-untyped-call]
        self.started.append((worker, arguments, handover))
        self.files = childFDs

    pid = 7

    def signalProcess(self, number: int) -> None:
        """
        Do nothing.
        """

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        """
        Record a connection.
        """
        self.connected.append(factory)

    def stop(self) -> None:
        """
        Count the call.
        """
        self.stops += 1


class Administrator:
    """
    An administrator of the parent.

    @ivar events: the events sent to it.
    """

    congested = False

    def __init__(self, factory: KeepAliveServerFactory) -> None:
        self.factory = factory
        self.events: list[dict[str, Any]] = []
        self.closed: Deferred[Exception] = Deferred()

    def sendEvent(self, program: int, procedure: int, payload: bytes) -> None:
        """
        Record an event.
        """
        self.events.append(json.loads(unpack(Document, payload).json))

    def whenClosed(self) -> Deferred[Exception]:
        """
        @return: fires when the administrator has disconnected.
        """
        return self.closed


class Relay(Administrator):
    """
    The workers' connection to their parent, which events are sent to.
    """

    def __init__(self, case: TeamTestCase) -> None:
        super().__init__(case.server)
        self._case = case

    def sendEvent(self, program: int, procedure: int, payload: bytes) -> None:
        """
        Pass an event to the parent.
        """
        self._case.control_.traced(payload)


class TeamTestCase(AdminTestCase):
    """
    Base class for tests of a parent with two workers, each with a client.
    """

    def setUp(self) -> None:
        """
        Create a parent and its workers.
        """
        super().setUp()
        self.counts = SharedCounts.create(4)
        self.addCleanup(self.counts.close)
        self.team = Team(self.counts, self.clock)
        self.totals = Totals(self.server)
        self.parent = self.daemon
        self.parent.register = TeamRegister(self.team, self.totals, self.clock)
        self.caller = Administrator(self.server)
        self.replaced = 0
        self.control_ = TeamControl(self.parent, self.team, self.replace)
        self.admin = TeamAdmin(self.parent, self.team)
        self.daemons: list[FakeDaemon] = []
        self.clients: list[ServerConnection] = []
        self.members: list[LocalMember] = []
        relay = Relay(self)
        for row in range(2):
            factory = KeepAliveServerFactory(Optional(KEEPALIVE), FakeBackend(), clock=self.clock)
            factory.journal.numbers = self.counts.numbers(row)
            self.clients.append(self.pair(factory).server._kaproto)
            self.counts.set(row, 1)
            daemon = FakeDaemon(factory)
            self.daemons.append(daemon)
            member = LocalMember(row, daemon, cast(KeepAliveServerProtocol, relay))
            self.members.append(member)
            self.team.members.append(member)

    async def replace(self) -> int:
        """
        Pretend to replace the workers.

        @raise NotReplaced: the second time.
        """
        self.replaced += 1
        if self.replaced > 1:
            raise NotReplaced("once is enough")
        return 2

    def wait(self, running: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """
        @return: the result of a coroutine that needs no time to pass.
        """
        waiting = Deferred.fromCoroutine(running)
        self.clock.pump([0] * 9)
        return self.successResultOf(waiting)

    def call(
        self, program: TeamControl | TeamAdmin, number: int, arguments: object = None
    ) -> bytes:
        """
        Call one of the parent's procedures as the administrator.
        """
        payload = b"" if arguments is None else pack(arguments)
        connection = cast(KeepAliveServerProtocol, self.caller)

        async def answer() -> bytes:
            result = program.callReceived(connection, number, payload)
            return await result if isinstance(result, Awaitable) else result

        return self.wait(answer())

    def document(self, number: int, arguments: object = None) -> Any:
        """
        Call one of the procedures for C{kaproto} as the administrator.
        """
        return json.loads(unpack(Document, self.call(self.control_, number, arguments)).json)
