"""
Runs C{twistd} and tells, when asked by a signal, what there is in the process.

Usage: C{python -m tests.harness.soak.serve FILE MUTANT TWISTD-ARGUMENTS...}, where C{MUTANT} may be
empty. On C{SIGUSR1} a line of JSON is added to the file, and on C{SIGUSR2} one that has been made
with more care, which takes longer.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter, deque
from types import FrameType
from typing import Any, Final

from kaproto.logbounds import BOUNDS, Rate
from kaproto.records import endings

__all__ = ["main"]

_CONTAINERS: Final = (dict, list, set, deque)
_WATCHED: Final = ("kaproto.", "twisted.internet.", "twisted.protocols.")


_FACTORY: Final = "kaproto.server.KeepAliveServerFactory"

_factories: Final[list[Any]] = []


def _name(each: object) -> str:
    kind = type(each)
    return f"{kind.__module__}.{kind.__qualname__}"


def _look(*, thorough: bool) -> dict[str, Any]:
    """
    @param thorough: whether to collect garbage and count objects too, which holds up the server.
    @return: numbers of open files, of timers, of what the reactor reads and writes, of connections,
        and of those on the wheels; if it is thorough also of all objects, of those of certain
        types, and of the entries of all containers.
    """
    from twisted.internet import reactor

    from kaproto.keepalive.monitor import Monitor

    found: dict[str, Any] = _count() if thorough or not _factories else {}
    return found | {
        # One of those listed is the folder that is being listed.
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "timers": len(reactor.getDelayedCalls()),
        "selectables": len({*reactor.getReaders(), *reactor.getWriters()}),
        "watching": len(Monitor.of(reactor).pacemaker),
        "connected": sum(len(factory.connections) for factory in _factories),
    }


def _count() -> dict[str, Any]:
    """
    Count objects, those included which kaserver has set aside so that the collector passes over
    them, and leave them set aside.
    """
    setAside = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    gc.unfreeze()
    everything = gc.get_objects()
    found = {
        "objects": len(everything),
        "types": Counter(filter(_isWatched, map(_name, everything))),
        "entries": _entries(everything),
    }
    _factories[:] = [each for each in everything if _name(each) == _FACTORY]
    if setAside:
        del everything
        gc.freeze()
    return found


def _isWatched(name: str) -> bool:
    return name.startswith(_WATCHED)


def _entries(everything: list[Any]) -> int:
    """
    @return: how many entries there are in all containers, those included of which the garbage
        collector keeps no account because they have nothing but numbers and text.
    """
    own = {id(everything)}
    total = 0
    for each in everything:
        for container in (each, *gc.get_referents(each)):
            if isinstance(container, _CONTAINERS) and id(container) not in own:
                own.add(id(container))
                total += len(container)
    return total


def main() -> None:
    """
    Be a mutant if told so, then be twistd.
    """
    path, mutant = sys.argv.pop(1), sys.argv.pop(1)
    if mutant:
        from tests.harness.soak.mutants import MUTANTS

        MUTANTS[mutant]()

    def tell(thorough: bool) -> None:
        line = json.dumps(_look(thorough=thorough)) + "\n"
        with open(path, "a", encoding="ascii") as file:
            file.write(line)

    def asked(number: int, _frame: FrameType | None) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(tell, number == signal.SIGUSR2)  # type: ignore[attr-defined]

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, asked)

    # The latest endings are kept on purpose, up to a number that takes a soak long to reach.
    endings.KEPT = 0  # type: ignore[misc]
    # All clients come from one address, and every death that is logged is counted.
    BOUNDS.perPeer = BOUNDS.overall = Rate(1_000_000, 1_000)
    BOUNDS.clear()

    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
