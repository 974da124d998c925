"""
Kaservers with a defect, each of which the soak must detect.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Final

from twisted.python.failure import Failure

from kaproto.backends.upstream import Upstream
from kaproto.keepalive.kernel import delivery
from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.keepalive.suspicion import Judge, Suspicion
from kaproto.rpc.serverconnection import ServerConnection

__all__ = ["MUTANTS"]

_kept: Final[dict[str, list[object]]] = {}
_seen: Final[dict[str, float]] = {}


def _replace(owner: type, name: str, value: object) -> None:
    """
    Replace an attribute of a class.
    """
    setattr(owner, name, value)


def _afterwards(action: Callable[[ServerConnection], None]) -> None:
    """
    Call a function after each connection has ended.
    """
    original = ServerConnection.ended

    def ended(connection: ServerConnection, reason: Exception) -> None:
        original(connection, reason)
        action(connection)

    _replace(ServerConnection, "ended", ended)


def entries() -> None:
    """
    A dictionary keeps an entry for each connection: text and a number, no object.
    """
    _afterwards(lambda connection: _seen.__setitem__(str(connection.peer), time.monotonic()))


def objects() -> None:
    """
    A list keeps the object of each connection.
    """
    _afterwards(lambda connection: _kept.setdefault("", []).append(connection))


def timers() -> None:
    """
    A timer is left for each connection.
    """

    def wait(connection: ServerConnection) -> None:
        connection.server.clock.callLater(3600, int)

    _afterwards(wait)


def descriptors() -> None:
    """
    An open file is left for one connection in ten.
    """
    number = itertools.count()

    def keepOpen(_connection: ServerConnection) -> None:
        if next(number) % 10 == 0:
            os.dup(0)

    _afterwards(keepOpen)


def traceback() -> None:
    """
    An exception is raised for one lost connection in ten.
    """
    original = ServerConnection.lost
    number = itertools.count()

    def lost(connection: ServerConnection, failure: Failure) -> None:
        original(connection, failure)
        if next(number) % 10 == 0:
            raise ZeroDivisionError

    _replace(ServerConnection, "lost", lost)


def _stretched(factor: float) -> None:
    original = Liveness.start

    def start(liveness: Liveness, keepAlive: KeepAlive) -> None:
        original(liveness, KeepAlive(keepAlive.interval * factor, keepAlive.count))

    _replace(Liveness, "start", start)


def late() -> None:
    """
    Dead clients are found 10 percent too late.
    """
    _stretched(1.1)


def early() -> None:
    """
    Dead clients are disconnected 2 percent too early.
    """
    _stretched(0.98)


def blind() -> None:
    """
    One dead client in ten is never found.
    """
    original = Liveness.check
    number = itertools.count()

    def check(liveness: Liveness, now: float) -> Verdict:
        verdict = original(liveness, now)
        if verdict is Verdict.DEAD and next(number) % 10 == 0:
            liveness.stop()
            return Verdict.WAIT
        return verdict

    _replace(Liveness, "check", check)


def rash() -> None:
    """
    After a stall, every client that was silent during it is declared dead.
    """

    def now(pacemaker: Pacemaker) -> float:
        return pacemaker.seconds() - pacemaker._offset

    def look(pacemaker: Pacemaker) -> None:
        pacemaker._turned = pacemaker.seconds()

    _replace(Pacemaker, "now", property(now))
    _replace(Pacemaker, "_look", look)
    original = Liveness.check

    def check(liveness: Liveness, now: float) -> Verdict:
        if liveness.interval and now - liveness.heard > liveness.interval * (liveness.count + 1):
            return Verdict.DEAD
        return original(liveness, now)

    _replace(Liveness, "check", check)


def hasty() -> None:
    """
    A pong is expected even if the client has not read what was written before the ping.
    """

    def lookInFront(
        _suspicion: Suspicion, _now: float, verdict: Verdict, *_found: object
    ) -> Verdict:
        return verdict

    _replace(Suspicion, "_lookInFront", lookInFront)


def credulous() -> None:
    """
    A kernel's acknowledgement of a ping counts as proof of life.
    """
    original = Suspicion.examine

    def examine(suspicion: Suspicion, now: float, verdict: Verdict, judge: Judge | None) -> Verdict:
        found = delivery(suspicion._transport)
        if found is not None and not found.queued:
            suspicion._liveness.hear(now)
            return Verdict.WAIT
        return original(suspicion, now, verdict, judge)

    _replace(Suspicion, "examine", examine)


def impatient() -> None:
    """
    A gateway declares libvirtd dead on a connection that it does not read.
    """
    _replace(Upstream, "excuses", lambda _upstream, _connection: False)


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each
    for each in (
        entries,
        objects,
        timers,
        descriptors,
        traceback,
        late,
        early,
        blind,
        rash,
        hasty,
        credulous,
        impatient,
    )
}
"""
Functions that add a defect to this process, by name.  The last one needs C{--gateway} to be
detected.
"""
