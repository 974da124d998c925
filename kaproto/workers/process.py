"""
The parent's view of a worker: a process and the connection to it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from kaproto.admin.controltypes import CONTROL_PROGRAM, Document
from kaproto.client import KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.errors import ConnectionClosed, KeepAliveTimeout
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc.protocol import connectionOf
from kaproto.wire.structs import unpack
from kaproto.workers.channel import WORKER_PROGRAM, WorkerProcedure
from kaproto.workers.figures import Figures

__all__ = ["WorkerProcess"]

_START: Final = 60.0
"""
Seconds that a worker has to start serving.
"""

_END: Final = 5.0
"""
Seconds that a worker has to end after it has closed its connection.
"""


class WorkerProcess(ProcessProtocol):
    """
    One worker.

    @ivar seat: the number of the sockets that it accepts on, from 0.
    @ivar row: its row in the shared counts.
    @ivar figures: its latest figures; C{None} until it serves.
    @ivar leaving: whether it accepts no new clients, because it has been replaced.
    @ivar pid: its process id.
    @ivar startedAt: when it was started, in monotonic seconds.
    @ivar ready: fires when it begins to serve; fails when it ends earlier.
    @ivar whenEnded: fires with a description of its end.
    """

    def __init__(self, seat: int, row: int, patience: KeepAlive, clock: IReactorTime) -> None:
        """
        @param patience: interval and count for pinging the worker.
        @param clock: a monotonic clock.
        """
        self.seat = seat
        self.row = row
        self.figures: Figures | None = None
        self.leaving = False
        self.pid: int | None = None
        self.startedAt = clock.seconds()
        self.ready: Deferred[WorkerProcess] = Deferred()
        self.whenEnded: Deferred[str] = Deferred()
        self._patience = patience
        self._clock = clock
        self._connection: KeepAliveClientProtocol | None = None
        self._unresponsive: str | None = None
        self._how: str | None = None
        self._deadline: IDelayedCall | None = clock.callLater(
            _START, self._wedged, f"it did not begin to serve in {_START:g} s"
        )

    def connectionMade(self) -> None:
        """
        The process has been started.
        """
        self.pid = cast(IProcessTransport, self.transport).pid

    def __str__(self) -> str:
        return f"worker {self.seat + 1} (pid {self.pid})"

    def attach(self, connection: KeepAliveClientProtocol, traced: Callable[[bytes], None]) -> None:
        """
        Use a connection to the worker, which answers calls once it serves.

        @param traced: called with events of traced clients.
        """
        self._connection = connection
        connection.whenClosed().addCallback(self._disconnected)
        connection.listen(CONTROL_PROGRAM, lambda _procedure, payload: traced(payload))
        connection.listen(WORKER_PROGRAM, lambda _procedure, payload: self._counted(payload))
        self.call(WORKER_PROGRAM, WorkerProcedure.FIGURES).addCallbacks(self._serves, _ignore)

    def _counted(self, payload: bytes) -> None:
        self.figures = Figures.fromJSON(unpack(Document, payload).json)

    def _serves(self, payload: bytes) -> None:
        self._cancelDeadline()
        self._counted(payload)
        assert self._connection is not None
        connectionOf(self._connection, ClientConnection).startKeepAlive(self._patience)
        self.ready.callback(self)

    def call(self, program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
        """
        Call a procedure of the worker.
        """
        if self._connection is None:
            return fail(ConnectionClosed(f"{self} has no connection"))
        return self._connection.call(program, procedure, payload)

    def send(self, number: signal.Signals) -> None:
        """
        Send the process a signal, if it has not ended.
        """
        with suppress(ProcessExitedAlready):
            cast(IProcessTransport, self.transport).signalProcess(int(number))

    def _disconnected(self, reason: Exception) -> None:
        self._connection = None
        if isinstance(reason, KeepAliveTimeout):
            self._wedged(f"it did not answer: {reason}")
        elif self._how is None and self._deadline is None:
            why = f"it closed its connection ({reason}) and did not end in {_END:g} s"
            self._deadline = self._clock.callLater(_END, self._wedged, why)
        self._over()

    def _wedged(self, why: str) -> None:
        self._deadline = None
        self._unresponsive = why
        self.send(signal.SIGKILL)

    def _cancelDeadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def processEnded(self, reason: Failure) -> None:
        """
        The process has ended.  Its last messages may not have been read from the connection yet.
        """
        self._cancelDeadline()
        self._how = self._unresponsive or _ending(reason)
        self._over()

    def _over(self) -> None:
        if self._how is not None and self._connection is None:
            if not self.ready.called:
                self.ready.errback(ConnectionClosed(self._how))
            self.whenEnded.callback(self._how)


def _ignore(failure: Failure) -> None:
    """
    Ignore a failed call: the end of the process is reported instead.
    """


def _ending(reason: Failure) -> str:
    status: Any = reason.value
    if status.signal is not None:
        return f"killed by {signal.Signals(status.signal).name}"
    return f"exited with {status.exitCode}"
