"""
Adapts a server with workers for its registry: one node with the clients of all workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Disconnecting
from kaproto.records.who import TEXT_MAX, clean
from kaproto.registry.interfaces import NotDisconnected
from kaproto.registry.schema import REFUSED_MAX
from kaproto.status.daemon import Daemon
from kaproto.status.objects import nodeObject, refusalObject
from kaproto.wire.structs import pack, unpack
from kaproto.workers.changes import BATCH, ChangeList
from kaproto.workers.channel import WORKER_PROGRAM, WorkerProcedure
from kaproto.workers.team import Member, Team

__all__ = ["TeamNode"]

_CHANGES_EVERY: Final = 0.5
"""
Seconds between two requests to workers for changes of their clients.
"""

_FIGURES_EVERY: Final = 2.0
"""
Seconds between two requests to workers for their problems and refusals.
"""

_PATIENCE: Final = 3.0
"""
Seconds that a worker has to disconnect a client: less than
L{kaproto.registry.view.ANSWER_TIMEOUT}.
"""


class _Copy:
    """
    A copy of the list of one worker's clients.

    @ivar clients: their descriptions as JSON, by number.
    """

    def __init__(self, member: Member, changed: Callable[[int], object]) -> None:
        self.clients: dict[int, str] = {}
        self._member = member
        self._changed = changed
        self._isUpdating = False

    async def update(self) -> None:
        """
        Ask the worker for changes until there are no more.
        """
        if self._isUpdating:
            return
        self._isUpdating = True
        try:
            while await self._ask() == BATCH:
                pass
        finally:
            self._isUpdating = False

    async def _ask(self) -> int:
        try:
            answer = await self._member.call(WORKER_PROGRAM, WorkerProcedure.CHANGES)
        except Exception:  # noqa: BLE001 - the worker has ended, whatever its connection reported
            return 0
        changes = unpack(ChangeList, answer).changes
        for each in changes:
            if each.client is None:
                self.clients.pop(each.number, None)
            else:
                self.clients[each.number] = each.client
            self._changed(each.number)
        return len(changes)


class TeamNode:
    """
    A L{kaproto.registry.interfaces.Node} that keeps a copy of each worker's list of clients.

    Workers that are not asked record no changes, so without a registry they have no overhead.
    """

    _log = Logger()

    def __init__(self, daemon: Daemon, team: Team, clock: IReactorTime) -> None:
        """
        @param daemon: the parent.
        @param team: its workers.
        """
        self._daemon = daemon
        self._team = team
        self._clock = clock
        self._copies: dict[Member, _Copy] = {}
        self._refused: Sequence[Mapping[str, object]] = ()
        self._loops: list[LoopingCall] = []

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Keep copies from now on, and call C{changed} with the number of each client that connects,
        changes or leaves.
        """
        self._start(_CHANGES_EVERY, lambda: self._update(changed))
        self._start(_FIGURES_EVERY, lambda: Deferred.fromCoroutine(self._refresh()))

    def _start(self, every: float, call: Callable[[], object]) -> None:
        def callAndLog() -> Deferred[object]:
            # A LoopingCall whose call fails would stop for good.
            return maybeDeferred(call).addErrback(self._failed)

        loop = LoopingCall(callAndLog)
        loop.clock = self._clock
        loop.start(every)
        self._loops.append(loop)

    def _failed(self, reason: Failure) -> None:
        self._log.failure("could not ask the workers for their clients", reason)

    def stop(self) -> None:
        """
        Stop keeping copies.
        """
        loops, self._loops = self._loops, []
        for each in loops:
            each.stop()

    def _update(self, changed: Callable[[int], object]) -> None:
        for member in self._copies.keys() - set(self._team.members):
            for number in self._copies.pop(member).clients:
                changed(number)
        for member in self._team.members:
            copy = self._copies.setdefault(member, _Copy(member, changed))
            Deferred.fromCoroutine(copy.update())

    async def _refresh(self) -> None:
        register, wallClock = self._daemon.register, self._daemon.factory.journal.wallClock
        await register.refresh()
        refusals = await register.refusals(REFUSED_MAX)
        self._refused = [refusalObject(each, wallClock) for each in refusals]

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of all clients.
        """
        return [number for each in self._copies.values() for number in each.clients]

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: the description of a client, if it is connected and its worker is running.
        """
        member = self._team.memberOf(number)
        copy = None if member is None else self._copies.get(member)
        text = None if copy is None else copy.clients.get(number)
        return None if text is None else dict(json.loads(text))

    def about(self) -> Mapping[str, object]:
        """
        @return: the description of the server.
        """
        return nodeObject(self._daemon)

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: clients that were refused, or would be in mode 2, the latest first.
        """
        return self._refused

    def disconnect(self, number: int, reason: str | None) -> Deferred[bool]:
        """
        Have a client's worker disconnect it.

        @return: whether it was connected; fails with L{NotDisconnected} when the worker does not
            answer.
        """
        return Deferred.fromCoroutine(self._disconnect(number, reason))

    async def _disconnect(self, number: int, reason: str | None) -> bool:
        member = self._team.memberOf(number)
        if member is None:
            return False
        # Escaping can lengthen a reason past its limit.
        words = None if reason is None else clean(reason)[:TEXT_MAX]
        arguments = pack(Disconnecting(number, words))
        call = member.call(CONTROL_PROGRAM, ControlProcedure.DISCONNECT, arguments)
        try:
            await call.addTimeout(_PATIENCE, self._clock)
        except DeferredTimeout as error:
            raise NotDisconnected(f"{member} does not answer") from error
        except Exception:  # noqa: BLE001 - it has no such client, or has ended together with it
            return False
        return True

    def drain(self) -> None:
        """
        Drain all workers, within the configured time.
        """
        self._daemon.drain()
