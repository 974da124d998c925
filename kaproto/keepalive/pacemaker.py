"""
One timer for many peers: a wheel of slots that a L{LoopingCall} turns.

A peer costs nothing until its slot comes round, however many peers there are and however many
different intervals they have.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = [
    "BUDGET",
    "MAX_CLOSES_PER_TURN",
    "STALL",
    "STEP",
    "TICK",
    "Pacemaker",
    "Watched",
]

TICK: Final = 1 / 32
"""
Seconds between two turns of the wheel, and so the most by which a peer is called upon late.  Each
turn wakes the process, which on a quiet server costs more than the pings that are sent in it.
"""

_STEPS: Final = 8

STEP: Final = TICK / _STEPS
"""
The most seconds by which a peer is called upon late whose time is to be kept exactly.
"""

STALL: Final = 8 * TICK
"""
The most seconds of silence that one turn can account for, however late it comes.
"""

BUDGET: Final = 0.005
"""
Seconds after which a turn with much to do lets the reactor read and write before it goes on.
"""

MAX_CLOSES_PER_TURN: Final = 32
"""
The most peers that end in one turn, since what comes of each takes the reactor longer in its next
than it takes here.
"""

_LOOK_AT_CLOCK_EVERY: Final = 16
_NOWHERE: Final = -1
_SOON: Final = -2
_ROUNDING: Final = 1e-6


class Watched(Protocol):
    """
    What a L{Pacemaker} calls: a L{kaproto.keepalive.heartbeat.Heartbeat}.

    @ivar slot: its slot on the wheel, negative when it is on none.  It belongs to the pacemaker.
    @ivar exact: whether its next time is to be kept exactly, which may take a wake-up of its own.
    """

    slot: int
    exact: bool

    def due(self, now: float, /) -> float | None:
        """
        The time it asked for has come.

        @return: when to be called next, or C{None} for never.  A time that has come already
            means as soon as everything has been read that is waiting in the sockets.
        """

    def sendPing(self) -> None:
        """
        It called L{Pacemaker.pingLater}, and all who were due have been checked.
        """


class Pacemaker:
    """
    Calls upon each of its peers when it is due.

    Its time is not that of a clock on the wall but the seconds for which this process has been
    looking: while the process is suspended, or stalled in somebody's code, no silence is counted.

    The loop runs only while there is somebody to watch.

    @ivar seconds: the monotonic clock.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: where the turns and continuations are scheduled.
        """
        self._clock = clock
        self.seconds = clock.seconds
        self._pings: list[Watched] = []
        self._offset = self.seconds()
        self._turned = self._offset
        self._slots: dict[int, set[Watched]] = {}
        self._hand = 0
        self._watching = 0
        self._continuation: IDelayedCall | None = None
        self._between: dict[int, IDelayedCall] = {}
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock

    def __len__(self) -> int:
        return self._watching

    @property
    def now(self) -> float:
        """
        The time to stamp signs of life with.  It stands still once a turn is L{STALL} seconds
        late, and while nobody is watched.
        """
        seconds = self.seconds()
        limit = self._turned + STALL
        return min(seconds, limit) - self._offset

    def watch(self, peer: Watched, due: float) -> None:
        """
        Call upon a peer at a time that is given on the scale of L{now}; a peer that is being
        watched already is moved.
        """
        self.forget(peer)
        if not self._loop.running:
            self._start()
        self._watching += 1
        self._place(peer, due)

    def _start(self) -> None:
        self._look()
        self._hand = int((self._turned - self._offset) / TICK + _ROUNDING) * _STEPS
        self._offset = self._turned - self._hand * STEP
        self._loop.start(TICK, now=False)

    def pingLater(self, peer: Watched) -> None:
        """
        Have a peer pinged in this turn, when all who are due have been checked.  First all checks
        and then all pings costs less than one after the other for each peer.
        """
        self._pings.append(peer)

    def forget(self, peer: Watched) -> None:
        """
        Stop watching a peer; it need not be watched now.
        """
        slot = self._slots.get(peer.slot)
        if slot is None or peer not in slot:
            return
        slot.remove(peer)
        if not slot:
            del self._slots[peer.slot]
        peer.slot = _NOWHERE
        self._watching -= 1
        self._rest()

    def _place(self, peer: Watched, due: float) -> None:
        number = max(int(due / STEP - _ROUNDING), self._hand) + 1
        if not peer.exact:
            number += -number % _STEPS
        elif number > self._hand - self._hand % _STEPS + _STEPS:
            # By the last turn before, most have been heard, and need no wake-up of their own.
            number -= number % _STEPS
        elif number % _STEPS and number not in self._between:
            self._between[number] = self._clock.callLater(
                max(0.0, number * STEP - self.now), self._turnBetween, number
            )
        self._put(peer, number)

    def _put(self, peer: Watched, number: int) -> None:
        peer.slot = number
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
        slot.add(peer)

    def _rest(self) -> None:
        if self._watching or not self._loop.running:
            return
        self._loop.stop()
        self._slots.clear()
        if self._continuation is not None:
            self._continuation.cancel()
            self._continuation = None
        for call in self._between.values():
            call.cancel()
        self._between.clear()

    def _look(self) -> None:
        seconds = self.seconds()
        stalled = seconds - self._turned - STALL
        self._turned = seconds
        if stalled > 0:
            self._offset += int(stalled / TICK) * TICK

    def _turn(self) -> None:
        self._look()
        if self._continuation is None:
            self._goOn()

    def _turnBetween(self, number: int) -> None:
        del self._between[number]
        self._turn()

    def _goOn(self) -> None:
        self._continuation = None
        self._callUpon()
        self._sendPings()

    def _sendPings(self) -> None:
        pings, self._pings = self._pings, []
        for peer in pings:
            try:
                peer.sendPing()
            except Exception:
                self._log.failure("{peer!r} failed to ping", peer=peer)

    def _callUpon(self) -> None:
        """
        Go through the slots whose time has come, for as long as the budget lasts.
        """
        for peer in self._slots.pop(_SOON, ()):
            self._put(peer, self._hand)
        now = self.now
        last = int(now / STEP + _ROUNDING)
        called = ended = 0
        while True:
            slot = self._slots.get(self._hand)
            while slot:
                called += 1
                if not self._callOne(slot.pop(), now):
                    ended += 1
                if ended >= MAX_CLOSES_PER_TURN or (
                    called % _LOOK_AT_CLOCK_EVERY == 0 and self.now - now > BUDGET
                ):
                    self._continue()
                    return
            self._slots.pop(self._hand, None)
            if self._hand >= last:
                break
            self._hand += 1
        if _SOON in self._slots:
            self._continue()
        self._rest()

    def _continue(self) -> None:
        self._continuation = self._clock.callLater(0, self._goOn)

    def _callOne(self, peer: Watched, now: float) -> bool:
        """
        @return: whether the peer is watched further.
        """
        peer.slot = _NOWHERE
        try:
            due = peer.due(now)
        except Exception:
            self._log.failure("{peer!r} failed when called upon and is not watched", peer=peer)
            due = None
        if due is None or peer.slot != _NOWHERE:
            self._watching -= 1
            return False
        if due > now:
            self._place(peer, due)
        else:
            self._put(peer, _SOON)
        return True
