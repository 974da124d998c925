"""
One timer for many peers: a timer wheel that a L{LoopingCall} turns.

A peer costs nothing until its slot is due, however many peers and different intervals there are.
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
Seconds between two turns of the wheel, and therefore the most by which a ping can be late.  On a
quiet server, waking the process for a turn costs more than the pings that are sent in it.
"""

_STEPS: Final = 8

STEP: Final = TICK / _STEPS
"""
The most seconds by which a death is detected late: the precision for peers with L{Watched.exact}.
"""

STALL: Final = 8 * TICK
"""
The most silence, in seconds, counted for one turn, however late it runs.  The rest was a stall of
this process.
"""

BUDGET: Final = 0.005
"""
Seconds after which a long turn lets the reactor read and write before it continues.
"""

MAX_CLOSES_PER_TURN: Final = 32
"""
At most this many connections are closed per turn: closing one costs the reactor more than finding
it dead.
"""

_LOOK_AT_CLOCK_EVERY: Final = 16
_NOWHERE: Final = -1
_SOON: Final = -2
_ROUNDING: Final = 1e-6


class Watched(Protocol):
    """
    A peer that a L{Pacemaker} calls, such as a L{kaproto.keepalive.heartbeat.Heartbeat}.

    @ivar slot: the slot on the wheel; negative for none.  Only the pacemaker changes it.
    @ivar exact: whether the next call must be on time to L{STEP} instead of L{TICK}, which may
        require a separate wake-up.
    """

    slot: int
    exact: bool

    def due(self, now: float, /) -> float | None:
        """
        Called at the requested time.

        @return: the time of the next call; C{None} for never.  A time in the past means: as soon as
            all bytes that wait in the sockets have been read.
        """

    def sendPing(self) -> None:
        """
        Called once in a turn for each peer to be pinged, after all due peers have been checked.
        """


class Pacemaker:
    """
    Calls each of its peers when it is due.

    Example: with a L{TICK} of 1/32 s, a peer due at 5.01 s goes into the slot that the turn at
    5.03125 s empties, with all others that are due between 5 s and 5.03125 s.

    Its time stands still while this process is suspended, or stalled in application code, so that
    no silence is counted then.  The loop runs only while a peer is watched.

    @ivar seconds: reads the monotonic clock.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: schedules the turns.
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
        The time for recording signs of life.  It stands still once a turn is L{STALL} seconds late,
        and while no peer is watched.
        """
        seconds = self.seconds()
        limit = self._turned + STALL
        return min(seconds, limit) - self._offset

    def watch(self, peer: Watched, due: float) -> None:
        """
        Schedule a peer's next call, on the scale of L{now}; this replaces any earlier schedule.
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
        Ping a peer in this turn, after all due peers have been checked.  All checks and then all
        pings cost less than a check and a ping for each peer, because each loop stays in the
        processor's caches.
        """
        self._pings.append(peer)

    def forget(self, peer: Watched) -> None:
        """
        Stop watching a peer, if it is watched.
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
        # A slot is a STEP of 1/256 s, and the loop empties each eighth.  A peer due at 5.01 s,
        # which is step 1282.56, must not be called before slot 1283.
        number = max(int(due / STEP - _ROUNDING), self._hand) + 1
        if not peer.exact:
            # Round up to the next turn: 1288, at 5.03125 s.
            number += -number % _STEPS
        elif number > self._hand - self._hand % _STEPS + _STEPS:
            # Exact, and more than a turn away: round down to the turn before, 1280.  Most peers
            # will have been heard by then.  The others are placed again, each with a separate
            # wake-up.
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
            # For example, this turn runs 1.3 s after the previous one.  All but STALL of this,
            # 1.05 s, was a stall: C{now} skips it, rounded down to 33 ticks.
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
        Call the peers in the due slots, until the budget is used up.
        """
        # Peers that asked in the previous turn to be called again: their sockets have been read.
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
        @return: whether the peer is still watched.
        """
        peer.slot = _NOWHERE
        try:
            due = peer.due(now)
        except Exception:
            self._log.failure("checking {peer!r} failed; it is no longer watched", peer=peer)
            due = None
        if due is None or peer.slot != _NOWHERE:
            self._watching -= 1
            return False
        if due > now:
            self._place(peer, due)
        else:
            self._put(peer, _SOON)
        return True
