"""
Keeps one worker on each seat: starts workers, replaces those that end, drains and stops them.

A seat is a set of listening sockets.  A replacement accepts on the same sockets as the worker that
it replaces.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Draining
from kaproto.waiting import Waiting
from kaproto.wire.structs import pack
from kaproto.workers.backoff import Backoff
from kaproto.workers.figures import Totals
from kaproto.workers.team import Member, Team, TeamRegister

__all__ = ["ROWS_EACH", "CannotStart", "Crew", "CrewMember", "NotReplaced"]

ROWS_EACH: Final = 2
"""
Rows of the shared counts for each seat: a replacement uses another row while the last clients of
the old worker leave.
"""


class CannotStart(Exception):
    """
    A worker ended before all workers had begun to serve for the first time.
    """


class NotReplaced(Exception):
    """
    Workers cannot be replaced now; the message says why.
    """


class CrewMember(Member, Protocol):
    """
    A worker from its start to its end, see L{kaproto.workers.process.WorkerProcess}.
    """

    seat: int
    startedAt: float
    ready: Deferred[Any]
    whenEnded: Deferred[str]

    def send(self, number: signal.Signals, /) -> None:
        """
        Send the process a signal.
        """


class Crew:
    """
    The workers, from their start to their end.

    @ivar whenReady: fires when there is a worker on each seat for the first time; fails when one
        ends before that.
    """

    _log = Logger()

    def __init__(
        self,
        seats: int,
        start: Callable[[int, int], CrewMember],
        team: Team,
        totals: Totals,
        register: TeamRegister,
        clock: IReactorTime,
    ) -> None:
        """
        @param start: starts a worker for a seat, with a row.
        @param team: receives each worker that begins to serve.
        @param totals: receives the last figures of each worker that has ended.
        """
        self.whenReady: Deferred[None] = Deferred()
        self._start = start
        self._team = team
        self._totals = totals
        self._register = register
        self._clock = clock
        self._seated: dict[int, CrewMember] = {}
        self._backoffs = [Backoff() for _ in range(seats)]
        self._present: list[CrewMember] = []
        self._returns: dict[int, IDelayedCall] = {}
        self._within = 0.0
        self._draining = self._stopping = self._replacing = False
        self._whenEmpty: Waiting[None] = Waiting()

    def start(self) -> None:
        """
        Start a worker for each seat.
        """
        for seat in range(len(self._backoffs)):
            self._fillAgain(seat)

    def _fillAgain(self, seat: int) -> None:
        self._returns.pop(seat, None)
        # A worker that ends before it serves is handled by _ended.
        self._fill(seat).ready.addErrback(lambda _: None)

    def _fill(self, seat: int) -> CrewMember:
        taken = {each.row for each in self._present}
        # With 4 seats, the workers of seat 1 use rows 1 and 5 in turn.
        rows = range(seat, len(self._backoffs) * ROWS_EACH, len(self._backoffs))
        worker = self._start(seat, next(row for row in rows if row not in taken))
        self._present.append(worker)
        self._seated[seat] = worker
        worker.ready.addCallback(self._serves, worker)
        worker.whenEnded.addCallback(self._ended, worker)
        return worker

    def _serves(self, _: object, worker: CrewMember) -> None:
        self._log.info("{worker} serves", worker=worker)
        self._team.members.append(worker)
        self._register.add()
        if not self.whenReady.called and len(self._team.members) == len(self._backoffs):
            self.whenReady.callback(None)
        if self._draining:
            self._drain(worker, self._within)

    def _ended(self, how: str, worker: CrewMember) -> None:
        self._present.remove(worker)
        self._team.ended(worker, how)
        if worker.figures is not None:
            self._totals.ended(worker.figures)
        clients = self._team.counts.clear(worker.row)
        self._register.add()
        expected = self._stopping or self._draining or worker.leaving
        say = self._log.info if expected else self._log.error
        text = "{worker} has ended: {how}; it had {clients} clients"
        say(text, worker=worker, how=how, clients=clients)
        if not expected and not self.whenReady.called:
            self.whenReady.errback(CannotStart(f"{worker} has ended: {how}"))
        elif not expected and self._seated[worker.seat] is worker:
            lasted = self._clock.seconds() - worker.startedAt
            delay = self._backoffs[worker.seat].ended(lasted)
            self._returns[worker.seat] = self._clock.callLater(delay, self._fillAgain, worker.seat)
        if not self._present and not self._returns:
            self._whenEmpty.fire(None)

    def _drain(self, worker: CrewMember, within: float) -> None:
        draining = worker.call(CONTROL_PROGRAM, ControlProcedure.DRAIN, pack(Draining(within)))
        draining.addErrback(lambda _: None)

    def _giveUpSeats(self) -> None:
        for each in self._returns.values():
            each.cancel()
        self._returns.clear()

    def drain(self, within: float) -> None:
        """
        Make all workers stop accepting new clients, and end when their clients have left.

        @param within: seconds that the clients have to leave.
        """
        self._draining, self._within = True, within
        self._giveUpSeats()
        for each in self._present:
            if each.ready.called:
                self._drain(each, within)

    def stop(self, within: float) -> Deferred[None]:
        """
        Stop all workers gracefully.

        @param within: seconds after which they are killed.
        @return: fires when all have ended.
        """
        self._stopping = True
        self._giveUpSeats()
        for each in self._present:
            each.send(signal.SIGTERM)
        killing = self._clock.callLater(within, self._kill)
        return self.whenEmpty().addCallback(lambda _: _cancel(killing))

    def _kill(self) -> None:
        for each in self._present:
            self._log.error("{worker} did not stop in time and is killed", worker=each)
            each.send(signal.SIGKILL)

    def whenEmpty(self) -> Deferred[None]:
        """
        @return: fires when no worker is left and none will be started.
        """
        if not self._present and not self._returns:
            return succeed(None)
        return self._whenEmpty.wait()

    async def replace(self, within: float) -> int:
        """
        Replace one worker after another: once the new one serves, the old one accepts no new
        clients, and ends when its clients have left.

        @param within: seconds that the clients have to leave.
        @return: the number of workers replaced.
        @raise NotReplaced: when workers cannot be replaced now, or a new one does not start; the
            workers not replaced yet continue.
        """
        if self._draining or self._stopping:
            raise NotReplaced("kaserver is stopping")
        if self._replacing or len(self._present) > len(self._seated) or self._returns:
            raise NotReplaced("workers are being replaced already; try again when they are gone")
        self._replacing = True
        try:
            for seat, old in sorted(self._seated.items()):
                new = self._fill(seat)
                try:
                    await new.ready
                except Exception as error:
                    self._seated[seat] = old
                    raise NotReplaced(f"{new} did not begin to serve: {error}") from error
                old.leaving = True
                self._drain(old, within)
        finally:
            self._replacing = False
        return len(self._seated)


def _cancel(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
